// csrc/cpu/memory.cpp: anonymous mappings.
#include "cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "core/error.h"

namespace personaplex::cpu {

namespace {

// From here on memory asks for huge pages: they are cleared several times faster, and need fewer entries of the TLB.
constexpr std::size_t kHuge = std::size_t{4} << 20;

struct Mapping : ops::Memory {
  Mapping(std::size_t wanted, ops::Use use) {
    bytes = wanted;
    // Not reserved: a ring for thousands of positions is mostly untouched, and must not fail for want of swap.
    void* at = mmap(nullptr, std::max<std::size_t>(1, wanted), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
      throw DeviceError("[Session] cannot reserve " + std::to_string(wanted >> 20) + " MiB of address space: " +
                        std::strerror(errno) + ". Use a smaller context, or close sessions that are not needed.");
    }
    base = static_cast<std::byte*>(at);
    if (use == ops::Use::kInput || use == ops::Use::kOutput) host = base;
#if defined(MADV_HUGEPAGE)
    if (wanted >= kHuge) (void)madvise(at, wanted, MADV_HUGEPAGE);
#endif
  }
  ~Mapping() override { munmap(base, std::max<std::size_t>(1, bytes)); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void read(std::size_t offset, std::size_t count, void* to) const override { std::memcpy(to, base + offset, count); }
  void write(std::size_t offset, std::size_t count, const void* from) override {
    std::memcpy(base + offset, from, count);
  }
  void copy_from(const Memory& other) override { std::memcpy(base, other.base, bytes); }
};

}  // namespace

std::unique_ptr<ops::Memory> reserve_memory(std::size_t bytes, ops::Use use) {
  return std::make_unique<Mapping>(bytes, use);
}

void fetch_pages(const std::byte* data, std::size_t bytes) {
#if defined(__linux__)
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ, since Linux 5.14
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(data) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(data) + bytes;
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, kPopulateRead);
#else
  (void)data;
  (void)bytes;
#endif
}

void release_pages(const std::byte* data, std::size_t bytes) {
#if defined(__linux__)
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace personaplex::cpu
