// csrc/cpu/read_bandwidth.h: how fast this machine's memory can be read by the threads of the pool: the floor under
// everything else.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "cpu/pool.h"

namespace personaplex::cpu {

/// GB/s (1e9 bytes) of each of `passes` passes over `bytes` of fresh memory, by name of the loop that reads: plain
/// words, and what vectors this machine has, with and without prefetching. The loops take turns. The memory, better
/// much larger than all caches, is given back at the end. std::bad_alloc where it is not to be had.
std::map<std::string, std::vector<double>> read_bandwidth(Pool& pool, std::size_t bytes, int passes);

}  // namespace personaplex::cpu
