// tools/metalsim/runtime/regions.h: the memory that kernels may reach through pointers that they load from memory.
#pragma once

#include <cstdint>
#include <map>

namespace metalsim {

struct Region {
  std::uintptr_t begin, end;
  bool read_only;
};

/// The regions as they are now, by begin. A launch works on its own copy.
std::map<std::uintptr_t, Region> regions();

/// The region that `address` lies in, or null.
const Region* find_region(const std::map<std::uintptr_t, Region>& all, std::uintptr_t address);

}  // namespace metalsim
