// csrc/cpu/kernels_avx512.cpp: AVX-512; see simd.h for the order of this file.
#include "cpu/kernels.h"

#if defined(__x86_64__)

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "checkpoint/bf16.h"
#include "cpu/simd_avx512.h"
// The templates come last: they use what is above.
#include "cpu/attention_impl.h"
#include "cpu/gemm_impl.h"
#include "cpu/pointwise_impl.h"

namespace personaplex::cpu {

namespace {

constexpr Kernels kKernels = {Attention<Avx512>::kernels(), pointwise_of<Avx512>(), Gemm<Avx512, 12, 2, 2>::kernels()};

}  // namespace

}  // namespace personaplex::cpu

PERSONAPLEX_SIMD_END

namespace personaplex::cpu {
const Kernels* avx512_kernels() { return &kKernels; }
}  // namespace personaplex::cpu

#else

namespace personaplex::cpu {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace personaplex::cpu

#endif
