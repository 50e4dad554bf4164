// tools/metalsim/runtime/regions.cpp: registered memory.
#include "regions.h"

#include <mutex>
#include <stdexcept>

#include "metalsim.h"

namespace metalsim {
namespace {

std::mutex& mutex() {
  static std::mutex it;
  return it;
}
std::map<std::uintptr_t, Region>& table() {
  static std::map<std::uintptr_t, Region> it;
  return it;
}

}  // namespace

std::map<std::uintptr_t, Region> regions() {
  std::lock_guard<std::mutex> lock(mutex());
  return table();
}

const Region* find_region(const std::map<std::uintptr_t, Region>& all, std::uintptr_t address) {
  auto next = all.upper_bound(address);
  if (next == all.begin()) return nullptr;
  const Region& region = std::prev(next)->second;
  return address < region.end ? &region : nullptr;
}

void register_region(const void* base, std::size_t bytes, bool read_only) {
  const auto begin = reinterpret_cast<std::uintptr_t>(base);
  if (!base || !bytes) throw std::invalid_argument("[metalsim.register_region] a region has a base and bytes.");
  std::lock_guard<std::mutex> lock(mutex());
  auto next = table().lower_bound(begin);
  const bool runs_into_next = next != table().end() && next->first < begin + bytes;
  const bool inside_previous = next != table().begin() && std::prev(next)->second.end > begin;
  if (runs_into_next || inside_previous) {
    throw std::invalid_argument("[metalsim.register_region] the memory overlaps a region that is registered already.");
  }
  table()[begin] = {begin, begin + bytes, read_only};
}

void unregister_region(const void* base) {
  std::lock_guard<std::mutex> lock(mutex());
  if (!table().erase(reinterpret_cast<std::uintptr_t>(base))) {
    throw std::invalid_argument("[metalsim.unregister_region] no region begins at this address.");
  }
}

std::size_t bytes_to_end_of_region(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  std::lock_guard<std::mutex> lock(mutex());
  const Region* region = find_region(table(), at);
  return region ? region->end - at : 0;
}

}  // namespace metalsim
