// csrc/cpu/kernels_neon.cpp: NEON; see simd.h for the order of this file.
#include "cpu/kernels.h"

#if defined(__aarch64__)

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "checkpoint/bf16.h"
#include "cpu/simd_neon.h"
// The templates come last: they use what is above.
#include "cpu/attention_impl.h"
#include "cpu/gemm_impl.h"
#include "cpu/pointwise_impl.h"

namespace personaplex::cpu {

namespace {

constexpr Kernels kKernels = {Attention<Neon>::kernels(), pointwise_of<Neon>(), Gemm<Neon, 6, 4, 8>::kernels()};

}  // namespace

}  // namespace personaplex::cpu

PERSONAPLEX_SIMD_END

namespace personaplex::cpu {
const Kernels* neon_kernels() { return &kKernels; }
}  // namespace personaplex::cpu

#else

namespace personaplex::cpu {
const Kernels* neon_kernels() { return nullptr; }
}  // namespace personaplex::cpu

#endif
