// csrc/cpu/simd_neon.h: 4 lanes, what every aarch64 processor has; see simd.h for the functions and for how to include
// it.
#pragma once

#include <arm_neon.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/simd_target.h"

#define PERSONAPLEX_SIMD_END  // nothing was switched

namespace personaplex::cpu {

namespace {

struct Neon {
  using Vec = float32x4_t;
  using Mask = uint32x4_t;
  static constexpr int kWidth = 4;
  static constexpr int kRegisters = 32;

  template <typename T>
  static PERSONAPLEX_INLINE void copy(T* to, const T* from, int n) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
  }

  static PERSONAPLEX_INLINE Vec zero() { return vdupq_n_f32(0.0F); }
  static PERSONAPLEX_INLINE Vec set1(float x) { return vdupq_n_f32(x); }

  static PERSONAPLEX_INLINE Vec load(const float* p) { return vld1q_f32(p); }
  static PERSONAPLEX_INLINE Vec load_n(const float* p, int n) {
    float values[4] = {};
    copy(values, p, n);
    return load(values);
  }
  static PERSONAPLEX_INLINE void store(float* p, Vec v) { vst1q_f32(p, v); }
  static PERSONAPLEX_INLINE void store_n(float* p, Vec v, int n) {
    float values[4];
    store(values, v);
    copy(p, values, n);
  }

  static PERSONAPLEX_INLINE Vec load_bf16(const std::uint16_t* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
  }
  static PERSONAPLEX_INLINE Vec load_bf16_n(const std::uint16_t* p, int n) {
    std::uint16_t values[4] = {};
    copy(values, p, n);
    return load_bf16(values);
  }
  static PERSONAPLEX_INLINE Vec load_i16(const std::int16_t* p) { return vcvtq_f32_s32(vmovl_s16(vld1_s16(p))); }
  static PERSONAPLEX_INLINE Vec load_i16_n(const std::int16_t* p, int n) {
    std::int16_t values[4] = {};
    copy(values, p, n);
    return load_i16(values);
  }
  static PERSONAPLEX_INLINE Vec load_i8(const std::int8_t* p) { return load_i8_n(p, 4); }
  static PERSONAPLEX_INLINE Vec load_i8_n(const std::int8_t* p, int n) {
    std::uint32_t values = 0;
    std::memcpy(&values, p, static_cast<std::size_t>(n));
    const int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(values));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
  }

  static PERSONAPLEX_INLINE void store_bf16(std::uint16_t* p, Vec v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    vst1_u16(p, vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), 16));
  }
  static PERSONAPLEX_INLINE void store_bf16_n(std::uint16_t* p, Vec v, int n) {
    std::uint16_t values[4];
    store_bf16(values, v);
    copy(p, values, n);
  }
  static PERSONAPLEX_INLINE void store_i8(std::int8_t* p, Vec v) { store_i8_n(p, v, 4); }
  static PERSONAPLEX_INLINE void store_i8_n(std::int8_t* p, Vec v, int n) {
    const int16x4_t halves = vqmovn_s32(vcvtnq_s32_f32(v));
    std::int8_t values[8];
    vst1_s8(values, vqmovn_s16(vcombine_s16(halves, halves)));
    copy(p, values, n);
  }

  static PERSONAPLEX_INLINE Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
  static PERSONAPLEX_INLINE Vec sub(Vec a, Vec b) { return vsubq_f32(a, b); }
  static PERSONAPLEX_INLINE Vec mul(Vec a, Vec b) { return vmulq_f32(a, b); }
  static PERSONAPLEX_INLINE Vec div(Vec a, Vec b) { return vdivq_f32(a, b); }
  static PERSONAPLEX_INLINE Vec min(Vec a, Vec b) { return vminq_f32(a, b); }
  static PERSONAPLEX_INLINE Vec max(Vec a, Vec b) { return vmaxq_f32(a, b); }
  static PERSONAPLEX_INLINE Vec abs(Vec a) { return vabsq_f32(a); }
  static PERSONAPLEX_INLINE Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
  static PERSONAPLEX_INLINE Mask less(Vec a, Vec b) { return vcltq_f32(a, b); }
  static PERSONAPLEX_INLINE Vec select(Mask mask, Vec a, Vec b) { return vbslq_f32(mask, a, b); }
  static PERSONAPLEX_INLINE Vec round(Vec v) { return vrndnq_f32(v); }
  /// In two factors: 2^n itself may not be representable. The first product is exact.
  static PERSONAPLEX_INLINE Vec scale2(Vec v, Vec n) {
    const int32x4_t whole = vcvtnq_s32_f32(n);
    const int32x4_t half = vshrq_n_s32(whole, 1);
    return mul(mul(v, power2(half)), power2(vsubq_s32(whole, half)));
  }
  static PERSONAPLEX_INLINE Vec power2(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
  }

  static PERSONAPLEX_INLINE float sum(Vec v) { return vaddvq_f32(v); }
  static PERSONAPLEX_INLINE float largest(Vec v) { return vmaxvq_f32(v); }
  static PERSONAPLEX_INLINE Vec sums(const Vec* v) {
    return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
  }
};

}  // namespace

}  // namespace personaplex::cpu

#include "cpu/simd.h"
