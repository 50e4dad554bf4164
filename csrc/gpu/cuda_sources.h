// csrc/gpu/cuda_sources.h: the kernels of kernels/*.metal for CudaOptions::sources.
#pragma once

#include <string>
#include <vector>

#include "gpu/cuda_compiler.h"

namespace personaplex::gpu {

std::vector<CudaSource> cuda_sources();

}  // namespace personaplex::gpu
