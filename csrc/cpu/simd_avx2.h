// csrc/cpu/simd_avx2.h: 8 lanes, AVX2 with FMA; see simd.h for the functions and for how to include it.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/simd_target.h"

PERSONAPLEX_TARGET_PUSH("avx2,fma")
#define PERSONAPLEX_SIMD_END PERSONAPLEX_TARGET_POP

namespace personaplex::cpu {

namespace {

struct Avx2 {
  using Vec = __m256;
  using Mask = __m256;
  static constexpr int kWidth = 8;
  static constexpr int kRegisters = 16;

  static PERSONAPLEX_INLINE __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
  }

  static PERSONAPLEX_INLINE Vec zero() { return _mm256_setzero_ps(); }
  static PERSONAPLEX_INLINE Vec set1(float x) { return _mm256_set1_ps(x); }

  static PERSONAPLEX_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static PERSONAPLEX_INLINE Vec load_n(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  static PERSONAPLEX_INLINE void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static PERSONAPLEX_INLINE void store_n(float* p, Vec v, int n) { _mm256_maskstore_ps(p, first(n), v); }

  static PERSONAPLEX_INLINE __m128i load_halves(const void* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static PERSONAPLEX_INLINE __m128i load_halves_n(const void* p, int n) {
    std::uint16_t values[8] = {};
    std::memcpy(values, p, static_cast<std::size_t>(n) * 2);
    return load_halves(values);
  }
  static PERSONAPLEX_INLINE Vec from_bf16(__m128i raw) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
  }
  static PERSONAPLEX_INLINE Vec load_bf16(const std::uint16_t* p) { return from_bf16(load_halves(p)); }
  static PERSONAPLEX_INLINE Vec load_bf16_n(const std::uint16_t* p, int n) { return from_bf16(load_halves_n(p, n)); }
  static PERSONAPLEX_INLINE Vec from_i16(__m128i raw) { return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(raw)); }
  static PERSONAPLEX_INLINE Vec load_i16(const std::int16_t* p) { return from_i16(load_halves(p)); }
  static PERSONAPLEX_INLINE Vec load_i16_n(const std::int16_t* p, int n) { return from_i16(load_halves_n(p, n)); }
  static PERSONAPLEX_INLINE Vec load_i8(const std::int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static PERSONAPLEX_INLINE Vec load_i8_n(const std::int8_t* p, int n) {
    std::int8_t values[8] = {};
    std::memcpy(values, p, static_cast<std::size_t>(n));
    return load_i8(values);
  }

  static PERSONAPLEX_INLINE void store_bf16(std::uint16_t* p, Vec v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
  }
  static PERSONAPLEX_INLINE void store_bf16_n(std::uint16_t* p, Vec v, int n) {
    std::uint16_t values[8];
    store_bf16(values, v);
    std::memcpy(p, values, static_cast<std::size_t>(n) * 2);
  }
  static PERSONAPLEX_INLINE void store_i8(std::int8_t* p, Vec v) {
    const __m256i whole = _mm256_cvtps_epi32(v);
    const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(halves, halves));
  }
  static PERSONAPLEX_INLINE void store_i8_n(std::int8_t* p, Vec v, int n) {
    std::int8_t values[8];
    store_i8(values, v);
    std::memcpy(p, values, static_cast<std::size_t>(n));
  }

  static PERSONAPLEX_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static PERSONAPLEX_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static PERSONAPLEX_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static PERSONAPLEX_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  static PERSONAPLEX_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
  static PERSONAPLEX_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  static PERSONAPLEX_INLINE Vec abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a); }
  static PERSONAPLEX_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static PERSONAPLEX_INLINE Mask less(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static PERSONAPLEX_INLINE Vec select(Mask mask, Vec a, Vec b) { return _mm256_blendv_ps(b, a, mask); }
  static PERSONAPLEX_INLINE Vec round(Vec v) {
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// In two factors: 2^n itself may not be representable. The first product is exact.
  static PERSONAPLEX_INLINE Vec scale2(Vec v, Vec n) {
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return mul(mul(v, power2(half)), power2(_mm256_sub_epi32(whole, half)));
  }
  static PERSONAPLEX_INLINE Vec power2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }

  static PERSONAPLEX_INLINE float sum(Vec v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
  }
  static PERSONAPLEX_INLINE float largest(Vec v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
  }

  /// In each 128 bits: the sums of a, b, c and d.
  static PERSONAPLEX_INLINE Vec sums4(Vec a, Vec b, Vec c, Vec d) {
    const Vec ab = add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const Vec cd = add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    return add(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
  }
  static PERSONAPLEX_INLINE Vec sums(const Vec* v) {
    const Vec a = sums4(v[0], v[1], v[2], v[3]);
    const Vec b = sums4(v[4], v[5], v[6], v[7]);
    return add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
};

}  // namespace

}  // namespace personaplex::cpu

#include "cpu/simd.h"
