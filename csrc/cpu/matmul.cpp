// csrc/cpu/matmul.cpp: from an instruction set to its kernels.
#include "cpu/matmul.h"

#include <stdexcept>
#include <string>

namespace personaplex::cpu {

bool supports(const Matrix& w) {
  if (!w.quantized()) return w.weight.dtype == DType::kBF16;
  const bool scales =
      w.scales.dtype == w.biases.dtype && (w.scales.dtype == DType::kBF16 || w.scales.dtype == DType::kF16);
  return scales && (w.bits == 4 || w.bits == 8) && (w.group_size == 32 || w.group_size == 64) &&
         w.k % w.group_size == 0;
}

const MatmulKernels& matmul_kernels(Isa isa) {
  const MatmulKernels* kernels = nullptr;
  switch (isa) {
    case Isa::kPortable:
      kernels = &portable_matmul();
      break;
    case Isa::kNeon:
      kernels = neon_matmul();
      break;
    case Isa::kAvx2:
      kernels = avx2_matmul();
      break;
    case Isa::kAvx512Vnni:
      kernels = avx512vnni_matmul();
      break;
    case Isa::kAvx512Bf16:
      kernels = avx512bf16_matmul();
      break;
  }
  if (kernels == nullptr || !supported(isa)) {
    throw std::invalid_argument(std::string("[matmul_kernels] this machine has no ") + name_of(isa) + ".");
  }
  return *kernels;
}

}  // namespace personaplex::cpu
