// csrc/cpu/simd.h: the SIMD layer: how kernels are written once for all instruction sets, and the functions that are
// the same for all.
//
// A kernel is a template over a struct S of static functions, one struct per instruction set: Portable, Avx2, Avx512
// and Neon, in simd_<name>.h. Each has
//   kWidth                                   lanes of float32
//   kRegisters                               how many vectors fit
//   Vec, Mask                                kWidth floats; what less() returns
//   zero() set1(x) load(p) store(p, v)       p need not be aligned
//   load_bf16 load_i16 load_i8               kWidth values widened to float32, exactly
//   store_bf16 store_i8                      rounded to nearest even; store_i8 expects |v| <= 127
//   load_n ... store_i8_n                    the same for the first n lanes, 0 <= n <= kWidth: the others read as zero
//                                            and their memory is not touched
//   add sub mul div min max abs              lane by lane
//   fma(a, b, c)                             a * b + c; rounded once, but for Portable
//   less(a, b) select(mask, a, b)            a < b; a where mask, b elsewhere
//   round(v)                                 to nearest even; |v| < 2^22
//   scale2(v, n)                             v * 2^n for integral n of at most 256 in magnitude; rounded once
//   sum(v) largest(v)                        over the lanes
//   sums(v)                                  lane i = the sum over the lanes of v[i], i < kWidth; every i in the same
//                                            order
//
// The rule that keeps wide instructions out of code that other files may link to. A kernel's .cpp file is one
// instruction set's:
//   1. its includes of the standard library and of other parts of the project, and then
//   2. #include "cpu/simd_<name>.h", which includes this file: from here on, all functions use that instruction set;
//   3. the templates, #include "cpu/<kernel>_impl.h", and the table of their instantiations; then
//   4. PERSONAPLEX_SIMD_END, and only after it the function that other files call.
// What is defined in between is a template over S, or in an unnamed namespace. S itself is in one, so what is
// instantiated for it stays in its file. No lambdas (clang leaves them out), and no include of anything that could be
// new: the *_impl.h files include nothing but what 1 and 2 have seen.
//
// Results must not depend on how a caller splits its work: a * b + c is always written as fma, so that the compiler has
// no choice to make, differently, in a loop and in its remainder.
#pragma once

#include <cstdint>

#include "cpu/simd_target.h"

namespace personaplex::cpu {

/// e^x within 2 units in the last place, denormal results too; 0 below -104, infinity above 88.73.
template <class S>
PERSONAPLEX_INLINE typename S::Vec exp(typename S::Vec x) {
  x = S::min(S::max(x, S::set1(-105.0F)), S::set1(89.0F));
  // x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts, the first of which times n is exact.
  const typename S::Vec n = S::round(S::mul(x, S::set1(1.44269504F)));
  typename S::Vec r = S::fma(n, S::set1(-0.693359375F), x);
  r = S::fma(n, S::set1(2.12194440e-4F), r);
  typename S::Vec p = S::set1(1.9875691500e-4F);
  p = S::fma(p, r, S::set1(1.3981999507e-3F));
  p = S::fma(p, r, S::set1(8.3334519073e-3F));
  p = S::fma(p, r, S::set1(4.1665795894e-2F));
  p = S::fma(p, r, S::set1(1.6666665459e-1F));
  p = S::fma(p, r, S::set1(5.0000001201e-1F));
  p = S::fma(S::mul(r, r), p, r);
  return S::scale2(S::add(p, S::set1(1.0F)), n);
}

/// x / (1 + e^-x); nothing overflows on the way: finite for finite x.
template <class S>
PERSONAPLEX_INLINE typename S::Vec silu(typename S::Vec x) {
  const typename S::Vec one = S::set1(1.0F);
  const typename S::Vec e = exp<S>(S::sub(S::zero(), S::abs(x)));
  return S::div(S::mul(x, S::select(S::less(x, S::zero()), e, one)), S::add(one, e));
}

/// x for x > 0, e^x - 1 otherwise.
template <class S>
PERSONAPLEX_INLINE typename S::Vec elu(typename S::Vec x) {
  return S::select(S::less(S::zero(), x), x, S::sub(exp<S>(S::min(x, S::zero())), S::set1(1.0F)));
}

/// x / 2 (1 + erf(x / sqrt 2)), within 5e-7 for finite x: erfc by Abramowitz and Stegun 7.1.26.
template <class S>
PERSONAPLEX_INLINE typename S::Vec gelu(typename S::Vec x) {
  const typename S::Vec z = S::mul(S::abs(x), S::set1(0.70710678F));
  const typename S::Vec t = S::div(S::set1(1.0F), S::fma(z, S::set1(0.3275911F), S::set1(1.0F)));
  typename S::Vec p = S::set1(1.061405429F);
  p = S::fma(p, t, S::set1(-1.453152027F));
  p = S::fma(p, t, S::set1(1.421413741F));
  p = S::fma(p, t, S::set1(-0.284496736F));
  p = S::fma(p, t, S::set1(0.254829592F));
  p = S::mul(S::mul(p, t), exp<S>(S::sub(S::zero(), S::mul(z, z))));  // erfc(z)
  const typename S::Vec tail = S::mul(S::mul(x, S::set1(0.5F)), p);
  return S::select(S::less(x, S::zero()), tail, S::sub(x, tail));
}

}  // namespace personaplex::cpu
