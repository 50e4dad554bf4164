// tools/metalsim/shim/msl_math.h: MSL's arithmetic functions. What MSL lacks (erf, log1p, expm1, ...) is left out, so
// that it does not compile here either.
#pragma once
#include "msl_types.h"

namespace metal {

#define MSL_UNARY(name, expression)                                      \
  inline float name(float x) { return expression; }                      \
  inline half name(half h) {                                             \
    const float x = h;                                                   \
    return (half)(expression);                                           \
  }                                                                      \
  template <class V, class = std::enable_if_t<is_vec_v<V>>>              \
  inline V name(V v) {                                                   \
    V r;                                                                 \
    for (int i = 0; i < size_v<V>; i++) r[i] = name((element_t<V>)v[i]); \
    return r;                                                            \
  }
#define MSL_BINARY(name, expression)                                                         \
  inline float name(float a, float b) { return expression; }                                 \
  inline half name(half ha, half hb) {                                                       \
    const float a = ha, b = hb;                                                              \
    return (half)(expression);                                                               \
  }                                                                                          \
  template <class V, class = std::enable_if_t<is_vec_v<V>>>                                  \
  inline V name(V a, V b) {                                                                  \
    V r;                                                                                     \
    for (int i = 0; i < size_v<V>; i++) r[i] = name((element_t<V>)a[i], (element_t<V>)b[i]); \
    return r;                                                                                \
  }
#define MSL_FLOAT_FUNCTIONS                               \
  MSL_UNARY(exp, __builtin_expf(x))                       \
  MSL_UNARY(exp2, __builtin_exp2f(x))                     \
  MSL_UNARY(exp10, __builtin_powf(10.0f, x))              \
  MSL_UNARY(log, __builtin_logf(x))                       \
  MSL_UNARY(log2, __builtin_log2f(x))                     \
  MSL_UNARY(log10, __builtin_log10f(x))                   \
  MSL_UNARY(sin, __builtin_sinf(x))                       \
  MSL_UNARY(cos, __builtin_cosf(x))                       \
  MSL_UNARY(tan, __builtin_tanf(x))                       \
  MSL_UNARY(sinh, __builtin_sinhf(x))                     \
  MSL_UNARY(cosh, __builtin_coshf(x))                     \
  MSL_UNARY(tanh, __builtin_tanhf(x))                     \
  MSL_UNARY(asin, __builtin_asinf(x))                     \
  MSL_UNARY(acos, __builtin_acosf(x))                     \
  MSL_UNARY(atan, __builtin_atanf(x))                     \
  MSL_UNARY(asinh, __builtin_asinhf(x))                   \
  MSL_UNARY(acosh, __builtin_acoshf(x))                   \
  MSL_UNARY(atanh, __builtin_atanhf(x))                   \
  MSL_UNARY(sinpi, __builtin_sinf(3.14159265358979f * x)) \
  MSL_UNARY(cospi, __builtin_cosf(3.14159265358979f * x)) \
  MSL_UNARY(tanpi, __builtin_tanf(3.14159265358979f * x)) \
  MSL_UNARY(sqrt, __builtin_sqrtf(x))                     \
  MSL_UNARY(rsqrt, 1.0f / __builtin_sqrtf(x))             \
  MSL_UNARY(floor, __builtin_floorf(x))                   \
  MSL_UNARY(ceil, __builtin_ceilf(x))                     \
  MSL_UNARY(round, __builtin_roundf(x))                   \
  MSL_UNARY(rint, __builtin_rintf(x))                     \
  MSL_UNARY(trunc, __builtin_truncf(x))                   \
  MSL_UNARY(fabs, __builtin_fabsf(x))                     \
  MSL_UNARY(fract, x - __builtin_floorf(x))               \
  MSL_UNARY(saturate, x < 0 ? 0.f : (x > 1 ? 1.f : x))    \
  MSL_BINARY(pow, __builtin_powf(a, b))                   \
  MSL_BINARY(powr, __builtin_powf(a, b))                  \
  MSL_BINARY(fmod, __builtin_fmodf(a, b))                 \
  MSL_BINARY(atan2, __builtin_atan2f(a, b))               \
  MSL_BINARY(fmin, __builtin_fminf(a, b))                 \
  MSL_BINARY(fmax, __builtin_fmaxf(a, b))                 \
  MSL_BINARY(copysign, __builtin_copysignf(a, b))         \
  inline float divide(float a, float b) { return a / b; } \
  inline float sincos(float x, float& cosine) {           \
    cosine = __builtin_cosf(x);                           \
    return __builtin_sinf(x);                             \
  }
MSL_FLOAT_FUNCTIONS
namespace fast {
MSL_FLOAT_FUNCTIONS
}
namespace precise {
MSL_FLOAT_FUNCTIONS
}

#define MSL_VECTOR_ONLY template <class V, class = std::enable_if_t<is_vec_v<V>>>
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline half fma(half a, half b, half c) { return (half)__builtin_fmaf(a, b, c); }
MSL_VECTOR_ONLY inline V fma(V a, V b, V c) {
  V r;
  for (int i = 0; i < size_v<V>; i++) r[i] = fma((element_t<V>)a[i], (element_t<V>)b[i], (element_t<V>)c[i]);
  return r;
}
inline float mad(float a, float b, float c) { return a * b + c; }
inline float ldexp(float a, int e) { return __builtin_ldexpf(a, e); }
inline float sign(float x) { return x > 0 ? 1.f : (x < 0 ? -1.f : 0.f); }
inline float mix(float a, float b, float t) { return a + (b - a) * t; }
inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool signbit(float x) { return __builtin_signbit(x); }

// One overload a type: mixed types are ambiguous, as in Metal.
#define MSL_ORDERED(T)                                       \
  inline constexpr T min(T a, T b) { return b < a ? b : a; } \
  inline constexpr T max(T a, T b) { return a < b ? b : a; } \
  inline constexpr T clamp(T x, T lo, T hi) { return min(max(x, lo), hi); }
MSL_ORDERED(char)
MSL_ORDERED(uchar)
MSL_ORDERED(short)
MSL_ORDERED(ushort)
MSL_ORDERED(int)
MSL_ORDERED(uint)
MSL_ORDERED(long)
MSL_ORDERED(ulong)
MSL_ORDERED(float)
MSL_ORDERED(half)
MSL_VECTOR_ONLY inline V min(V a, V b) { return __builtin_elementwise_min(a, b); }
MSL_VECTOR_ONLY inline V max(V a, V b) { return __builtin_elementwise_max(a, b); }
MSL_VECTOR_ONLY inline V clamp(V x, V lo, V hi) { return min(max(x, lo), hi); }
template <class T>
inline constexpr T min3(T a, T b, T c) {
  return min(a, min(b, c));
}
template <class T>
inline constexpr T max3(T a, T b, T c) {
  return max(a, max(b, c));
}
inline float abs(float x) { return __builtin_fabsf(x); }
inline half abs(half x) { return (half)__builtin_fabsf(x); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline short abs(short x) { return x < 0 ? -x : x; }
inline long abs(long x) { return x < 0 ? -x : x; }
MSL_VECTOR_ONLY inline V abs(V x) { return __builtin_elementwise_abs(x); }
template <class T>
inline T select(T a, T b, bool c) {
  return c ? b : a;
}
MSL_VECTOR_ONLY inline element_t<V> dot(V a, V b) {
  element_t<V> r = 0;
  for (int i = 0; i < size_v<V>; i++) r += a[i] * b[i];
  return r;
}

template <class T>
inline T popcount(T x) {
  return (T)__builtin_popcountll((std::make_unsigned_t<T>)x);
}
template <class T>
inline T clz(T x) {
  const unsigned long u = (std::make_unsigned_t<T>)x;
  return (T)(u ? __builtin_clzll(u) - (64 - 8 * (int)sizeof(T)) : 8 * (int)sizeof(T));
}
template <class T>
inline T ctz(T x) {
  const unsigned long u = (std::make_unsigned_t<T>)x;
  return (T)(u ? __builtin_ctzll(u) : 8 * (int)sizeof(T));
}
template <class T>
inline T reverse_bits(T x) {
  T r = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; i++) {
    r = (r << 1) | (x & 1);
    x >>= 1;
  }
  return r;
}
template <class T>
inline T rotate(T x, T by) {
  const int n = 8 * (int)sizeof(T), k = (int)by & (n - 1);
  return k ? (T)(((std::make_unsigned_t<T>)x << k) | ((std::make_unsigned_t<T>)x >> (n - k))) : x;
}
inline uint extract_bits(uint x, uint offset, uint bits) {
  return bits ? (x >> offset) & (bits >= 32 ? ~0u : ((1u << bits) - 1)) : 0;
}
template <class T>
inline T mulhi(T a, T b) {
  static_assert(std::is_integral_v<T>, "mulhi: integers");
  using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
  return (T)(((Wide)a * (Wide)b) >> (8 * sizeof(T)));
}

}  // namespace metal
