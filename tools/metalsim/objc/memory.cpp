// tools/metalsim/objc/memory.cpp: buffers as pages of their own, and residency sets.
#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <new>

#include "../runtime/metalsim.h"

namespace metalsim::objc {
namespace {

std::mutex mutex;
std::map<std::uintptr_t, Buffer*>& buffers() {
  static auto* it = new std::map<std::uintptr_t, Buffer*>;
  return *it;
}

/// The pages of a buffer, without the guard.
std::size_t paged(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}
std::size_t guard() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

std::uintptr_t address(const std::byte* bytes) { return reinterpret_cast<std::uintptr_t>(bytes); }

void drop(std::set<Buffer*>& set, Buffer* buffer) {
  if (set.erase(buffer) > 0) release(buffer);
}

const bool kMethods = [] {
  method("MTLBuffer", "contents", [](Buffer* self, Selector) { return self->bytes; });
  method("MTLBuffer", "length", [](Buffer* self, Selector) { return static_cast<unsigned long>(self->length); });
  method("MTLBuffer", "gpuAddress", [](Buffer* self, Selector) { return std::uint64_t{address(self->bytes)}; });
  method("+MTLResidencySetDescriptor", "alloc",
         [](Object*, Selector) { return new Object("MTLResidencySetDescriptor"); });
  method("MTLResidencySet", "addAllocation:", [](ResidencySet* self, Selector, Buffer* buffer) {
    if (self->wanted.insert(buffer).second) retain(buffer);
  });
  method("MTLResidencySet",
         "removeAllocation:", [](ResidencySet* self, Selector, Buffer* buffer) { drop(self->wanted, buffer); });
  method("MTLResidencySet", "commit", [](ResidencySet* self, Selector) {
    for (Buffer* buffer : self->wanted) retain(buffer);
    for (Buffer* buffer : self->resident) release(buffer);
    self->resident = self->wanted;
  });
  method("MTLResidencySet", "requestResidency", [](ResidencySet*, Selector) {});
  return true;
}();

}  // namespace

Buffer::Buffer(std::size_t size) : Object("MTLBuffer"), length(size) {
  const std::size_t pages = paged(length);
  void* memory =
      mmap(nullptr, pages + guard(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  bytes = static_cast<std::byte*>(memory);
  mprotect(bytes + pages, guard(), PROT_NONE);
  register_region(bytes, length);
  const std::lock_guard<std::mutex> lock(mutex);
  buffers()[address(bytes)] = this;
}

Buffer::~Buffer() {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    buffers().erase(address(bytes));
  }
  unregister_region(bytes);
  munmap(bytes, paged(length) + guard());
}

Buffer* buffer_at(std::uintptr_t at) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto next = buffers().upper_bound(at);
  if (next == buffers().begin()) return nullptr;
  Buffer* buffer = std::prev(next)->second;
  return at < address(buffer->bytes) + buffer->length ? buffer : nullptr;
}

std::size_t allocated_bytes() {
  const std::lock_guard<std::mutex> lock(mutex);
  std::size_t sum = 0;
  for (const auto& entry : buffers()) sum += entry.second->length;
  return sum;
}

ResidencySet::~ResidencySet() {
  for (auto* set : {&wanted, &resident}) {
    for (Buffer* buffer : *set) release(buffer);
  }
}

}  // namespace metalsim::objc
