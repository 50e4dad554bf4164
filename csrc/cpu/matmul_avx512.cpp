// csrc/cpu/matmul_avx512.cpp: bfloat16 weights with AVX-512, and the tables of kernels of the two instruction sets.
//
// avx512bf16 rounds x to bfloat16: vdpbf16ps adds two products a lane. avx512vnni keeps x in float32: 32 weights are 16
// even and 16 odd ones, a shift and a mask away from float32, and x is packed to match.
#include "cpu/matmul_avx512.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "cpu/matmul_by_columns.h"

// A template has one target for all its instantiations: this is the larger one's. Only Bf16's functions say an
// instruction of AVX512_BF16, and compilers do not come up with one by themselves.
#define PERSONAPLEX_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")))

namespace personaplex::cpu {

namespace {

constexpr std::int64_t kStep = 32;  // weights in a zmm
constexpr int kTileRows = 3;        // rows that share a load of x, where there are several columns

/// x as bfloat16, and its products.
struct Bf16 {
  static constexpr std::int64_t kBytes = kStep * 2;
  PERSONAPLEX_AVX512 static void pack(__m512 first, __m512 second, std::byte* out) {
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(second, first));
  }
  PERSONAPLEX_AVX512 static __m512 add(__m512 sum, __m512i w, const std::byte* x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)_mm512_loadu_si512(x));
  }
};

/// x as float32, the 16 even values in front of the odd ones.
struct F32 {
  static constexpr std::int64_t kBytes = kStep * 4;
  PERSONAPLEX_AVX512 static void pack(__m512 first, __m512 second, std::byte* out) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    _mm512_storeu_ps(out, _mm512_permutex2var_ps(first, even, second));
    _mm512_storeu_ps(out + 64, _mm512_permutex2var_ps(first, odd, second));
  }
  PERSONAPLEX_AVX512 static __m512 add(__m512 sum, __m512i w, const std::byte* x) {
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))));
    sum = _mm512_fmadd_ps(even, _mm512_loadu_ps(x), sum);
    return _mm512_fmadd_ps(odd, _mm512_loadu_ps(x + 64), sum);
  }
};

template <typename X>
std::int64_t column_bytes(const Matrix& w) {
  return (w.k + kStep - 1) / kStep * X::kBytes;
}

PERSONAPLEX_AVX512 inline __mmask16 first_lanes(std::int64_t n) {
  return n >= 16 ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << std::max<std::int64_t>(n, 0)) - 1U);
}

template <typename X>
PERSONAPLEX_AVX512 void float_pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  for (int t = 0; t < columns; ++t, x += w.k) {
    for (std::int64_t i = 0; i < w.k; i += kStep, packed += X::kBytes) {
      X::pack(_mm512_maskz_loadu_ps(first_lanes(w.k - i), x + i),
              _mm512_maskz_loadu_ps(first_lanes(w.k - i - 16), x + i + 16), packed);
    }
  }
}

PERSONAPLEX_AVX512 inline __m512i load_some(const std::uint16_t* at, std::int64_t left) {
  return _mm512_maskz_loadu_epi16(left >= kStep ? ~__mmask32{0} : (__mmask32{1} << left) - 1, at);
}

template <typename X>
PERSONAPLEX_AVX512 void one_column(const Matrix& w, const std::byte* x, std::int64_t begin, std::int64_t end,
                                   float* y) {
  constexpr std::int64_t kBlock = 4 * kStep;
  for (std::int64_t n = begin; n < end; ++n) {
    const auto* weights = reinterpret_cast<const std::uint16_t*>(w.weight.data) + n * w.k;
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    const std::byte* at = x;
    std::int64_t i = 0;
    for (; i + kBlock <= w.k; i += kBlock) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j, at += X::kBytes) {
        _mm_prefetch(reinterpret_cast<const char*>(weights + i + j * kStep) + 8192, _MM_HINT_T1);
        sum[j] = X::add(sum[j], _mm512_loadu_si512(weights + i + j * kStep), at);
      }
    }
    for (; i < w.k; i += kStep, at += X::kBytes) sum[0] = X::add(sum[0], load_some(weights + i, w.k - i), at);
    y[n] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
  }
}

/// Rows n .. n + kRows - 1. A row's sums have the same order whatever kRows is. (Loops over sums must unroll: an index
/// that is not a constant keeps them all in memory.)
template <typename X, int kColumns, int kRows>
PERSONAPLEX_AVX512 void some_rows(const Matrix& w, const std::byte* x, std::int64_t n, float* y, std::int64_t stride) {
  const auto* weights = reinterpret_cast<const std::uint16_t*>(w.weight.data) + n * w.k;
  const std::int64_t bytes = column_bytes<X>(w);
  __m512 sum[kRows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < kColumns; ++t) sum[r][t] = _mm512_setzero_ps();
  }
  std::int64_t i = 0;
  for (; i + kStep <= w.k; i += kStep, x += X::kBytes) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      _mm_prefetch(reinterpret_cast<const char*>(weights + (r + kRows) * w.k + i), _MM_HINT_T1);
      const __m512i v = _mm512_loadu_si512(weights + r * w.k + i);
#pragma GCC unroll 8
      for (int t = 0; t < kColumns; ++t) sum[r][t] = X::add(sum[r][t], v, x + t * bytes);
    }
  }
  if (i < w.k) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512i v = load_some(weights + r * w.k + i, w.k - i);
#pragma GCC unroll 8
      for (int t = 0; t < kColumns; ++t) sum[r][t] = X::add(sum[r][t], v, x + t * bytes);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < kColumns; ++t) y[t * stride + n + r] = _mm512_reduce_add_ps(sum[r][t]);
  }
}

template <typename X, int kColumns>
void several(const Matrix& w, const std::byte* packed, std::int64_t begin, std::int64_t end, float* y,
             std::int64_t stride) {
  std::int64_t n = begin;
  for (; n + kTileRows <= end; n += kTileRows) some_rows<X, kColumns, kTileRows>(w, packed, n, y, stride);
  for (; n < end; ++n) some_rows<X, kColumns, 1>(w, packed, n, y, stride);
}

template <typename X>
void float_rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
                std::int64_t stride) {
  if (columns == 1) return one_column<X>(w, packed, begin, end, y);
  by_columns(w, columns, begin, end, [&](int first, auto count, std::int64_t n, std::int64_t last) {
    several<X, count()>(w, packed + first * column_bytes<X>(w), n, last, y + first * stride, stride);
  });
}

template <typename X>
std::size_t packed_bytes(const Matrix& w, int columns) {
  if (!w.quantized()) return static_cast<std::size_t>(column_bytes<X>(w) * columns);
  return (columns <= avx512::kFewColumns ? avx512::few_packed_bytes : avx512::many_packed_bytes)(w, columns);
}

template <typename X>
void pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  if (!w.quantized()) return float_pack<X>(w, x, columns, packed);
  (columns <= avx512::kFewColumns ? avx512::few_pack : avx512::many_pack)(w, x, columns, packed);
}

template <typename X>
void rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
          std::int64_t stride) {
  if (!w.quantized()) return float_rows<X>(w, packed, columns, begin, end, y, stride);
  (columns <= avx512::kFewColumns ? avx512::few_rows : avx512::many_rows)(w, packed, columns, begin, end, y, stride);
}

template <typename X>
constexpr MatmulKernels kKernels = {packed_bytes<X>, pack<X>, rows<X>};

}  // namespace

const MatmulKernels* avx512vnni_matmul() { return &kKernels<F32>; }
const MatmulKernels* avx512bf16_matmul() { return &kKernels<Bf16>; }

}  // namespace personaplex::cpu

#else

namespace personaplex::cpu {
const MatmulKernels* avx512vnni_matmul() { return nullptr; }
const MatmulKernels* avx512bf16_matmul() { return nullptr; }
}  // namespace personaplex::cpu

#endif
