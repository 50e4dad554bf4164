// csrc/cpu/kernels_portable.cpp: plain C++; see simd.h for the order of this file.
#include "cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "checkpoint/bf16.h"
#include "cpu/simd_portable.h"
// The templates come last: they use what is above.
#include "cpu/attention_impl.h"
#include "cpu/gemm_impl.h"
#include "cpu/pointwise_impl.h"

namespace personaplex::cpu {

namespace {

constexpr Kernels kKernels = {Attention<Portable>::kernels(), pointwise_of<Portable>(),
                              Gemm<Portable, 6, 2, 4>::kernels()};

}  // namespace

}  // namespace personaplex::cpu

PERSONAPLEX_SIMD_END

namespace personaplex::cpu {
const Kernels* portable_kernels() { return &kKernels; }
}  // namespace personaplex::cpu
