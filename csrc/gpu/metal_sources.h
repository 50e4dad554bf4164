// csrc/gpu/metal_sources.h: the kernels of kernels/*.metal for MetalOptions::sources.
#pragma once

#include <vector>

#include "gpu/metal_queue.h"

namespace personaplex::gpu {

std::vector<MetalSource> metal_sources();

}  // namespace personaplex::gpu
