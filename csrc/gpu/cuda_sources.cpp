// csrc/gpu/cuda_sources.cpp: kernels/*.metal in CUDA C++. Written by tools/gpu/embed_kernels.py: do not edit.
// clang-format off
#include "gpu/cuda_sources.h"

namespace personaplex::gpu {

namespace {

constexpr char kHeader[] =
R"~(// tools/metalsim/cuda/msl_cuda_types.h: MSL's scalars and vectors in CUDA.

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
#if __CUDA_ARCH__ >= 800
  unsigned short b;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b) : "f"(f));
  return b;
#else
  const unsigned u = __float_as_uint(f);
  return f != f ? 0x7FFF : (unsigned short)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);  // to nearest, ties to even
#endif
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
)~"
R"~(  MSL_D vec yx() const { return vec(y, x); }
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

}  // namespace metal
// tools/metalsim/cuda/msl_cuda_simd.h: MSL's barriers and simdgroup operations in CUDA: a simdgroup is a warp.

namespace metal {

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

}  // namespace metal
// tools/metalsim/cuda/msl_cuda_math.h: MSL's arithmetic functions and atomics in CUDA.

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
)~"
R"~(  MSL_UNARY(log2, log2f(x))               \
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
// tools/metalsim/cuda/msl_cuda_kernel.h: what a kernel's parameters are made from in CUDA, and the macros that no CUDA
// header may meet.

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
)~"
R"~(#define bfloat4 metal::vec<msl_bfloat, 4>
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
namespace metal::kernels {
)~";

}  // namespace

std::vector<CudaSource> cuda_sources() {
  return {
      {"codec_attend.metal", std::string(kHeader) +
R"~(#line 1 "codec_attend.metal"
#line 20 "codec_attend.metal"
using namespace metal;

struct CodecAttendParams {
  int columns;
  int heads;
  int head_dim;
  int slots;
  uint offset;
  int outputs;
  int slices;
  int layer_scale;
  float factor;
};

const constexpr int kColumns = 2;
const constexpr int kThreads = 512;
const constexpr int kPage = 32;
const constexpr int kColumnWords = 6;
const constexpr int kSlotWord = 4;
const constexpr int kFirstWord = 2;
const constexpr int kMaxPositions = 512;
const constexpr int kMaxHeadDim = 128;
const constexpr int kAhead = 4;

METAL_FUNC void unpack8(uint4 q, float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

METAL_FUNC float dot4(float4 a, float4 b, float sum) {
  sum = metal::fma(a.x, b.x, sum);
  sum = metal::fma(a.y, b.y, sum);
  sum = metal::fma(a.z, b.z, sum);
  return metal::fma(a.w, b.w, sum);
}


METAL_FUNC const float4* row_of(uchar* const * pages, uint offset, int side, int slot,
                                       int head_dim) {
  const float* page = (const float*)(pages[slot / kPage] + offset);
  return (const float4*)(page + (side * kPage + slot % kPage) * head_dim);
}


METAL_FUNC int slot_of(int start, int i, int slots) { return start + i < slots ? start + i : start + i - slots; }

MSL_D void msl_codec_attend(
    const float* q ,
    const int* at ,
    uchar* const * pages ,
    const uint4* weights ,
    const float* scales ,
    const float* layer_scale ,
    float* partials ,
    const CodecAttendParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ) {
  __shared__ float weight[kColumns * kMaxPositions];
  __shared__ float4 gathered4[kColumns * kThreads];
  __shared__ float4 seen4[kColumns * kMaxHeadDim / 4];
  __shared__ float4 asked4[kColumns * kMaxHeadDim / 4];
  float* seen = (float*)seen4;
  float* asked = (float*)asked4;

  const int head = int(tgid.x);
  const int first = int(tgid.z) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int in_row = (p.head_dim + 7) / 8 * 8;


  const int* last = at + (first + columns - 1) * kColumnWords;
  int oldest = 0;
  for (int t = 0; t < columns; t++) oldest = max(oldest, last[0] - at[(first + t) * kColumnWords + kFirstWord]);
  const int count = oldest + 1;
  int start = last[kSlotWord] - oldest;
  if (start < 0) start += p.slots;

  for (int i = int(lid); i < kColumns * p.head_dim; i += kThreads) {
    const int t = i / p.head_dim;
    asked[i] = t < columns ? q[((first + t) * p.heads + head) * p.head_dim + i % p.head_dim] * p.factor : 0.0f;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);



  const int quads = p.head_dim / 4;
  const int together = kThreads / quads;
  const int group = int(lid) / quads;
  const int quad = int(lid) % quads;
  float4 v[kAhead];
  for (int u = 0; u < kAhead; u++) {
    const int slot = slot_of(start, min(group + u * together, count - 1), p.slots);
    v[u] = row_of(pages, p.offset, p.heads + head, slot, p.head_dim)[quad];
  }
  const int output = int(lane) % 8;
  const int octets = in_row / 8;
  const int panels = (p.outputs + 7) / 8;
  const int first_panel = panels * int(tgid.y) / p.slices + int(sg);
  uint4 ahead[kMaxHeadDim / 32];
  for (int u = 0; u < kMaxHeadDim / 32; u++) {
    const int o = min(int(lane) / 8 + 4 * u, octets - 1);
    ahead[u] =
        weights[((size_t(min(first_panel, panels - 1)) * size_t(p.heads) + size_t(head)) * size_t(octets) + o) * 8 +
                output];
  }


  constexpr int kStep = kThreads / 8;
  for (int base = 0; base < count; base += kAhead * kStep) {
    const int first_key = base + int(lid) / 8;
    const float4* keys[kAhead];
    float sums[kAhead * kColumns];
    for (int u = 0; u < kAhead; u++) {
      keys[u] =
          row_of(pages, p.offset, head, slot_of(start, min(first_key + u * kStep, count - 1), p.slots), p.head_dim);
      for (int t = 0; t < kColumns; t++) sums[u * kColumns + t] = 0.0f;
    }
    for (int j = int(lane) % 8; j < p.head_dim / 4; j += 8) {
      float4 k[kAhead];
      for (int u = 0; u < kAhead; u++) k[u] = keys[u][j];
      for (int t = 0; t < kColumns; t++) {
        const float4 x = asked4[t * (p.head_dim / 4) + j];
        for (int u = 0; u < kAhead; u++) sums[u * kColumns + t] = dot4(x, k[u], sums[u * kColumns + t]);
      }
    }
    for (int u = 0; u < kAhead; u++) {
      for (int t = 0; t < kColumns; t++) {
        float sum = sums[u * kColumns + t];
        for (int d = 1; d < 8; d *= 2) sum += simd_shuffle_xor(sum, ushort(d));
        const int i = first_key + u * kStep;
        if (lane % 8 == 0 && i < count) weight[t * kMaxPositions + i] = sum;
      }
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);


  float largest[kColumns];
  float total[kColumns];
  int from[kColumns];
  int to[kColumns];
  for (int t = 0; t < kColumns; t++) {
    from[t] = count - 1;
    to[t] = count;
    if (t < columns) {
      const int* column = at + (first + t) * kColumnWords;
      from[t] = oldest - (last[0] - column[kFirstWord]);
      to[t] = count - (last[0] - column[0]);
    }
    float most = -INFINITY;
    for (int u = 0; u < kMaxPositions / 32; u++) {
      const int i = u * 32 + int(lane);
      if (i >= from[t] && i < to[t]) most = max(most, weight[t * kMaxPositions + i]);
    }
    largest[t] = simd_max(most);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int t = 0; t < kColumns; t++) {
    for (int i = int(lid); i < count; i += kThreads) {
      const float score = weight[t * kMaxPositions + i];
      weight[t * kMaxPositions + i] = i >= from[t] && i < to[t] ? metal::precise::exp(score - largest[t]) : 0.0f;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int t = 0; t < kColumns; t++) {
    float sum = 0.0f;
    for (int u = 0; u < kMaxPositions / 32; u++) {
      const int i = u * 32 + int(lane);
      if (i < count) sum += weight[t * kMaxPositions + i];
    }
    total[t] = simd_sum(sum);
  }

  if (group < together) {
    float4 sums[kColumns] = {float4(0.0f), float4(0.0f)};
    for (int base = group; base < count; base += kAhead * together) {
      for (int u = 0; u < kAhead; u++) {
        const int i = base + u * together;
        if (i >= count) break;
        for (int t = 0; t < kColumns; t++) sums[t] += v[u] * weight[t * kMaxPositions + i];
      }
      for (int u = 0; u < kAhead; u++) {
        const int slot = slot_of(start, min(base + (kAhead + u) * together, count - 1), p.slots);
        v[u] = row_of(pages, p.offset, p.heads + head, slot, p.head_dim)[quad];
      }
    }
    for (int t = 0; t < kColumns; t++) gathered4[(group * kColumns + t) * quads + quad] = sums[t];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const float* gathered = (const float*)gathered4;
  for (int i = int(lid); i < kColumns * in_row; i += kThreads) {
    const int t = i / in_row;
    const int j = i % in_row;
    float sum = 0.0f;
    if (j < p.head_dim) {
      for (int g = 0; g < together; g++) sum += gathered[(g * kColumns + t) * p.head_dim + j];
    }
    seen[i] = sum / (t == 0 ? total[0] : total[1]);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);


  const int end = panels * (int(tgid.y) + 1) / p.slices;
  for (int panel = first_panel; panel < end; panel += kThreads / 32) {
    const uint4* w = weights + (size_t(panel) * size_t(p.heads) + size_t(head)) * size_t(octets * 8) + output;
    float sums[kColumns] = {0.0f, 0.0f};
    for (int u = 0; u < kMaxHeadDim / 32; u++) {
      const int o = int(lane) / 8 + 4 * u;
      if (o >= octets) break;
      float values[8];
)~"
R"~(      uint4 q8 = ahead[u];
      if (panel != first_panel) q8 = w[o * 8];
      unpack8(q8, values);
      for (int t = 0; t < kColumns; t++) {
        sums[t] = dot8(values, seen4[t * octets * 2 + o * 2], seen4[t * octets * 2 + o * 2 + 1], sums[t]);
      }
    }
    const int n = panel * 8 + output;
    for (int t = 0; t < kColumns; t++) {
      sums[t] += simd_shuffle_xor(sums[t], ushort(8));
      sums[t] += simd_shuffle_xor(sums[t], ushort(16));
      if (lane < 8 && t < columns && n < p.outputs) {
        const float y = sums[t] * scales[n];
        partials[(head * p.columns + first + t) * p.outputs + n] = p.layer_scale != 0 ? y * layer_scale[n] : y;
      }
    }
  }
}

#line 1 "the __global__ functions"
)~",
       {
           {"codec_attend", R"~(extern "C" __global__ __launch_bounds__(512) void codec_attend(msl_cuda::passed<decltype(&msl_codec_attend), 0> q, msl_cuda::passed<decltype(&msl_codec_attend), 1> at, msl_cuda::passed<decltype(&msl_codec_attend), 2> pages, msl_cuda::passed<decltype(&msl_codec_attend), 3> weights, msl_cuda::passed<decltype(&msl_codec_attend), 4> scales, msl_cuda::passed<decltype(&msl_codec_attend), 5> layer_scale, msl_cuda::passed<decltype(&msl_codec_attend), 6> partials, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_codec_attend), 7> p) { msl_codec_attend(q, at, pages, weights, scales, layer_scale, partials, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_attend), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_attend), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_attend), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_attend), 11>>(msl_cuda::simdgroup_index_in_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"codec_carry.metal", std::string(kHeader) +
R"~(#line 1 "codec_carry.metal"
#line 13 "codec_carry.metal"
using namespace metal;

struct CodecCarryParams {
  int windows;
};

MSL_D void msl_codec_carry(
    float* state ,
    const uint* windows ,
    const CodecCarryParams& p ,
    uint3 tgid ,
    uint lid ,
    uint simdgroups ) {
  if (int(tgid.x) >= p.windows) return;
  float* window = state + windows[4 * tgid.x];
  const uint carried = windows[4 * tgid.x + 1];
  const uint fresh = windows[4 * tgid.x + 2];
  const uint threads = simdgroups * 32;
  for (uint begin = 0; begin < carried; begin += threads) {
    const uint at = begin + lid;
    float value = 0.0f;
    if (at < carried) value = window[fresh + at];
    threadgroup_barrier(mem_flags::mem_device);
    if (at < carried) window[at] = value;
  }
}

#line 1 "the __global__ functions"
)~",
       {
           {"codec_carry", R"~(extern "C" __global__ __launch_bounds__(1024) void codec_carry(msl_cuda::passed<decltype(&msl_codec_carry), 0> state, msl_cuda::passed<decltype(&msl_codec_carry), 1> windows, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_codec_carry), 2> p) { msl_codec_carry(state, windows, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_carry), 3>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_carry), 4>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_carry), 5>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"codec_conv.metal", std::string(kHeader) +
R"~(#line 1 "codec_conv.metal"
#line 27 "codec_conv.metal"
using namespace metal;

struct CodecConvParams {
  int count;
  int outputs;
  int groups;
  int width;
  int row_stride;
  int group_stride;
  int splits;
  int flags;
  int replicate;
  int columns_in;
};

const constexpr int kStaged = 512;
const constexpr int kMaxSimdgroups = 8;

METAL_FUNC void unpack8(uint4 q, float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

template <int P, int O>
MSL_D void codec_conv(
    const float* window ,
    const uint4* weights ,
    const float* scales ,
    const float* bias ,
    const float* residual ,
    float* raw ,
    float* elu ,
    const int* is_first ,
    const CodecConvParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  constexpr int kChunk = kStaged / P;
  constexpr int kSharing = 32 / O;
  constexpr int kOctets = kChunk / 8 / kSharing;
  __shared__ float4 staged4[kMaxSimdgroups * kStaged / 4];
  float* staged = (float*)staged4;
  float* mine = staged + int(sg) * kStaged;

  const int split = int(sg) % p.splits;
  const int sets = int(simdgroups) / p.splits;
  const int first_output = (int(tgid.x) * sets + int(sg) / p.splits) * O;
  const int first = int(tgid.y) * P;
  const int in_group = (p.width + 7) / 8;
  const int octets = p.groups * in_group;
  const int begin = octets * split / p.splits;
  const int end = octets * (split + 1) / p.splits;
  const int fill = p.replicate > 0 && is_first[0] != 0 ? p.replicate * p.columns_in : 0;


  const int output = int(lane) % O;
  const int share = int(lane) / O;
  const int panel = min((first_output + output) / 8, (p.outputs + 7) / 8 - 1);
  const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output % 8;

  float sums[P];
  for (int m = 0; m < P; m++) sums[m] = 0.0f;
  for (int chunk = begin; chunk < end; chunk += kChunk / 8) {

    uint4 ahead[kOctets];
    for (int u = 0; u < kOctets; u++) ahead[u] = w[size_t(min(chunk + share + u * kSharing, end - 1)) * 8];
    float values[kStaged / 32];
    for (int u = 0; u < kStaged / 32; u++) {
      const int i = u * 32 + int(lane);
      const int m = first + i / kChunk;
      const int octet = chunk + i % kChunk / 8;
      const int group = p.groups == 1 ? 0 : octet / in_group;
      const int j = (octet - group * in_group) * 8 + i % 8;
      values[u] = 0.0f;
      if (m < p.count && octet < end && j < p.width) {
        int at = m * p.row_stride + group * p.group_stride + j;
        if (at < fill) at = fill + at % p.columns_in;
        values[u] = window[at];
      }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (int u = 0; u < kStaged / 32; u++) mine[u * 32 + int(lane)] = values[u];
    simdgroup_barrier(mem_flags::mem_threadgroup);

    for (int u = 0; u < kOctets; u++) {
      float weight[8];
      unpack8(ahead[u], weight);
      const float4* x = (const float4*)(mine + (share + u * kSharing) * 8);
      for (int m = 0; m < P; m++) sums[m] = dot8(weight, x[m * kChunk / 4], x[m * kChunk / 4 + 1], sums[m]);
    }
  }

  for (int m = 0; m < P; m++) {
    for (int d = O; d < 32; d *= 2) sums[m] += simd_shuffle_xor(sums[m], ushort(d));
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);
  if (share == 0) {
    for (int m = 0; m < P; m++) mine[m * O + output] = sums[m];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (int i = int(lid); i < sets * P * O; i += int(simdgroups) * 32) {
    const int m = first + i / O % P;
    const int n = (int(tgid.x) * sets + i / (O * P)) * O + i % O;
    if (m >= p.count || n >= p.outputs) continue;
    float sum = 0.0f;
    for (int s = 0; s < p.splits; s++) sum += staged[(i / (O * P) * p.splits + s) * kStaged + i % (O * P)];
    float y = sum * scales[n];
    if ((p.flags & 1) != 0) y += bias[n];
    const int at = m * p.outputs + n;
    if ((p.flags & 2) != 0) y += residual[at];
    if ((p.flags & 4) != 0) raw[at] = y;
    if ((p.flags & 8) != 0) elu[at] = y > 0.0f ? y : metal::precise::exp(y) - 1.0f;
  }
}





#line 1 "the __global__ functions"
)~",
       {
           {"codec_conv_p2_o8", R"~(extern "C" __global__ __launch_bounds__(256) void codec_conv_p2_o8(msl_cuda::passed<decltype(&codec_conv<2, 8>), 0> window, msl_cuda::passed<decltype(&codec_conv<2, 8>), 1> weights, msl_cuda::passed<decltype(&codec_conv<2, 8>), 2> scales, msl_cuda::passed<decltype(&codec_conv<2, 8>), 3> bias, msl_cuda::passed<decltype(&codec_conv<2, 8>), 4> residual, msl_cuda::passed<decltype(&codec_conv<2, 8>), 5> raw, msl_cuda::passed<decltype(&codec_conv<2, 8>), 6> elu, msl_cuda::passed<decltype(&codec_conv<2, 8>), 7> is_first, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_conv<2, 8>), 8> p) { codec_conv<2, 8>(window, weights, scales, bias, residual, raw, elu, is_first, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<2, 8>), 9>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<2, 8>), 10>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<2, 8>), 11>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<2, 8>), 12>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<2, 8>), 13>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"codec_conv_p8_o8", R"~(extern "C" __global__ __launch_bounds__(256) void codec_conv_p8_o8(msl_cuda::passed<decltype(&codec_conv<8, 8>), 0> window, msl_cuda::passed<decltype(&codec_conv<8, 8>), 1> weights, msl_cuda::passed<decltype(&codec_conv<8, 8>), 2> scales, msl_cuda::passed<decltype(&codec_conv<8, 8>), 3> bias, msl_cuda::passed<decltype(&codec_conv<8, 8>), 4> residual, msl_cuda::passed<decltype(&codec_conv<8, 8>), 5> raw, msl_cuda::passed<decltype(&codec_conv<8, 8>), 6> elu, msl_cuda::passed<decltype(&codec_conv<8, 8>), 7> is_first, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_conv<8, 8>), 8> p) { codec_conv<8, 8>(window, weights, scales, bias, residual, raw, elu, is_first, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 8>), 9>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 8>), 10>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 8>), 11>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 8>), 12>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 8>), 13>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"codec_conv_p8_o32", R"~(extern "C" __global__ __launch_bounds__(256) void codec_conv_p8_o32(msl_cuda::passed<decltype(&codec_conv<8, 32>), 0> window, msl_cuda::passed<decltype(&codec_conv<8, 32>), 1> weights, msl_cuda::passed<decltype(&codec_conv<8, 32>), 2> scales, msl_cuda::passed<decltype(&codec_conv<8, 32>), 3> bias, msl_cuda::passed<decltype(&codec_conv<8, 32>), 4> residual, msl_cuda::passed<decltype(&codec_conv<8, 32>), 5> raw, msl_cuda::passed<decltype(&codec_conv<8, 32>), 6> elu, msl_cuda::passed<decltype(&codec_conv<8, 32>), 7> is_first, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_conv<8, 32>), 8> p) { codec_conv<8, 32>(window, weights, scales, bias, residual, raw, elu, is_first, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 32>), 9>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 32>), 10>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 32>), 11>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 32>), 12>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_conv<8, 32>), 13>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"codec_dequantize.metal", std::string(kHeader) +
R"~(#line 1 "codec_dequantize.metal"
#line 16 "codec_dequantize.metal"
using namespace metal;

struct CodecDequantizeParams {
  int outputs;
  int d;
  int bins;
  int levels0;
  int levels1;
};

const constexpr int kMaxD = 512;
const constexpr int kParts = 2;

METAL_FUNC void unpack8(uint4 q, float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

MSL_D void msl_codec_dequantize(
    const float* codebooks ,
    const int* codes ,
    const uint4* weights ,
    const float* scales ,
    float* y ,
    const CodecDequantizeParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  __shared__ float4 x4[kParts * kMaxD / 4];
  float* x = (float*)x4;

  const int octets = (p.d + 7) / 8;
  for (int i = int(lid); i < kParts * octets * 8; i += int(simdgroups) * 32) {
    const int part = i / (octets * 8);
    const int j = i - part * octets * 8;
    float sum = 0.0f;
    if (j < p.d) {
      const int last = part == 0 ? p.levels0 : p.levels0 + p.levels1;
      for (int level = part == 0 ? 0 : p.levels0; level < last; level++) {
        const int code = min(max(codes[level], 0), p.bins - 1);
        sum += codebooks[(size_t(level) * p.bins + code) * p.d + j];
      }
    }
    x[i] = sum;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);


  const int panels = (p.outputs + 7) / 8;
  const int set = int(tgid.x) * int(simdgroups) + int(sg);
  const int n = set * 8 + int(lane) % 8;
  float sum = 0.0f;
  for (int part = 0; part < kParts; part++) {
    const uint4* w = weights + size_t(part * panels + min(set, panels - 1)) * size_t(octets * 8) + lane % 8;
    float of_part = 0.0f;
    for (int o = int(lane) / 8; o < octets; o += 4) {
      float values[8];
      unpack8(w[o * 8], values);
      of_part = dot8(values, x4[(part * octets + o) * 2], x4[(part * octets + o) * 2 + 1], of_part);
    }
    if (n < p.outputs) sum = metal::fma(of_part, scales[part * p.outputs + n], sum);
  }
  sum += simd_shuffle_xor(sum, ushort(8));
  sum += simd_shuffle_xor(sum, ushort(16));
  if (lane < 8 && n < p.outputs) y[n] = sum;
}

#line 1 "the __global__ functions"
)~",
       {
           {"codec_dequantize", R"~(extern "C" __global__ __launch_bounds__(1024) void codec_dequantize(msl_cuda::passed<decltype(&msl_codec_dequantize), 0> codebooks, msl_cuda::passed<decltype(&msl_codec_dequantize), 1> codes, msl_cuda::passed<decltype(&msl_codec_dequantize), 2> weights, msl_cuda::passed<decltype(&msl_codec_dequantize), 3> scales, msl_cuda::passed<decltype(&msl_codec_dequantize), 4> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_codec_dequantize), 5> p) { msl_codec_dequantize(codebooks, codes, weights, scales, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_dequantize), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_dequantize), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_dequantize), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_dequantize), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_dequantize), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"codec_linear.metal", std::string(kHeader) +
R"~(#line 1 "codec_linear.metal"
#line 24 "codec_linear.metal"
using namespace metal;

struct CodecLinearParams {
  int columns;
  int outputs;
  int inputs;
  int splits;
  int parts;
  int layer_scale;
};

enum Epilogue { kStore, kAdd, kGelu };

const constexpr int kColumns = 2;
const constexpr int kMaxSimdgroups = 8;
const constexpr int kStaged = 256;
const constexpr int kMaxNormed = 512;
const constexpr int kOwn = 4;
const constexpr int kParts = 8;

METAL_FUNC void unpack8(uint4 q, float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}



template <int A>
METAL_FUNC void ask(const uint4* w, int o, int end, uint4* ahead) {
  for (int u = 0; u < A; u++) ahead[u] = w[size_t(max(min(o + 4 * u, end - 1), 0)) * 8];
}


template <int A>
METAL_FUNC void add(const uint4* ahead, int o, int end, const float* x, int row,
                    float* sums) {
  for (int u = 0; u < A; u++) {
    if (o + 4 * u >= end) break;
    float values[8];
    unpack8(ahead[u], values);
    for (int t = 0; t < kColumns; t++) {
      const float4* x4 = (const float4*)(x + t * row + 4 * u * 8);
      sums[t] = dot8(values, x4[0], x4[1], sums[t]);
    }
  }
}


METAL_FUNC float gelu(float x) {
  const float z = metal::fabs(x) * 0.70710678f;
  const float t = 1.0f / metal::fma(z, 0.3275911f, 1.0f);
  float p = metal::fma(1.061405429f, t, -1.453152027f);
  p = metal::fma(p, t, 1.421413741f);
  p = metal::fma(p, t, -0.284496736f);
  p = metal::fma(p, t, 0.254829592f);
  const float tail = x * 0.5f * (p * t * metal::precise::exp(-z * z));
  return x < 0.0f ? tail : x - tail;
}

template <bool kNorm, int kEpilogue>
MSL_D void codec_linear(
    const float* x ,
    const float* partials ,
    const float* norm_weight ,
    const float* norm_bias ,
    const uint4* weights ,
    const float* scales ,
    const float* layer_scale ,
    float* y ,
    const CodecLinearParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  __shared__ float4 staged4[kColumns * (kNorm ? kMaxNormed : kMaxSimdgroups * kStaged) / 4];
  __shared__ float reduced[kMaxSimdgroups * kColumns * 8];
  float* staged = (float*)staged4;

  const int threads = int(simdgroups) * 32;
  const int split = int(sg) % p.splits;
  const int sets = int(simdgroups) / p.splits;
  const int first = int(tgid.y) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int octets = (p.inputs + 7) / 8;
  const int begin = octets * split / p.splits;
  const int end = octets * (split + 1) / p.splits;
  const int output = int(lane) % 8;
  const int share = int(lane) / 8;

  const int panel = min(int(tgid.x) * sets + int(sg) / p.splits, (p.outputs + 7) / 8 - 1);
  const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output;

  float sums[kColumns] = {0.0f, 0.0f};
  constexpr int kAhead = kNorm ? 4 : kStaged / 8 / 4;
  uint4 ahead[kAhead];
  if (kNorm) {
    ask<kAhead>(w, begin + share, end, ahead);
    const int row = octets * 8;
    float own[kOwn];
    float gain[kOwn];
    float offset[kOwn];
    for (int u = 0; u < kOwn; u++) {
      const int i = u * threads + int(lid);
      const int t = i < row ? 0 : 1;
      const int k = i - t * row;
      const bool here = k < p.inputs;
      own[u] = 0.0f;
      gain[u] = here ? norm_weight[k] : 0.0f;
      offset[u] = here ? norm_bias[k] : 0.0f;
      if (here && t < columns) {
        const int at = (first + t) * p.inputs + k;
        own[u] = x[at];
        for (int part = 0; part < p.parts; part += kParts) {
          float more[kParts];
          for (int v = 0; v < kParts; v++) {
            more[v] = part + v < p.parts ? partials[(part + v) * p.columns * p.inputs + at] : 0.0f;
          }
          for (int v = 0; v < kParts; v++) own[u] += more[v];
        }
      }
      if (i < kColumns * row) staged[i] = own[u];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float mean[kColumns];
    float factor[kColumns];
    for (int t = 0; t < kColumns; t++) {
      float values[kMaxNormed / 32];
      float sum = 0.0f;
      for (int u = 0; u < kMaxNormed / 32; u++) {
        const int k = u * 32 + int(lane);
        values[u] = k < p.inputs ? staged[t * row + k] : 0.0f;
        sum += values[u];
      }
      mean[t] = simd_sum(sum) / float(p.inputs);
      float squares = 0.0f;
      for (int u = 0; u < kMaxNormed / 32; u++) {
        const float d = u * 32 + int(lane) < p.inputs ? values[u] - mean[t] : 0.0f;
        squares = metal::fma(d, d, squares);
      }
      factor[t] = metal::precise::rsqrt(simd_sum(squares) / float(p.inputs) + 1e-5f);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int u = 0; u < kOwn; u++) {
      const int i = u * threads + int(lid);
      const float scaled = i < row ? (own[u] - mean[0]) * factor[0] : (own[u] - mean[1]) * factor[1];
      if (i < kColumns * row) staged[i] = scaled * gain[u] + offset[u];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int o = begin + share; o < end; o += 4 * kAhead) {
      if (o != begin + share) ask<kAhead>(w, o, end, ahead);
      add<kAhead>(ahead, o, end, staged + o * 8, row, sums);
    }
  } else {
    float* mine = staged + int(sg) * kColumns * kStaged;
    for (int chunk = begin; chunk < end; chunk += kStaged / 8) {
      const int last = min(end, chunk + kStaged / 8);
      ask<kAhead>(w, chunk + share, last, ahead);
      float values[kColumns * kStaged / 32];
      for (int u = 0; u < kColumns * kStaged / 32; u++) {
        const int i = u * 32 + int(lane);
        const int t = i / kStaged;
        const int k = chunk * 8 + i % kStaged;
        values[u] = t < columns && k < min(last * 8, p.inputs) ? x[(first + t) * p.inputs + k] : 0.0f;
      }
      simdgroup_barrier(mem_flags::mem_threadgroup);
      for (int u = 0; u < kColumns * kStaged / 32; u++) mine[u * 32 + int(lane)] = values[u];
      simdgroup_barrier(mem_flags::mem_threadgroup);
      add<kAhead>(ahead, chunk + share, last, mine + share * 8, kStaged, sums);
    }
  }

  for (int t = 0; t < kColumns; t++) {
    sums[t] += simd_shuffle_xor(sums[t], ushort(8));
    sums[t] += simd_shuffle_xor(sums[t], ushort(16));
    if (share == 0) reduced[(int(sg) * kColumns + t) * 8 + output] = sums[t];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (int i = int(lid); i < sets * kColumns * 8; i += threads) {
    const int set = i / (kColumns * 8);
    const int t = i / 8 % kColumns;
    const int n = (int(tgid.x) * sets + set) * 8 + i % 8;
    if (t >= columns || n >= p.outputs) continue;
    float v = 0.0f;
    for (int s = 0; s < p.splits; s++) v += reduced[(set * p.splits + s) * kColumns * 8 + i % (kColumns * 8)];
    v *= scales[n];
    const int at = (first + t) * p.outputs + n;
    if (kEpilogue == kStore) {
      y[at] = v;
    } else if (kEpilogue == kGelu) {
      y[at] = gelu(v);
    } else {
      float before = y[at];
      for (int part = 0; part < p.parts; part++) before += partials[part * p.columns * p.outputs + at];
      y[at] = before + (p.layer_scale != 0 ? v * layer_scale[n] : v);
    }
  }
}










#line 1 "the __global__ functions"
)~",
       {
           {"codec_linear_store", R"~(extern "C" __global__ __launch_bounds__(256) void codec_linear_store(msl_cuda::passed<decltype(&codec_linear<false, kStore>), 0> x, msl_cuda::passed<decltype(&codec_linear<false, kStore>), 1> partials, msl_cuda::passed<decltype(&codec_linear<false, kStore>), 2> norm_weight, msl_cuda::passed<decltype(&codec_linear<false, kStore>), 3> norm_bias, msl_cuda::passed<decltype(&codec_linear<false, kStore>), 4> weights, msl_cuda::passed<decltype(&codec_linear<false, kStore>), 5> scales, msl_cuda::passed<decltype(&codec_linear<false, kStore>), 6> layer_scale, msl_cuda::passed<decltype(&codec_linear<false, kStore>), 7> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_linear<false, kStore>), 8> p) { codec_linear<false, kStore>(x, partials, norm_weight, norm_bias, weights, scales, layer_scale, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kStore>), 9>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kStore>), 10>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kStore>), 11>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kStore>), 12>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kStore>), 13>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"codec_linear_add", R"~(extern "C" __global__ __launch_bounds__(256) void codec_linear_add(msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 0> x, msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 1> partials, msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 2> norm_weight, msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 3> norm_bias, msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 4> weights, msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 5> scales, msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 6> layer_scale, msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 7> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_linear<false, kAdd>), 8> p) { codec_linear<false, kAdd>(x, partials, norm_weight, norm_bias, weights, scales, layer_scale, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kAdd>), 9>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kAdd>), 10>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kAdd>), 11>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kAdd>), 12>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kAdd>), 13>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"codec_linear_gelu", R"~(extern "C" __global__ __launch_bounds__(256) void codec_linear_gelu(msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 0> x, msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 1> partials, msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 2> norm_weight, msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 3> norm_bias, msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 4> weights, msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 5> scales, msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 6> layer_scale, msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 7> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_linear<false, kGelu>), 8> p) { codec_linear<false, kGelu>(x, partials, norm_weight, norm_bias, weights, scales, layer_scale, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kGelu>), 9>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kGelu>), 10>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kGelu>), 11>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kGelu>), 12>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<false, kGelu>), 13>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"codec_linear_norm_store", R"~(extern "C" __global__ __launch_bounds__(256) void codec_linear_norm_store(msl_cuda::passed<decltype(&codec_linear<true, kStore>), 0> x, msl_cuda::passed<decltype(&codec_linear<true, kStore>), 1> partials, msl_cuda::passed<decltype(&codec_linear<true, kStore>), 2> norm_weight, msl_cuda::passed<decltype(&codec_linear<true, kStore>), 3> norm_bias, msl_cuda::passed<decltype(&codec_linear<true, kStore>), 4> weights, msl_cuda::passed<decltype(&codec_linear<true, kStore>), 5> scales, msl_cuda::passed<decltype(&codec_linear<true, kStore>), 6> layer_scale, msl_cuda::passed<decltype(&codec_linear<true, kStore>), 7> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_linear<true, kStore>), 8> p) { codec_linear<true, kStore>(x, partials, norm_weight, norm_bias, weights, scales, layer_scale, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kStore>), 9>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kStore>), 10>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kStore>), 11>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kStore>), 12>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kStore>), 13>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"codec_linear_norm_gelu", R"~(extern "C" __global__ __launch_bounds__(256) void codec_linear_norm_gelu(msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 0> x, msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 1> partials, msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 2> norm_weight, msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 3> norm_bias, msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 4> weights, msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 5> scales, msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 6> layer_scale, msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 7> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_linear<true, kGelu>), 8> p) { codec_linear<true, kGelu>(x, partials, norm_weight, norm_bias, weights, scales, layer_scale, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kGelu>), 9>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kGelu>), 10>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kGelu>), 11>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kGelu>), 12>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_linear<true, kGelu>), 13>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"codec_qkv.metal", std::string(kHeader) +
R"~(#line 1 "codec_qkv.metal"
#line 20 "codec_qkv.metal"
using namespace metal;

struct CodecQkvParams {
  int columns;
  int heads;
  int head_dim;
  int inputs;
  int splits;
  uint offset;
};

const constexpr int kColumns = 2;
const constexpr int kMaxSimdgroups = 8;
const constexpr int kMaxNormed = 512;
const constexpr int kOwn = 4;
const constexpr int kAhead = 4;
const constexpr int kPage = 32;
const constexpr int kColumnWords = 6;
const constexpr int kSlotWord = 4;

METAL_FUNC void unpack8(uint4 q, float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}



METAL_FUNC void ask(const uint4* w, int o, int end, uint4* ahead) {
  for (int u = 0; u < kAhead; u++) ahead[u] = w[size_t(max(min(o + 4 * u, end - 1), 0)) * 8];
}


METAL_FUNC void add(const uint4* ahead, int o, int end, const float* x, int row,
                    float* sums) {
  for (int u = 0; u < kAhead; u++) {
    if (o + 4 * u >= end) break;
    float values[8];
    unpack8(ahead[u], values);
    for (int t = 0; t < kColumns; t++) {
      const float4* x4 = (const float4*)(x + t * row + 4 * u * 8);
      sums[t] = dot8(values, x4[0], x4[1], sums[t]);
    }
  }
}

MSL_D void msl_codec_qkv(
    const float* x ,
    const float* norm_weight ,
    const float* norm_bias ,
    const uint4* weights ,
    const float* scales ,
    const float* angles ,
    const int* at ,
    uchar* const * pages ,
    float* q ,
    const CodecQkvParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  __shared__ float4 normed4[kColumns * kMaxNormed / 4];
  __shared__ float reduced[kMaxSimdgroups * kColumns * 8];
  float* normed = (float*)normed4;

  const int threads = int(simdgroups) * 32;
  const int width = p.heads * p.head_dim;
  const int split = int(sg) % p.splits;
  const int sets = int(simdgroups) / p.splits;
  const int first = int(tgid.y) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int octets = (p.inputs + 7) / 8;
  const int row = octets * 8;
  const int begin = octets * split / p.splits;
  const int end = octets * (split + 1) / p.splits;
  const int output = int(lane) % 8;
  const int share = int(lane) / 8;

  const int panel = min(int(tgid.x) * sets + int(sg) / p.splits, (3 * width + 7) / 8 - 1);
  const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output;

  float sums[kColumns] = {0.0f, 0.0f};
  uint4 ahead[kAhead];
  ask(w, begin + share, end, ahead);
  float own[kOwn];
  float gain[kOwn];
  float offset[kOwn];
  for (int u = 0; u < kOwn; u++) {
    const int i = u * threads + int(lid);
    const int t = i < row ? 0 : 1;
    const int k = i - t * row;
    const bool here = k < p.inputs;
    own[u] = here && t < columns ? x[(first + t) * p.inputs + k] : 0.0f;
    gain[u] = here ? norm_weight[k] : 0.0f;
    offset[u] = here ? norm_bias[k] : 0.0f;
    if (i < kColumns * row) normed[i] = own[u];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float mean[kColumns];
  float factor[kColumns];
  for (int t = 0; t < kColumns; t++) {
    float values[kMaxNormed / 32];
    float sum = 0.0f;
    for (int u = 0; u < kMaxNormed / 32; u++) {
      const int k = u * 32 + int(lane);
      values[u] = k < p.inputs ? normed[t * row + k] : 0.0f;
      sum += values[u];
    }
    mean[t] = simd_sum(sum) / float(p.inputs);
    float squares = 0.0f;
    for (int u = 0; u < kMaxNormed / 32; u++) {
      const float d = u * 32 + int(lane) < p.inputs ? values[u] - mean[t] : 0.0f;
      squares = metal::fma(d, d, squares);
    }
    factor[t] = metal::precise::rsqrt(simd_sum(squares) / float(p.inputs) + 1e-5f);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int u = 0; u < kOwn; u++) {
    const int i = u * threads + int(lid);
    const float scaled = i < row ? (own[u] - mean[0]) * factor[0] : (own[u] - mean[1]) * factor[1];
    if (i < kColumns * row) normed[i] = scaled * gain[u] + offset[u];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (int o = begin + share; o < end; o += 4 * kAhead) {
    if (o != begin + share) ask(w, o, end, ahead);
    add(ahead, o, end, normed + o * 8, row, sums);
  }
  for (int t = 0; t < kColumns; t++) {
    sums[t] += simd_shuffle_xor(sums[t], ushort(8));
    sums[t] += simd_shuffle_xor(sums[t], ushort(16));
    if (share == 0) reduced[(int(sg) * kColumns + t) * 8 + output] = sums[t];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);


  for (int i = int(lid); i < sets * kColumns * 4; i += threads) {
    const int set = i / (kColumns * 4);
    const int t = i / 4 % kColumns;
    const int n = (int(tgid.x) * sets + set) * 8 + i % 4 * 2;
    if (t >= columns || n >= 3 * width) continue;
    float a = 0.0f;
    float b = 0.0f;
    for (int s = 0; s < p.splits; s++) {
      const int from = ((set * p.splits + s) * kColumns + t) * 8 + i % 4 * 2;
      a += reduced[from];
      b += reduced[from + 1];
    }
    a *= scales[n];
    b *= scales[n + 1];
    const int kind = n / width;
    const int in_kind = n - kind * width;
    const int head = in_kind / p.head_dim;
    const int in_head = in_kind - head * p.head_dim;
    if (kind < 2) {
      const int pair = (first + t) * p.head_dim + in_head;
      const float c = angles[pair];
      const float s = angles[pair + 1];
      const float rotated = a * c - b * s;
      b = a * s + b * c;
      a = rotated;
    }
    if (kind == 0) {
      q[(first + t) * width + in_kind] = a;
      q[(first + t) * width + in_kind + 1] = b;
    } else {
      const int slot = at[(first + t) * kColumnWords + kSlotWord];
      float* page = (float*)(pages[slot / kPage] + p.offset);
      const int cell = (((kind - 1) * p.heads + head) * kPage + slot % kPage) * p.head_dim + in_head;
      page[cell] = a;
      page[cell + 1] = b;
    }
  }
}

#line 1 "the __global__ functions"
)~",
       {
           {"codec_qkv", R"~(extern "C" __global__ __launch_bounds__(256) void codec_qkv(msl_cuda::passed<decltype(&msl_codec_qkv), 0> x, msl_cuda::passed<decltype(&msl_codec_qkv), 1> norm_weight, msl_cuda::passed<decltype(&msl_codec_qkv), 2> norm_bias, msl_cuda::passed<decltype(&msl_codec_qkv), 3> weights, msl_cuda::passed<decltype(&msl_codec_qkv), 4> scales, msl_cuda::passed<decltype(&msl_codec_qkv), 5> angles, msl_cuda::passed<decltype(&msl_codec_qkv), 6> at, msl_cuda::passed<decltype(&msl_codec_qkv), 7> pages, msl_cuda::passed<decltype(&msl_codec_qkv), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_codec_qkv), 9> p) { msl_codec_qkv(x, norm_weight, norm_bias, weights, scales, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_qkv), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_qkv), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_qkv), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_qkv), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_qkv), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"codec_quantize.metal", std::string(kHeader) +
R"~(#line 1 "codec_quantize.metal"
#line 18 "codec_quantize.metal"
using namespace metal;

struct CodecQuantizeParams {
  int step;
  int levels0;
  int levels1;
  int bins;
  int d;
  int groups;
};

const constexpr int kMaxD = 512;
const constexpr int kMaxSimdgroups = 32;
const constexpr int kParts = 2;

MSL_D void msl_codec_quantize(
    const float* codebooks ,
    float* residual ,
    float* distances ,
    int* indices ,
    int* codes ,
    const CodecQuantizeParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  __shared__ float x[kMaxD];
  __shared__ float nearest[kMaxSimdgroups];
  __shared__ int nearest_at[kMaxSimdgroups];

  const int part = int(tgid.y);
  const int group = int(tgid.x);
  const int levels = part == 0 ? p.levels0 : p.levels1;
  const int first_level = part == 0 ? 0 : p.levels0;
  const int now = p.step % 2;
  const int before = 1 - now;
  if (p.step > levels || (p.step == levels && group > 0)) return;

  int code = -1;
  if (p.step > 0) {
    const float* distance = distances + (before * kParts + part) * p.groups;
    const int* index = indices + (before * kParts + part) * p.groups;
    float least = INFINITY;
    int at = 0x7fffffff;
    for (int g = int(lane); g < p.groups; g += 32) {
      if (distance[g] < least || (distance[g] == least && index[g] < at)) {
        least = distance[g];
        at = index[g];
      }
    }
    const float least_of_all = simd_min(least);
    code = simd_min(least == least_of_all ? at : 0x7fffffff);
    code = min(max(code, 0), p.bins - 1);
    if (group == 0 && lid == 0) codes[first_level + p.step - 1] = code;
  }

  const float* from = residual + ((p.step == 0 ? 0 : before) * kParts + part) * p.d;
  const float* codeword = codebooks + (size_t(max(first_level + p.step - 1, 0)) * p.bins + max(code, 0)) * p.d;
  for (int i = int(lid); i < p.d; i += int(simdgroups) * 32) {
    const float value = p.step == 0 ? from[i] : from[i] - codeword[i];
    x[i] = value;
    if (group == 0 && p.step > 0) residual[(now * kParts + part) * p.d + i] = value;
  }
  if (p.step == levels) return;
  threadgroup_barrier(mem_flags::mem_threadgroup);

  const float* level = codebooks + size_t(first_level + p.step) * p.bins * p.d;
  const int begin = p.bins * group / p.groups;
  const int end = p.bins * (group + 1) / p.groups;
  float least = INFINITY;
  int at = begin;
  float mine[kMaxD / 32];
  for (int u = 0; u < kMaxD / 32; u++) mine[u] = u * 32 + int(lane) < p.d ? x[u * 32 + int(lane)] : 0.0f;
  for (int c = begin + int(sg); c < end; c += int(simdgroups)) {
    float sum = 0.0f;
    for (int u = 0; u < kMaxD / 32; u++) {
      const int i = u * 32 + int(lane);
      const float difference = i < p.d ? mine[u] - level[size_t(c) * p.d + i] : 0.0f;
      sum = metal::fma(difference, difference, sum);
    }
    sum = simd_sum(sum);
    if (sum < least) {
      least = sum;
      at = c;
    }
  }
  if (lane == 0) {
    nearest[sg] = least;
    nearest_at[sg] = at;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lid == 0) {
    for (int s = 1; s < int(simdgroups); s++) {
      if (nearest[s] < least || (nearest[s] == least && nearest_at[s] < at)) {
        least = nearest[s];
        at = nearest_at[s];
      }
    }
    distances[(now * kParts + part) * p.groups + group] = least;
    indices[(now * kParts + part) * p.groups + group] = at;
  }
}

#line 1 "the __global__ functions"
)~",
       {
           {"codec_quantize", R"~(extern "C" __global__ __launch_bounds__(1024) void codec_quantize(msl_cuda::passed<decltype(&msl_codec_quantize), 0> codebooks, msl_cuda::passed<decltype(&msl_codec_quantize), 1> residual, msl_cuda::passed<decltype(&msl_codec_quantize), 2> distances, msl_cuda::passed<decltype(&msl_codec_quantize), 3> indices, msl_cuda::passed<decltype(&msl_codec_quantize), 4> codes, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_codec_quantize), 5> p) { msl_codec_quantize(codebooks, residual, distances, indices, codes, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_quantize), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_quantize), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_quantize), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_quantize), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_quantize), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"codec_residual.metal", std::string(kHeader) +
R"~(#line 1 "codec_residual.metal"
#line 23 "codec_residual.metal"
using namespace metal;

struct CodecResidualParams {
  int count;
  int channels;
  int hidden;
  int taps;
  int dilation;
  int flags;
};

const constexpr int kWindow = 3072;
const constexpr int kHidden = 1024;
const constexpr int kSums = 2048;
const constexpr int kAhead = 8;

METAL_FUNC void unpack8(uint4 q, float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

METAL_FUNC float elu_of(float y) { return y > 0.0f ? y : metal::precise::exp(y) - 1.0f; }


METAL_FUNC int parts_of(int outputs, int simdgroups) { return max(1, simdgroups / ((outputs + 31) / 32)); }



template <int P>
METAL_FUNC void part_of_set(const uint4* weights, int outputs, int groups, int width, int set, int part,
                            int parts, const float* x, int row, int dilation, uint lane,
                            float* sums) {
  const int in_group = (width + 7) / 8;
  const int octets = groups * in_group;
  const int begin = octets * part / parts;
  const int end = octets * (part + 1) / parts;
  const int panel = min(set * 4 + int(lane) / 8, (outputs + 7) / 8 - 1);
  const uint4* w = weights + size_t(panel) * size_t(octets * 8) + lane % 8;
  float sum[P];
  for (int m = 0; m < P; m++) sum[m] = 0.0f;
  int group = begin / in_group;
  int in = begin - group * in_group;
  for (int base = begin; base < end; base += kAhead) {
    uint4 ahead[kAhead];
    for (int u = 0; u < kAhead; u++) ahead[u] = w[size_t(min(base + u, end - 1)) * 8];
    for (int u = 0; u < kAhead; u++) {
      if (base + u >= end) break;
      float values[8];
      unpack8(ahead[u], values);
      const float* at = x + group * dilation * row + in * 8;
      for (int m = 0; m < P; m++) {
        const float4* x4 = (const float4*)(at + m * row);
        sum[m] = dot8(values, x4[0], x4[1], sum[m]);
      }
      in++;
      if (in == in_group) {
        in = 0;
        group++;
      }
    }
  }
  for (int m = 0; m < P; m++) sums[m * 32 + int(lane)] = sum[m];
}

template <int P>
MSL_D void codec_residual(
    const float* window ,
    const float* x ,
    const uint4* weights1 ,
    const float* scales1 ,
    const float* bias1 ,
    const uint4* weights2 ,
    const float* scales2 ,
    const float* bias2 ,
    float* raw ,
    float* elu ,
    const CodecResidualParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  __shared__ float4 seen4[kWindow / 4];
  __shared__ float4 inner4[kHidden / 4];
  __shared__ float sums[kSums];
  float* seen = (float*)seen4;
  float* inner = (float*)inner4;

  const int threads = int(simdgroups) * 32;
  const int first = int(tgid.x) * P;
  const int row = (p.channels + 7) / 8 * 8;
  const int inner_row = (p.hidden + 7) / 8 * 8;
  const int carried = (p.taps - 1) * p.dilation;

  for (int i = int(lid); i < (P + carried) * row; i += threads) {
    const int column = first + i / row;
    const int c = i % row;
    seen[i] = c < p.channels && column < carried + p.count ? window[column * p.channels + c] : 0.0f;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);


  const int sets1 = (p.hidden + 31) / 32;
  const int parts1 = parts_of(p.hidden, int(simdgroups));
  const int together1 = int(simdgroups) / parts1;
  for (int base = 0; base < sets1; base += together1) {
    const int set = base + int(sg) / parts1;
    if (int(sg) < together1 * parts1 && set < sets1) {
      part_of_set<P>(weights1, p.hidden, p.taps, p.channels, set, int(sg) % parts1, parts1, seen, row, p.dilation, lane,
                     sums + int(sg) * P * 32);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < min(together1, sets1 - base) * P * 32; i += threads) {
      const int h = (base + i / (P * 32)) * 32 + i % 32;
      if (h >= inner_row) continue;
      float sum = 0.0f;
      for (int part = 0; part < parts1; part++) sum += sums[(i / (P * 32) * parts1 + part) * P * 32 + i % (P * 32)];
      float y = 0.0f;
      if (h < p.hidden) y = elu_of(sum * scales1[h] + ((p.flags & 1) != 0 ? bias1[h] : 0.0f));
      inner[i / 32 % P * inner_row + h] = y;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  const int sets2 = (p.channels + 31) / 32;
  const int parts2 = parts_of(p.channels, int(simdgroups));
  const int together2 = int(simdgroups) / parts2;
  for (int base = 0; base < sets2; base += together2) {
    const int set = base + int(sg) / parts2;
    if (int(sg) < together2 * parts2 && set < sets2) {
      part_of_set<P>(weights2, p.channels, 1, p.hidden, set, int(sg) % parts2, parts2, inner, inner_row, 0, lane,
                     sums + int(sg) * P * 32);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < min(together2, sets2 - base) * P * 32; i += threads) {
      const int m = first + i / 32 % P;
      const int n = (base + i / (P * 32)) * 32 + i % 32;
      if (m >= p.count || n >= p.channels) continue;
      float sum = 0.0f;
      for (int part = 0; part < parts2; part++) sum += sums[(i / (P * 32) * parts2 + part) * P * 32 + i % (P * 32)];
      const int at = m * p.channels + n;
      const float y = sum * scales2[n] + ((p.flags & 2) != 0 ? bias2[n] : 0.0f) + x[at];
      if ((p.flags & 4) != 0) raw[at] = y;
      if ((p.flags & 8) != 0) elu[at] = elu_of(y);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}





#line 1 "the __global__ functions"
)~",
       {
           {"codec_residual_p2", R"~(extern "C" __global__ __launch_bounds__(512) void codec_residual_p2(msl_cuda::passed<decltype(&codec_residual<2>), 0> window, msl_cuda::passed<decltype(&codec_residual<2>), 1> x, msl_cuda::passed<decltype(&codec_residual<2>), 2> weights1, msl_cuda::passed<decltype(&codec_residual<2>), 3> scales1, msl_cuda::passed<decltype(&codec_residual<2>), 4> bias1, msl_cuda::passed<decltype(&codec_residual<2>), 5> weights2, msl_cuda::passed<decltype(&codec_residual<2>), 6> scales2, msl_cuda::passed<decltype(&codec_residual<2>), 7> bias2, msl_cuda::passed<decltype(&codec_residual<2>), 8> raw, msl_cuda::passed<decltype(&codec_residual<2>), 9> elu, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_residual<2>), 10> p) { codec_residual<2>(window, x, weights1, scales1, bias1, weights2, scales2, bias2, raw, elu, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<2>), 11>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<2>), 12>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<2>), 13>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<2>), 14>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<2>), 15>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"codec_residual_p4", R"~(extern "C" __global__ __launch_bounds__(512) void codec_residual_p4(msl_cuda::passed<decltype(&codec_residual<4>), 0> window, msl_cuda::passed<decltype(&codec_residual<4>), 1> x, msl_cuda::passed<decltype(&codec_residual<4>), 2> weights1, msl_cuda::passed<decltype(&codec_residual<4>), 3> scales1, msl_cuda::passed<decltype(&codec_residual<4>), 4> bias1, msl_cuda::passed<decltype(&codec_residual<4>), 5> weights2, msl_cuda::passed<decltype(&codec_residual<4>), 6> scales2, msl_cuda::passed<decltype(&codec_residual<4>), 7> bias2, msl_cuda::passed<decltype(&codec_residual<4>), 8> raw, msl_cuda::passed<decltype(&codec_residual<4>), 9> elu, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_residual<4>), 10> p) { codec_residual<4>(window, x, weights1, scales1, bias1, weights2, scales2, bias2, raw, elu, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<4>), 11>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<4>), 12>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<4>), 13>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<4>), 14>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<4>), 15>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"codec_residual_p8", R"~(extern "C" __global__ __launch_bounds__(512) void codec_residual_p8(msl_cuda::passed<decltype(&codec_residual<8>), 0> window, msl_cuda::passed<decltype(&codec_residual<8>), 1> x, msl_cuda::passed<decltype(&codec_residual<8>), 2> weights1, msl_cuda::passed<decltype(&codec_residual<8>), 3> scales1, msl_cuda::passed<decltype(&codec_residual<8>), 4> bias1, msl_cuda::passed<decltype(&codec_residual<8>), 5> weights2, msl_cuda::passed<decltype(&codec_residual<8>), 6> scales2, msl_cuda::passed<decltype(&codec_residual<8>), 7> bias2, msl_cuda::passed<decltype(&codec_residual<8>), 8> raw, msl_cuda::passed<decltype(&codec_residual<8>), 9> elu, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&codec_residual<8>), 10> p) { codec_residual<8>(window, x, weights1, scales1, bias1, weights2, scales2, bias2, raw, elu, p, msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<8>), 11>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<8>), 12>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<8>), 13>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<8>), 14>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&codec_residual<8>), 15>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"codec_upsample.metal", std::string(kHeader) +
R"~(#line 1 "codec_upsample.metal"
#line 11 "codec_upsample.metal"
using namespace metal;

struct CodecUpsampleParams {
  int count;
  int channels;
  int stride;
  int has_bias;
};

MSL_D void msl_codec_upsample(
    float* window ,
    const float* taps ,
    const float* bias ,
    float* y ,
    const CodecUpsampleParams& p ,
    uint3 position ) {
  const int c = int(position.x);
  if (c >= p.channels) return;
  const float more = p.has_bias != 0 ? bias[c] : 0.0f;
  float before = window[c];
  for (int l = 0; l < p.count; l++) {
    const float own = window[(l + 1) * p.channels + c];
    for (int s = 0; s < p.stride; s++) {
      const float both = taps[s * p.channels + c] * own + taps[(p.stride + s) * p.channels + c] * before;
      y[(l * p.stride + s) * p.channels + c] = both + more;
    }
    before = own;
  }
  window[c] = before;
}

#line 1 "the __global__ functions"
)~",
       {
           {"codec_upsample", R"~(extern "C" __global__ void codec_upsample(msl_cuda::passed<decltype(&msl_codec_upsample), 0> window, msl_cuda::passed<decltype(&msl_codec_upsample), 1> taps, msl_cuda::passed<decltype(&msl_codec_upsample), 2> bias, msl_cuda::passed<decltype(&msl_codec_upsample), 3> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_codec_upsample), 4> p) { msl_codec_upsample(window, taps, bias, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_codec_upsample), 5>>(msl_cuda::thread_position_in_grid())); }
}  // namespace metal::kernels
)~"},
       }},
      {"lm_attend.metal", std::string(kHeader) +
R"~(#line 1 "lm_attend.metal"
#line 20 "lm_attend.metal"
using namespace metal;

struct AttendParams {
  int heads;
  int head_dim;
  int slots;
  int splits;
  uint offset;
};

struct Column {
  long position;
  long first_visible;
  int kv_slot;
  int unused;
};

const constexpr int MOST_SIMDGROUPS = 8;
const constexpr int MOST_DIM = 512;
const constexpr float LOWEST = -3.0e38f;


template <int BITS>
METAL_FUNC void unpack(uint4 q, float* v) {
  const uint words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (BITS == 32) {
      v[i] = as_type<float>(words[i]);
    } else if (BITS == 16) {
      v[2 * i] = as_type<float>(words[i] << 16);
      v[2 * i + 1] = as_type<float>(words[i] & 0xFFFF0000u);
    } else {
      for (int j = 0; j < 4; j++) v[4 * i + j] = float(int(words[i] << uint(24 - 8 * j)) >> 24);
    }
  }
}

template <int BITS>
METAL_FUNC float cell(const uchar* row, int i) {
  if (BITS == 32) return ((const float*)row)[i];
  if (BITS == 16) return as_type<float>(uint(((const ushort*)row)[i]) << 16);
  return float(int(uint(row[i]) << 24) >> 24);
}


struct Places {
  size_t keys, values, key_scales, value_scales;
};

METAL_FUNC Places places_of(const AttendParams& p, int bits, int head) {
  const size_t head_bytes = size_t(32 * p.head_dim) * size_t(bits) / 8;
  const size_t heads = size_t(p.heads);
  Places at;
  at.keys = size_t(p.offset) + size_t(head) * head_bytes;
  at.values = at.keys + heads * head_bytes;
  at.key_scales = size_t(p.offset) + 2 * heads * head_bytes + size_t(head) * 128;
  at.value_scales = at.key_scales + heads * 128;
  return at;
}


METAL_FUNC int slot_of(int j, int count, int kv_slot, int slots) {
  const int slot = kv_slot - (count - 1 - j);
  return slot < 0 ? slot + slots : slot;
}


METAL_FUNC void finish(const float* sums, const float* largest, const float* totals,
                       int simdgroups, int lid, int column, int head, int split, const AttendParams& p,
                       float* partial, float* out) {
  float most = LOWEST;
  for (int i = 0; i < simdgroups; i++) most = max(most, largest[i]);
  float total = 0.0f;
  for (int i = 0; i < simdgroups; i++) total += totals[i] * metal::precise::exp(largest[i] - most);
  const size_t row = size_t(column) * size_t(p.heads) + size_t(head);
  float* part = partial + (row * size_t(p.splits) + size_t(split)) * size_t(p.head_dim + 2);
  for (int i = lid; i < p.head_dim; i += simdgroups * 32) {
    float sum = 0.0f;
    for (int j = 0; j < simdgroups; j++) sum += sums[j * p.head_dim + i] * metal::precise::exp(largest[j] - most);
    if (p.splits == 1) {
      out[row * size_t(p.head_dim) + size_t(i)] = sum / total;
    } else {
      part[i] = sum;
    }
  }
  if (p.splits > 1 && lid == 0) {
    part[p.head_dim] = most;
    part[p.head_dim + 1] = total;
  }
}

template <int BITS, int DIM>
MSL_D void attend(
    const float* q ,
    const Column* at ,
    uchar* const * pages ,
    float* partial ,
    float* out ,
    const AttendParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  constexpr int VALUES = 128 / BITS;
  constexpr int LANES = DIM / VALUES;
  constexpr int TEAMS = 32 / LANES;
  constexpr int ROWS = 4;
  __shared__ float sums[MOST_SIMDGROUPS * DIM];
  __shared__ float largest[MOST_SIMDGROUPS];
  __shared__ float totals[MOST_SIMDGROUPS];
  const int split = int(tgid.x);
  const int head = int(tgid.y);
  const int column = int(tgid.z);
  const int own = int(lane) % LANES;
  const int team = int(lane) / LANES;
  const int count = int(at[column].position - at[column].first_visible) + 1;
  const int kv_slot = at[column].kv_slot;
  const int end = count * (split + 1) / p.splits;
  const Places places = places_of(p, BITS, head);

  float query[VALUES];
  const float factor = metal::precise::rsqrt(float(DIM));
  for (int i = 0; i < VALUES; i++) {
    query[i] = q[(size_t(column) * size_t(p.heads) + size_t(head)) * size_t(DIM) + size_t(own * VALUES + i)] * factor;
  }
  float most = LOWEST;
  float total = 0.0f;
  float sum[VALUES];
  for (int i = 0; i < VALUES; i++) sum[i] = 0.0f;

  const int stride = TEAMS * ROWS;
  for (int first = count * split / p.splits + int(sg) * stride; first < end; first += int(simdgroups) * stride) {
    uint4 keys[ROWS];
    uint4 values[ROWS];
    float key_scales[ROWS];
    float value_scales[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int slot = slot_of(min(first + r * TEAMS + team, end - 1), count, kv_slot, p.slots);
      const uchar* page = pages[slot / 32];
      const size_t cell = size_t((slot % 32 * DIM + own * VALUES) * BITS / 8);
      keys[r] = *(const uint4*)(page + places.keys + cell);
      values[r] = *(const uint4*)(page + places.values + cell);
      if (BITS == 8) {
        key_scales[r] = ((const float*)(page + places.key_scales))[slot % 32];
        value_scales[r] = ((const float*)(page + places.value_scales))[slot % 32];
      }
    }
    float scores[ROWS];
    float more = most;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float v[VALUES];
      unpack<BITS>(keys[r], v);
      float score = 0.0f;
#pragma unroll
      for (int i = 0; i < VALUES; i++) score += query[i] * v[i];
#pragma unroll
      for (ushort mask = 1; mask < LANES; mask *= 2) score += simd_shuffle_xor(score, mask);
      if (BITS == 8) score *= key_scales[r];
      scores[r] = first + r * TEAMS + team < end ? score : LOWEST;
      more = max(more, scores[r]);
    }
    const float shrink = metal::fast::exp(most - more);
    most = more;
    total *= shrink;
#pragma unroll
    for (int i = 0; i < VALUES; i++) sum[i] *= shrink;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float weight = first + r * TEAMS + team < end ? metal::fast::exp(scores[r] - most) : 0.0f;
      total += weight;
      if (BITS == 8) weight *= value_scales[r];
      float v[VALUES];
      unpack<BITS>(values[r], v);
#pragma unroll
      for (int i = 0; i < VALUES; i++) sum[i] += weight * v[i];
    }
  }


  const float of_all = simd_max(most);
  const float shrink = metal::fast::exp(most - of_all);
  total *= shrink;
  for (ushort mask = LANES; mask < 32; mask *= 2) total += simd_shuffle_xor(total, mask);
#pragma unroll
  for (int i = 0; i < VALUES; i++) {
    sum[i] *= shrink;
    for (ushort mask = LANES; mask < 32; mask *= 2) sum[i] += simd_shuffle_xor(sum[i], mask);
    if (team == 0) sums[int(sg) * DIM + own * VALUES + i] = sum[i];
  }
  if (lane == 0) {
    largest[sg] = of_all;
    totals[sg] = total;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  finish(sums, largest, totals, int(simdgroups), int(lid), column, head, split, p, partial, out);
}


template <int BITS>
MSL_D void attend_any(
    const float* q ,
    const Column* at ,
    uchar* const * pages ,
    float* partial ,
    float* out ,
    const AttendParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  constexpr int VALUES = MOST_DIM / 32;
  __shared__ float sums[MOST_SIMDGROUPS * MOST_DIM];
  __shared__ float largest[MOST_SIMDGROUPS];
  __shared__ float totals[MOST_SIMDGROUPS];
  const int split = int(tgid.x);
  const int head = int(tgid.y);
  const int column = int(tgid.z);
  const int count = int(at[column].position - at[column].first_visible) + 1;
  const int kv_slot = at[column].kv_slot;
  const int end = count * (split + 1) / p.splits;
  const Places places = places_of(p, BITS, head);
  const float* own = q + (size_t(column) * size_t(p.heads) + size_t(head)) * size_t(p.head_dim);
  const float factor = metal::precise::rsqrt(float(p.head_dim));
  float most = LOWEST;
  float total = 0.0f;
  float sum[VALUES];
  for (int i = 0; i < VALUES; i++) sum[i] = 0.0f;
  for (int j = count * split / p.splits + int(sg); j < end; j += int(simdgroups)) {
    const int slot = slot_of(j, count, kv_slot, p.slots);
    const uchar* page = pages[slot / 32];
)~"
R"~(    const size_t row = size_t(slot % 32 * p.head_dim) * size_t(BITS / 8);
    float score = 0.0f;
    for (int i = int(lane); i < p.head_dim; i += 32) score += own[i] * cell<BITS>(page + places.keys + row, i);
    score = simd_sum(score) * factor;
    if (BITS == 8) score *= ((const float*)(page + places.key_scales))[slot % 32];
    const float more = max(most, score);
    const float shrink = metal::fast::exp(most - more);
    float weight = metal::fast::exp(score - more);
    most = more;
    total = total * shrink + weight;
    if (BITS == 8) weight *= ((const float*)(page + places.value_scales))[slot % 32];
#pragma unroll
    for (int i = 0; i < VALUES; i++) {
      const int dim = int(lane) + 32 * i;
      if (dim < p.head_dim) sum[i] = sum[i] * shrink + weight * cell<BITS>(page + places.values + row, dim);
    }
  }
#pragma unroll
  for (int i = 0; i < VALUES; i++) {
    const int dim = int(lane) + 32 * i;
    if (dim < p.head_dim) sums[int(sg) * p.head_dim + dim] = sum[i];
  }
  if (lane == 0) {
    largest[sg] = most;
    totals[sg] = total;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  finish(sums, largest, totals, int(simdgroups), int(lid), column, head, split, p, partial, out);
}

MSL_D void msl_attend_combine(
    const float* partial ,
    float* out ,
    const AttendParams& p ,
    uint3 tgid ,
    uint lid ,
    uint simdgroups ) {
  const size_t row = size_t(tgid.y) * size_t(p.heads) + size_t(tgid.x);
  const int width = p.head_dim + 2;
  const float* parts = partial + row * size_t(p.splits) * size_t(width);
  float most = LOWEST;
  for (int i = 0; i < p.splits; i++) most = max(most, parts[i * width + p.head_dim]);
  float total = 0.0f;
  for (int i = 0; i < p.splits; i++) {
    total += parts[i * width + p.head_dim + 1] * metal::precise::exp(parts[i * width + p.head_dim] - most);
  }
  for (int dim = int(lid); dim < p.head_dim; dim += int(simdgroups) * 32) {
    float sum = 0.0f;
#pragma unroll 4
    for (int i = 0; i < p.splits; i++) {
      sum += parts[i * width + dim] * metal::precise::exp(parts[i * width + p.head_dim] - most);
    }
    out[row * size_t(p.head_dim) + size_t(dim)] = sum / total;
  }
}











#line 1 "the __global__ functions"
)~",
       {
           {"attend_bf16_d128", R"~(extern "C" __global__ void attend_bf16_d128(msl_cuda::passed<decltype(&attend<16, 128>), 0> q, msl_cuda::passed<decltype(&attend<16, 128>), 1> at, msl_cuda::passed<decltype(&attend<16, 128>), 2> pages, msl_cuda::passed<decltype(&attend<16, 128>), 3> partial, msl_cuda::passed<decltype(&attend<16, 128>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend<16, 128>), 5> p) { attend<16, 128>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 128>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 128>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 128>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 128>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 128>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_bf16_d64", R"~(extern "C" __global__ void attend_bf16_d64(msl_cuda::passed<decltype(&attend<16, 64>), 0> q, msl_cuda::passed<decltype(&attend<16, 64>), 1> at, msl_cuda::passed<decltype(&attend<16, 64>), 2> pages, msl_cuda::passed<decltype(&attend<16, 64>), 3> partial, msl_cuda::passed<decltype(&attend<16, 64>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend<16, 64>), 5> p) { attend<16, 64>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 64>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 64>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 64>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 64>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<16, 64>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_bf16_d0", R"~(extern "C" __global__ void attend_bf16_d0(msl_cuda::passed<decltype(&attend_any<16>), 0> q, msl_cuda::passed<decltype(&attend_any<16>), 1> at, msl_cuda::passed<decltype(&attend_any<16>), 2> pages, msl_cuda::passed<decltype(&attend_any<16>), 3> partial, msl_cuda::passed<decltype(&attend_any<16>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_any<16>), 5> p) { attend_any<16>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<16>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<16>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<16>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<16>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<16>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_int8_d128", R"~(extern "C" __global__ void attend_int8_d128(msl_cuda::passed<decltype(&attend<8, 128>), 0> q, msl_cuda::passed<decltype(&attend<8, 128>), 1> at, msl_cuda::passed<decltype(&attend<8, 128>), 2> pages, msl_cuda::passed<decltype(&attend<8, 128>), 3> partial, msl_cuda::passed<decltype(&attend<8, 128>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend<8, 128>), 5> p) { attend<8, 128>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 128>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 128>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 128>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 128>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 128>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_int8_d64", R"~(extern "C" __global__ void attend_int8_d64(msl_cuda::passed<decltype(&attend<8, 64>), 0> q, msl_cuda::passed<decltype(&attend<8, 64>), 1> at, msl_cuda::passed<decltype(&attend<8, 64>), 2> pages, msl_cuda::passed<decltype(&attend<8, 64>), 3> partial, msl_cuda::passed<decltype(&attend<8, 64>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend<8, 64>), 5> p) { attend<8, 64>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 64>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 64>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 64>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 64>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<8, 64>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_int8_d0", R"~(extern "C" __global__ void attend_int8_d0(msl_cuda::passed<decltype(&attend_any<8>), 0> q, msl_cuda::passed<decltype(&attend_any<8>), 1> at, msl_cuda::passed<decltype(&attend_any<8>), 2> pages, msl_cuda::passed<decltype(&attend_any<8>), 3> partial, msl_cuda::passed<decltype(&attend_any<8>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_any<8>), 5> p) { attend_any<8>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<8>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<8>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<8>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<8>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<8>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_f32_d128", R"~(extern "C" __global__ void attend_f32_d128(msl_cuda::passed<decltype(&attend<32, 128>), 0> q, msl_cuda::passed<decltype(&attend<32, 128>), 1> at, msl_cuda::passed<decltype(&attend<32, 128>), 2> pages, msl_cuda::passed<decltype(&attend<32, 128>), 3> partial, msl_cuda::passed<decltype(&attend<32, 128>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend<32, 128>), 5> p) { attend<32, 128>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 128>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 128>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 128>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 128>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 128>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_f32_d64", R"~(extern "C" __global__ void attend_f32_d64(msl_cuda::passed<decltype(&attend<32, 64>), 0> q, msl_cuda::passed<decltype(&attend<32, 64>), 1> at, msl_cuda::passed<decltype(&attend<32, 64>), 2> pages, msl_cuda::passed<decltype(&attend<32, 64>), 3> partial, msl_cuda::passed<decltype(&attend<32, 64>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend<32, 64>), 5> p) { attend<32, 64>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 64>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 64>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 64>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 64>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend<32, 64>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_f32_d0", R"~(extern "C" __global__ void attend_f32_d0(msl_cuda::passed<decltype(&attend_any<32>), 0> q, msl_cuda::passed<decltype(&attend_any<32>), 1> at, msl_cuda::passed<decltype(&attend_any<32>), 2> pages, msl_cuda::passed<decltype(&attend_any<32>), 3> partial, msl_cuda::passed<decltype(&attend_any<32>), 4> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_any<32>), 5> p) { attend_any<32>(q, at, pages, partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<32>), 6>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<32>), 7>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<32>), 8>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<32>), 9>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_any<32>), 10>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_combine", R"~(extern "C" __global__ void attend_combine(msl_cuda::passed<decltype(&msl_attend_combine), 0> partial, msl_cuda::passed<decltype(&msl_attend_combine), 1> out, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_attend_combine), 2> p) { msl_attend_combine(partial, out, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_attend_combine), 3>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_attend_combine), 4>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_attend_combine), 5>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"lm_embed.metal", std::string(kHeader) +
R"~(#line 1 "lm_embed.metal"
#line 12 "lm_embed.metal"
using namespace metal;

struct EmbedTable {
  const uint* words;
  const ushort* scales;
  const ushort* biases;
  int bits;
  int group_shift;
  int half_scales;
  int unused;
};

struct EmbedParams {
  int dim;
  int count;
};

const constexpr int SPAN = 256;
const constexpr int MOST_SIMDGROUPS = 24;

METAL_FUNC float from16(ushort bits, bool is_half) {
  return is_half ? float(as_type<half>(bits)) : as_type<float>(uint(bits) << 16);
}

MSL_D void msl_embed_sum(
    const EmbedTable* tables ,
    const int* ids ,
    float* x ,
    const EmbedParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  __shared__ float rows[MOST_SIMDGROUPS * SPAN];
  __shared__ float sums[SPAN];
  const int column = int(tgid.y);
  const int first = int(tgid.x) * SPAN;
  const int at = first + int(lane) * 8;
  const int threads = int(simdgroups) * 32;
  for (int i = int(lid); i < SPAN; i += threads) sums[i] = 0.0f;
  for (int done = 0; done < p.count; done += int(simdgroups)) {
    const int r = done + int(sg);
    const int id = r < p.count ? ids[r * 32 + column] : -1;
    float v[8];
    for (int i = 0; i < 8; i++) v[i] = 0.0f;
    if (id >= 0 && at < p.dim) {
      const int bits = tables[r].bits;
      const uint* word = tables[r].words + (size_t(id) * size_t(p.dim) + size_t(at)) * size_t(bits) / 32;
      if (bits == 16) {
        for (int i = 0; i < 4; i++) {
          v[2 * i] = as_type<float>(word[i] << 16);
          v[2 * i + 1] = as_type<float>(word[i] & 0xFFFF0000u);
        }
      } else {
        const int shift = tables[r].group_shift;
        const bool is_half = tables[r].half_scales != 0;
        const size_t group = size_t(id) * size_t(p.dim >> shift) + size_t(at >> shift);
        const float scale = from16(tables[r].scales[group], is_half);
        const float bias = from16(tables[r].biases[group], is_half);
        const uint low = word[0];
        if (bits == 4) {
          for (int i = 0; i < 8; i++) v[i] = scale * float((low >> uint(4 * i)) & 15u) + bias;
        } else {
          const uint high = word[1];
          for (int i = 0; i < 4; i++) {
            v[i] = scale * float((low >> uint(8 * i)) & 255u) + bias;
            v[4 + i] = scale * float((high >> uint(8 * i)) & 255u) + bias;
          }
        }
      }
    }
    for (int i = 0; i < 8; i++) rows[int(sg) * SPAN + int(lane) * 8 + i] = v[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < SPAN; i += threads) {
      float sum = sums[i];
      for (int j = 0; j < min(int(simdgroups), p.count - done); j++) sum += rows[j * SPAN + i];
      sums[i] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (int i = int(lid); i < min(SPAN, p.dim - first); i += threads) {
    x[size_t(column) * size_t(p.dim) + size_t(first + i)] = sums[i];
  }
}

#line 1 "the __global__ functions"
)~",
       {
           {"embed_sum", R"~(extern "C" __global__ void embed_sum(msl_cuda::passed<decltype(&msl_embed_sum), 0> tables, msl_cuda::passed<decltype(&msl_embed_sum), 1> ids, msl_cuda::passed<decltype(&msl_embed_sum), 2> x, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_embed_sum), 3> p) { msl_embed_sum(tables, ids, x, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_embed_sum), 4>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_embed_sum), 5>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_embed_sum), 6>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_embed_sum), 7>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_embed_sum), 8>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"lm_norm.metal", std::string(kHeader) +
R"~(#line 1 "lm_norm.metal"







using namespace metal;

struct NormParams {
  int dim;
};


METAL_FUNC float group_sum(float v, uint lane, uint sg, uint simdgroups, float* parts) {
  v = simd_sum(v);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) parts[sg] = v;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return simd_sum(lane < simdgroups ? parts[lane] : 0.0f);
}

template <bool LAYER>
MSL_D void norm(
    const float* x ,
    const float* weight ,
    const float* bias ,
    float* y ,
    const NormParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  __shared__ float parts[32];
  const int threads = int(simdgroups) * 32;
  const size_t column = size_t(tgid.x) * size_t(p.dim);
  float mean = 0.0f;
  if (LAYER) {
    float sum = 0.0f;
    for (int i = int(lid); i < p.dim; i += threads) sum += x[column + size_t(i)];
    mean = group_sum(sum, lane, sg, simdgroups, parts) / float(p.dim);
  }
  float squares = 0.0f;
  for (int i = int(lid); i < p.dim; i += threads) {
    const float d = x[column + size_t(i)] - mean;
    squares += d * d;
  }
  const float variance = group_sum(squares, lane, sg, simdgroups, parts) / float(p.dim);
  const float factor = metal::precise::rsqrt(variance + (LAYER ? 1e-5f : 1e-8f));
  for (int i = int(lid); i < p.dim; i += threads) {
    const float v = (x[column + size_t(i)] - mean) * factor * weight[i];
    y[column + size_t(i)] = LAYER ? v + bias[i] : v;
  }
}




#line 1 "the __global__ functions"
)~",
       {
           {"norm_rms", R"~(extern "C" __global__ void norm_rms(msl_cuda::passed<decltype(&norm<false>), 0> x, msl_cuda::passed<decltype(&norm<false>), 1> weight, msl_cuda::passed<decltype(&norm<false>), 2> bias, msl_cuda::passed<decltype(&norm<false>), 3> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&norm<false>), 4> p) { norm<false>(x, weight, bias, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&norm<false>), 5>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&norm<false>), 6>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&norm<false>), 7>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&norm<false>), 8>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&norm<false>), 9>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"norm_layer", R"~(extern "C" __global__ void norm_layer(msl_cuda::passed<decltype(&norm<true>), 0> x, msl_cuda::passed<decltype(&norm<true>), 1> weight, msl_cuda::passed<decltype(&norm<true>), 2> bias, msl_cuda::passed<decltype(&norm<true>), 3> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&norm<true>), 4> p) { norm<true>(x, weight, bias, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&norm<true>), 5>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&norm<true>), 6>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&norm<true>), 7>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&norm<true>), 8>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&norm<true>), 9>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"lm_product.metal", std::string(kHeader) +
R"~(#line 1 "lm_product.metal"
#line 31 "lm_product.metal"
using namespace metal;

const constexpr int CHUNK = 4096;
const constexpr int STAGED = CHUNK / 4 + 64;

struct ProductParams {
  int n;
  int k;
  int columns;
  int group_shift;
  int split;
  int passes;
  int epilogue;
  int norm;
};

struct QkvParams {
  int n;
  int k;
  int columns;
  int group_shift;
  int split;
  int passes;
  int norm;
  int heads;
  int head_dim;
  int rotary;
  int kv_bits;
  uint offset;
};

struct AttendProjectParams {
  int n;
  int k;
  int group_shift;
  int split;
  int heads;
  int head_dim;
  int slots;
  uint offset;
};

struct Column {
  long position;
  long first_visible;
  int kv_slot;
  int unused;
};

template <bool HALF>
METAL_FUNC float from16(ushort bits) {
  return HALF ? float(as_type<half>(bits)) : as_type<float>(uint(bits) << 16);
}


constexpr METAL_FUNC int block_values(int bits) {
  return 128 / bits;
}



struct Powers {
  uint of_4096, of_256, of_16, of_2048, of_128;
};

METAL_FUNC Powers powers(uint zero) {
  Powers p;
  p.of_4096 = 0x45800000u + zero;
  p.of_256 = 0x43800000u + zero;
  p.of_16 = 0x41800000u + zero;
  p.of_2048 = 0x45000000u + zero;
  p.of_128 = 0x43000000u + zero;
  return p;
}



template <int BITS>
METAL_FUNC void decode(uint word, uint next, const Powers& p, float* v) {
  if (BITS == 4) {
    const uint low = word << 11;
    const uint high = word >> 9;
    v[0] = as_type<float>((low & 0x00007800u) | p.of_4096);
    v[1] = as_type<float>((low & 0x00078000u) | p.of_256);
    v[2] = as_type<float>((low & 0x00780000u) | p.of_16);
    v[3] = as_type<float>((word & 0x0000F000u) | p.of_2048);
    v[4] = as_type<float>((word & 0x000F0000u) | p.of_128);
    v[5] = as_type<float>((high & 0x00007800u) | p.of_4096);
    v[6] = as_type<float>((high & 0x00078000u) | p.of_256);
    v[7] = as_type<float>((high & 0x00780000u) | p.of_16);
  } else if (BITS == 8) {
    v[0] = as_type<float>(((word << 15) & 0x007F8000u) | p.of_256);
    v[1] = as_type<float>(((word << 7) & 0x007F8000u) | p.of_256);
    v[2] = as_type<float>(((word >> 1) & 0x007F8000u) | p.of_256);
    v[3] = as_type<float>(((word >> 9) & 0x007F8000u) | p.of_256);
  } else {
    v[0] = as_type<float>(word << 16);
    v[1] = as_type<float>(word & 0xFFFF0000u);
    v[2] = as_type<float>(next << 16);
    v[3] = as_type<float>(next & 0xFFFF0000u);
  }
}


template <int BITS>
METAL_FUNC float excess(float4 x, int quad) {
  if (BITS == 8) return 256.0f * (x.x + x.y + x.z + x.w);
  return quad % 2 == 0 ? 4096.0f * x.x + 256.0f * x.y + 16.0f * x.z + 2048.0f * x.w
                       : 128.0f * x.x + 4096.0f * x.y + 256.0f * x.z + 16.0f * x.w;
}


template <int BITS, int LANES>
METAL_FUNC int staged(int i) {
  constexpr int QUADS = block_values(BITS) / 4;
  const int rest = i % (LANES * QUADS);
  return (i / (LANES * QUADS) * QUADS + rest % QUADS) * (LANES + 1) + rest / QUADS;
}


template <int R>
struct Blocks {
  uint4 words[R];
  ushort scales[R];
  ushort biases[R];
};

template <int BITS, int R>
METAL_FUNC void fetch(const uint4* w, const ushort* scales, const ushort* biases,
                      const int* rows, int k, int group_shift, int block, Blocks<R>& out) {
  const int per_row = k / block_values(BITS);
  const int at = min(block, per_row - 1);
  for (int r = 0; r < R; r++) {
    out.words[r] = w[size_t(rows[r]) * size_t(per_row) + size_t(at)];
    if (BITS != 16) {
      const int group = rows[r] * (k >> group_shift) + ((at * block_values(BITS)) >> group_shift);
      out.scales[r] = scales[group];
      out.biases[r] = biases[group];
    }
  }
}


template <int BITS, bool HALF, int R, int C, int LANES>
METAL_FUNC void multiply(const Blocks<R>& blocks, const float4* xs, const float2* sums,
                         int step, int lane, const Powers& p, float* total) {
  constexpr int QUADS = block_values(BITS) / 4;
  constexpr int UNIT = BITS == 4 ? 8 : 4;
  constexpr int UNIT_WORDS = BITS == 16 ? 2 : 1;
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int COLUMN_BLOCKS = CHUNK / C / block_values(BITS);
  float acc[R * C];
  float sum[C];
#pragma unroll
  for (int c = 0; c < C; c++) {
    float start = 0.0f;
    sum[c] = 0.0f;
    if (BITS != 16) {
      const int block = c * COLUMN_BLOCKS + step * LANES + lane;
      start = -sums[block].x;
      sum[c] = sums[block].y;
    }
#pragma unroll
    for (int r = 0; r < R; r++) acc[r * C + c] = start;
  }
#pragma unroll
  for (int u = 0; u < 4 / UNIT_WORDS; u++) {
    float v[R][8];
#pragma unroll
    for (int r = 0; r < R; r++) {
      const uint4 q = blocks.words[r];
      const uint words[4] = {q.x, q.y, q.z, q.w};
      decode<BITS>(words[u * UNIT_WORDS], words[(u * UNIT_WORDS + 1) % 4], p, v[r]);
    }
#pragma unroll
    for (int quad = 0; quad < UNIT / 4; quad++) {
      const int at = (step * QUADS + u * (UNIT / 4) + quad) * (LANES + 1) + lane;
#pragma unroll
      for (int c = 0; c < C; c++) {
        const float4 x = xs[c * COLUMN + at];
#pragma unroll
        for (int r = 0; r < R; r++) {
          float a = acc[r * C + c];
          a = metal::fma(v[r][quad * 4], x.x, a);
          a = metal::fma(v[r][quad * 4 + 1], x.y, a);
          a = metal::fma(v[r][quad * 4 + 2], x.z, a);
          acc[r * C + c] = metal::fma(v[r][quad * 4 + 3], x.w, a);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    const float scale = BITS == 16 ? 1.0f : from16<HALF>(blocks.scales[r]);
    const float bias = BITS == 16 ? 0.0f : from16<HALF>(blocks.biases[r]);
#pragma unroll
    for (int c = 0; c < C; c++) total[r * C + c] += scale * acc[r * C + c] + bias * sum[c];
  }
}


template <int BITS, int C, int LANES>
METAL_FUNC void stage(const float* x, const float* weight, bool norm, int k, int columns, int k0, int lid,
                      int threads, float4* xs, float* squares) {
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int STEP = LANES * block_values(BITS);
  const int end = min(CHUNK / C, (k - k0 + STEP - 1) / STEP * STEP);
  for (int c = 0; c < C; c++) {
    const float* column = x + size_t(c) * size_t(k);
    for (int first = lid; first < end / 4; first += 4 * threads) {
      float4 v[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int at = k0 + 4 * (first + j * threads);
        v[j] = c < columns && at < k ? *(const float4*)(column + at) : float4(0.0f);
      }
      if (norm) {
        float4 factors[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int at = k0 + 4 * (first + j * threads);
          factors[j] = at < k ? *(const float4*)(weight + at) : float4(0.0f);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
          if (first + j * threads < end / 4) {
            squares[c] += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
          }
          v[j] = v[j] * factors[j];
        }
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int i = first + j * threads;
        if (i < end / 4) xs[c * COLUMN + staged<BITS, LANES>(i)] = v[j];
      }
    }
  }
}


template <int BITS, int C, int LANES>
METAL_FUNC void sum_blocks(int k, int k0, int lid, int threads, const float4* xs,
                           float2* sums) {
  constexpr int QUADS = block_values(BITS) / 4;
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int COLUMN_BLOCKS = CHUNK / C / block_values(BITS);
  constexpr int STEP = LANES * block_values(BITS);
  const int blocks = min(CHUNK / C, (k - k0 + STEP - 1) / STEP * STEP) / block_values(BITS);
  for (int c = 0; c < C; c++) {
    for (int b = lid; b < blocks; b += threads) {
      float over = 0.0f;
      float sum = 0.0f;
#pragma unroll
      for (int q = 0; q < QUADS; q++) {
        const float4 x = xs[c * COLUMN + (b / LANES * QUADS + q) * (LANES + 1) + b % LANES];
        over += excess<BITS>(x, q);
        sum += x.x + x.y + x.z + x.w;
      }
)~"
R"~(      sums[c * COLUMN_BLOCKS + b] = float2(over, sum);
    }
  }
}


template <int LANES>
METAL_FUNC float lanes_sum(float v) {
  for (ushort mask = LANES / 2; mask > 0; mask /= 2) v += simd_shuffle_xor(v, mask);
  return v;
}


template <int R, int C, int LANES>
METAL_FUNC void reduce(float* total, int lane, int sg, float* results) {
  constexpr int HALVES = 32 / LANES;
  for (int r = 0; r < R; r++) {
    for (int c = 0; c < C; c++) {
      const float v = lanes_sum<LANES>(total[r * C + c]);
      if (lane % LANES == 0) results[((sg * R + r) * HALVES + lane / LANES) * C + c] = v;
    }
  }
}


template <int R, int C, int LANES>
METAL_FUNC float result(const float* results, int i, int c, int split) {
  constexpr int ROWS = R * (32 / LANES);
  const int at = (i / ROWS * split * ROWS + i % ROWS) * C + c;
  float v = 0.0f;
  for (int part = 0; part < split; part++) v += results[at + part * ROWS * C];
  return v;
}

template <int C>
METAL_FUNC float norm_factor(const float* squares, int simdgroups, int c, int k) {
  float sum = 0.0f;
  for (int i = 0; i < simdgroups; i++) sum += squares[i * C + c];
  return metal::precise::rsqrt(sum / float(k) + 1e-8f);
}


template <int R>
struct Work {
  int lid, threads, lane, sg;
  int k, group_shift, split, columns;
  bool norm;
  int rows[R];
  Blocks<R> next;
};



template <int BITS, bool HALF, int R, int C, int LANES>
METAL_FUNC void product(const float* x, const float* weight, const uint4* w,
                        const ushort* scales, const ushort* biases, Work<R>& work, bool first_pass,
                        bool last_pass, const int* then, float4* xs, float2* sums,
                        float* results, float* squares) {
  constexpr int STEP = LANES * block_values(BITS);
  constexpr int CHUNK_STEPS = CHUNK / C / STEP;
  const int k = work.k;
  const int steps = (k + STEP - 1) / STEP;
  const int own = work.lane % LANES;
  const int part = work.sg % work.split;
  const Powers p = powers(C == 1 ? uint(work.split) >> 31 : 0u);
  float total[R * C];
  float square[C];
  for (int i = 0; i < R * C; i++) total[i] = 0.0f;
  for (int c = 0; c < C; c++) square[c] = 0.0f;
  int step = part;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int first = 0; first < steps; first += CHUNK_STEPS) {
    if (first_pass || steps > CHUNK_STEPS) {
      if (first > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
      stage<BITS, C, LANES>(x, weight, work.norm, k, work.columns, first * STEP, work.lid, work.threads, xs, square);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      if (BITS != 16) {
        sum_blocks<BITS, C, LANES>(k, first * STEP, work.lid, work.threads, xs, sums);
        threadgroup_barrier(mem_flags::mem_threadgroup);
      }
    }
    for (; step < min(steps, first + CHUNK_STEPS); step += work.split) {
      const Blocks<R> now = work.next;
      const bool last = step + work.split >= steps;
      if (last && !last_pass) {
        for (int r = 0; r < R; r++) work.rows[r] = then[r];
      }
      if (!last || !last_pass) {
        fetch<BITS, R>(w, scales, biases, work.rows, k, work.group_shift,
                       (last ? part : step + work.split) * LANES + own, work.next);
      }
      multiply<BITS, HALF, R, C, LANES>(now, xs, sums, step - first, own, p, total);
    }
  }
  reduce<R, C, LANES>(total, work.lane, work.sg, results);
  if (work.norm && first_pass) {
    for (int c = 0; c < C; c++) {
      const float v = simd_sum(square[c]);
      if (work.lane == 0) squares[work.sg * C + c] = v;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
}


template <int R, int LANES>
METAL_FUNC void rows_of(int slot0, int n, bool swiglu, int lane, int sg, int split, int* rows) {
  for (int r = 0; r < R; r++) {
    const int slot = min(n - 1, slot0 + sg / split * R * (32 / LANES) + r * (32 / LANES) + lane / LANES);
    rows[r] = swiglu ? slot / 2 + slot % 2 * (n / 2) : slot;
  }
}

template <int BITS, bool HALF, int R, int C, int LANES>
MSL_D void qmv(
    const float* x ,
    const float* weight ,
    const uint4* w ,
    const ushort* scales ,
    const ushort* biases ,
    float* y ,
    const ProductParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  constexpr int ROWS = R * (32 / LANES);
  __shared__ float4 xs[STAGED];
  __shared__ float2 sums[CHUNK / block_values(BITS)];
  __shared__ float results[32 * ROWS * C];
  __shared__ float squares[32 * C];
  const int slots = int(simdgroups) / p.split * ROWS;
  const int first = int(tgid.y) * C;
  const int columns = min(C, p.columns - first);
  const bool swiglu = p.epilogue == 2;
  const int outputs = swiglu ? slots / 2 : slots;
  const int width = swiglu ? p.n / 2 : p.n;
  int slot0 = int(tgid.x) * p.passes * slots;
  const int end = min(p.n, slot0 + p.passes * slots);

  Work<R> work;
  work.lid = int(lid);
  work.threads = int(simdgroups) * 32;
  work.lane = int(lane);
  work.sg = int(sg);
  work.k = p.k;
  work.group_shift = p.group_shift;
  work.split = p.split;
  work.columns = columns;
  work.norm = p.norm != 0;
  rows_of<R, LANES>(slot0, p.n, swiglu, work.lane, work.sg, p.split, work.rows);
  fetch<BITS, R>(w, scales, biases, work.rows, p.k, p.group_shift, work.sg % p.split * LANES + work.lane % LANES,
                 work.next);
  for (bool first_pass = true; slot0 < end; slot0 += slots, first_pass = false) {
    const bool last_pass = slot0 + slots >= end;
    int then[R];
    if (!last_pass) rows_of<R, LANES>(slot0 + slots, p.n, swiglu, work.lane, work.sg, p.split, then);
    product<BITS, HALF, R, C, LANES>(x + size_t(first) * size_t(p.k), weight, w, scales, biases, work, first_pass,
                                     last_pass, then, xs, sums, results, squares);
    for (int i = work.lid; i < outputs * columns; i += work.threads) {
      const int c = i / outputs;
      const int slot = i % outputs;
      const int n = (swiglu ? slot0 / 2 : slot0) + slot;
      if (n >= width) continue;
      const float factor = work.norm ? norm_factor<C>(squares, int(simdgroups), c, p.k) : 1.0f;
      const size_t at = size_t(first + c) * size_t(width) + size_t(n);
      if (swiglu) {
        const float gate = factor * result<R, C, LANES>(results, 2 * slot, c, p.split);
        const float value = factor * result<R, C, LANES>(results, 2 * slot + 1, c, p.split);
        y[at] = gate / (1.0f + metal::precise::exp(-gate)) * value;
      } else {
        const float v = factor * result<R, C, LANES>(results, slot, c, p.split);
        y[at] = p.epilogue == 1 ? y[at] + v : v;
      }
    }
  }
}


METAL_FUNC int slot_of(int j, int count, int kv_slot, int slots) {
  const int slot = kv_slot - (count - 1 - j);
  return slot < 0 ? slot + slots : slot;
}


METAL_FUNC uchar* ring_row(uchar* const * pages, int slot, int part, int heads, int head,
                                  int head_dim, int bytes, uint offset) {
  const int row = ((part - 1) * heads + head) * 32 + slot % 32;
  return pages[slot / 32] + offset + size_t(row) * size_t(head_dim * bytes);
}

template <int BITS, bool HALF, int R, int C, int LANES>
MSL_D void qkv(
    const float* x ,
    const float* weight ,
    const uint4* w ,
    const ushort* scales ,
    const ushort* biases ,
    const float* angles ,
    const Column* at ,
    uchar* const * pages ,
    float* q ,
    const QkvParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  constexpr int ROWS = R * (32 / LANES);
  __shared__ float4 xs[STAGED];
  __shared__ float2 sums[CHUNK / block_values(BITS)];
  __shared__ float results[32 * ROWS * C];
  __shared__ float squares[32 * C];
  __shared__ float heads[1024];
  const int slots = int(simdgroups) / p.split * ROWS;
  const int first = int(tgid.y) * C;
  const int columns = min(C, p.columns - first);
  const int own = p.passes * slots;
  const int own0 = int(tgid.x) * own;
  const int end = min(p.n, own0 + own);
  int slot0 = own0;

  Work<R> work;
)~"
R"~(  work.lid = int(lid);
  work.threads = int(simdgroups) * 32;
  work.lane = int(lane);
  work.sg = int(sg);
  work.k = p.k;
  work.group_shift = p.group_shift;
  work.split = p.split;
  work.columns = columns;
  work.norm = p.norm != 0;
  rows_of<R, LANES>(slot0, p.n, false, work.lane, work.sg, p.split, work.rows);
  fetch<BITS, R>(w, scales, biases, work.rows, p.k, p.group_shift, work.sg % p.split * LANES + work.lane % LANES,
                 work.next);
  for (bool first_pass = true; slot0 < end; slot0 += slots, first_pass = false) {
    const bool last_pass = slot0 + slots >= end;
    int then[R];
    if (!last_pass) rows_of<R, LANES>(slot0 + slots, p.n, false, work.lane, work.sg, p.split, then);
    product<BITS, HALF, R, C, LANES>(x + size_t(first) * size_t(p.k), weight, w, scales, biases, work, first_pass,
                                     last_pass, then, xs, sums, results, squares);


    for (int i = work.lid; i < slots / 2 * columns; i += work.threads) {
      const int c = i / (slots / 2);
      const int slot = i % (slots / 2) * 2;
      const int n = slot0 + slot;
      const int part = n / (p.heads * p.head_dim);
      const int head = n / p.head_dim % p.heads;
      const int dim = n % p.head_dim;
      if (n >= p.n) continue;
      const float factor = work.norm ? norm_factor<C>(squares, int(simdgroups), c, p.k) : 1.0f;
      float even = factor * result<R, C, LANES>(results, slot, c, p.split);
      float odd = factor * result<R, C, LANES>(results, slot + 1, c, p.split);
      if (part < 2 && p.rotary != 0) {
        const size_t angle = (size_t(first + c) * size_t(p.head_dim / 2) + size_t(dim / 2)) * 2;
        const float cosine = angles[angle];
        const float sine = angles[angle + 1];
        const float turned = even * cosine - odd * sine;
        odd = even * sine + odd * cosine;
        even = turned;
      }
      if (part == 0) {
        float* out = q + (size_t(first + c) * size_t(p.heads) + size_t(head)) * size_t(p.head_dim) + size_t(dim);
        out[0] = even;
        out[1] = odd;
        continue;
      }
      uchar* row =
          ring_row(pages, at[first + c].kv_slot, part, p.heads, head, p.head_dim, p.kv_bits / 8, p.offset);
      if (p.kv_bits == 32) {
        float* out = (float*)row + dim;
        out[0] = even;
        out[1] = odd;
      } else if (p.kv_bits == 16) {
        bfloat* out = (bfloat*)row + dim;
        out[0] = bfloat(even);
        out[1] = bfloat(odd);
      } else {
        heads[c * own + n - own0] = even;
        heads[c * own + n - own0 + 1] = odd;
      }
    }
  }
  if (p.kv_bits != 8) return;


  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = work.sg; i < own / p.head_dim * columns; i += int(simdgroups)) {
    const int c = i % columns;
    const int n = own0 + i / columns * p.head_dim;
    const int part = n / (p.heads * p.head_dim);
    const int head = n / p.head_dim % p.heads;
    if (n >= p.n || part == 0) continue;
    const float* values = heads + c * own + n - own0;
    float largest = 0.0f;
    for (int dim = work.lane; dim < p.head_dim; dim += 32) largest = max(largest, metal::fabs(values[dim]));
    largest = simd_max(largest);
    const bool nothing = largest < 1e-35f;
    const float inverse = nothing ? 0.0f : 127.0f / largest;
    const int kv_slot = at[first + c].kv_slot;
    uchar* out = ring_row(pages, kv_slot, part, p.heads, head, p.head_dim, 1, p.offset);
    for (int dim = work.lane; dim < p.head_dim; dim += 32) {
      out[dim] = uchar(int(metal::rint(values[dim] * inverse)) & 255);
    }
    if (lane == 0) {
      const size_t scales_at = size_t(p.offset) + size_t(p.heads * 64) * size_t(p.head_dim);
      float* of_heads = (float*)(pages[kv_slot / 32] + scales_at);
      of_heads[((part - 1) * p.heads + head) * 32 + kv_slot % 32] = nothing ? 0.0f : largest / 127.0f;
    }
  }
}



template <int BITS>
METAL_FUNC void attend_head(const float* q, const uchar* first_page, const uchar* last_page,
                            int kv_slot, int count, int head, int lane, const AttendProjectParams& p,
                            float4* xs) {
  constexpr int EARLY = 8;
  const int row_bytes = 2 * p.head_dim;
  const size_t keys = size_t(p.offset) + size_t(head * 32) * size_t(row_bytes);
  const size_t values = keys + size_t(p.heads * 32) * size_t(row_bytes);
  uint early[EARLY];
#pragma unroll
  for (int i = 0; i < EARLY; i++) {
    const int slot = slot_of(min(i, count - 1), count, kv_slot, p.slots);
    const uchar* page = slot / 32 == kv_slot / 32 ? last_page : first_page;
    early[i] = *(const uint*)(page + values + size_t(slot % 32 * row_bytes + 4 * min(lane, p.head_dim / 2 - 1)));
  }

  const int slot = slot_of(min(lane, count - 1), count, kv_slot, p.slots);
  const uint4* key = (const uint4*)((slot / 32 == kv_slot / 32 ? last_page : first_page) + keys +
                                                  size_t(slot % 32 * row_bytes));
  float score = 0.0f;
#pragma unroll 8
  for (int i = 0; i < p.head_dim / 8; i++) {
    const uint4 k = key[i];
    const float4 a = *(const float4*)(q + head * p.head_dim + 8 * i);
    const float4 b = *(const float4*)(q + head * p.head_dim + 8 * i + 4);
    score += a.x * as_type<float>(k.x << 16) + a.y * as_type<float>(k.x & 0xFFFF0000u);
    score += a.z * as_type<float>(k.y << 16) + a.w * as_type<float>(k.y & 0xFFFF0000u);
    score += b.x * as_type<float>(k.z << 16) + b.y * as_type<float>(k.z & 0xFFFF0000u);
    score += b.z * as_type<float>(k.w << 16) + b.w * as_type<float>(k.w & 0xFFFF0000u);
  }
  score = lane < count ? score * metal::precise::rsqrt(float(p.head_dim)) : -INFINITY;
  const float largest = simd_max(score);
  const float weight = lane < count ? metal::precise::exp(score - largest) : 0.0f;
  const float share = weight / simd_sum(weight);

  for (int first = 0; first < p.head_dim; first += 64) {
    const int dim = min(first + 2 * lane, p.head_dim - 2);
    float even = 0.0f;
    float odd = 0.0f;
    if (first == 0) {
#pragma unroll
      for (int i = 0; i < EARLY; i++) {
        const float s = simd_shuffle(share, ushort(i));
        even += s * as_type<float>(early[i] << 16);
        odd += s * as_type<float>(early[i] & 0xFFFF0000u);
      }
    }
#pragma unroll 4
    for (int i = first == 0 ? EARLY : 0; i < count; i++) {
      const int at = slot_of(i, count, kv_slot, p.slots);
      const uchar* page = at / 32 == kv_slot / 32 ? last_page : first_page;
      const uint v = *(const uint*)(page + values + size_t(at % 32 * row_bytes + 2 * dim));
      const float s = simd_shuffle(share, ushort(i));
      even += s * as_type<float>(v << 16);
      odd += s * as_type<float>(v & 0xFFFF0000u);
    }
    if (first + 2 * lane < p.head_dim) {
      const int k = head * p.head_dim + dim;
      float* out = (float*)(xs + staged<BITS, 32>(k / 4)) + k % 4;
      out[0] = even;
      out[1] = odd;
    }
  }
}

template <int BITS, bool HALF, int R>
MSL_D void attend_project(
    const float* q ,
    const Column* at ,
    uchar* const * pages ,
    const uint4* w ,
    const ushort* scales ,
    const ushort* biases ,
    float* y ,
    const AttendProjectParams& p ,
    uint3 tgid ,
    uint lid ,
    uint lane ,
    uint sg ,
    uint simdgroups ) {
  __shared__ float4 xs[STAGED];
  __shared__ float2 sums[CHUNK / block_values(BITS)];
  __shared__ float results[32 * R];
  constexpr int STEP = 32 * block_values(BITS);
  const int threads = int(simdgroups) * 32;
  const int steps = (p.k + STEP - 1) / STEP;
  const int slots = int(simdgroups) / p.split * R;
  const int slot0 = int(tgid.x) * slots;
  int rows[R];
  float total[R];
  for (int r = 0; r < R; r++) {
    rows[r] = min(p.n - 1, slot0 + int(sg) / p.split * R + r);
    total[r] = 0.0f;
  }
  Blocks<R> next;
  int step = int(sg) % p.split;
  if (step < steps) fetch<BITS, R>(w, scales, biases, rows, p.k, p.group_shift, step * 32 + int(lane), next);

  const int count = int(at->position - at->first_visible) + 1;
  const int kv_slot = at->kv_slot;
)~"
R"~(  const uchar* first_page = pages[slot_of(0, count, kv_slot, p.slots) / 32];
  const uchar* last_page = pages[kv_slot / 32];
  for (int head = int(sg); head < p.heads; head += int(simdgroups)) {
    attend_head<BITS>(q, first_page, last_page, kv_slot, count, head, int(lane), p, xs);
  }
  for (int i = p.k / 4 + int(lid); i < steps * STEP / 4; i += threads) xs[staged<BITS, 32>(i)] = float4(0.0f);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (BITS != 16) {
    sum_blocks<BITS, 1, 32>(p.k, 0, int(lid), threads, xs, sums);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  const Powers of_powers = powers(uint(p.split) >> 31);
  for (; step < steps; step += p.split) {
    const Blocks<R> now = next;
    if (step + p.split < steps) {
      fetch<BITS, R>(w, scales, biases, rows, p.k, p.group_shift, (step + p.split) * 32 + int(lane), next);
    }
    multiply<BITS, HALF, R, 1, 32>(now, xs, sums, step, int(lane), of_powers, total);
  }
  reduce<R, 1, 32>(total, int(lane), int(sg), results);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = int(lid); i < min(slots, p.n - slot0); i += threads) {
    y[slot0 + i] += result<R, 1, 32>(results, i, 0, p.split);
  }
}
#line 752 "lm_product.metal"






#line 1 "the __global__ functions"
)~",
       {
           {"qmv_b4_bf16_r1_c1", R"~(extern "C" __global__ void qmv_b4_bf16_r1_c1(msl_cuda::passed<decltype(&qmv<4, false, 1, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<4, false, 1, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<4, false, 1, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<4, false, 1, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<4, false, 1, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<4, false, 1, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<4, false, 1, 1, 32>), 6> p) { qmv<4, false, 1, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 1, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 1, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 1, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 1, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 1, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b4_bf16_r2_c1", R"~(extern "C" __global__ void qmv_b4_bf16_r2_c1(msl_cuda::passed<decltype(&qmv<4, false, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<4, false, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<4, false, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<4, false, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<4, false, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<4, false, 2, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<4, false, 2, 1, 32>), 6> p) { qmv<4, false, 2, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b4_bf16_r4_c1", R"~(extern "C" __global__ void qmv_b4_bf16_r4_c1(msl_cuda::passed<decltype(&qmv<4, false, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<4, false, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<4, false, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<4, false, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<4, false, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<4, false, 4, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<4, false, 4, 1, 32>), 6> p) { qmv<4, false, 4, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 4, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 4, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 4, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 4, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 4, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b4_bf16_c8", R"~(extern "C" __global__ void qmv_b4_bf16_c8(msl_cuda::passed<decltype(&qmv<4, false, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qmv<4, false, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qmv<4, false, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qmv<4, false, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qmv<4, false, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qmv<4, false, 2, 8, 16>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<4, false, 2, 8, 16>), 6> p) { qmv<4, false, 2, 8, 16>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 8, 16>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 8, 16>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 8, 16>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 8, 16>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, false, 2, 8, 16>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b4_bf16_r2_c1", R"~(extern "C" __global__ void qkv_b4_bf16_r2_c1(msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<4, false, 2, 1, 32>), 9> p) { qkv<4, false, 2, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b4_bf16_r4_c1", R"~(extern "C" __global__ void qkv_b4_bf16_r4_c1(msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<4, false, 4, 1, 32>), 9> p) { qkv<4, false, 4, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 4, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 4, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 4, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 4, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 4, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b4_bf16_c8", R"~(extern "C" __global__ void qkv_b4_bf16_c8(msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 5> angles, msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 6> at, msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 7> pages, msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<4, false, 2, 8, 16>), 9> p) { qkv<4, false, 2, 8, 16>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 8, 16>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 8, 16>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 8, 16>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 8, 16>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, false, 2, 8, 16>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_b4_bf16_r1_c1", R"~(extern "C" __global__ void attend_project_b4_bf16_r1_c1(msl_cuda::passed<decltype(&attend_project<4, false, 1>), 0> q, msl_cuda::passed<decltype(&attend_project<4, false, 1>), 1> at, msl_cuda::passed<decltype(&attend_project<4, false, 1>), 2> pages, msl_cuda::passed<decltype(&attend_project<4, false, 1>), 3> w, msl_cuda::passed<decltype(&attend_project<4, false, 1>), 4> scales, msl_cuda::passed<decltype(&attend_project<4, false, 1>), 5> biases, msl_cuda::passed<decltype(&attend_project<4, false, 1>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<4, false, 1>), 7> p) { attend_project<4, false, 1>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 1>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 1>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 1>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 1>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 1>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_b4_bf16_r2_c1", R"~(extern "C" __global__ void attend_project_b4_bf16_r2_c1(msl_cuda::passed<decltype(&attend_project<4, false, 2>), 0> q, msl_cuda::passed<decltype(&attend_project<4, false, 2>), 1> at, msl_cuda::passed<decltype(&attend_project<4, false, 2>), 2> pages, msl_cuda::passed<decltype(&attend_project<4, false, 2>), 3> w, msl_cuda::passed<decltype(&attend_project<4, false, 2>), 4> scales, msl_cuda::passed<decltype(&attend_project<4, false, 2>), 5> biases, msl_cuda::passed<decltype(&attend_project<4, false, 2>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<4, false, 2>), 7> p) { attend_project<4, false, 2>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 2>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 2>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 2>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 2>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, false, 2>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b4_f16_r1_c1", R"~(extern "C" __global__ void qmv_b4_f16_r1_c1(msl_cuda::passed<decltype(&qmv<4, true, 1, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<4, true, 1, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<4, true, 1, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<4, true, 1, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<4, true, 1, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<4, true, 1, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<4, true, 1, 1, 32>), 6> p) { qmv<4, true, 1, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 1, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 1, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 1, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 1, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 1, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b4_f16_r2_c1", R"~(extern "C" __global__ void qmv_b4_f16_r2_c1(msl_cuda::passed<decltype(&qmv<4, true, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<4, true, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<4, true, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<4, true, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<4, true, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<4, true, 2, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<4, true, 2, 1, 32>), 6> p) { qmv<4, true, 2, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b4_f16_r4_c1", R"~(extern "C" __global__ void qmv_b4_f16_r4_c1(msl_cuda::passed<decltype(&qmv<4, true, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<4, true, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<4, true, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<4, true, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<4, true, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<4, true, 4, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<4, true, 4, 1, 32>), 6> p) { qmv<4, true, 4, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 4, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 4, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 4, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 4, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 4, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b4_f16_c8", R"~(extern "C" __global__ void qmv_b4_f16_c8(msl_cuda::passed<decltype(&qmv<4, true, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qmv<4, true, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qmv<4, true, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qmv<4, true, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qmv<4, true, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qmv<4, true, 2, 8, 16>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<4, true, 2, 8, 16>), 6> p) { qmv<4, true, 2, 8, 16>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 8, 16>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 8, 16>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 8, 16>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 8, 16>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<4, true, 2, 8, 16>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b4_f16_r2_c1", R"~(extern "C" __global__ void qkv_b4_f16_r2_c1(msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<4, true, 2, 1, 32>), 9> p) { qkv<4, true, 2, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b4_f16_r4_c1", R"~(extern "C" __global__ void qkv_b4_f16_r4_c1(msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<4, true, 4, 1, 32>), 9> p) { qkv<4, true, 4, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 4, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 4, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 4, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 4, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 4, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b4_f16_c8", R"~(extern "C" __global__ void qkv_b4_f16_c8(msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 5> angles, msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 6> at, msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 7> pages, msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<4, true, 2, 8, 16>), 9> p) { qkv<4, true, 2, 8, 16>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 8, 16>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 8, 16>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 8, 16>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 8, 16>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<4, true, 2, 8, 16>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_b4_f16_r1_c1", R"~(extern "C" __global__ void attend_project_b4_f16_r1_c1(msl_cuda::passed<decltype(&attend_project<4, true, 1>), 0> q, msl_cuda::passed<decltype(&attend_project<4, true, 1>), 1> at, msl_cuda::passed<decltype(&attend_project<4, true, 1>), 2> pages, msl_cuda::passed<decltype(&attend_project<4, true, 1>), 3> w, msl_cuda::passed<decltype(&attend_project<4, true, 1>), 4> scales, msl_cuda::passed<decltype(&attend_project<4, true, 1>), 5> biases, msl_cuda::passed<decltype(&attend_project<4, true, 1>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<4, true, 1>), 7> p) { attend_project<4, true, 1>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 1>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 1>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 1>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 1>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 1>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_b4_f16_r2_c1", R"~(extern "C" __global__ void attend_project_b4_f16_r2_c1(msl_cuda::passed<decltype(&attend_project<4, true, 2>), 0> q, msl_cuda::passed<decltype(&attend_project<4, true, 2>), 1> at, msl_cuda::passed<decltype(&attend_project<4, true, 2>), 2> pages, msl_cuda::passed<decltype(&attend_project<4, true, 2>), 3> w, msl_cuda::passed<decltype(&attend_project<4, true, 2>), 4> scales, msl_cuda::passed<decltype(&attend_project<4, true, 2>), 5> biases, msl_cuda::passed<decltype(&attend_project<4, true, 2>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<4, true, 2>), 7> p) { attend_project<4, true, 2>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 2>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 2>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 2>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 2>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<4, true, 2>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b8_bf16_r1_c1", R"~(extern "C" __global__ void qmv_b8_bf16_r1_c1(msl_cuda::passed<decltype(&qmv<8, false, 1, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<8, false, 1, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<8, false, 1, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<8, false, 1, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<8, false, 1, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<8, false, 1, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<8, false, 1, 1, 32>), 6> p) { qmv<8, false, 1, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 1, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 1, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 1, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 1, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 1, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b8_bf16_r2_c1", R"~(extern "C" __global__ void qmv_b8_bf16_r2_c1(msl_cuda::passed<decltype(&qmv<8, false, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<8, false, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<8, false, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<8, false, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<8, false, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<8, false, 2, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<8, false, 2, 1, 32>), 6> p) { qmv<8, false, 2, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b8_bf16_r4_c1", R"~(extern "C" __global__ void qmv_b8_bf16_r4_c1(msl_cuda::passed<decltype(&qmv<8, false, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<8, false, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<8, false, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<8, false, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<8, false, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<8, false, 4, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<8, false, 4, 1, 32>), 6> p) { qmv<8, false, 4, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 4, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 4, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 4, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 4, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 4, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b8_bf16_c8", R"~(extern "C" __global__ void qmv_b8_bf16_c8(msl_cuda::passed<decltype(&qmv<8, false, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qmv<8, false, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qmv<8, false, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qmv<8, false, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qmv<8, false, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qmv<8, false, 2, 8, 16>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<8, false, 2, 8, 16>), 6> p) { qmv<8, false, 2, 8, 16>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 8, 16>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 8, 16>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 8, 16>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 8, 16>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, false, 2, 8, 16>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b8_bf16_r2_c1", R"~(extern "C" __global__ void qkv_b8_bf16_r2_c1(msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<8, false, 2, 1, 32>), 9> p) { qkv<8, false, 2, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b8_bf16_r4_c1", R"~(extern "C" __global__ void qkv_b8_bf16_r4_c1(msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<8, false, 4, 1, 32>), 9> p) { qkv<8, false, 4, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 4, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 4, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 4, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 4, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 4, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b8_bf16_c8", R"~(extern "C" __global__ void qkv_b8_bf16_c8(msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 5> angles, msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 6> at, msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 7> pages, msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<8, false, 2, 8, 16>), 9> p) { qkv<8, false, 2, 8, 16>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 8, 16>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 8, 16>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 8, 16>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 8, 16>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, false, 2, 8, 16>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_b8_bf16_r1_c1", R"~(extern "C" __global__ void attend_project_b8_bf16_r1_c1(msl_cuda::passed<decltype(&attend_project<8, false, 1>), 0> q, msl_cuda::passed<decltype(&attend_project<8, false, 1>), 1> at, msl_cuda::passed<decltype(&attend_project<8, false, 1>), 2> pages, msl_cuda::passed<decltype(&attend_project<8, false, 1>), 3> w, msl_cuda::passed<decltype(&attend_project<8, false, 1>), 4> scales, msl_cuda::passed<decltype(&attend_project<8, false, 1>), 5> biases, msl_cuda::passed<decltype(&attend_project<8, false, 1>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<8, false, 1>), 7> p) { attend_project<8, false, 1>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 1>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 1>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 1>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 1>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 1>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_b8_bf16_r2_c1", R"~(extern "C" __global__ void attend_project_b8_bf16_r2_c1(msl_cuda::passed<decltype(&attend_project<8, false, 2>), 0> q, msl_cuda::passed<decltype(&attend_project<8, false, 2>), 1> at, msl_cuda::passed<decltype(&attend_project<8, false, 2>), 2> pages, msl_cuda::passed<decltype(&attend_project<8, false, 2>), 3> w, msl_cuda::passed<decltype(&attend_project<8, false, 2>), 4> scales, msl_cuda::passed<decltype(&attend_project<8, false, 2>), 5> biases, msl_cuda::passed<decltype(&attend_project<8, false, 2>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<8, false, 2>), 7> p) { attend_project<8, false, 2>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 2>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 2>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 2>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 2>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, false, 2>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b8_f16_r1_c1", R"~(extern "C" __global__ void qmv_b8_f16_r1_c1(msl_cuda::passed<decltype(&qmv<8, true, 1, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<8, true, 1, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<8, true, 1, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<8, true, 1, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<8, true, 1, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<8, true, 1, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<8, true, 1, 1, 32>), 6> p) { qmv<8, true, 1, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 1, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 1, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 1, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 1, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 1, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b8_f16_r2_c1", R"~(extern "C" __global__ void qmv_b8_f16_r2_c1(msl_cuda::passed<decltype(&qmv<8, true, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<8, true, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<8, true, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<8, true, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<8, true, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<8, true, 2, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<8, true, 2, 1, 32>), 6> p) { qmv<8, true, 2, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b8_f16_r4_c1", R"~(extern "C" __global__ void qmv_b8_f16_r4_c1(msl_cuda::passed<decltype(&qmv<8, true, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<8, true, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<8, true, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<8, true, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<8, true, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<8, true, 4, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<8, true, 4, 1, 32>), 6> p) { qmv<8, true, 4, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 4, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 4, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 4, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 4, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 4, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_b8_f16_c8", R"~(extern "C" __global__ void qmv_b8_f16_c8(msl_cuda::passed<decltype(&qmv<8, true, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qmv<8, true, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qmv<8, true, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qmv<8, true, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qmv<8, true, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qmv<8, true, 2, 8, 16>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<8, true, 2, 8, 16>), 6> p) { qmv<8, true, 2, 8, 16>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 8, 16>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 8, 16>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 8, 16>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 8, 16>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<8, true, 2, 8, 16>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b8_f16_r2_c1", R"~(extern "C" __global__ void qkv_b8_f16_r2_c1(msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<8, true, 2, 1, 32>), 9> p) { qkv<8, true, 2, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b8_f16_r4_c1", R"~(extern "C" __global__ void qkv_b8_f16_r4_c1(msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<8, true, 4, 1, 32>), 9> p) { qkv<8, true, 4, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 4, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 4, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 4, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 4, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 4, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_b8_f16_c8", R"~(extern "C" __global__ void qkv_b8_f16_c8(msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 5> angles, msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 6> at, msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 7> pages, msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<8, true, 2, 8, 16>), 9> p) { qkv<8, true, 2, 8, 16>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 8, 16>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 8, 16>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 8, 16>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 8, 16>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<8, true, 2, 8, 16>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_b8_f16_r1_c1", R"~(extern "C" __global__ void attend_project_b8_f16_r1_c1(msl_cuda::passed<decltype(&attend_project<8, true, 1>), 0> q, msl_cuda::passed<decltype(&attend_project<8, true, 1>), 1> at, msl_cuda::passed<decltype(&attend_project<8, true, 1>), 2> pages, msl_cuda::passed<decltype(&attend_project<8, true, 1>), 3> w, msl_cuda::passed<decltype(&attend_project<8, true, 1>), 4> scales, msl_cuda::passed<decltype(&attend_project<8, true, 1>), 5> biases, msl_cuda::passed<decltype(&attend_project<8, true, 1>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<8, true, 1>), 7> p) { attend_project<8, true, 1>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 1>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 1>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 1>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 1>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 1>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_b8_f16_r2_c1", R"~(extern "C" __global__ void attend_project_b8_f16_r2_c1(msl_cuda::passed<decltype(&attend_project<8, true, 2>), 0> q, msl_cuda::passed<decltype(&attend_project<8, true, 2>), 1> at, msl_cuda::passed<decltype(&attend_project<8, true, 2>), 2> pages, msl_cuda::passed<decltype(&attend_project<8, true, 2>), 3> w, msl_cuda::passed<decltype(&attend_project<8, true, 2>), 4> scales, msl_cuda::passed<decltype(&attend_project<8, true, 2>), 5> biases, msl_cuda::passed<decltype(&attend_project<8, true, 2>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<8, true, 2>), 7> p) { attend_project<8, true, 2>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 2>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 2>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 2>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 2>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<8, true, 2>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_bf16_r1_c1", R"~(extern "C" __global__ void qmv_bf16_r1_c1(msl_cuda::passed<decltype(&qmv<16, false, 1, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<16, false, 1, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<16, false, 1, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<16, false, 1, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<16, false, 1, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<16, false, 1, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<16, false, 1, 1, 32>), 6> p) { qmv<16, false, 1, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 1, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 1, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 1, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 1, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 1, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_bf16_r2_c1", R"~(extern "C" __global__ void qmv_bf16_r2_c1(msl_cuda::passed<decltype(&qmv<16, false, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<16, false, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<16, false, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<16, false, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<16, false, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<16, false, 2, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<16, false, 2, 1, 32>), 6> p) { qmv<16, false, 2, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_bf16_r4_c1", R"~(extern "C" __global__ void qmv_bf16_r4_c1(msl_cuda::passed<decltype(&qmv<16, false, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qmv<16, false, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qmv<16, false, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qmv<16, false, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qmv<16, false, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qmv<16, false, 4, 1, 32>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<16, false, 4, 1, 32>), 6> p) { qmv<16, false, 4, 1, 32>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 4, 1, 32>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 4, 1, 32>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 4, 1, 32>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 4, 1, 32>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 4, 1, 32>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qmv_bf16_c8", R"~(extern "C" __global__ void qmv_bf16_c8(msl_cuda::passed<decltype(&qmv<16, false, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qmv<16, false, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qmv<16, false, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qmv<16, false, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qmv<16, false, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qmv<16, false, 2, 8, 16>), 5> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qmv<16, false, 2, 8, 16>), 6> p) { qmv<16, false, 2, 8, 16>(x, weight, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 8, 16>), 7>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 8, 16>), 8>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 8, 16>), 9>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 8, 16>), 10>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qmv<16, false, 2, 8, 16>), 11>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_bf16_r2_c1", R"~(extern "C" __global__ void qkv_bf16_r2_c1(msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<16, false, 2, 1, 32>), 9> p) { qkv<16, false, 2, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_bf16_r4_c1", R"~(extern "C" __global__ void qkv_bf16_r4_c1(msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 0> x, msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 1> weight, msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 2> w, msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 3> scales, msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 4> biases, msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 5> angles, msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 6> at, msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 7> pages, msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<16, false, 4, 1, 32>), 9> p) { qkv<16, false, 4, 1, 32>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 4, 1, 32>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 4, 1, 32>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 4, 1, 32>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 4, 1, 32>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 4, 1, 32>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"qkv_bf16_c8", R"~(extern "C" __global__ void qkv_bf16_c8(msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 0> x, msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 1> weight, msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 2> w, msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 3> scales, msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 4> biases, msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 5> angles, msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 6> at, msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 7> pages, msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 8> q, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&qkv<16, false, 2, 8, 16>), 9> p) { qkv<16, false, 2, 8, 16>(x, weight, w, scales, biases, angles, at, pages, q, p, msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 8, 16>), 10>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 8, 16>), 11>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 8, 16>), 12>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 8, 16>), 13>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&qkv<16, false, 2, 8, 16>), 14>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_bf16_r1_c1", R"~(extern "C" __global__ void attend_project_bf16_r1_c1(msl_cuda::passed<decltype(&attend_project<16, false, 1>), 0> q, msl_cuda::passed<decltype(&attend_project<16, false, 1>), 1> at, msl_cuda::passed<decltype(&attend_project<16, false, 1>), 2> pages, msl_cuda::passed<decltype(&attend_project<16, false, 1>), 3> w, msl_cuda::passed<decltype(&attend_project<16, false, 1>), 4> scales, msl_cuda::passed<decltype(&attend_project<16, false, 1>), 5> biases, msl_cuda::passed<decltype(&attend_project<16, false, 1>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<16, false, 1>), 7> p) { attend_project<16, false, 1>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 1>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 1>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 1>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 1>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 1>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
           {"attend_project_bf16_r2_c1", R"~(extern "C" __global__ void attend_project_bf16_r2_c1(msl_cuda::passed<decltype(&attend_project<16, false, 2>), 0> q, msl_cuda::passed<decltype(&attend_project<16, false, 2>), 1> at, msl_cuda::passed<decltype(&attend_project<16, false, 2>), 2> pages, msl_cuda::passed<decltype(&attend_project<16, false, 2>), 3> w, msl_cuda::passed<decltype(&attend_project<16, false, 2>), 4> scales, msl_cuda::passed<decltype(&attend_project<16, false, 2>), 5> biases, msl_cuda::passed<decltype(&attend_project<16, false, 2>), 6> y, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&attend_project<16, false, 2>), 7> p) { attend_project<16, false, 2>(q, at, pages, w, scales, biases, y, p, msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 2>), 8>>(msl_cuda::threadgroup_position_in_grid()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 2>), 9>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 2>), 10>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 2>), 11>>(msl_cuda::simdgroup_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&attend_project<16, false, 2>), 12>>(msl_cuda::simdgroups_per_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
      {"lm_sample.metal", std::string(kHeader) +
R"~(#line 1 "lm_sample.metal"
#line 16 "lm_sample.metal"
using namespace metal;

struct SampleParams {
  int n;
  int stream;
};

struct Draw {
  float temperature;
  int top_k;
  int target;
  int forced;
  ulong seed;
  ulong frame;
};

const constexpr int THREADS = 1024;
const constexpr int BINS = 2048;
const constexpr uint INFINITE = 0x7F800000u;
const constexpr uint LOWEST = 0x007FFFFFu;


METAL_FUNC uint key_of(uint bits) {
  if ((bits & 0x7FFFFFFFu) > INFINITE) return 0u;
  if (bits == 0x80000000u) bits = 0u;
  return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}

struct Best {
  uint key;
  uint index;
};


METAL_FUNC Best group_best(uint key, uint index, uint lane, uint sg, uint* keys,
                           uint* indices) {
  uint most = simd_max(key);
  uint at = simd_min(key == most ? index : 0xFFFFFFFFu);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    keys[sg] = most;
    indices[sg] = at;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  Best best;
  best.key = simd_max(keys[lane]);
  best.index = simd_min(keys[lane] == best.key ? indices[lane] : 0xFFFFFFFFu);
  return best;
}



struct Bound {
  uint key;
  uint key_mask;
  uint index;
  uint index_mask;
  uint places;
  uint rivals;
};

METAL_FUNC uint inverted(int i) {
  return 0x3FFFFFu - uint(i);
}


METAL_FUNC void narrow(Bound& bound, const uint* logits, int n, int shift, int bits, bool by_index,
                       uint lid, uint lane, uint sg, atomic_uint* histogram, uint* parts,
                       uint* chosen) {
  const uint digit_mask = (1u << uint(bits)) - 1u;
  for (int i = int(lid); i < BINS; i += THREADS) atomic_store_explicit(&histogram[i], 0u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = int(lid); i < n; i += THREADS) {
    const uint key = max(key_of(logits[i]), LOWEST);
    const uint index = inverted(i);
    if ((key & bound.key_mask) == bound.key && (index & bound.index_mask) == bound.index) {
      const uint digit = ((by_index ? index : key) >> uint(shift)) & digit_mask;
      atomic_fetch_add_explicit(&histogram[digit], 1u, memory_order_relaxed);
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  const uint high = uint(BINS - 1) - 2u * lid;
  const uint in_high = atomic_load_explicit(&histogram[high], memory_order_relaxed);
  const uint in_low = atomic_load_explicit(&histogram[high - 1u], memory_order_relaxed);
  uint before = simd_prefix_exclusive_sum(in_high + in_low);
  if (lane == 31u) parts[sg] = before + in_high + in_low;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  before += simd_sum(lane < sg ? parts[lane] : 0u);
  if (before < bound.places && bound.places <= before + in_high + in_low) {
    const bool in_first = bound.places <= before + in_high;
    chosen[0] = in_first ? high : high - 1u;
    chosen[1] = bound.places - before - (in_first ? 0u : in_high);
    chosen[2] = in_first ? in_high : in_low;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (by_index) {
    bound.index |= chosen[0] << uint(shift);
    bound.index_mask |= digit_mask << uint(shift);
  } else {
    bound.key |= chosen[0] << uint(shift);
    bound.key_mask |= digit_mask << uint(shift);
  }
  bound.places = chosen[1];
  bound.rivals = chosen[2];
}

METAL_FUNC uint4 noise_words(ulong seed, ulong frame, uint stream, uint block) {
  uint4 c = uint4(block, stream, uint(frame), uint(frame >> 32));
  uint key0 = uint(seed);
  uint key1 = uint(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const ulong a = ulong(0xD2511F53u) * ulong(c.x);
    const ulong b = ulong(0xCD9E8D57u) * ulong(c.z);
    c = uint4(uint(b >> 32) ^ c.y ^ key0, uint(b), uint(a >> 32) ^ c.w ^ key1, uint(a));
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}


METAL_FUNC float exponential(uint x) {
  const uint n = x >> 8;
  if (n < 0x800000u) return -metal::precise::log((float(n) + 0.5f) * 5.9604644775390625e-8f);
  const float z = (float(0xFFFFFFu - n) + 0.5f) * 5.9604644775390625e-8f;
  const float s = z / (2.0f - z);
  const float t = s * s;
  float sum = 1.0f / 15.0f;
  sum = sum * t + 1.0f / 13.0f;
  sum = sum * t + 1.0f / 11.0f;
  sum = sum * t + 1.0f / 9.0f;
  sum = sum * t + 1.0f / 7.0f;
  sum = sum * t + 1.0f / 5.0f;
  sum = sum * t + 1.0f / 3.0f;
  return 2.0f * (s + s * t * sum);
}


METAL_FUNC uint race(uint x, uint largest, float temperature, uint noise) {
  if (largest == INFINITE) return x == INFINITE ? 0u : 1u;
  if ((largest & INFINITE) == INFINITE) return 0u;
  if (x == (INFINITE | 0x80000000u)) return 1u;
  const float far = (as_type<float>(x) - as_type<float>(largest)) / temperature;
  return as_type<uint>(metal::precise::exp(max(far, -200.0f)) / exponential(noise)) + 1u;
}

MSL_D void msl_sample(
    const uint* logits ,
    const Draw* draw ,
    int* token ,
    const SampleParams& p ,
    uint lid ,
    uint lane ,
    uint sg ) {
  __shared__ atomic_uint histogram[BINS];
  __shared__ uint parts[32];
  __shared__ uint indices[32];
  __shared__ uint chosen[3];
  if (draw->forced != 0) {
    if (lid == 0) token[0] = draw->target;
    return;
  }

  uint key = 0u;
  uint at = 0xFFFFFFFFu;
  for (int i = int(lid); i < p.n; i += THREADS) {
    const uint k = key_of(logits[i]);
    if (k > key || at == 0xFFFFFFFFu) {
      key = k;
      at = uint(i);
    }
  }
  const uint largest = group_best(key, at, lane, sg, parts, indices).index;
  const uint bits = as_type<uint>(draw->temperature);
  if ((bits & 0x80000000u) != 0u || bits == 0u || bits > INFINITE) {
    if (lid == 0) token[0] = int(largest);
    return;
  }
  const float temperature = max(draw->temperature, 1.17549435e-38f);

  Bound bound;
  bound.key = 0u;
  bound.key_mask = 0u;
  bound.index = 0u;
  bound.index_mask = 0u;
  bound.places = uint(draw->top_k);
  bound.rivals = 0u;
  if (draw->top_k > 0 && draw->top_k < p.n) {
    narrow(bound, logits, p.n, 21, 11, false, lid, lane, sg, histogram, parts, chosen);
    narrow(bound, logits, p.n, 10, 11, false, lid, lane, sg, histogram, parts, chosen);
    narrow(bound, logits, p.n, 0, 10, false, lid, lane, sg, histogram, parts, chosen);
    if (bound.places < bound.rivals && bound.key != LOWEST) {
      narrow(bound, logits, p.n, 11, 11, true, lid, lane, sg, histogram, parts, chosen);
      narrow(bound, logits, p.n, 0, 11, true, lid, lane, sg, histogram, parts, chosen);
    }
  }

  key = 0u;
  at = 0xFFFFFFFFu;
  for (int block = int(lid); 4 * block < p.n; block += THREADS) {
    bool taken[4];
    bool any = false;
    for (int j = 0; j < 4; j++) {
      const int i = 4 * block + j;
      const uint k = i < p.n ? key_of(logits[i]) : 0u;
      taken[j] = k != 0u && (k > bound.key || (k == bound.key && inverted(i) >= bound.index));
      any = any || taken[j];
    }
    if (!any) continue;
    const uint4 words = noise_words(draw->seed, draw->frame, uint(p.stream), uint(block));
    const uint noise[4] = {words.x, words.y, words.z, words.w};
    for (int j = 0; j < 4; j++) {
      if (!taken[j]) continue;
      const uint k = race(logits[4 * block + j], logits[largest], temperature, noise[j]);
      if (k > key) {
        key = k;
        at = uint(4 * block + j);
      }
    }
  }
  const Best best = group_best(key, at, lane, sg, parts, indices);
  if (lid == 0) token[0] = int(best.key == 0u ? largest : best.index);
}

#line 1 "the __global__ functions"
)~",
       {
           {"sample", R"~(extern "C" __global__ void sample(msl_cuda::passed<decltype(&msl_sample), 0> logits, msl_cuda::passed<decltype(&msl_sample), 1> draw, msl_cuda::passed<decltype(&msl_sample), 2> token, MSL_GRID_CONSTANT msl_cuda::passed<decltype(&msl_sample), 3> p) { msl_sample(logits, draw, token, p, msl_cuda::builtin<msl_cuda::at<decltype(&msl_sample), 4>>(msl_cuda::thread_index_in_threadgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_sample), 5>>(msl_cuda::thread_index_in_simdgroup()), msl_cuda::builtin<msl_cuda::at<decltype(&msl_sample), 6>>(msl_cuda::simdgroup_index_in_threadgroup())); }
}  // namespace metal::kernels
)~"},
       }},
  };
}

}  // namespace personaplex::gpu
