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
Regions& table() {
  static Regions it;
  return it;
}
// Made when it is asked for, dropped when the table changes: launches are many, changes few.
std::shared_ptr<const Regions>& snapshot() {
  static std::shared_ptr<const Regions> it;
  return it;
}

}  // namespace

std::shared_ptr<const Regions> regions() {
  std::lock_guard<std::mutex> lock(mutex());
  if (!snapshot()) snapshot() = std::make_shared<const Regions>(table());
  return snapshot();
}

const Region* find_region(const Regions& all, std::uintptr_t address) {
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
  snapshot().reset();
  table()[begin] = {begin, begin + bytes, read_only};
}

void unregister_region(const void* base) {
  std::lock_guard<std::mutex> lock(mutex());
  snapshot().reset();
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
