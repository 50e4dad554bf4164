// csrc/gpu/kernel_source.h: the kernels of kernels/*.metal as the build put them into this binary, by
// tools/embed_kernels.py.
#pragma once

#include <string>
#include <vector>

#include "gpu/cuda_compiler.h"

namespace personaplex::gpu {

/// One file of kernels/*.metal as it is.
struct MetalSource {
  std::string file;
  std::string text;
  std::vector<std::string> names;  // the host_names of its kernels
};

/// All files, in the order of their names.
std::vector<MetalSource> metal_sources();
/// The same kernels, translated for NVRTC.
std::vector<CudaSource> cuda_sources();

}  // namespace personaplex::gpu
