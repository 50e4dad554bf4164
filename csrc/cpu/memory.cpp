// csrc/cpu/memory.cpp: anonymous mappings.
#include "cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace personaplex::cpu {

namespace {

struct Mapping : ops::Memory {
  explicit Mapping(std::size_t wanted) {
    bytes = wanted;
    // Not reserved: a ring for thousands of positions is mostly untouched, and must not fail for want of swap.
    void* at = mmap(nullptr, std::max<std::size_t>(1, wanted), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
      throw DeviceError("[Session] cannot reserve " + std::to_string(wanted >> 20) + " MiB of address space: " +
                        std::strerror(errno) + ". Use a smaller context, or close sessions that are not needed.");
    }
    base = static_cast<std::byte*>(at);
  }
  ~Mapping() override { munmap(base, std::max<std::size_t>(1, bytes)); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
};

}  // namespace

std::unique_ptr<ops::Memory> reserve_memory(std::size_t bytes) { return std::make_unique<Mapping>(bytes); }

}  // namespace personaplex::cpu
