// csrc/cpu/kernels.cpp: from an instruction set to its kernels.
#include "cpu/kernels.h"

#include <stdexcept>
#include <string>

namespace personaplex::cpu {

namespace {

const Kernels& kernels_of(Isa isa) {
  const Kernels* kernels = nullptr;
  switch (isa) {
    case Isa::kPortable:
      kernels = portable_kernels();
      break;
    case Isa::kNeon:
      kernels = neon_kernels();
      break;
    case Isa::kAvx2:
      kernels = avx2_kernels();
      break;
    case Isa::kAvx512Vnni:
    case Isa::kAvx512Bf16:
      kernels = avx512_kernels();
      break;
  }
  if (kernels == nullptr || !supported(isa)) {
    throw std::invalid_argument(std::string("[kernels_of] this machine has no ") + name_of(isa) + ".");
  }
  return *kernels;
}

}  // namespace

const AttentionKernels& attention_kernels(Isa isa) { return kernels_of(isa).attention; }
const PointwiseKernels& pointwise_kernels(Isa isa) { return kernels_of(isa).pointwise; }
const GemmKernels& gemm_kernels(Isa isa) { return kernels_of(isa).gemm; }

}  // namespace personaplex::cpu
