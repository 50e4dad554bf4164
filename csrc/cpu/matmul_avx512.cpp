// csrc/cpu/matmul_avx512.cpp: AVX-512 with BF16: two products and an addition a lane, exact for bfloat16 x.
//
// A zmm of weights is 16 words of 32 bits. Nibbles become bfloat16 by a table look-up (vpermw) on the 32 halves of the
// words, with a shift and no mask: the table has 32 entries, entry i = i & 15. So step j of four reads nibble j of
// every half, and x is packed to match: per 128 values (4-bit), 4 rows of 32 bfloat16, row j = x[4 * half + j]. For 8
// bits a half holds two values in two nibbles each; the high nibble's table holds 16 * i, so that both nibbles of a
// value meet the same x: per 64 values, 2 rows of 32 bfloat16 (even, odd values). bfloat16 weights are read as they
// are. Lane i of a step's sum belongs to word i: 8 values (4-bit) or 4 (8-bit); scales are spread over the lanes of
// their group.
#include "cpu/matmul.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "checkpoint/bf16.h"

#define PERSONAPLEX_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")))

namespace personaplex::cpu {

namespace {

constexpr std::int64_t kWords = 16;  // 32-bit words in a zmm

std::int64_t per_block(const Matrix& w) { return w.quantized() ? kWords * 32 / w.bits : 32; }
std::int64_t blocks(const Matrix& w) { return (w.k + per_block(w) - 1) / per_block(w); }
std::int64_t groups(const Matrix& w) { return w.quantized() ? w.k / w.group_size : 0; }
// Group sums are read 16 at a time.
std::int64_t padded_groups(const Matrix& w) { return (groups(w) + 15) / 16 * 16; }

std::size_t column_bytes(const Matrix& w) {
  return static_cast<std::size_t>(blocks(w) * per_block(w)) * 2 + static_cast<std::size_t>(padded_groups(w)) * 4;
}

std::size_t packed_bytes(const Matrix& w, int columns) { return column_bytes(w) * static_cast<std::size_t>(columns); }

void pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  const std::int64_t size = per_block(w);
  for (int t = 0; t < columns; ++t, x += w.k, packed += column_bytes(w)) {
    std::memset(packed, 0, column_bytes(w));
    auto* out = reinterpret_cast<std::uint16_t*>(packed);
    auto* sums = reinterpret_cast<float*>(packed + blocks(w) * size * 2);
    const std::int64_t rows = w.bits == 4 ? 4 : w.bits == 8 ? 2 : 1;
    for (std::int64_t i = 0; i < w.k; ++i) {
      const std::uint16_t rounded = to_bf16_bits(x[i]);
      const std::int64_t block = i / size;
      const std::int64_t at = i % size;
      out[block * size + (at % rows) * 32 + at / rows] = rounded;
      if (w.quantized()) sums[i / w.group_size] += from_bf16_bits(rounded);
    }
  }
}

PERSONAPLEX_AVX512 inline __m512 load16(const std::uint16_t* p, __mmask16 mask, bool half) {
  const __m256i raw = _mm256_maskz_loadu_epi16(mask, p);
  if (half) return _mm512_cvtph_ps(raw);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

PERSONAPLEX_AVX512 inline __m512 dot(__m512 sum, __m512i w, const std::uint16_t* x) {
  return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)_mm512_loadu_si512(x));
}

/// 32 bfloat16: entry i is (i & 15) * factor.
struct alignas(64) Table {
  std::uint16_t entries[32];
};
constexpr Table make_table(int factor) {
  Table table{};
  for (int i = 0; i < 32; ++i) table.entries[i] = to_bf16_bits(static_cast<float>((i & 15) * factor));
  return table;
}
constexpr Table kLow = make_table(1);
constexpr Table kHigh8 = make_table(16);  // of the high nibble of an 8-bit value

/// One 64-byte block of a row against every column. `spread` holds every lane's scale.
template <int kBits, int kColumns>
PERSONAPLEX_AVX512 inline void block_product(__m512i v, __m512 spread, const std::byte* packed, std::size_t bytes,
                                             __m512* sum) {
  const __m512i low = _mm512_load_si512(&kLow);
  const __m512i high = kBits == 8 ? _mm512_load_si512(&kHigh8) : low;
  const __m512i w0 = _mm512_permutexvar_epi16(v, low);
  const __m512i w1 = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), high);
  const __m512i w2 = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), low);
  const __m512i w3 = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), high);
#pragma GCC unroll 8
  for (int t = 0; t < kColumns; ++t) {
    const auto* x = reinterpret_cast<const std::uint16_t*>(packed + static_cast<std::size_t>(t) * bytes);
    __m512 a = _mm512_setzero_ps();
    __m512 b = _mm512_setzero_ps();
    if constexpr (kBits == 4) {
      a = dot(a, w0, x);
      b = dot(b, w1, x + 32);
      a = dot(a, w2, x + 64);
      b = dot(b, w3, x + 96);
    } else {  // both nibbles of a value meet the same x: the even values, then the odd ones
      a = dot(a, w0, x);
      b = dot(b, w1, x);
      a = dot(a, w2, x + 32);
      b = dot(b, w3, x + 32);
    }
    sum[t] = _mm512_fmadd_ps(spread, _mm512_add_ps(a, b), sum[t]);
  }
}

/// One row against kColumns columns, 16 groups at a time. A group is 2^kShift words.
template <int kBits, int kShift, int kColumns>
PERSONAPLEX_AVX512 void quantized_row(const Matrix& w, std::int64_t n, const std::byte* packed, float* y,
                                      std::int64_t stride) {
  constexpr std::int64_t kBlock = kWords * 32 / kBits;
  constexpr int kGroupsPerBlock = static_cast<int>(kWords) >> kShift;
  constexpr int kBlocks = 16 / kGroupsPerBlock;  // of 16 groups
  const std::int64_t group_count = groups(w);
  const std::int64_t words_per_row = w.k * kBits / 32;
  const auto* words = reinterpret_cast<const std::uint32_t*>(w.weight.data) + n * words_per_row;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(w.scales.data) + n * group_count;
  const auto* biases = reinterpret_cast<const std::uint16_t*>(w.biases.data) + n * group_count;
  const bool half = w.scales.dtype == DType::kF16;
  const __m512i lane_group =
      _mm512_srli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), kShift);
  const std::size_t bytes = column_bytes(w);
  const std::int64_t sums_at = blocks(w) * kBlock * 2;

  __m512 sum[kColumns];
  for (int t = 0; t < kColumns; ++t) sum[t] = _mm512_setzero_ps();
  for (std::int64_t g = 0; g < group_count; g += 16) {
    const std::int64_t left = group_count - g;
    const __mmask16 mask = left >= 16 ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << left) - 1U);
    const __m512 scale = load16(scales + g, mask, half);
    const __m512 bias = load16(biases + g, mask, half);
    for (int t = 0; t < kColumns; ++t) {
      const auto* sums = reinterpret_cast<const float*>(packed + static_cast<std::size_t>(t) * bytes + sums_at);
      sum[t] = _mm512_fmadd_ps(bias, _mm512_loadu_ps(sums + g), sum[t]);
    }
    const std::uint32_t* at = words + (g << kShift);
    const std::byte* x = packed + (g << kShift) * (32 / kBits) * 2;
    if (left >= 16) {
#pragma GCC unroll 16
      for (int block = 0; block < kBlocks; ++block) {
        _mm_prefetch(reinterpret_cast<const char*>(at + block * kWords) + 2048, _MM_HINT_T0);
        const __m512i index = _mm512_add_epi32(lane_group, _mm512_set1_epi32(block * kGroupsPerBlock));
        block_product<kBits, kColumns>(_mm512_loadu_si512(at + block * kWords), _mm512_permutexvar_ps(index, scale),
                                       x + block * kBlock * 2, bytes, sum);
      }
      continue;
    }
    std::int64_t rest = words_per_row - (g << kShift);
    for (int block = 0; rest > 0; ++block, rest -= kWords) {
      const __mmask16 some = rest >= kWords ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << rest) - 1U);
      const __m512i index = _mm512_add_epi32(lane_group, _mm512_set1_epi32(block * kGroupsPerBlock));
      block_product<kBits, kColumns>(_mm512_maskz_loadu_epi32(some, at + block * kWords),
                                     _mm512_permutexvar_ps(index, scale), x + block * kBlock * 2, bytes, sum);
    }
  }
  for (int t = 0; t < kColumns; ++t) y[t * stride + n] = _mm512_reduce_add_ps(sum[t]);
}

template <int kColumns>
PERSONAPLEX_AVX512 void float_row(const Matrix& w, std::int64_t n, const std::byte* packed, float* y,
                                  std::int64_t stride) {
  const auto* weights = reinterpret_cast<const std::uint16_t*>(w.weight.data) + n * w.k;
  const std::size_t bytes = column_bytes(w);
  __m512 even[kColumns], odd[kColumns];
  for (int t = 0; t < kColumns; ++t) even[t] = odd[t] = _mm512_setzero_ps();
  std::int64_t i = 0;
  for (; i + 64 <= w.k; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(weights + i) + 2048, _MM_HINT_T0);
    const __m512i v0 = _mm512_loadu_si512(weights + i);
    const __m512i v1 = _mm512_loadu_si512(weights + i + 32);
    for (int t = 0; t < kColumns; ++t) {
      const auto* x = reinterpret_cast<const std::uint16_t*>(packed + static_cast<std::size_t>(t) * bytes) + i;
      even[t] = dot(even[t], v0, x);
      odd[t] = dot(odd[t], v1, x + 32);
    }
  }
  for (; i < w.k; i += 32) {
    const std::int64_t left = w.k - i;
    const __mmask32 mask = left >= 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1;
    const __m512i v = _mm512_maskz_loadu_epi16(mask, weights + i);
    for (int t = 0; t < kColumns; ++t) {
      const auto* x = reinterpret_cast<const std::uint16_t*>(packed + static_cast<std::size_t>(t) * bytes) + i;
      even[t] = dot(even[t], v, x);
    }
  }
  for (int t = 0; t < kColumns; ++t) y[t * stride + n] = _mm512_reduce_add_ps(_mm512_add_ps(even[t], odd[t]));
}

template <int kColumns>
void rows_of(const Matrix& w, const std::byte* packed, std::int64_t begin, std::int64_t end, float* y,
             std::int64_t stride) {
  for (std::int64_t n = begin; n < end; ++n) {
    if (w.bits == 4 && w.group_size == 64) {
      quantized_row<4, 3, kColumns>(w, n, packed, y, stride);
    } else if (w.bits == 4) {
      quantized_row<4, 2, kColumns>(w, n, packed, y, stride);
    } else if (w.bits == 8 && w.group_size == 64) {
      quantized_row<8, 4, kColumns>(w, n, packed, y, stride);
    } else if (w.bits == 8) {
      quantized_row<8, 3, kColumns>(w, n, packed, y, stride);
    } else {
      float_row<kColumns>(w, n, packed, y, stride);
    }
  }
}

void rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
          std::int64_t stride) {
  using Rows = void (*)(const Matrix&, const std::byte*, std::int64_t, std::int64_t, float*, std::int64_t);
  static constexpr Rows by_columns[kMaxColumns] = {rows_of<1>, rows_of<2>, rows_of<3>, rows_of<4>,
                                                   rows_of<5>, rows_of<6>, rows_of<7>, rows_of<8>};
  by_columns[columns - 1](w, packed, begin, end, y, stride);
}

}  // namespace

const MatmulKernels* avx512bf16_matmul() {
  static constexpr MatmulKernels kernels = {packed_bytes, pack, rows};
  return &kernels;
}

}  // namespace personaplex::cpu

#else

namespace personaplex::cpu {
const MatmulKernels* avx512bf16_matmul() { return nullptr; }
}  // namespace personaplex::cpu

#endif
