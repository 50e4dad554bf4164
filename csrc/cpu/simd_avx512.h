// csrc/cpu/simd_avx512.h: 16 lanes, AVX-512 F, BW, VL and DQ; see simd.h for the functions and for how to include it.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push  // g++ 12 warns about its own AVX-512 intrinsics: GCC bug 105593
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/simd_target.h"

PERSONAPLEX_TARGET_PUSH("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#define PERSONAPLEX_SIMD_END PERSONAPLEX_TARGET_POP

namespace personaplex::cpu {

namespace {

struct Avx512 {
  using Vec = __m512;
  using Mask = __mmask16;
  static constexpr int kWidth = 16;
  static constexpr int kRegisters = 32;

  static PERSONAPLEX_INLINE Mask first(int n) { return static_cast<Mask>((1U << n) - 1U); }

  static PERSONAPLEX_INLINE Vec zero() { return _mm512_setzero_ps(); }
  static PERSONAPLEX_INLINE Vec set1(float x) { return _mm512_set1_ps(x); }

  static PERSONAPLEX_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static PERSONAPLEX_INLINE Vec load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static PERSONAPLEX_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static PERSONAPLEX_INLINE void store_n(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }

  static PERSONAPLEX_INLINE Vec from_bf16(__m256i raw) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
  }
  static PERSONAPLEX_INLINE Vec load_bf16(const std::uint16_t* p) {
    return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static PERSONAPLEX_INLINE Vec load_bf16_n(const std::uint16_t* p, int n) {
    return from_bf16(_mm256_maskz_loadu_epi16(first(n), p));
  }
  static PERSONAPLEX_INLINE Vec load_i16(const std::int16_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  }
  static PERSONAPLEX_INLINE Vec load_i16_n(const std::int16_t* p, int n) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(first(n), p)));
  }
  static PERSONAPLEX_INLINE Vec load_i8(const std::int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static PERSONAPLEX_INLINE Vec load_i8_n(const std::int8_t* p, int n) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(n), p)));
  }

  static PERSONAPLEX_INLINE __m256i to_bf16(Vec v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
  }
  static PERSONAPLEX_INLINE void store_bf16(std::uint16_t* p, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(v));
  }
  static PERSONAPLEX_INLINE void store_bf16_n(std::uint16_t* p, Vec v, int n) {
    _mm256_mask_storeu_epi16(p, first(n), to_bf16(v));
  }
  static PERSONAPLEX_INLINE void store_i8(std::int8_t* p, Vec v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  static PERSONAPLEX_INLINE void store_i8_n(std::int8_t* p, Vec v, int n) {
    _mm_mask_storeu_epi8(p, first(n), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
  }

  static PERSONAPLEX_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static PERSONAPLEX_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static PERSONAPLEX_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static PERSONAPLEX_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static PERSONAPLEX_INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
  static PERSONAPLEX_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static PERSONAPLEX_INLINE Vec abs(Vec a) { return _mm512_abs_ps(a); }
  static PERSONAPLEX_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static PERSONAPLEX_INLINE Mask less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static PERSONAPLEX_INLINE Vec select(Mask mask, Vec a, Vec b) { return _mm512_mask_blend_ps(mask, b, a); }
  static PERSONAPLEX_INLINE Vec round(Vec v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT); }
  static PERSONAPLEX_INLINE Vec scale2(Vec v, Vec n) { return _mm512_scalef_ps(v, n); }

  static PERSONAPLEX_INLINE float sum(Vec v) { return _mm512_reduce_add_ps(v); }
  static PERSONAPLEX_INLINE float largest(Vec v) { return _mm512_reduce_max_ps(v); }

  /// In each 128 bits: the sums of a, b, c and d.
  static PERSONAPLEX_INLINE Vec sums4(Vec a, Vec b, Vec c, Vec d) {
    const Vec ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const Vec cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    return add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
  }
  static PERSONAPLEX_INLINE Vec sums(const Vec* v) {
    const Vec a = sums4(v[0], v[1], v[2], v[3]);
    const Vec b = sums4(v[4], v[5], v[6], v[7]);
    const Vec c = sums4(v[8], v[9], v[10], v[11]);
    const Vec d = sums4(v[12], v[13], v[14], v[15]);
    const Vec ab = add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    const Vec cd = add(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
    return add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
  }
};

}  // namespace

}  // namespace personaplex::cpu

#include "cpu/simd.h"
