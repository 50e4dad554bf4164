// csrc/cpu/simd_portable.h: 4 lanes in plain C++ with the compilers' vector types: SSE2 or whatever else every
// processor of the build has; see simd.h for the functions and for how to include it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "checkpoint/bf16.h"
#include "cpu/simd_target.h"

#define PERSONAPLEX_SIMD_END  // nothing was switched

namespace personaplex::cpu {

namespace {

struct Portable {
  typedef float Vec __attribute__((vector_size(16)));
  typedef std::int32_t Mask __attribute__((vector_size(16)));
  typedef std::uint32_t Words __attribute__((vector_size(16)));
  typedef std::uint16_t Halves __attribute__((vector_size(8)));
  typedef std::int64_t Long2 __attribute__((vector_size(16)));
  typedef std::uint16_t Halves8 __attribute__((vector_size(16)));
  typedef std::int8_t Bytes __attribute__((vector_size(4)));
  typedef std::int8_t Bytes16 __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;
  static constexpr int kRegisters = 16;

  /// n values from memory, zeros after them, as V.
  template <typename V, typename T>
  static PERSONAPLEX_INLINE V read(const T* p, int n = kWidth) {
    V v = {};
    std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(T));
    return v;
  }
  template <typename T, typename V>
  static PERSONAPLEX_INLINE void write(T* p, V v, int n = kWidth) {
    std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(T));
  }

  static PERSONAPLEX_INLINE Vec zero() { return Vec{}; }
  static PERSONAPLEX_INLINE Vec set1(float x) { return Vec{x, x, x, x}; }

  static PERSONAPLEX_INLINE Vec load(const float* p) { return read<Vec>(p); }
  static PERSONAPLEX_INLINE Vec load_n(const float* p, int n) { return read<Vec>(p, n); }
  static PERSONAPLEX_INLINE void store(float* p, Vec v) { write(p, v); }
  static PERSONAPLEX_INLINE void store_n(float* p, Vec v, int n) { write(p, v, n); }

  /// Halves become the higher ones of their words, by interleaving with zeros.
  static PERSONAPLEX_INLINE Vec from_bf16(Halves raw) {
    const Halves8 v = reinterpret<Halves8>(Long2{reinterpret<std::int64_t>(raw), 0});
    return reinterpret<Vec>(__builtin_shufflevector(Halves8{}, v, 0, 8, 1, 9, 2, 10, 3, 11));
  }
  static PERSONAPLEX_INLINE Vec load_bf16(const std::uint16_t* p) { return from_bf16(read<Halves>(p)); }
  static PERSONAPLEX_INLINE Vec load_bf16_n(const std::uint16_t* p, int n) { return from_bf16(read<Halves>(p, n)); }
  /// In the higher halves too, and back, which brings the signs along.
  static PERSONAPLEX_INLINE Vec from_i16(Halves raw) {
    return __builtin_convertvector(reinterpret<Mask>(from_bf16(raw)) >> 16, Vec);
  }
  static PERSONAPLEX_INLINE Vec load_i16(const std::int16_t* p) { return from_i16(read<Halves>(p)); }
  static PERSONAPLEX_INLINE Vec load_i16_n(const std::int16_t* p, int n) { return from_i16(read<Halves>(p, n)); }
  /// Bytes become the highest of their words, by two interleavings with zeros.
  static PERSONAPLEX_INLINE Vec from_i8(std::int32_t raw) {
    const Bytes16 zeros = {};
    Bytes16 v = reinterpret<Bytes16>(Mask{raw, 0, 0, 0});
    v = __builtin_shufflevector(zeros, v, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    v = __builtin_shufflevector(zeros, v, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
    return __builtin_convertvector(reinterpret<Mask>(v) >> 24, Vec);
  }
  static PERSONAPLEX_INLINE Vec load_i8(const std::int8_t* p) { return from_i8(read<std::int32_t>(p)); }
  static PERSONAPLEX_INLINE Vec load_i8_n(const std::int8_t* p, int n) { return from_i8(read<std::int32_t>(p, n)); }

  static PERSONAPLEX_INLINE void store_bf16_n(std::uint16_t* p, Vec v, int n) {
    for (int i = 0; i < n; ++i) p[i] = to_bf16_bits(v[i]);
  }
  static PERSONAPLEX_INLINE void store_bf16(std::uint16_t* p, Vec v) { store_bf16_n(p, v, kWidth); }
  static PERSONAPLEX_INLINE void store_i8_n(std::int8_t* p, Vec v, int n) {
    write(p, __builtin_convertvector(round(v), Bytes), n);
  }
  static PERSONAPLEX_INLINE void store_i8(std::int8_t* p, Vec v) { store_i8_n(p, v, kWidth); }

  static PERSONAPLEX_INLINE Vec add(Vec a, Vec b) { return a + b; }
  static PERSONAPLEX_INLINE Vec sub(Vec a, Vec b) { return a - b; }
  static PERSONAPLEX_INLINE Vec mul(Vec a, Vec b) { return a * b; }
  static PERSONAPLEX_INLINE Vec div(Vec a, Vec b) { return a / b; }
  static PERSONAPLEX_INLINE Vec min(Vec a, Vec b) { return select(less(a, b), a, b); }
  static PERSONAPLEX_INLINE Vec max(Vec a, Vec b) { return select(less(b, a), a, b); }
  static PERSONAPLEX_INLINE Vec abs(Vec a) { return reinterpret<Vec>(reinterpret<Words>(a) & 0x7FFFFFFFU); }
  static PERSONAPLEX_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
  static PERSONAPLEX_INLINE Mask less(Vec a, Vec b) { return a < b; }
  static PERSONAPLEX_INLINE Vec select(Mask mask, Vec a, Vec b) {
    return reinterpret<Vec>((mask & reinterpret<Mask>(a)) | (~mask & reinterpret<Mask>(b)));
  }
  /// Adding 1.5 * 2^23 leaves no bits after the point.
  static PERSONAPLEX_INLINE Vec round(Vec v) { return (v + 12582912.0F) - 12582912.0F; }
  /// In two factors: 2^n itself may not be representable. The first product is exact.
  static PERSONAPLEX_INLINE Vec scale2(Vec v, Vec n) {
    const Mask whole = __builtin_convertvector(n, Mask);
    const Mask half = whole >> 1;
    return v * reinterpret<Vec>((half + 127) << 23) * reinterpret<Vec>((whole - half + 127) << 23);
  }

  static PERSONAPLEX_INLINE float sum(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static PERSONAPLEX_INLINE float largest(Vec v) {
    const float a = v[0] < v[2] ? v[2] : v[0];
    const float b = v[1] < v[3] ? v[3] : v[1];
    return a < b ? b : a;
  }
  static PERSONAPLEX_INLINE Vec sums(const Vec* v) { return Vec{sum(v[0]), sum(v[1]), sum(v[2]), sum(v[3])}; }

 private:
  /// The same bits.
  template <typename To, typename From>
  static PERSONAPLEX_INLINE To reinterpret(From v) {
    return (To)v;
  }
};

}  // namespace

}  // namespace personaplex::cpu

#include "cpu/simd.h"
