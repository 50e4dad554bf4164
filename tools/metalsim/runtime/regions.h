// tools/metalsim/runtime/regions.h: the memory that kernels may reach through pointers that they load from memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

namespace metalsim {

struct Region {
  std::uintptr_t begin, end;
  bool read_only;
};

using Regions = std::map<std::uintptr_t, Region>;  // by begin

/// The regions as they are now; later changes are not seen in it.
std::shared_ptr<const Regions> regions();

/// The region that `address` lies in, or null.
const Region* find_region(const Regions& all, std::uintptr_t address);

}  // namespace metalsim
