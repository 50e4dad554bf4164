// csrc/gpu/read_bandwidth.h: how fast a GPU's memory can be read: the floor under everything else.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "gpu/queue.h"

namespace personaplex::gpu {

/// GB/s (1e9 bytes) of each of `passes` passes over `bytes` of memory of the GPU, which should be much more than its
/// caches hold, by name of the kernel that reads. The kernels take turns. A pass is a list of several readings, so that
/// starting it hardly counts. The memory is given back at the end.
std::map<std::string, std::vector<double>> read_bandwidth(Queue& queue, std::size_t bytes, int passes);

}  // namespace personaplex::gpu
