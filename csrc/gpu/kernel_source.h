// csrc/gpu/kernel_source.h: the kernels of kernels/*.metal as the build put them into this binary, by
// tools/embed_kernels.py.
#pragma once

#include <vector>

#include "gpu/cuda_compiler.h"
#include "gpu/metal_queue.h"

namespace personaplex::gpu {

/// All files, in the order of their names.
std::vector<MetalSource> metal_sources();
/// The same kernels, translated for NVRTC, and those of kernels/cuda/*.cu.
std::vector<CudaSource> cuda_sources();

}  // namespace personaplex::gpu
