// csrc/cpu/matmul_avx512_few.cpp: 4-bit and 8-bit weights and 1 to 4 columns of x, as fast as memory: lane i of a zmm
// holds word i of 16 of a row. x has a scale for every group of weights.
#include "cpu/matmul_avx512.h"

#if defined(__x86_64__)

#include "cpu/matmul_avx512_bytes.h"

#include <cstring>

namespace personaplex::cpu::avx512 {

namespace {

/// Memory is asked for so many bytes ahead, into the second-level cache: 8 KB give 22 GB/s a core where 2 KB into the
/// first-level cache gave 17.
constexpr std::int64_t kAhead = 8192;

/// Packed x, column by column. One column: per 64 bytes of a row of W the bytes h, then l, in the order of W's (4 bits:
/// of the low nibbles, then of the high ones); then a scale and the sum of x for each group. Both are read 16 at a
/// time.
struct PackedColumn {
  explicit PackedColumn(const Matrix& w)
      : block(kWords * 32 / w.bits),
        scales_at(round_up(w.k, block) * 2),
        sums_at(scales_at + round_up(groups(w), 16) * 4),
        bytes(sums_at + round_up(groups(w), 16) * 4) {}  // a multiple of 64
  static constexpr std::int64_t kWords = 16;
  std::int64_t block;  // values in 64 bytes of W
  std::int64_t scales_at, sums_at, bytes;
};

PERSONAPLEX_AVX512_VNNI inline void store16(std::byte* at, __m128i bytes) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), bytes);
}

template <int kBits>
PERSONAPLEX_AVX512_VNNI void pack_column(const Matrix& w, const float* x, std::byte* packed) {
  const PackedColumn at(w);
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

PERSONAPLEX_AVX512_VNNI inline __m512 widen16(__m256i raw, bool half) {
  if (half) return _mm512_cvtph_ps(raw);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

/// One block of 64 bytes of a row against some columns. `factors` has every lane's scale, for each column.
template <int kBits, int kColumns>
PERSONAPLEX_AVX512_VNNI inline void add_block(__m512i v, __m512i index, const __m512 (&factors)[kColumns],
                                              const std::byte* x, std::int64_t column, __m512 (&sum)[kColumns]) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i w0 = kBits == 4 ? _mm512_and_si512(v, nibble) : v;
  const __m512i w1 = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
#pragma GCC unroll 4
  for (int t = 0; t < kColumns; ++t, x += column) {
    __m512i both = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w0, _mm512_loadu_si512(x));
    if constexpr (kBits == 4) both = _mm512_dpbusd_epi32(both, w1, _mm512_loadu_si512(x + 64));
    both = _mm512_slli_epi32(both, 7);
    both = _mm512_dpbusd_epi32(both, w0, _mm512_loadu_si512(x + (kBits == 4 ? 128 : 64)));
    if constexpr (kBits == 4) both = _mm512_dpbusd_epi32(both, w1, _mm512_loadu_si512(x + 192));
    sum[t] = _mm512_fmadd_ps(_mm512_permutexvar_ps(index, factors[t]), _mm512_cvtepi32_ps(both), sum[t]);
  }
}

/// Row by row, 16 groups at a time. A group is 2^kShift words.
template <int kBits, int kShift, int kColumns>
PERSONAPLEX_AVX512_VNNI void some_columns(const Matrix& w, const std::byte* packed, std::int64_t begin,
                                          std::int64_t end, float* y, std::int64_t stride) {
  constexpr std::int64_t kWords = PackedColumn::kWords;
  constexpr std::int64_t kX = 1024 / kBits;  // bytes of packed x that meet 64 bytes of W
  constexpr int kGroupsPerBlock = static_cast<int>(kWords) >> kShift;
  constexpr int kBlocks = 16 / kGroupsPerBlock;  // of 16 groups
  const PackedColumn layout(w);
  const std::int64_t group_count = groups(w);
  const std::int64_t words_per_row = w.k * kBits / 32;
  const bool half = w.scales.dtype == DType::kF16;
  const __m512i lane_group =
      _mm512_srli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), kShift);
  for (std::int64_t n = begin; n < end; ++n) {
    const auto* words = reinterpret_cast<const std::uint32_t*>(w.weight.data) + n * words_per_row;
    const auto* scales = reinterpret_cast<const std::uint16_t*>(w.scales.data) + n * group_count;
    const auto* biases = reinterpret_cast<const std::uint16_t*>(w.biases.data) + n * group_count;
    __m512 sum[kColumns];
#pragma GCC unroll 4
    for (int t = 0; t < kColumns; ++t) sum[t] = _mm512_setzero_ps();
    for (std::int64_t g = 0; g < group_count; g += 16) {
      const std::int64_t left = group_count - g;
      const __mmask16 mask = left >= 16 ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << left) - 1U);
      const __m512 scale = widen16(_mm256_maskz_loadu_epi16(mask, scales + g), half);
      const __m512 bias = widen16(_mm256_maskz_loadu_epi16(mask, biases + g), half);
      __m512 factors[kColumns];
#pragma GCC unroll 4
      for (int t = 0; t < kColumns; ++t) {
        const std::byte* column = packed + t * layout.bytes + g * 4;
        factors[t] = _mm512_mul_ps(scale, _mm512_loadu_ps(column + layout.scales_at));
        sum[t] = _mm512_fmadd_ps(bias, _mm512_loadu_ps(column + layout.sums_at), sum[t]);
      }
      const std::uint32_t* at = words + (g << kShift);
      const std::byte* x = packed + (g << kShift) / kWords * kX;
      if (left >= 16) {
#pragma GCC unroll 16
        for (int block = 0; block < kBlocks; ++block) {
          _mm_prefetch(reinterpret_cast<const char*>(at + block * kWords) + kAhead, _MM_HINT_T1);
          const __m512i index = _mm512_add_epi32(lane_group, _mm512_set1_epi32(block * kGroupsPerBlock));
          add_block<kBits, kColumns>(_mm512_loadu_si512(at + block * kWords), index, factors, x + block * kX,
                                     layout.bytes, sum);
        }
        continue;
      }
      std::int64_t rest = words_per_row - (g << kShift);
      for (int block = 0; rest > 0; ++block, rest -= kWords) {
        const __mmask16 some = rest >= kWords ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << rest) - 1U);
        const __m512i index = _mm512_add_epi32(lane_group, _mm512_set1_epi32(block * kGroupsPerBlock));
        add_block<kBits, kColumns>(_mm512_maskz_loadu_epi32(some, at + block * kWords), index, factors, x + block * kX,
                                   layout.bytes, sum);
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < kColumns; ++t) y[t * stride + n] = _mm512_reduce_add_ps(sum[t]);
  }
}

template <int kBits, int kShift>
void few(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
         std::int64_t stride) {
  using Kernel = void (*)(const Matrix&, const std::byte*, std::int64_t, std::int64_t, float*, std::int64_t);
  static constexpr Kernel kernels[kFewColumns] = {some_columns<kBits, kShift, 1>, some_columns<kBits, kShift, 2>,
                                                  some_columns<kBits, kShift, 3>, some_columns<kBits, kShift, 4>};
  kernels[columns - 1](w, packed, begin, end, y, stride);
}

}  // namespace

std::size_t few_packed_bytes(const Matrix& w, int columns) {
  return static_cast<std::size_t>(PackedColumn(w).bytes * columns);
}

void few_pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  const std::int64_t bytes = PackedColumn(w).bytes;
  for (int t = 0; t < columns; ++t) {
    (w.bits == 4 ? pack_column<4> : pack_column<8>)(w, x + t * w.k, packed + t * bytes);
  }
}

void few_rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
              std::int64_t stride) {
  const auto kernel =
      w.bits == 4 ? (w.group_size == 64 ? few<4, 3> : few<4, 2>) : (w.group_size == 64 ? few<8, 4> : few<8, 3>);
  kernel(w, packed, columns, begin, end, y, stride);
}

}  // namespace personaplex::cpu::avx512

#endif
