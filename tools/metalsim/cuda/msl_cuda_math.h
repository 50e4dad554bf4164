// tools/metalsim/cuda/msl_cuda_math.h: MSL's arithmetic functions and atomics in CUDA.
#pragma once
#include "msl_cuda_types.h"

namespace metal {

#define MSL_UNARY(name, expression)                \
  MSL_D float name(float x) { return expression; } \
  template <int N>                                 \
  MSL_D vec<float, N> name(vec<float, N> v) {      \
    for (int i = 0; i < N; i++) v[i] = name(v[i]); \
    return v;                                      \
  }
#define MSL_SHARED_FUNCTIONS                                         \
  MSL_UNARY(sqrt, sqrtf(x))                                          \
  MSL_UNARY(rsqrt, 1.0f / sqrtf(x))                                  \
  MSL_UNARY(floor, floorf(x))                                        \
  MSL_UNARY(ceil, ceilf(x))                                          \
  MSL_UNARY(round, roundf(x))                                        \
  MSL_UNARY(rint, rintf(x))                                          \
  MSL_UNARY(trunc, truncf(x))                                        \
  MSL_UNARY(fabs, fabsf(x))                                          \
  MSL_UNARY(tanh, tanhf(x))                                          \
  MSL_UNARY(tan, tanf(x))                                            \
  MSL_UNARY(sinh, sinhf(x))                                          \
  MSL_UNARY(cosh, coshf(x))                                          \
  MSL_UNARY(asin, asinf(x))                                          \
  MSL_UNARY(acos, acosf(x))                                          \
  MSL_UNARY(atan, atanf(x))                                          \
  MSL_UNARY(exp2, exp2f(x))                                          \
  MSL_UNARY(fract, x - floorf(x))                                    \
  MSL_UNARY(saturate, fminf(fmaxf(x, 0.0f), 1.0f))                   \
  MSL_D float fmax(float a, float b) { return fmaxf(a, b); }         \
  MSL_D float fmin(float a, float b) { return fminf(a, b); }         \
  MSL_D float fmod(float a, float b) { return fmodf(a, b); }         \
  MSL_D float atan2(float a, float b) { return atan2f(a, b); }       \
  MSL_D float copysign(float a, float b) { return copysignf(a, b); } \
  MSL_D float divide(float a, float b) { return a / b; }             \
  MSL_D float pow(float a, float b) { return powf(a, b); }           \
  MSL_D float powr(float a, float b) { return powf(a, b); }
#define MSL_EXACT_FUNCTIONS               \
  MSL_UNARY(exp, expf(x))                 \
  MSL_UNARY(log, logf(x))                 \
  MSL_UNARY(log2, log2f(x))               \
  MSL_UNARY(log10, log10f(x))             \
  MSL_UNARY(sin, sinf(x))                 \
  MSL_UNARY(cos, cosf(x))                 \
  MSL_D float sincos(float x, float& c) { \
    c = cosf(x);                          \
    return sinf(x);                       \
  }
MSL_SHARED_FUNCTIONS
MSL_EXACT_FUNCTIONS
namespace precise {
MSL_SHARED_FUNCTIONS
MSL_EXACT_FUNCTIONS
}  // namespace precise
namespace fast {
MSL_SHARED_FUNCTIONS
MSL_UNARY(exp, __expf(x))
MSL_UNARY(log, __logf(x))
MSL_UNARY(log2, __log2f(x))
MSL_UNARY(sin, __sinf(x))
MSL_UNARY(cos, __cosf(x))
}  // namespace fast
MSL_D float fma(float a, float b, float c) { return fmaf(a, b, c); }
template <int N>
MSL_D vec<float, N> fma(vec<float, N> a, vec<float, N> b, vec<float, N> c) {
  for (int i = 0; i < N; i++) c[i] = fmaf(a[i], b[i], c[i]);
  return c;
}
MSL_D float mad(float a, float b, float c) { return a * b + c; }
MSL_D float ldexp(float a, int e) { return ldexpf(a, e); }
MSL_D float mix(float a, float b, float t) { return a + (b - a) * t; }
MSL_D float sign(float x) { return x > 0 ? 1.0f : (x < 0 ? -1.0f : 0.0f); }
MSL_D bool isnan(float x) { return x != x; }
MSL_D bool isinf(float x) { return fabsf(x) == __int_as_float(0x7f800000); }
MSL_D bool isfinite(float x) { return fabsf(x) < __int_as_float(0x7f800000); }
template <class T>
MSL_D constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
MSL_D constexpr T max(T a, T b) {
  return a < b ? b : a;
}
template <class T, int N>
MSL_D vec<T, N> min(vec<T, N> a, vec<T, N> b) {
  for (int i = 0; i < N; i++) a[i] = min(a[i], b[i]);
  return a;
}
template <class T, int N>
MSL_D vec<T, N> max(vec<T, N> a, vec<T, N> b) {
  for (int i = 0; i < N; i++) a[i] = max(a[i], b[i]);
  return a;
}
template <class T>
MSL_D constexpr T clamp(T x, T lo, T hi) {
  return min(max(x, lo), hi);
}
template <class T>
MSL_D constexpr T min3(T a, T b, T c) {
  return min(a, min(b, c));
}
template <class T>
MSL_D constexpr T max3(T a, T b, T c) {
  return max(a, max(b, c));
}
template <class T>
MSL_D T select(T a, T b, bool c) {
  return c ? b : a;
}
template <class T>
MSL_D T abs(T x) {
  return x < T(0) ? T(-x) : x;
}
MSL_D float abs(float x) { return fabsf(x); }
template <class T, int N>
MSL_D vec<T, N> abs(vec<T, N> v) {
  for (int i = 0; i < N; i++) v[i] = abs(v[i]);
  return v;
}
template <class T>
MSL_D T popcount(T x) {
  return sizeof(T) == 8 ? (T)__popcll((unsigned long long)x)
                        : (T)__popc((unsigned)x & (sizeof(T) == 4 ? ~0u : (1u << (8 * sizeof(T) % 32)) - 1));
}
MSL_D uint clz(uint x) { return __clz((int)x); }
MSL_D int clz(int x) { return __clz(x); }
MSL_D ulong clz(ulong x) { return __clzll((long long)x); }
MSL_D uint ctz(uint x) { return x ? __ffs((int)x) - 1 : 32; }
MSL_D ulong ctz(ulong x) { return x ? __ffsll((long long)x) - 1 : 64; }
MSL_D uint rotate(uint x, uint n) { return (x << (n & 31)) | (x >> ((32 - n) & 31)); }
MSL_D uint mulhi(uint a, uint b) { return __umulhi(a, b); }
MSL_D int mulhi(int a, int b) { return __mulhi(a, b); }
MSL_D ulong mulhi(ulong a, ulong b) { return __umul64hi(a, b); }
MSL_D uint extract_bits(uint x, uint offset, uint bits) {
  return bits ? (x >> offset) & (bits >= 32 ? ~0u : (1u << bits) - 1) : 0;
}

// ---- atomics
enum memory_order { memory_order_relaxed };
template <class T>
struct atomic {
  T v;
};
typedef atomic<uint> atomic_uint;
typedef atomic<int> atomic_int;
typedef atomic<float> atomic_float;
#define MSL_FETCH(name, call)                                                  \
  template <class T, class U>                                                  \
  MSL_D T atomic_##name##_explicit(volatile atomic<T>* a, U x, memory_order) { \
    return call((T*)&a->v, (T)x);                                              \
  }
MSL_FETCH(fetch_add, atomicAdd)
MSL_FETCH(fetch_sub, atomicSub)
MSL_FETCH(fetch_min, atomicMin)
MSL_FETCH(fetch_max, atomicMax)
MSL_FETCH(fetch_and, atomicAnd)
MSL_FETCH(fetch_or, atomicOr)
MSL_FETCH(fetch_xor, atomicXor)
MSL_FETCH(exchange, atomicExch)
template <class T>
MSL_D T atomic_load_explicit(const volatile atomic<T>* a, memory_order) {
  return *(const volatile T*)&a->v;
}
template <class T, class U>
MSL_D void atomic_store_explicit(volatile atomic<T>* a, U x, memory_order) {
  *(volatile T*)&a->v = (T)x;
}
template <class T, class U>
MSL_D bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* a, T* expected, U x, memory_order, memory_order) {
  const T before = atomicCAS((T*)&a->v, *expected, (T)x);
  const bool done = before == *expected;
  *expected = before;
  return done;
}
}  // namespace metal
