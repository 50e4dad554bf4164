// csrc/gpu/obstacle.h: which models the GPU's kernels cannot run.
#pragma once

#include <string>

#include "checkpoint/weights.h"

namespace personaplex::gpu {

/// Why not, with keys and values of so many bits, as the end of a sentence; empty: they can.
std::string obstacle(const Config& config, int kv_bits);

}  // namespace personaplex::gpu
