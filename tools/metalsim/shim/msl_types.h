// tools/metalsim/shim/msl_types.h: MSL's scalar and vector types, address spaces and type traits, in clang's C++17.
// MSL_STRICT_AS=1 makes address spaces real, for the type check only; 0 erases them, and bfloat becomes a class with
// MSL's conversion rules.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernel_side.h"

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;

#define METAL_FUNC inline __attribute__((always_inline))

#if MSL_STRICT_AS
#define device __attribute__((address_space(1)))
#define constant const __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#define thread
typedef __bf16 bfloat;  // a class could not be loaded through an address space
#else
#define device
#define constant const
#define threadgroup
#define thread

/// To float implicitly, from float only explicitly; an integer and a bfloat make a bfloat.
struct bfloat {
  std::uint16_t bits;
  bfloat() = default;
  template <class I, class = std::enable_if_t<std::is_integral_v<I>>>
  constexpr bfloat(I v) : bits(round(static_cast<float>(v))) {}
  explicit constexpr bfloat(float f) : bits(round(f)) {}
  explicit constexpr bfloat(_Float16 f) : bits(round(static_cast<float>(f))) {}
  constexpr operator float() const { return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16); }
  static constexpr std::uint16_t round(float f) {
    const auto u = __builtin_bit_cast(std::uint32_t, f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40);
    return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
  }
  constexpr bfloat operator-() const { return bfloat(-static_cast<float>(*this)); }
};
// Templates, so that no operand is converted to get here.
#define MSL_BFLOAT_OPERATOR(op)                                                                  \
  template <class A, class B,                                                                    \
            class = std::enable_if_t<(std::is_same_v<A, bfloat> && std::is_same_v<B, bfloat>) || \
                                     (std::is_same_v<A, bfloat> && std::is_integral_v<B>) ||     \
                                     (std::is_integral_v<A> && std::is_same_v<B, bfloat>)>>      \
  inline constexpr bfloat operator op(A a, B b) {                                                \
    return bfloat(static_cast<float>(a) op static_cast<float>(b));                               \
  }                                                                                              \
  inline constexpr bfloat& operator op## = (bfloat & a, bfloat b) { return a = a op b; }
MSL_BFLOAT_OPERATOR(+)
MSL_BFLOAT_OPERATOR(-)
MSL_BFLOAT_OPERATOR(*)
MSL_BFLOAT_OPERATOR(/)
#endif

#pragma clang diagnostic ignored "-Wreserved-user-defined-literal"
inline constexpr half operator""h(long double v) { return (half)v; }
inline constexpr half operator""h(unsigned long long v) { return (half)v; }
inline constexpr half operator"" H(long double v) { return (half)v; }
inline constexpr bfloat operator"" bf(long double v) { return (bfloat)(float)v; }

namespace metal {
namespace metal = ::metal;
using std::bool_constant;
using std::conditional;
using std::conditional_t;
using std::declval;
using std::enable_if;
using std::enable_if_t;
using std::false_type;
using std::integral_constant;
using std::is_arithmetic;
using std::is_arithmetic_v;
using std::is_const;
using std::is_convertible;
using std::is_convertible_v;
using std::is_floating_point;
using std::is_floating_point_v;
using std::is_integral;
using std::is_integral_v;
using std::is_pointer;
using std::is_pointer_v;
using std::is_same;
using std::is_same_v;
using std::is_signed;
using std::is_signed_v;
using std::is_unsigned;
using std::is_unsigned_v;
using std::make_unsigned_t;
using std::remove_const;
using std::remove_cv;
using std::remove_cv_t;
using std::remove_pointer_t;
using std::remove_reference_t;
using std::true_type;

// ---- vectors: clang's own, which have swizzles, [] and arithmetic
#if MSL_STRICT_AS
template <class T, int N>
using vec = T __attribute__((ext_vector_type(N)));
#else
template <int N>
struct bfloat_vector;
template <>
struct alignas(4) bfloat_vector<2> {
  bfloat x, y;
  constexpr bfloat& operator[](int i) { return (&x)[i]; }
  constexpr const bfloat& operator[](int i) const { return (&x)[i]; }
};
template <>
struct alignas(8) bfloat_vector<3> {
  bfloat x, y, z;
  constexpr bfloat& operator[](int i) { return (&x)[i]; }
  constexpr const bfloat& operator[](int i) const { return (&x)[i]; }
};
template <>
struct alignas(8) bfloat_vector<4> {
  bfloat x, y, z, w;
  constexpr bfloat& operator[](int i) { return (&x)[i]; }
  constexpr const bfloat& operator[](int i) const { return (&x)[i]; }
};
template <class T, int N>
struct vector_of {
  typedef T type __attribute__((ext_vector_type(N)));
};
template <int N>
struct vector_of<bfloat, N> {
  typedef bfloat_vector<N> type;
};
// An alias is not deduced from and has no constructor of several arguments: float2(a, b), not vec<float, 2>(a, b).
template <class T, int N>
using vec = typename vector_of<T, N>::type;
#endif

template <class V>
struct vector_traits {
  using element = V;
  static constexpr int n = 1;
};
template <class T, int N>
struct vector_traits<T __attribute__((ext_vector_type(N)))> {
  using element = T;
  static constexpr int n = N;
};
#if !MSL_STRICT_AS
template <int N>
struct vector_traits<bfloat_vector<N>> {
  using element = bfloat;
  static constexpr int n = N;
};
#endif
template <class V>
using element_t = typename vector_traits<V>::element;
template <class V>
inline constexpr int size_v = vector_traits<V>::n;
template <class V>
inline constexpr bool is_vec_v = size_v<V> > 1;
template <class T>
inline constexpr bool is_scalar_v = std::is_arithmetic_v<T> || std::is_same_v<T, half> || std::is_same_v<T, bfloat>;

/// What `float4(...)` and its like mean.
template <class V, class... A>
constexpr V make_vector(A... a) {
  using E = element_t<V>;
  V result = V();
  if constexpr (sizeof...(A) == 1) {
    auto one = [](auto x) { return x; }(a...);
    static_assert(is_scalar_v<decltype(one)> || size_v<decltype(one)> == size_v<V>, "vector sizes differ");
    for (int k = 0; k < size_v<V>; k++) {
      if constexpr (is_vec_v<decltype(one)>) {
        result[k] = (E)one[k];
      } else {
        result[k] = (E)one;
      }
    }
  } else if constexpr (sizeof...(A) > 1) {
    static_assert((size_v<A> + ...) == size_v<V>, "wrong number of components for this vector");
    int i = 0;
    auto put = [&](auto x) {
      if constexpr (is_vec_v<decltype(x)>) {
        for (int k = 0; k < size_v<decltype(x)>; k++) result[i++] = (E)x[k];
      } else {
        result[i++] = (E)x;
      }
    };
    (put(a), ...);
  }
  return result;
}
}  // namespace metal

#define MSL_VECTORS_OF(T)                             \
  typedef T T##2 __attribute__((ext_vector_type(2))); \
  typedef T T##3 __attribute__((ext_vector_type(3))); \
  typedef T T##4 __attribute__((ext_vector_type(4)));
#define MSL_ALL_VECTORS  \
  MSL_VECTORS_OF(char)   \
  MSL_VECTORS_OF(uchar)  \
  MSL_VECTORS_OF(short)  \
  MSL_VECTORS_OF(ushort) \
  MSL_VECTORS_OF(int)    \
  MSL_VECTORS_OF(uint)   \
  MSL_VECTORS_OF(long)   \
  MSL_VECTORS_OF(ulong)  \
  MSL_VECTORS_OF(half)   \
  MSL_VECTORS_OF(float)  \
  MSL_VECTORS_OF(bool)
MSL_ALL_VECTORS
namespace metal {
MSL_ALL_VECTORS
}
#if MSL_STRICT_AS
MSL_VECTORS_OF(bfloat)
#else
typedef metal::bfloat_vector<2> bfloat2;
typedef metal::bfloat_vector<3> bfloat3;
typedef metal::bfloat_vector<4> bfloat4;
#endif

template <class T, int N>
struct msl_packed {
  T v[N];
  using V = metal::vec<T, N>;
  msl_packed() = default;
  msl_packed(V x) {
    for (int i = 0; i < N; i++) v[i] = x[i];
  }
  operator V() const {
    V r;
    for (int i = 0; i < N; i++) r[i] = v[i];
    return r;
  }
};
typedef msl_packed<float, 2> packed_float2;
typedef msl_packed<float, 3> packed_float3;
typedef msl_packed<float, 4> packed_float4;
typedef msl_packed<half, 2> packed_half2;
typedef msl_packed<half, 4> packed_half4;
typedef msl_packed<uchar, 4> packed_uchar4;
typedef msl_packed<char, 4> packed_char4;
typedef msl_packed<short, 4> packed_short4;
typedef msl_packed<uint, 2> packed_uint2;
typedef msl_packed<uint, 4> packed_uint4;

template <class D, class S>
inline constexpr D as_type(S s) {
  static_assert(sizeof(D) == sizeof(S), "as_type: sizes differ");
  return __builtin_bit_cast(D, s);
}

namespace metal {
using ::as_type;

template <class T>
struct numeric_limits : std::numeric_limits<T> {};
template <>
struct numeric_limits<half> {
  static constexpr half max() { return (half)65504.f; }
  static constexpr half min() { return (half)6.103515625e-05f; }
  static constexpr half lowest() { return (half)-65504.f; }
  static constexpr half infinity() { return (half)__builtin_inff(); }
  static constexpr half quiet_NaN() { return (half)__builtin_nanf(""); }
  static constexpr half epsilon() { return (half)9.765625e-4f; }
};
template <>
struct numeric_limits<bfloat> {
  static constexpr bfloat max() { return (bfloat)3.38953139e38f; }
  static constexpr bfloat min() { return (bfloat)1.17549435e-38f; }
  static constexpr bfloat lowest() { return (bfloat)-3.38953139e38f; }
  static constexpr bfloat infinity() { return (bfloat)__builtin_inff(); }
  static constexpr bfloat quiet_NaN() { return (bfloat)__builtin_nanf(""); }
};

template <class T, std::size_t N>
struct array {
  T v[N];
  constexpr T& operator[](std::size_t i) { return v[i]; }
  constexpr const T& operator[](std::size_t i) const { return v[i]; }
};
}  // namespace metal
