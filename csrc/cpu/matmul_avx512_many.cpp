// csrc/cpu/matmul_avx512_many.cpp: 4-bit and 8-bit weights and 5 to 32 columns of x. Lanes are columns: words of W are
// broadcast, four values of x of every column lie side by side, and W needs no rearranging.
//
// So many columns are limited by arithmetic, not by memory. With 4-bit weights most blocks of x therefore do without
// the second byte, see kCoarseError. 512 values of x of all columns stay in the first-level cache while 32 rows pass
// by. A row's sums have one order, wherever it lies among its neighbours.
#include "cpu/matmul_avx512.h"

#if defined(__x86_64__)

#include "cpu/matmul_avx512_bytes.h"

#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

namespace personaplex::cpu::avx512 {

namespace {

constexpr std::int64_t kChunk = 512;  // values of x that meet a tile of rows at a time
constexpr std::int64_t kParts = kChunk / kPart;
constexpr std::int64_t kFineBlock = 128;  // values that have the second byte, or have not
constexpr std::int64_t kTileRows = 32;

/// What rounding to h alone may make of x's norm: as many blocks as necessary have l too, the worst ones first. With
/// Gaussian x it is 0.5 % and none has.
constexpr float kCoarseError = 6e-3F;

/// Packed x, by chunks of 512 values of all columns, filled up to 8, 16 or 32 of them. A chunk: the bytes h, [32 values
/// / 4][column][4] for every part of 32 (4 bits: a word's even values, then its odd ones); l likewise; per part and
/// column a scale; per group and column the sum of x. At the end a byte per 128 values: 1 where l counts.
struct Columns {
  Columns(const Matrix& w, int columns)
      : coarse(w.bits == 4),
        lanes(columns <= 8    ? 8
              : columns <= 16 ? 16
                              : 32),
        low_at(kChunk * lanes),
        scales_at(2 * low_at),
        sums_at(scales_at + kParts * lanes * 4),
        chunk_bytes(sums_at + kChunk / w.group_size * lanes * 4),
        chunks(round_up(w.k, kChunk) / kChunk),
        fine_at(chunks * chunk_bytes),
        bytes(fine_at + chunks * kChunk / kFineBlock) {}
  bool coarse;
  std::int64_t lanes, low_at, scales_at, sums_at, chunk_bytes, chunks, fine_at, bytes;
};
static_assert(kMaxColumns == 32);

/// Blocks of x and their errors if they have no l: what rounding adds to the square of a column's relative error.
/// Values up to m are rounded to multiples of m / 127.
PERSONAPLEX_AVX512_VNNI void coarse_errors(const float* x, std::int64_t k, float* error) {
  __m512 squares = _mm512_setzero_ps();
  for (std::int64_t i = 0; i < k; i += 16) {
    const __m512 v = _mm512_loadu_ps(x + i);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const float norm = _mm512_reduce_add_ps(squares);
  if (!(norm > 1e-30F && norm < 1e37F)) {  // nothing to round, or too far from 1 to judge by: then l everywhere
    const float all = norm == 0.0F ? 0.0F : std::numeric_limits<float>::infinity();
    std::fill_n(error, round_up(k, kFineBlock) / kFineBlock, all);
    return;
  }
  for (std::int64_t i = 0; i < k; i += kFineBlock) {
    float sum = 0.0F;
    for (std::int64_t part = i; part < std::min(i + kFineBlock, k); part += kPart) {
      const float largest = from_bits(largest_bits(x + part));
      sum += largest * largest / norm * (kPart / (12.0F * 127.0F * 127.0F));
    }
    *error++ = sum;
  }
}

/// Chooses the blocks that have l, for all columns alike: fine[block] = 1 until every column's error is small enough.
void choose_fine(const Matrix& w, const float* x, int columns, std::byte* fine) {
  const auto blocks = static_cast<std::size_t>(round_up(w.k, kFineBlock) / kFineBlock);
  thread_local std::vector<float> errors, sums;
  thread_local std::vector<int> order;
  errors.resize(blocks * static_cast<std::size_t>(columns));
  sums.assign(blocks, 0.0F);
  order.resize(blocks);
  std::iota(order.begin(), order.end(), 0);
  float left[kMaxColumns] = {};
  bool number = true;
  for (int t = 0; t < columns; ++t) {
    float* error = errors.data() + static_cast<std::size_t>(t) * blocks;
    coarse_errors(x + t * w.k, w.k, error);
    for (std::size_t b = 0; b < blocks; ++b) {
      left[t] += error[b];
      sums[b] += error[b];
    }
    number = number && left[t] <= 1e30F;
  }
  if (number) std::sort(order.begin(), order.end(), [](int a, int b) { return sums[a] > sums[b]; });
  for (const int block : order) {
    if (std::all_of(left, left + columns, [](float e) { return e <= kCoarseError * kCoarseError; })) return;
    fine[block] = std::byte{1};
    for (int t = 0; t < columns; ++t)
      left[t] -= errors[static_cast<std::size_t>(t) * blocks + static_cast<std::size_t>(block)];
  }
}

template <int kBits>
PERSONAPLEX_AVX512_VNNI void pack_column(const Matrix& w, const float* x, const Columns& at, std::int64_t lane,
                                         const std::byte* fine, std::byte* packed) {
  alignas(32) std::uint32_t four[2][8];  // of h, of l; 4 bits: even values of four words, then odd ones
  const std::int64_t parts_per_group = w.group_size / kPart;
  for (std::int64_t first = 0; first < w.k; first += kChunk, packed += at.chunk_bytes) {
    const std::int64_t parts = std::min(kChunk, w.k - first) / kPart;
    auto* high = reinterpret_cast<std::uint32_t*>(packed) + lane;
    auto* low = reinterpret_cast<std::uint32_t*>(packed + at.low_at) + lane;
    auto* scales = reinterpret_cast<float*>(packed + at.scales_at) + lane;
    auto* sums = reinterpret_cast<float*>(packed + at.sums_at) + lane;
    float sum = 0.0F;
    for (std::int64_t part = 0; part < parts; ++part) {
      const float* values = x + first + part * kPart;
      const bool both = fine[(first + part * kPart) / kFineBlock] != std::byte{0};
      const Scale scale = scale_for(largest_bits(values));
      const Bytes bytes = to_bytes<kBits>(values, scale.inverse, both);
      _mm256_store_si256(reinterpret_cast<__m256i*>(four[0]), bytes.high);
      _mm256_store_si256(reinterpret_cast<__m256i*>(four[1]), bytes.low);
      for (int j = 0; j < 8; ++j) {
        const std::int64_t to = (part * 8 + (kBits == 4 ? j % 4 * 2 + j / 4 : j)) * at.lanes;
        high[to] = four[0][j];
        if (both) low[to] = four[1][j];
      }
      scales[part * at.lanes] = both ? scale.scale : 128.0F * scale.scale;
      sum += scale.scale * static_cast<float>(_mm512_reduce_add_epi32(bytes.sum));
      if ((part + 1) % parts_per_group == 0) {
        sums[part / parts_per_group * at.lanes] = sum;
        sum = 0.0F;
      }
    }
  }
}

/// 8 columns.
struct Ymm {
  static constexpr int kLanes = 8;
  using Floats = __m256;
  using Integers = __m256i;
  PERSONAPLEX_AVX512_VNNI static Floats load(const float* p) { return _mm256_loadu_ps(p); }
  PERSONAPLEX_AVX512_VNNI static void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
  PERSONAPLEX_AVX512_VNNI static Floats all(float v) { return _mm256_set1_ps(v); }
  PERSONAPLEX_AVX512_VNNI static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  PERSONAPLEX_AVX512_VNNI static Floats add(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }
  PERSONAPLEX_AVX512_VNNI static Floats floats(Integers v) { return _mm256_cvtepi32_ps(v); }
  PERSONAPLEX_AVX512_VNNI static Integers zero() { return _mm256_setzero_si256(); }
  PERSONAPLEX_AVX512_VNNI static Integers load(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  PERSONAPLEX_AVX512_VNNI static Integers all(std::uint32_t v) { return _mm256_set1_epi32(static_cast<int>(v)); }
  PERSONAPLEX_AVX512_VNNI static Integers both(Integers a, Integers b) { return _mm256_and_si256(a, b); }
  template <int kBy>
  PERSONAPLEX_AVX512_VNNI static Integers right(Integers v) {
    return _mm256_srli_epi32(v, kBy);
  }
  template <int kBy>
  PERSONAPLEX_AVX512_VNNI static Integers left(Integers v) {
    return _mm256_slli_epi32(v, kBy);
  }
  PERSONAPLEX_AVX512_VNNI static Integers dot(Integers sum, Integers w, Integers x) {
    return _mm256_dpbusd_epi32(sum, w, x);
  }
};

/// 16 columns.
struct Zmm {
  static constexpr int kLanes = 16;
  using Floats = __m512;
  using Integers = __m512i;
  PERSONAPLEX_AVX512_VNNI static Floats load(const float* p) { return _mm512_loadu_ps(p); }
  PERSONAPLEX_AVX512_VNNI static void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  PERSONAPLEX_AVX512_VNNI static Floats all(float v) { return _mm512_set1_ps(v); }
  PERSONAPLEX_AVX512_VNNI static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  PERSONAPLEX_AVX512_VNNI static Floats add(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }
  PERSONAPLEX_AVX512_VNNI static Floats floats(Integers v) { return _mm512_cvtepi32_ps(v); }
  PERSONAPLEX_AVX512_VNNI static Integers zero() { return _mm512_setzero_si512(); }
  PERSONAPLEX_AVX512_VNNI static Integers load(const std::byte* p) { return _mm512_loadu_si512(p); }
  PERSONAPLEX_AVX512_VNNI static Integers all(std::uint32_t v) { return _mm512_set1_epi32(static_cast<int>(v)); }
  PERSONAPLEX_AVX512_VNNI static Integers both(Integers a, Integers b) { return _mm512_and_si512(a, b); }
  template <int kBy>
  PERSONAPLEX_AVX512_VNNI static Integers right(Integers v) {
    return _mm512_srli_epi32(v, kBy);
  }
  template <int kBy>
  PERSONAPLEX_AVX512_VNNI static Integers left(Integers v) {
    return _mm512_slli_epi32(v, kBy);
  }
  PERSONAPLEX_AVX512_VNNI static Integers dot(Integers sum, Integers w, Integers x) {
    return _mm512_dpbusd_epi32(sum, w, x);
  }
};

/// A row of W from the first value of a chunk on, and its scales and biases there.
struct Row {
  const std::uint32_t* words = nullptr;
  float scales[16], biases[16];
};

PERSONAPLEX_AVX512_VNNI inline void widen(const TensorView& from, std::int64_t at, __mmask16 mask, float* to) {
  const __m256i raw = _mm256_maskz_loadu_epi16(mask, reinterpret_cast<const std::uint16_t*>(from.data) + at);
  _mm512_storeu_ps(to, from.dtype == DType::kF16
                           ? _mm512_cvtph_ps(raw)
                           : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16)));
}

/// Adds the products of a part of some rows with one byte of x.
template <int kBits, typename V, int kVectors, int kRows>
PERSONAPLEX_AVX512_VNNI inline void add_bytes(const Row* rows, std::int64_t word, const std::byte* x,
                                              typename V::Integers (&sum)[kRows][kVectors]) {
  constexpr std::int64_t kStep = kVectors * V::kLanes * 4;
  const typename V::Integers nibbles = V::all(0x0F0F0F0FU);
#pragma GCC unroll 8
  for (int i = 0; i < kBits; ++i) {
    typename V::Integers values[2][kVectors];
#pragma GCC unroll 2
    for (int half = 0; half < (kBits == 4 ? 2 : 1); ++half) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        values[half][v] = V::load(x + (i * (kBits == 4 ? 2 : 1) + half) * kStep + v * V::kLanes * 4);
        asm("" : "+v"(values[half][v]));  // one load: compilers fold it into every product
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename V::Integers w = V::all(rows[r].words[word + i]);
      const typename V::Integers first = kBits == 4 ? V::both(w, nibbles) : w;
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] = V::dot(sum[r][v], first, values[0][v]);
      if constexpr (kBits == 4) {
        const typename V::Integers second = V::both(V::template right<4>(w), nibbles);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sum[r][v] = V::dot(sum[r][v], second, values[1][v]);
      }
    }
  }
}

/// A chunk of kRows rows against all columns, added to total[row][lane]. (Loops over rows and vectors must unroll: an
/// index that is not a constant keeps the sums in memory.)
template <int kBits, int kGroup, typename V, int kVectors, int kRows>
PERSONAPLEX_AVX512_VNNI void some_rows(const Row* rows, std::int64_t parts, const Columns& layout, const std::byte* x,
                                       const std::byte* fine, float* total) {
  constexpr int kAll = kVectors * V::kLanes;
  const auto* scales = reinterpret_cast<const float*>(x + layout.scales_at);
  const auto* sums = reinterpret_cast<const float*>(x + layout.sums_at);
  typename V::Floats sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V::load(total + r * kAll + v * V::kLanes);
  }
  for (std::int64_t p = 0; p < parts; ++p) {
    typename V::Integers integer[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) integer[r][v] = V::zero();
    }
    const std::byte* high = x + p * kPart * kAll;
    add_bytes<kBits, V, kVectors, kRows>(rows, p * kBits, high, integer);
    if (fine[p / (kFineBlock / kPart)] != std::byte{0}) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) integer[r][v] = V::template left<7>(integer[r][v]);
      }
      std::int64_t again = p * kBits;
      asm("" : "+r"(again));  // words are read and split again: compilers would keep them all, in memory
      add_bytes<kBits, V, kVectors, kRows>(rows, again, high + layout.low_at, integer);
    }
    typename V::Floats scale[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) scale[v] = V::load(scales + p * kAll + v * V::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename V::Floats own = V::all(rows[r].scales[p * kPart / kGroup]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = V::add(V::multiply(V::floats(integer[r][v]), scale[v]), own, sum[r][v]);
      }
    }
  }
  for (std::int64_t g = 0; g < parts * kPart / kGroup; ++g) {
    typename V::Floats all[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) all[v] = V::load(sums + g * kAll + v * V::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] = V::add(V::all(rows[r].biases[g]), all[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) V::store(total + r * kAll + v * V::kLanes, sum[r][v]);
  }
}

/// Asks for memory to come into the second-level cache.
PERSONAPLEX_AVX512_VNNI inline void fetch(const void* from, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += 64) _mm_prefetch(static_cast<const char*>(from) + at, _MM_HINT_T1);
}

template <int kBits, int kGroup, typename V, int kVectors>
PERSONAPLEX_AVX512_VNNI void tiles(const Matrix& w, const Columns& layout, const std::byte* packed, int columns,
                                   std::int64_t begin, std::int64_t end, float* y, std::int64_t stride) {
  constexpr int kAll = kVectors * V::kLanes;
  constexpr int kRows = kVectors == 1 ? 8 : 4;  // whose sums fit the registers
  constexpr std::int64_t kGroups = kChunk / kGroup;
  const std::int64_t row_words = w.k * kBits / 32;
  const std::int64_t group_count = groups(w);
  const auto* words = reinterpret_cast<const std::uint32_t*>(w.weight.data);
  const auto tile_bytes = [&](std::int64_t n) { return std::min(kTileRows, w.n - n) * row_words * 4; };
  fetch(words + begin * row_words, tile_bytes(begin));
  for (std::int64_t n = begin; n < end; n += kTileRows) {
    const std::int64_t count = std::min(kTileRows, end - n);
    // The next tile comes meanwhile, a few lines with each few rows. (After the last one: what the next call needs.)
    const std::int64_t ahead = n + kTileRows < w.n ? tile_bytes(n + kTileRows) : 0;
    const auto* next = reinterpret_cast<const char*>(words + (n + kTileRows) * row_words);
    std::int64_t fetched = 0;
    alignas(64) float total[kTileRows * kAll] = {};
    const std::byte* x = packed;
    for (std::int64_t first = 0; first < w.k; first += kChunk, x += layout.chunk_bytes) {
      const std::int64_t parts = std::min(kChunk, w.k - first) / kPart;
      const auto mask = static_cast<__mmask16>((1U << (parts * kPart / kGroup)) - 1U);
      const std::byte* fine = packed + layout.fine_at + first / kFineBlock;
      for (std::int64_t i = 0; i < count; i += kRows) {
        const std::int64_t more = std::min(kRows * kChunk * kBits / 8, ahead - fetched);
        fetch(next + fetched, more);
        fetched += std::max<std::int64_t>(more, 0);
        Row rows[kRows];
        for (int r = 0; r < kRows; ++r) {
          const std::int64_t row = n + std::min(i + r, count - 1);
          rows[r].words = words + row * row_words + first * kBits / 32;
          for (std::int64_t line = 0; line < kChunk * kBits / 8; line += 64) {
            _mm_prefetch(reinterpret_cast<const char*>(rows[r].words) + kChunk * kBits / 8 + line, _MM_HINT_T0);
          }
          widen(w.scales, row * group_count + first / kGroup, mask, rows[r].scales);
          widen(w.biases, row * group_count + first / kGroup, mask, rows[r].biases);
        }
        some_rows<kBits, kGroup, V, kVectors, kRows>(rows, parts, layout, x, fine, total + i * kAll);
      }
    }
    static_assert(kGroups <= 16 && kTileRows % kRows == 0);
    for (int t = 0; t < columns; ++t) {
      for (std::int64_t i = 0; i < count; ++i) y[t * stride + n + i] = total[i * kAll + t];
    }
  }
}

}  // namespace

std::size_t many_packed_bytes(const Matrix& w, int columns) {
  return static_cast<std::size_t>(Columns(w, columns).bytes);
}

void many_pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  const Columns at(w, columns);
  std::byte* fine = packed + at.fine_at;
  std::memset(fine, at.coarse ? 0 : 1, static_cast<std::size_t>(at.bytes - at.fine_at));
  if (at.coarse) choose_fine(w, x, columns, fine);
  // Lanes without a column multiply whatever bytes are there by 0.
  for (std::int64_t i = 0; i < at.chunks; ++i) {
    std::byte* factors = packed + i * at.chunk_bytes + at.scales_at;
    std::memset(factors, 0, static_cast<std::size_t>(at.chunk_bytes - at.scales_at));
  }
  for (int t = 0; t < columns; ++t) {
    (w.bits == 4 ? pack_column<4> : pack_column<8>)(w, x + t * w.k, at, t, fine, packed);
  }
}

void many_rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
               std::int64_t stride) {
  using Kernel =
      void (*)(const Matrix&, const Columns&, const std::byte*, int, std::int64_t, std::int64_t, float*, std::int64_t);
  static constexpr Kernel kernels[2][2][3] = {{{tiles<4, 32, Ymm, 1>, tiles<4, 32, Zmm, 1>, tiles<4, 32, Zmm, 2>},
                                               {tiles<4, 64, Ymm, 1>, tiles<4, 64, Zmm, 1>, tiles<4, 64, Zmm, 2>}},
                                              {{tiles<8, 32, Ymm, 1>, tiles<8, 32, Zmm, 1>, tiles<8, 32, Zmm, 2>},
                                               {tiles<8, 64, Ymm, 1>, tiles<8, 64, Zmm, 1>, tiles<8, 64, Zmm, 2>}}};
  if (begin >= end) return;
  const Columns layout(w, columns);
  kernels[w.bits == 8][w.group_size == 64][layout.lanes / 16](w, layout, packed, columns, begin, end, y, stride);
}

}  // namespace personaplex::cpu::avx512

#endif
