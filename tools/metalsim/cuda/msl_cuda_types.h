// tools/metalsim/cuda/msl_cuda_types.h: MSL's scalars and vectors in CUDA.
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

}  // namespace metal
