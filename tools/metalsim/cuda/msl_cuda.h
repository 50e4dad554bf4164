// tools/metalsim/cuda/msl_cuda.h: what kernel texts translated by metalsim.to_cuda need, for nvcc and NVRTC, which need
// no other header. The common part of both languages, not all of MSL: see README.md.
#pragma once

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef short int16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long uint64_t;
typedef long int64_t;
#else
#include <stdint.h>
#endif
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
#define METAL_FUNC __device__ __forceinline__
#define MSL_D __device__ __forceinline__

namespace msl_cuda {
template <bool B, class T = void>
struct enable {};
template <class T>
struct enable<true, T> {
  typedef T type;
};
template <class A, class B>
inline constexpr bool same = false;
template <class A>
inline constexpr bool same<A, A> = true;
template <class T>
inline constexpr bool integral =
    same<T, bool> || same<T, char> || same<T, signed char> || same<T, unsigned char> || same<T, short> ||
    same<T, unsigned short> || same<T, int> || same<T, unsigned> || same<T, long> || same<T, unsigned long> ||
    same<T, long long> || same<T, unsigned long long>;
template <class T>
struct bare {
  typedef T type;
};
template <class T>
struct bare<T&> {
  typedef T type;
};
template <class T>
struct bare<const T&> {
  typedef T type;
};
template <int I, class... A>
struct nth;
template <class A, class... B>
struct nth<0, A, B...> {
  typedef A type;
};
template <int I, class A, class... B>
struct nth<I, A, B...> {
  typedef typename nth<I - 1, B...>::type type;
};
template <class F>
struct parameters;
template <class... A>
struct parameters<void (*)(A...)> {
  template <int I>
  using at = typename nth<I, A...>::type;
};
/// The type of a kernel function's parameter I, and that of what a launch passes for it.
template <class F, int I>
using at = typename parameters<F>::template at<I>;
template <class F, int I>
using passed = typename bare<at<F, I>>::type;

#ifdef __CUDACC__
MSL_D unsigned short half_bits(float f) {
  unsigned short h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
MSL_D float half_value(unsigned short h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}
MSL_D unsigned short bfloat_bits(float f) {
  unsigned short b;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b) : "f"(f));
  return b;
}
#endif
}  // namespace msl_cuda

/// As MSL has it: half and float convert into each other implicitly, float to bfloat only explicitly.
struct msl_half {
  unsigned short bits;
  msl_half() = default;
  MSL_D msl_half(float f) : bits(msl_cuda::half_bits(f)) {}
  MSL_D msl_half(int i) : bits(msl_cuda::half_bits((float)i)) {}
  MSL_D operator float() const { return msl_cuda::half_value(bits); }
};
struct msl_bfloat {
  unsigned short bits;
  msl_bfloat() = default;
  template <class I, class = typename msl_cuda::enable<msl_cuda::integral<I>>::type>
  MSL_D msl_bfloat(I i) : bits(msl_cuda::bfloat_bits((float)i)) {}
  MSL_D explicit msl_bfloat(float f) : bits(msl_cuda::bfloat_bits(f)) {}
  MSL_D explicit msl_bfloat(msl_half h) : bits(msl_cuda::bfloat_bits((float)h)) {}
  MSL_D operator float() const { return __uint_as_float((unsigned)bits << 16); }
};
#define half msl_half
#define bfloat msl_bfloat
// Templates, so that no operand is converted to get here.
#define MSL_SHORT_FLOAT_OPERATOR(op)                                                                               \
  template <class T,                                                                                               \
            class = typename msl_cuda::enable<msl_cuda::same<T, msl_half> || msl_cuda::same<T, msl_bfloat>>::type> \
  MSL_D T operator op(T a, T b) {                                                                                  \
    return T((float)a op(float) b);                                                                                \
  }                                                                                                                \
  MSL_D msl_half& operator op## = (msl_half & a, msl_half b) { return a = a op b; }                                \
  MSL_D msl_bfloat& operator op## = (msl_bfloat & a, msl_bfloat b) { return a = a op b; }
MSL_SHORT_FLOAT_OPERATOR(+)
MSL_SHORT_FLOAT_OPERATOR(-)
MSL_SHORT_FLOAT_OPERATOR(*)
MSL_SHORT_FLOAT_OPERATOR(/)

template <class D, class S>
MSL_D D as_type(S s) {
  static_assert(sizeof(D) == sizeof(S), "as_type: sizes differ");
  union {
    S from;
    D to;
  } both;
  both.from = s;
  return both.to;
}

namespace metal {
namespace metal = ::metal;
using ::as_type;
template <class A, class B>
inline constexpr bool is_same_v = msl_cuda::same<A, B>;
template <bool B, class T = void>
using enable_if_t = typename msl_cuda::enable<B, T>::type;
template <class T>
inline constexpr bool is_integral_v = msl_cuda::integral<T>;
template <bool B, class T, class F>
struct conditional {
  typedef T type;
};
template <class T, class F>
struct conditional<false, T, F> {
  typedef F type;
};
template <bool B, class T, class F>
using conditional_t = typename conditional<B, T, F>::type;

// ---- vectors. The translation turns `.xy` and its like into calls: they can be read, not assigned to.
template <class T, int N>
struct vec;
#define MSL_VECTOR_OPERATOR(op)                                     \
  MSL_D vec operator op(vec o) const {                              \
    vec r;                                                          \
    for (int i = 0; i < n; i++) r[i] = (*this)[i] op o[i];          \
    return r;                                                       \
  }                                                                 \
  MSL_D vec operator op(T s) const { return *this op vec(s); }      \
  MSL_D friend vec operator op(T s, vec v) { return vec(s) op v; }  \
  MSL_D vec& operator op## = (vec o) { return *this = *this op o; } \
  MSL_D vec& operator op## = (T s) { return *this = *this op vec(s); }
#define MSL_VECTOR(N)                                        \
  static constexpr int n = N;                                \
  MSL_D T& operator[](int i) { return (&x)[i]; }             \
  MSL_D const T& operator[](int i) const { return (&x)[i]; } \
  vec() = default;                                           \
  MSL_D explicit vec(T s) {                                  \
    for (int i = 0; i < n; i++) (*this)[i] = s;              \
  }                                                          \
  template <class U>                                         \
  MSL_D explicit vec(vec<U, N> o) {                          \
    for (int i = 0; i < n; i++) (*this)[i] = (T)o[i];        \
  }                                                          \
  MSL_D vec operator-() const {                              \
    vec r;                                                   \
    for (int i = 0; i < n; i++) r[i] = -(*this)[i];          \
    return r;                                                \
  }                                                          \
  MSL_VECTOR_OPERATOR(+)                                     \
  MSL_VECTOR_OPERATOR(-)                                     \
  MSL_VECTOR_OPERATOR(*)                                     \
  MSL_VECTOR_OPERATOR(/)                                     \
  MSL_VECTOR_OPERATOR(&)                                     \
  MSL_VECTOR_OPERATOR(|)                                     \
  MSL_VECTOR_OPERATOR(^)                                     \
  MSL_VECTOR_OPERATOR(<<)                                    \
  MSL_VECTOR_OPERATOR(>>)                                    \
  MSL_VECTOR_OPERATOR(%)
template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  T x, y;
  MSL_VECTOR(2)
  MSL_D vec(T a, T b) : x(a), y(b) {}
  MSL_D vec xy() const { return *this; }
  MSL_D vec yx() const { return vec(y, x); }
};
template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
  T x, y, z;
  MSL_VECTOR(3)
  MSL_D vec(T a, T b, T c) : x(a), y(b), z(c) {}
  MSL_D vec(vec<T, 2> a, T b) : x(a.x), y(a.y), z(b) {}
  MSL_D vec<T, 2> xy() const { return {x, y}; }
  MSL_D vec<T, 2> yz() const { return {y, z}; }
};
template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  T x, y, z, w;
  MSL_VECTOR(4)
  MSL_D vec(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}
  MSL_D vec(vec<T, 2> a, vec<T, 2> b) : x(a.x), y(a.y), z(b.x), w(b.y) {}
  MSL_D vec(vec<T, 2> a, T b, T c) : x(a.x), y(a.y), z(b), w(c) {}
  MSL_D vec(vec<T, 3> a, T b) : x(a.x), y(a.y), z(a.z), w(b) {}
  MSL_D vec<T, 2> xy() const { return {x, y}; }
  MSL_D vec<T, 2> xz() const { return {x, z}; }
  MSL_D vec<T, 2> yw() const { return {y, w}; }
  MSL_D vec<T, 2> zw() const { return {z, w}; }
  MSL_D vec<T, 3> xyz() const { return {x, y, z}; }
  MSL_D vec yxwz() const { return {y, x, w, z}; }
  MSL_D vec zwxy() const { return {z, w, x, y}; }
  MSL_D vec wzyx() const { return {w, z, y, x}; }
};
template <class T, int N>
MSL_D T dot(vec<T, N> a, vec<T, N> b) {
  T r = a.x * b.x;
  for (int i = 1; i < N; i++) r = r + a[i] * b[i];
  return r;
}

// ---- barriers and simdgroups
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
MSL_D constexpr mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }
MSL_D void threadgroup_barrier(mem_flags) { __syncthreads(); }
MSL_D void simdgroup_barrier(mem_flags) { __syncwarp(); }
#ifdef __CUDACC__
MSL_D unsigned lane_index() {
  unsigned lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}
#else
MSL_D unsigned lane_index() { return ::msl::lane(); }
#endif
#define MSL_ALL_LANES 0xffffffffu
#define MSL_SHUFFLE(name, call)                                                                     \
  template <class T>                                                                                \
  MSL_D T name(T v, ushort n) {                                                                     \
    static_assert(sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) % 4 == 0, "shuffle size");          \
    if constexpr (sizeof(T) == 1) {                                                                 \
      return as_type<T>((uchar)call(MSL_ALL_LANES, (unsigned)as_type<uchar>(v), n));                \
    } else if constexpr (sizeof(T) == 2) {                                                          \
      return as_type<T>((ushort)call(MSL_ALL_LANES, (unsigned)as_type<ushort>(v), n));              \
    } else {                                                                                        \
      union {                                                                                       \
        T value;                                                                                    \
        unsigned word[sizeof(T) / 4];                                                               \
      } u;                                                                                          \
      u.value = v;                                                                                  \
      for (int i = 0; i < (int)(sizeof(T) / 4); i++) u.word[i] = call(MSL_ALL_LANES, u.word[i], n); \
      return u.value;                                                                               \
    }                                                                                               \
  }
MSL_SHUFFLE(simd_shuffle, __shfl_sync)
MSL_SHUFFLE(simd_broadcast, __shfl_sync)
MSL_SHUFFLE(simd_shuffle_xor, __shfl_xor_sync)
MSL_SHUFFLE(simd_shuffle_up, __shfl_up_sync)
MSL_SHUFFLE(simd_shuffle_down, __shfl_down_sync)
template <class T>
MSL_D T simd_broadcast_first(T v) {
  return simd_broadcast(v, (ushort)0);
}
#define MSL_REDUCTION(name, expression)     \
  template <class T>                        \
  MSL_D T name(T v) {                       \
    for (int m = 16; m; m >>= 1) {          \
      T o = simd_shuffle_xor(v, (ushort)m); \
      v = (T)(expression);                  \
    }                                       \
    return v;                               \
  }
MSL_REDUCTION(simd_sum, v + o)
MSL_REDUCTION(simd_product, v* o)
MSL_REDUCTION(simd_max, v < o ? o : v)
MSL_REDUCTION(simd_min, o < v ? o : v)
MSL_REDUCTION(simd_and, v& o)
MSL_REDUCTION(simd_or, v | o)
MSL_REDUCTION(simd_xor, v ^ o)
template <class T>
MSL_D T simd_prefix_inclusive_sum(T v) {
  const unsigned lane = lane_index();
  for (unsigned m = 1; m < 32; m <<= 1) {
    T o = simd_shuffle_up(v, (ushort)m);
    if (lane >= m) v = v + o;
  }
  return v;
}
template <class T>
MSL_D T simd_prefix_exclusive_sum(T v) {
  T before = simd_shuffle_up(simd_prefix_inclusive_sum(v), (ushort)1);
  return lane_index() ? before : T(0);
}
MSL_D bool simd_any(bool p) { return __any_sync(MSL_ALL_LANES, p); }
MSL_D bool simd_all(bool p) { return __all_sync(MSL_ALL_LANES, p); }
MSL_D bool simd_is_first() { return lane_index() == 0; }
struct simd_vote {
  uint64_t votes;
  MSL_D explicit operator uint64_t() const { return votes; }
  MSL_D bool all() const { return votes == MSL_ALL_LANES; }
  MSL_D bool any() const { return votes != 0; }
};
MSL_D simd_vote simd_ballot(bool p) { return {__ballot_sync(MSL_ALL_LANES, p)}; }

// ---- arithmetic
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

// ---- what a kernel's parameters are made from
namespace msl_cuda {
typedef metal::vec<uint, 3> uint3_;
template <class P>
MSL_D P builtin(uint3_ v) {
  if constexpr (integral<P>) {
    return (P)v.x;
  } else if constexpr (P::n == 2) {
    return P(v.x, v.y);
  } else {
    return P(v.x, v.y, v.z);
  }
}
template <class P>
MSL_D P builtin(uint v) {
  return (P)v;
}
MSL_D uint thread_index_in_threadgroup() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
MSL_D uint3_ thread_position_in_grid() {
  return uint3_(blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y,
                blockIdx.z * blockDim.z + threadIdx.z);
}
MSL_D uint3_ thread_position_in_threadgroup() { return uint3_(threadIdx.x, threadIdx.y, threadIdx.z); }
MSL_D uint3_ threadgroup_position_in_grid() { return uint3_(blockIdx.x, blockIdx.y, blockIdx.z); }
MSL_D uint3_ threads_per_threadgroup() { return uint3_(blockDim.x, blockDim.y, blockDim.z); }
MSL_D uint3_ threadgroups_per_grid() { return uint3_(gridDim.x, gridDim.y, gridDim.z); }
MSL_D uint3_ threads_per_grid() {
  return uint3_(gridDim.x * blockDim.x, gridDim.y * blockDim.y, gridDim.z * blockDim.z);
}
MSL_D uint thread_index_in_simdgroup() { return thread_index_in_threadgroup() & 31; }
MSL_D uint simdgroup_index_in_threadgroup() { return thread_index_in_threadgroup() >> 5; }
MSL_D uint simdgroups_per_threadgroup() { return (blockDim.x * blockDim.y * blockDim.z + 31) / 32; }
MSL_D uint threads_per_simdgroup() { return 32; }
MSL_D uint quadgroup_index_in_threadgroup() { return thread_index_in_threadgroup() >> 2; }
MSL_D uint thread_index_in_quadgroup() { return thread_index_in_threadgroup() & 3; }
#ifdef __CUDACC__
#define MSL_GRID_CONSTANT const __grid_constant__
MSL_D void* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char msl_dynamic[];
  return msl_dynamic;
}
#else
#define MSL_GRID_CONSTANT const
MSL_D void* dynamic_shared() {
  void* const* all = ::msl::context().threadgroup_buffers;
  while (!*all) all++;
  return *all;
}
#endif
}  // namespace msl_cuda

#define char2 metal::vec<signed char, 2>
#define char3 metal::vec<signed char, 3>
#define char4 metal::vec<signed char, 4>
#define uchar2 metal::vec<unsigned char, 2>
#define uchar3 metal::vec<unsigned char, 3>
#define uchar4 metal::vec<unsigned char, 4>
#define short2 metal::vec<short, 2>
#define short3 metal::vec<short, 3>
#define short4 metal::vec<short, 4>
#define ushort2 metal::vec<unsigned short, 2>
#define ushort3 metal::vec<unsigned short, 3>
#define ushort4 metal::vec<unsigned short, 4>
#define int2 metal::vec<int, 2>
#define int3 metal::vec<int, 3>
#define int4 metal::vec<int, 4>
#define uint2 metal::vec<unsigned, 2>
#define uint3 metal::vec<unsigned, 3>
#define uint4 metal::vec<unsigned, 4>
#define long2 metal::vec<long, 2>
#define long3 metal::vec<long, 3>
#define long4 metal::vec<long, 4>
#define ulong2 metal::vec<unsigned long, 2>
#define ulong3 metal::vec<unsigned long, 3>
#define ulong4 metal::vec<unsigned long, 4>
#define half2 metal::vec<msl_half, 2>
#define half3 metal::vec<msl_half, 3>
#define half4 metal::vec<msl_half, 4>
#define bfloat2 metal::vec<msl_bfloat, 2>
#define bfloat3 metal::vec<msl_bfloat, 3>
#define bfloat4 metal::vec<msl_bfloat, 4>
#define float2 metal::vec<float, 2>
#define float3 metal::vec<float, 3>
#define float4 metal::vec<float, 4>
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fc00000)
#endif
#ifndef FLT_MAX
#define FLT_MAX 3.402823466e+38f
#endif
#undef MAXFLOAT
#define MAXFLOAT 3.402823466e+38f
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f
#define M_LN2_F 0.69314718055994530942f
#define M_LN10_F 2.30258509299404568402f
#define M_LOG2E_F 1.44269504088896340736f
#define M_E_F 2.71828182845904523536f
