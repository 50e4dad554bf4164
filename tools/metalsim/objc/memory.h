// tools/metalsim/objc/memory.h: buffers, and which of them the GPU may reach.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>

#include "runtime.h"

namespace metalsim::objc {

/// Shared memory, zero at first: its address on the GPU is its address. A registered region that ends before a page
/// that nobody can touch.
struct Buffer : Object {
  explicit Buffer(std::size_t size);
  ~Buffer() override;
  std::byte* bytes;
  std::size_t length;
};
/// The buffer in which an address lies, or null.
Buffer* buffer_at(std::uintptr_t address);
std::size_t allocated_bytes();

/// Keeps its buffers alive. Changes count from commit on.
struct ResidencySet : Object {
  ResidencySet() : Object("MTLResidencySet") {}
  ~ResidencySet() override;
  std::set<Buffer*> wanted, resident;  // each holds references
};

}  // namespace metalsim::objc
