// csrc/cpu/matmul_avx512_quantized.cpp: 4-bit and 8-bit weights with AVX-512 VNNI: vpdpbusd adds four products of a
// weight (0..255) and a signed byte of x to 32 bits, exactly.
//
// x becomes integers: x = scale * (128 * h + l), h and l signed bytes, one scale for every group (one column) or 256
// values (more columns). Its error is at most 2^-15 of the largest of them. Products with h are shifted by 7 before
// those with l are added, so the sum over a group is one exact integer.
//
// 5 to 8 columns are limited by arithmetic, not by memory. There, with 4-bit weights, x has a scale for every 32 values
// and most blocks of 128 values do without l, see kCoarseError.
//
// One column: lane i of a zmm holds word i of 16 of a row. More columns: four rows at a time, 64 bytes of each, are
// transposed within 128-bit lanes: word m of four holds in lane L the words 4 L + m of the four rows, and x is packed
// to match, every 32 bits four times. 256 values of x for all columns stay in the first-level cache while 32 rows pass
// by. In both ways a row's sums have one order, wherever it lies among its neighbours.
#include "cpu/matmul_avx512.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#define PERSONAPLEX_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")))

namespace personaplex::cpu::avx512 {

namespace {

/// One column asks for memory so many bytes ahead, into the second-level cache: 8 KB give 22 GB/s a core where 2 KB
/// into the first-level cache gave 17.
constexpr std::int64_t kAhead = 8192;
constexpr std::int64_t kPart = 32;
constexpr std::int64_t kChunk = 256;    // values of x that meet a tile of rows at a time
constexpr std::int64_t kTileRows = 32;  // a multiple of 4
constexpr int kFineColumns = 4;         // up to here the memory is slower than products with both h and l

/// What rounding to h alone may make of x's norm: as many blocks of 128 values as necessary have l too, the worst ones
/// first. With Gaussian x it is 0.5 % and none has.
constexpr float kCoarseError = 6e-3F;

std::int64_t groups(const Matrix& w) { return w.k / w.group_size; }
std::int64_t round_up(std::int64_t n, std::int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Packed x of one column: per 64 bytes of a row of W the bytes h, then l, in the order of W's (4 bits: of the low
/// nibbles, then of the high ones); then a scale and the sum of x for each group. Both are read 16 at a time.
struct OneColumn {
  explicit OneColumn(const Matrix& w)
      : block(kWords * 32 / w.bits),
        scales_at(round_up(w.k, block) * 2),
        sums_at(scales_at + round_up(groups(w), 16) * 4),
        bytes(sums_at + round_up(groups(w), 16) * 4) {}
  static constexpr std::int64_t kWords = 16;
  std::int64_t block;  // values in 64 bytes of W
  std::int64_t scales_at, sums_at, bytes;
};

/// Packed x of several columns, by chunks of 256 values of all columns. A chunk: per block (64 bytes of a row of W) and
/// column its bytes h, each 32 bits four times (4 bits: the even values, then the odd ones); l likewise; per 4 groups
/// and column the sums of x, each four times; then the scales: one for each column, or where `coarse`, per block and
/// column 4, each four times. At the end a byte per block: 1 where l counts;
/// then room for the choice of these.
struct Columns {
  Columns(const Matrix& w, int columns)
      : coarse(w.bits == 4 && columns > kFineColumns),
        block(512 / w.bits),
        block_bytes(block * 4 * columns),
        low_at(kChunk / block * block_bytes),
        sums_at(2 * low_at),
        scales_at(sums_at + kChunk / w.group_size / 4 * columns * 64),
        chunk_bytes(round_up(scales_at + (coarse ? kChunk / block * columns * 64 : columns * 4), 64)),
        blocks(round_up(w.k, kChunk) / block),
        fine_at(round_up(w.k, kChunk) / kChunk * chunk_bytes),
        errors_at(round_up(fine_at + blocks, 64)),
        bytes(errors_at + (coarse ? blocks * columns * 4 : 0)) {}
  bool coarse;
  std::int64_t block, block_bytes, low_at, sums_at, scales_at, chunk_bytes, blocks, fine_at, errors_at, bytes;
};

/// The bits of the largest |x| of 32: of a NaN, if there is one.
PERSONAPLEX_AVX512 inline std::uint32_t largest_bits(const float* x) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  return _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(x), magnitude),
                                                  _mm512_and_si512(_mm512_loadu_si512(x + 16), magnitude)));
}

PERSONAPLEX_AVX512 inline float from_bits(std::uint32_t bits) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(bits))));
}

struct Scale {
  float scale, inverse;
};

/// 128 * 127 is the largest integer. Values below 1e-30 count as zeros.
PERSONAPLEX_AVX512 inline Scale scale_for(std::uint32_t bits) {
  const float largest = from_bits(bits);
  if (largest < 1e-30F) return {0.0F, 0.0F};
  return {largest * (1.0F / 16256.0F), 16256.0F / largest};
}

struct Bytes {
  __m256i high, low;  // h and l of 32 values
  __m512i sum;        // of 128 * h + l, over 16 lanes
};

/// The bytes of 32 values, for 4 bits the even values in front of the odd ones.
template <int kBits>
PERSONAPLEX_AVX512 inline Bytes to_bytes(const float* x, float inverse, bool fine) {
  const __m512 by = _mm512_set1_ps(inverse);
  const __m512i half = _mm512_set1_epi32(64);
  const __m512i v0 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), by));
  const __m512i v1 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), by));
  const __m512i h0 = _mm512_srai_epi32(_mm512_add_epi32(v0, half), 7);
  const __m512i h1 = _mm512_srai_epi32(_mm512_add_epi32(v1, half), 7);
  const __m512i l0 = _mm512_sub_epi32(v0, _mm512_slli_epi32(h0, 7));
  const __m512i l1 = _mm512_sub_epi32(v1, _mm512_slli_epi32(h1, 7));
  Bytes out;
  out.high = _mm256_set_m128i(_mm512_cvtepi32_epi8(h1), _mm512_cvtepi32_epi8(h0));
  out.low = _mm256_set_m128i(_mm512_cvtepi32_epi8(l1), _mm512_cvtepi32_epi8(l0));
  out.sum = fine ? _mm512_add_epi32(v0, v1) : _mm512_slli_epi32(_mm512_add_epi32(h0, h1), 7);
  if constexpr (kBits == 4) {
    const __m256i split =
        _mm256_broadcastsi128_si256(_mm_set_epi8(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0));
    out.high = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(out.high, split), 0xD8);
    out.low = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(out.low, split), 0xD8);
  }
  return out;
}

PERSONAPLEX_AVX512 inline void store16(std::byte* at, __m128i bytes) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), bytes);
}

template <int kBits>
PERSONAPLEX_AVX512 void pack_one(const Matrix& w, const float* x, std::byte* packed) {
  const OneColumn at(w);
  auto* scales = reinterpret_cast<float*>(packed + at.scales_at);
  auto* sums = reinterpret_cast<float*>(packed + at.sums_at);
  const std::int64_t padded = round_up(groups(w), 16);
  std::fill(scales + groups(w), scales + padded, 0.0F);
  std::fill(sums + groups(w), sums + padded, 0.0F);
  const std::int64_t last = w.k / at.block * at.block;
  if (last < w.k) std::memset(packed + last * 2, 0, static_cast<std::size_t>(at.block) * 2);
  for (std::int64_t g = 0; g < groups(w); ++g) {
    const std::int64_t first = g * w.group_size;
    std::uint32_t largest = largest_bits(x + first);
    if (w.group_size == 64) largest = std::max(largest, largest_bits(x + first + 32));
    const Scale scale = scale_for(largest);
    __m512i sum = _mm512_setzero_si512();
    for (std::int64_t i = first; i < first + w.group_size; i += kPart) {
      const Bytes bytes = to_bytes<kBits>(x + i, scale.inverse, true);
      sum = _mm512_add_epi32(sum, bytes.sum);
      std::byte* block = packed + i / at.block * at.block * 2;
      const std::int64_t half = i % at.block / 2;  // of the 32 values' place
      if constexpr (kBits == 4) {
        store16(block + half, _mm256_castsi256_si128(bytes.high));
        store16(block + 64 + half, _mm256_extracti128_si256(bytes.high, 1));
        store16(block + 128 + half, _mm256_castsi256_si128(bytes.low));
        store16(block + 192 + half, _mm256_extracti128_si256(bytes.low, 1));
      } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(block + half * 2), bytes.high);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(block + 64 + half * 2), bytes.low);
      }
    }
    scales[g] = scale.scale;
    sums[g] = scale.scale * static_cast<float>(_mm512_reduce_add_epi32(sum));
  }
}

/// Bytes of a block in the order of W's words, each four times: out[m] lane L = word 4 L + m.
template <int kBits>
PERSONAPLEX_AVX512 inline void spread(__m512i even, __m512i odd, std::byte* out) {
  _mm512_storeu_si512(out, _mm512_shuffle_epi32(even, _MM_PERM_AAAA));
  _mm512_storeu_si512(out + 64, _mm512_shuffle_epi32(even, _MM_PERM_BBBB));
  _mm512_storeu_si512(out + 128, _mm512_shuffle_epi32(even, _MM_PERM_CCCC));
  _mm512_storeu_si512(out + 192, _mm512_shuffle_epi32(even, _MM_PERM_DDDD));
  if constexpr (kBits == 4) {
    _mm512_storeu_si512(out + 256, _mm512_shuffle_epi32(odd, _MM_PERM_AAAA));
    _mm512_storeu_si512(out + 320, _mm512_shuffle_epi32(odd, _MM_PERM_BBBB));
    _mm512_storeu_si512(out + 384, _mm512_shuffle_epi32(odd, _MM_PERM_CCCC));
    _mm512_storeu_si512(out + 448, _mm512_shuffle_epi32(odd, _MM_PERM_DDDD));
  }
}

/// What each block of 128 values adds to the square of a column's relative error when it has no l, in error[block *
/// columns]: values up to m are rounded to multiples of m / 127.
PERSONAPLEX_AVX512 void coarse_errors(const Matrix& w, const float* x, int columns, float* error) {
  __m512 squares = _mm512_setzero_ps();
  for (std::int64_t i = 0; i < w.k; i += 16) {
    const __m512 v = _mm512_loadu_ps(x + i);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const float norm = std::max(_mm512_reduce_add_ps(squares), 1e-30F);
  for (std::int64_t i = 0; i < w.k; i += 128, error += columns) {
    *error = 0.0F;
    for (std::int64_t part = i; part < std::min(i + 128, w.k); part += kPart) {
      const float largest = from_bits(largest_bits(x + part));
      *error += largest * largest / norm * (kPart / (12.0F * 127.0F * 127.0F));
    }
  }
}

/// Chooses the blocks that have l, for all columns alike: fine[block] = 1 until every column's error is small enough.
void choose_fine(std::int64_t blocks, int columns, const float* error, std::byte* fine) {
  float left[kMaxColumns] = {};
  for (std::int64_t b = 0; b < blocks; ++b) {
    for (int t = 0; t < columns; ++t) left[t] += error[b * columns + t];
  }
  for (;;) {
    bool enough = true;  // a column with NaN never has
    for (int t = 0; t < columns; ++t) enough = enough && left[t] <= kCoarseError * kCoarseError;
    if (enough) return;
    std::int64_t worst = -1;
    float most = -1.0F;
    for (std::int64_t b = 0; b < blocks; ++b) {
      if (fine[b] != std::byte{0}) continue;
      float sum = 0.0F;
      for (int t = 0; t < columns; ++t) sum += error[b * columns + t];
      if (worst < 0 || sum > most) {
        worst = b;
        most = sum;
      }
    }
    if (worst < 0) return;
    fine[worst] = std::byte{1};
    for (int t = 0; t < columns; ++t) left[t] -= error[worst * columns + t];
  }
}

template <int kBits>
PERSONAPLEX_AVX512 void pack_columns(const Matrix& w, const float* x, int columns, std::byte* packed) {
  constexpr int kParts = 16 / kBits;  // of a block
  const Columns at(w, columns);
  std::byte* fine = packed + at.fine_at;
  std::memset(fine, at.coarse ? 0 : 1, static_cast<std::size_t>(at.blocks));
  if (at.coarse) {
    auto* errors = reinterpret_cast<float*>(packed + at.errors_at);
    for (int t = 0; t < columns; ++t) coarse_errors(w, x + t * w.k, columns, errors + t);
    choose_fine((w.k + 127) / 128, columns, errors, fine);
  }
  const std::int64_t parts_per_group = w.group_size / kPart;
  for (std::int64_t first = 0; first < w.k; first += kChunk, packed += at.chunk_bytes) {
    const int parts = static_cast<int>(std::min(kChunk, w.k - first) / kPart);
    for (int t = 0; t < columns; ++t) {
      const float* values = x + t * w.k + first;
      std::uint32_t largest[8] = {};
      std::uint32_t largest_of_all = 0;
      for (int part = 0; part < parts; ++part) {
        largest[part] = largest_bits(values + part * kPart);
        largest_of_all = std::max(largest_of_all, largest[part]);
      }
      float scales[8] = {};  // of h where the block has no l
      float sums[8] = {};    // of groups
      for (int b = 0; b * kParts < parts; ++b) {
        const bool both = fine[(first / at.block) + b] != std::byte{0};
        alignas(64) std::byte bytes[2][2][64] = {};  // h and l; even and odd values (8 bits: all in the first)
        for (int i = 0; i < kParts && b * kParts + i < parts; ++i) {
          const int part = b * kParts + i;
          const Scale scale = scale_for(at.coarse ? largest[part] : largest_of_all);
          const Bytes some = to_bytes<kBits>(values + part * kPart, scale.inverse, both);
          if constexpr (kBits == 4) {
            store16(bytes[0][0] + i * 16, _mm256_castsi256_si128(some.high));
            store16(bytes[0][1] + i * 16, _mm256_extracti128_si256(some.high, 1));
            store16(bytes[1][0] + i * 16, _mm256_castsi256_si128(some.low));
            store16(bytes[1][1] + i * 16, _mm256_extracti128_si256(some.low, 1));
          } else {
            _mm256_store_si256(reinterpret_cast<__m256i*>(bytes[0][0] + i * 32), some.high);
            _mm256_store_si256(reinterpret_cast<__m256i*>(bytes[1][0] + i * 32), some.low);
          }
          scales[part] = both ? scale.scale : 128.0F * scale.scale;
          sums[part / parts_per_group] += scale.scale * static_cast<float>(_mm512_reduce_add_epi32(some.sum));
        }
        std::byte* out = packed + b * at.block_bytes + t * at.block * 4;
        spread<kBits>(_mm512_load_si512(bytes[0][0]), _mm512_load_si512(bytes[0][1]), out);
        spread<kBits>(_mm512_load_si512(bytes[1][0]), _mm512_load_si512(bytes[1][1]), out + at.low_at);
      }
      const __m512i each_four_times = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
      const auto four = [&](const float* from) __attribute__((target("avx512f"))) {
        return _mm512_permutexvar_ps(each_four_times, _mm512_castps128_ps512(_mm_loadu_ps(from)));
      };
      for (int g = 0; g < kChunk / w.group_size; g += 4) {
        _mm512_storeu_ps(packed + at.sums_at + (g / 4 * columns + t) * 64, four(sums + g));
      }
      if (at.coarse) {
        for (int b = 0; b < 2; ++b) {
          _mm512_storeu_ps(packed + at.scales_at + (b * columns + t) * 64, four(scales + b * 4));
        }
      } else {
        reinterpret_cast<float*>(packed + at.scales_at)[t] = scale_for(largest_of_all).scale;
      }
    }
  }
}

PERSONAPLEX_AVX512 inline __m512 widen16(__m256i raw, bool half) {
  if (half) return _mm512_cvtph_ps(raw);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

/// One block of 64 bytes of a row against one column. `spread` holds every lane's scale.
template <int kBits>
PERSONAPLEX_AVX512 inline __m512 block_product(__m512i v, __m512 spread, const std::byte* x, __m512 sum) {
  __m512i high = _mm512_setzero_si512();
  __m512i low = _mm512_setzero_si512();
  if constexpr (kBits == 4) {
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i w0 = _mm512_and_si512(v, nibble);
    const __m512i w1 = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
    high = _mm512_dpbusd_epi32(high, w0, _mm512_loadu_si512(x));
    low = _mm512_dpbusd_epi32(low, w0, _mm512_loadu_si512(x + 128));
    high = _mm512_dpbusd_epi32(high, w1, _mm512_loadu_si512(x + 64));
    low = _mm512_dpbusd_epi32(low, w1, _mm512_loadu_si512(x + 192));
  } else {
    high = _mm512_dpbusd_epi32(high, v, _mm512_loadu_si512(x));
    low = _mm512_dpbusd_epi32(low, v, _mm512_loadu_si512(x + 64));
  }
  const __m512i both = _mm512_add_epi32(_mm512_slli_epi32(high, 7), low);
  return _mm512_fmadd_ps(spread, _mm512_cvtepi32_ps(both), sum);
}

/// One row against one column, 16 groups at a time. A group is 2^kShift words.
template <int kBits, int kShift>
PERSONAPLEX_AVX512 void one_column(const Matrix& w, const std::byte* packed, std::int64_t begin, std::int64_t end,
                                   float* y) {
  constexpr std::int64_t kWords = OneColumn::kWords;
  constexpr std::int64_t kX = 1024 / kBits;  // bytes of packed x that meet 64 bytes of W
  constexpr int kGroupsPerBlock = static_cast<int>(kWords) >> kShift;
  constexpr int kBlocks = 16 / kGroupsPerBlock;  // of 16 groups
  const OneColumn layout(w);
  const std::int64_t group_count = groups(w);
  const std::int64_t words_per_row = w.k * kBits / 32;
  const bool half = w.scales.dtype == DType::kF16;
  const __m512i lane_group =
      _mm512_srli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), kShift);
  const auto* x_scales = reinterpret_cast<const float*>(packed + layout.scales_at);
  const auto* x_sums = reinterpret_cast<const float*>(packed + layout.sums_at);
  for (std::int64_t n = begin; n < end; ++n) {
    const auto* words = reinterpret_cast<const std::uint32_t*>(w.weight.data) + n * words_per_row;
    const auto* scales = reinterpret_cast<const std::uint16_t*>(w.scales.data) + n * group_count;
    const auto* biases = reinterpret_cast<const std::uint16_t*>(w.biases.data) + n * group_count;
    __m512 sum = _mm512_setzero_ps();
    for (std::int64_t g = 0; g < group_count; g += 16) {
      const std::int64_t left = group_count - g;
      const __mmask16 mask = left >= 16 ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << left) - 1U);
      const __m512 scale =
          _mm512_mul_ps(widen16(_mm256_maskz_loadu_epi16(mask, scales + g), half), _mm512_loadu_ps(x_scales + g));
      const __m512 bias = widen16(_mm256_maskz_loadu_epi16(mask, biases + g), half);
      sum = _mm512_fmadd_ps(bias, _mm512_loadu_ps(x_sums + g), sum);
      const std::uint32_t* at = words + (g << kShift);
      const std::byte* x = packed + (g << kShift) / kWords * kX;
      if (left >= 16) {
#pragma GCC unroll 16
        for (int block = 0; block < kBlocks; ++block) {
          _mm_prefetch(reinterpret_cast<const char*>(at + block * kWords) + kAhead, _MM_HINT_T1);
          const __m512i index = _mm512_add_epi32(lane_group, _mm512_set1_epi32(block * kGroupsPerBlock));
          sum = block_product<kBits>(_mm512_loadu_si512(at + block * kWords), _mm512_permutexvar_ps(index, scale),
                                     x + block * kX, sum);
        }
        continue;
      }
      std::int64_t rest = words_per_row - (g << kShift);
      for (int block = 0; rest > 0; ++block, rest -= kWords) {
        const __mmask16 some = rest >= kWords ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << rest) - 1U);
        const __m512i index = _mm512_add_epi32(lane_group, _mm512_set1_epi32(block * kGroupsPerBlock));
        sum = block_product<kBits>(_mm512_maskz_loadu_epi32(some, at + block * kWords),
                                   _mm512_permutexvar_ps(index, scale), x + block * kX, sum);
      }
    }
    y[n] = _mm512_reduce_add_ps(sum);
  }
}

/// The scales or biases of up to 8 groups of four rows: group g of row r in half 8 r + g.
PERSONAPLEX_AVX512 inline __m512i load_groups(const std::uint16_t* first, std::int64_t stride, __mmask8 mask) {
  const __m256i low = _mm256_set_m128i(_mm_maskz_loadu_epi16(mask, first + stride), _mm_maskz_loadu_epi16(mask, first));
  const __m256i high = _mm256_set_m128i(_mm_maskz_loadu_epi16(mask, first + 3 * stride),
                                        _mm_maskz_loadu_epi16(mask, first + 2 * stride));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/// Those of group g0 in lane 0 and so on, rows in a lane's elements.
PERSONAPLEX_AVX512 inline __m512 pick_groups(__m512i groups, int g0, int g1, int g2, int g3, bool half) {
  const __m512i index = _mm512_mullo_epi32(
      _mm512_add_epi32(_mm512_set_epi32(g3, g3, g3, g3, g2, g2, g2, g2, g1, g1, g1, g1, g0, g0, g0, g0),
                       _mm512_set_epi32(24, 16, 8, 0, 24, 16, 8, 0, 24, 16, 8, 0, 24, 16, 8, 0)),
      _mm512_set1_epi32(0x10001));
  if (half) return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_permutexvar_epi16(index, groups)));
  return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAAU, index, groups));
}

/// The scales of a block's lanes.
template <int kBits, int kGroup>
PERSONAPLEX_AVX512 inline __m512 pick_scales(__m512i groups, int block, bool half) {
  constexpr int kLane = 128 / kBits;  // values in a lane
  const int first = block * 4 * kLane;
  return pick_groups(groups, first / kGroup, (first + kLane) / kGroup, (first + 2 * kLane) / kGroup,
                     (first + 3 * kLane) / kGroup, half);
}

/// Four rows of W, or one row four times.
struct FourRows {
  const std::byte* words = nullptr;
  const std::uint16_t *scales = nullptr, *biases = nullptr;
  std::int64_t bytes = 0, groups = 0;  // from one row to the next
};

/// words[m] lane L = the words 4 L + m of the four rows, of the 64 bytes `at`.
PERSONAPLEX_AVX512 inline void transpose(const FourRows& rows, std::int64_t at, __mmask16 mask, __m512i* words) {
  const std::byte* from = rows.words + at;
  const __m512i r0 = _mm512_maskz_loadu_epi32(mask, from);
  const __m512i r1 = _mm512_maskz_loadu_epi32(mask, from + rows.bytes);
  const __m512i r2 = _mm512_maskz_loadu_epi32(mask, from + 2 * rows.bytes);
  const __m512i r3 = _mm512_maskz_loadu_epi32(mask, from + 3 * rows.bytes);
  const __m512i low01 = _mm512_unpacklo_epi32(r0, r1);
  const __m512i low23 = _mm512_unpacklo_epi32(r2, r3);
  const __m512i high01 = _mm512_unpackhi_epi32(r0, r1);
  const __m512i high23 = _mm512_unpackhi_epi32(r2, r3);
  words[0] = _mm512_unpacklo_epi64(low01, low23);
  words[1] = _mm512_unpackhi_epi64(low01, low23);
  words[2] = _mm512_unpacklo_epi64(high01, high23);
  words[3] = _mm512_unpackhi_epi64(high01, high23);
}

/// Adds the products of a block of two times four rows with one byte of x: each load of x meets both.
template <int kBits, int kColumns>
PERSONAPLEX_AVX512 inline void add_bytes(const __m512i (&words)[2][4], const std::byte* x,
                                         __m512i (&sum)[2][kColumns]) {
#pragma GCC unroll 8
  for (int i = 0; i < 32 / kBits; ++i) {
    __m512i v0 = words[0][i % 4];
    __m512i v1 = words[1][i % 4];
    if constexpr (kBits == 4) {
      const __m512i nibble = _mm512_set1_epi8(15);
      v0 = _mm512_and_si512(i < 4 ? v0 : _mm512_srli_epi16(v0, 4), nibble);
      v1 = _mm512_and_si512(i < 4 ? v1 : _mm512_srli_epi16(v1, 4), nibble);
    }
#pragma GCC unroll 4
    for (int t = 0; t < kColumns; ++t) {
      __m512i values = _mm512_load_si512(x + t * (2048 / kBits) + i * 64);
      asm("" : "+v"(values));  // one load: compilers fold it into both products, and loads are what binds
      sum[0][t] = _mm512_dpbusd_epi32(sum[0][t], v0, values);
      sum[1][t] = _mm512_dpbusd_epi32(sum[1][t], v1, values);
    }
  }
}

/// A chunk of two times four rows against columns [kFrom, kFrom + kCount) of kColumns, added to total[row][t]: lanes
/// are to be added up, elements are rows. (Loops over rows and columns must unroll: an index that is not a constant
/// keeps the sums in memory.)
template <int kBits, int kGroup, int kColumns, int kFrom, int kCount>
PERSONAPLEX_AVX512 inline void eight_rows(const Matrix& w, const FourRows* rows, std::int64_t first,
                                          const Columns& layout, const std::byte* x, const std::byte* fine,
                                          __m512 (*total)[kColumns]) {
  constexpr bool kMayBeCoarse = kBits == 4 && kColumns > kFineColumns;
  constexpr std::int64_t kBlock = 512 / kBits;
  const bool half = w.scales.dtype == DType::kF16;
  const std::int64_t left = std::min(kChunk, w.k - first);
  const auto group_mask = static_cast<__mmask8>((1U << (left / kGroup)) - 1U);
  const __m512i scales[2] = {load_groups(rows[0].scales + first / kGroup, rows[0].groups, group_mask),
                             load_groups(rows[1].scales + first / kGroup, rows[1].groups, group_mask)};
  __m512 sum[2][kCount];
#pragma GCC unroll 4
  for (int t = 0; t < kCount; ++t) sum[0][t] = sum[1][t] = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int b = 0; b < kChunk / kBlock; ++b) {
    const std::int64_t left_words = (left - b * kBlock) * kBits / 32;
    if (left_words <= 0) break;
    const __mmask16 mask = left_words >= 16 ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << left_words) - 1U);
    __m512i words[2][4];
    transpose(rows[0], first * kBits / 8 + b * 64, mask, words[0]);
    transpose(rows[1], first * kBits / 8 + b * 64, mask, words[1]);
    const std::byte* block = x + b * layout.block_bytes + kFrom * (2048 / kBits);
    __m512i integer[2][kCount];
#pragma GCC unroll 4
    for (int t = 0; t < kCount; ++t) integer[0][t] = integer[1][t] = _mm512_setzero_si512();
    add_bytes<kBits, kCount>(words, block, integer);
    if (!kMayBeCoarse || fine[b] != std::byte{0}) {
      if constexpr (kMayBeCoarse) {  // seldom: the rows are read again, so that nothing is kept for this
        FourRows again[2] = {rows[0], rows[1]};
        asm("" : "+r"(again[0].words), "+r"(again[1].words));
        transpose(again[0], first * kBits / 8 + b * 64, mask, words[0]);
        transpose(again[1], first * kBits / 8 + b * 64, mask, words[1]);
      }
#pragma GCC unroll 4
      for (int t = 0; t < kCount; ++t) {
        integer[0][t] = _mm512_slli_epi32(integer[0][t], 7);
        integer[1][t] = _mm512_slli_epi32(integer[1][t], 7);
      }
      add_bytes<kBits, kCount>(words, block + layout.low_at, integer);
    }
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      const __m512 scale = pick_scales<kBits, kGroup>(scales[r], b, half);
#pragma GCC unroll 4
      for (int t = 0; t < kCount; ++t) {
        __m512 both = scale;
        if constexpr (kMayBeCoarse) {
          both = _mm512_mul_ps(both, _mm512_load_ps(x + layout.scales_at + (b * kColumns + kFrom + t) * 64));
        }
        sum[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(integer[r][t]), both, sum[r][t]);
      }
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < 2; ++r) {
    const __m512i biases = load_groups(rows[r].biases + first / kGroup, rows[r].groups, group_mask);
#pragma GCC unroll 4
    for (int t = 0; t < kCount; ++t) {
      __m512& all = total[r][kFrom + t];
      if constexpr (kMayBeCoarse) {
        sum[r][t] = _mm512_add_ps(sum[r][t], all);
      } else {
        const float scale = reinterpret_cast<const float*>(x + layout.scales_at)[kFrom + t];
        sum[r][t] = _mm512_fmadd_ps(sum[r][t], _mm512_set1_ps(scale), all);
      }
#pragma GCC unroll 2
      for (int i = 0; i < kChunk / kGroup / 4; ++i) {
        const __m512 bias = pick_groups(biases, 4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3, half);
        const auto* sums = x + layout.sums_at + (i * kColumns + kFrom + t) * 64;
        sum[r][t] = _mm512_fmadd_ps(bias, _mm512_load_ps(sums), sum[r][t]);
      }
      all = sum[r][t];
    }
  }
}

/// Asks for memory to come into the second-level cache.
PERSONAPLEX_AVX512 inline void fetch(const void* from, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += 64) _mm_prefetch(static_cast<const char*>(from) + at, _MM_HINT_T1);
}

template <int kBits, int kGroup, int kColumns>
PERSONAPLEX_AVX512 void tiles(const Matrix& w, const std::byte* packed, std::int64_t begin, std::int64_t end, float* y,
                              std::int64_t stride) {
  constexpr int kFirst = kColumns <= 4 ? kColumns : (kColumns + 1) / 2;  // columns whose sums fit the registers
  const Columns layout(w, kColumns);
  const std::int64_t row_bytes = w.k * kBits / 8;
  const std::int64_t group_count = groups(w);
  const auto* scales = reinterpret_cast<const std::uint16_t*>(w.scales.data);
  const auto* biases = reinterpret_cast<const std::uint16_t*>(w.biases.data);
  for (std::int64_t n = begin; n < end; n += kTileRows) {
    FourRows rows[kTileRows / 4 + 4];
    std::int64_t counts[kTileRows / 4 + 4] = {};  // of rows that are stored
    int fours = 0;
    for (std::int64_t row = n; row < std::min(n + kTileRows, end) || fours % 2 != 0; row += counts[fours++]) {
      const std::int64_t left = end - row;
      const std::int64_t from = std::min(row, end - 1);
      const std::int64_t step = left >= 4 ? 1 : 0;
      rows[fours] = {w.weight.data + from * row_bytes, scales + from * group_count, biases + from * group_count,
                     step * row_bytes, step * group_count};
      counts[fours] = left >= 4 ? 4 : left > 0 ? 1 : 0;
    }
    // The first tile comes into the second-level cache at once; every next one meanwhile, a few lines with each eight
    // rows.
    if (n == begin) {
      const std::int64_t count = std::min(kTileRows, end - n);
      fetch(w.weight.data + n * row_bytes, count * row_bytes);
      fetch(scales + n * group_count, count * group_count * 2);
      fetch(biases + n * group_count, count * group_count * 2);
    }
    const bool more = n + kTileRows < end;
    const char* next = reinterpret_cast<const char*>(w.weight.data + (n + kTileRows) * row_bytes);
    const char* next_scales = reinterpret_cast<const char*>(scales + (n + kTileRows) * group_count);
    const char* next_biases = reinterpret_cast<const char*>(biases + (n + kTileRows) * group_count);
    __m512 total[kTileRows / 4 + 4][kColumns];
    for (int i = 0; i < fours; ++i) {
      for (int t = 0; t < kColumns; ++t) total[i][t] = _mm512_setzero_ps();
    }
    const std::byte* x = packed;
    for (std::int64_t first = 0; first < w.k; first += kChunk, x += layout.chunk_bytes) {
      const std::byte* fine = packed + layout.fine_at + first / layout.block;
      for (int i = 0; i < fours; i += 2) {
        if (more) {
          fetch(next, kChunk * kBits);
          fetch(next_scales, 64);
          fetch(next_biases, 64);
          next += kChunk * kBits;
          next_scales += kChunk / kGroup * 16;
          next_biases += kChunk / kGroup * 16;
        }
        eight_rows<kBits, kGroup, kColumns, 0, kFirst>(w, rows + i, first, layout, x, fine, total + i);
        if constexpr (kColumns > kFirst) {
          eight_rows<kBits, kGroup, kColumns, kFirst, kColumns - kFirst>(w, rows + i, first, layout, x, fine,
                                                                         total + i);
        }
      }
    }
    std::int64_t row = n;
    for (int i = 0; i < fours; row += counts[i++]) {
      const auto mask = static_cast<__mmask8>((1U << counts[i]) - 1U);
      for (int t = 0; t < kColumns; ++t) {
        const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(total[i][t]), _mm512_extractf32x8_ps(total[i][t], 1));
        const __m128 one = _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
        _mm_mask_storeu_ps(y + t * stride + row, mask, one);
      }
    }
  }
}

template <int kBits, int kGroup>
void several(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
             std::int64_t stride) {
  using Rows = void (*)(const Matrix&, const std::byte*, std::int64_t, std::int64_t, float*, std::int64_t);
  static constexpr Rows by_columns[] = {tiles<kBits, kGroup, 2>, tiles<kBits, kGroup, 3>, tiles<kBits, kGroup, 4>,
                                        tiles<kBits, kGroup, 5>, tiles<kBits, kGroup, 6>, tiles<kBits, kGroup, 7>,
                                        tiles<kBits, kGroup, 8>};
  static_assert(kMaxColumns == 8);
  by_columns[columns - 2](w, packed, begin, end, y, stride);
}

}  // namespace

std::size_t quantized_packed_bytes(const Matrix& w, int columns) {
  return static_cast<std::size_t>(columns == 1 ? OneColumn(w).bytes : Columns(w, columns).bytes);
}

void quantized_pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  if (columns == 1) {
    w.bits == 4 ? pack_one<4>(w, x, packed) : pack_one<8>(w, x, packed);
  } else {
    w.bits == 4 ? pack_columns<4>(w, x, columns, packed) : pack_columns<8>(w, x, columns, packed);
  }
}

void quantized_rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end,
                    float* y, std::int64_t stride) {
  if (columns == 1) {
    const auto kernel = w.bits == 4 ? (w.group_size == 64 ? one_column<4, 3> : one_column<4, 2>)
                                    : (w.group_size == 64 ? one_column<8, 4> : one_column<8, 3>);
    kernel(w, packed, begin, end, y);
  } else {
    const auto kernel = w.bits == 4 ? (w.group_size == 64 ? several<4, 64> : several<4, 32>)
                                    : (w.group_size == 64 ? several<8, 64> : several<8, 32>);
    kernel(w, packed, columns, begin, end, y, stride);
  }
}

}  // namespace personaplex::cpu::avx512

#endif
