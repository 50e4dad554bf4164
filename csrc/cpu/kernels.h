// csrc/cpu/kernels.h: the kernels that are written once (simd.h), one table per instruction set.
#pragma once

#include "cpu/attention.h"
#include "cpu/gemm.h"
#include "cpu/pointwise.h"

namespace personaplex::cpu {

struct Kernels {
  AttentionKernels attention;
  PointwiseKernels pointwise;
  GemmKernels gemm;
};

// Null where this build has none.
const Kernels* portable_kernels();
const Kernels* neon_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

}  // namespace personaplex::cpu
