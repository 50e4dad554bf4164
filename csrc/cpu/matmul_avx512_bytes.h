// csrc/cpu/matmul_avx512_bytes.h: activations as signed bytes for vpdpbusd, which adds four products of a weight
// (0..255) and a signed byte to 32 bits, exactly.
//
// x = scale * (128 * h + l), h and l signed bytes: off by at most 2^-15 of the largest x that has this scale. Products
// with h are shifted by 7 before those with l are added, so a sum is one exact integer. Without l, h alone is off by at
// most 2^-8.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "checkpoint/weights.h"

#define PERSONAPLEX_AVX512_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")))

namespace personaplex::cpu::avx512 {

inline constexpr std::int64_t kPart = 32;  // values that become bytes at a time

inline std::int64_t groups(const Matrix& w) { return w.k / w.group_size; }
inline std::int64_t round_up(std::int64_t n, std::int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// The bits of the largest |x| of 32: of a NaN, if there is one.
PERSONAPLEX_AVX512_VNNI inline std::uint32_t largest_bits(const float* x) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  return _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(x), magnitude),
                                                  _mm512_and_si512(_mm512_loadu_si512(x + 16), magnitude)));
}

PERSONAPLEX_AVX512_VNNI inline float from_bits(std::uint32_t bits) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(bits))));
}

struct Scale {
  float scale, inverse;
};

/// 128 * 127 is the largest integer. Values below 1e-30 count as zeros.
PERSONAPLEX_AVX512_VNNI inline Scale scale_for(std::uint32_t bits) {
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
PERSONAPLEX_AVX512_VNNI inline Bytes to_bytes(const float* x, float inverse, bool fine) {
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

}  // namespace personaplex::cpu::avx512

#endif
