// tools/metalsim/runtime/threadgroup_memory.cpp: threadgroup variables, and where every access of a kernel belongs.
#include <algorithm>
#include <cstring>

#include "worker.h"

namespace metalsim {

void* Worker::variable(const void* identity, std::size_t bytes, const char* name) {
  for (const Variable& v : variables_) {
    if (v.identity == identity) return arena_ + v.offset;
  }
  threadgroup_bytes_ += (bytes + 15) / 16 * 16;
  if (threadgroup_bytes_ > kMaxThreadgroupBytes) {
    const auto total = threadgroup_bytes_;
    if (current) fail(nullptr, {}, "more than 32 KiB of threadgroup memory: %zu bytes with `%s`", total, name);
    fault_ = std::string(kernel_->entry.name) + ": more than 32 KiB of threadgroup memory";
    return nullptr;
  }
  const std::size_t offset = arena_used_, taken = (bytes + 15) / 16 * 16 + kRedZone;
  if (offset + taken > kArena) fail(nullptr, {}, "too many threadgroup variables for the simulator");
  std::memset(arena_ + offset, 0xff, taken);  // NaN
  if (cells_) std::fill_n(cells_.get() + offset, taken, Cell());
  arena_used_ += taken;
  variables_.push_back({identity, offset, bytes, name});
  return arena_ + offset;
}

Accessor Worker::accessor(bool device) const {
  const Simdgroup& s = simdgroups_[current->simdgroup()];
  return {group_, current->thread, device ? device_epoch_ : threadgroup_epoch_,
          device ? s.device_epoch : s.threadgroup_epoch};
}

void Worker::access_threadgroup(std::size_t offset, std::size_t bytes, Access access, const void* pc) {
  const bool write = access == Access::write || access == Access::atomic_write;
  const bool atomic = access == Access::atomic_read || access == Access::atomic_write;
  const Variable* in = nullptr;
  for (const Variable& v : variables_) {
    if (offset >= v.offset && offset + bytes <= v.offset + v.bytes) in = &v;
  }
  const char* what = write ? "write" : "read";
  if (variables_.empty()) fail(pc, {}, "%s of threadgroup memory by a kernel that has none", what);
  if (!in) {
    const Variable* near = &variables_[0];
    for (const Variable& v : variables_) {
      if (v.offset <= offset) near = &v;
    }
    fail(pc, {}, "out-of-bounds %s of %zu bytes: byte offset %ld of threadgroup memory `%s`, which has %zu", what,
         bytes, static_cast<long>(offset) - static_cast<long>(near->offset), near->name, near->bytes);
  }
  const Accessor by = accessor(false);
  for (std::size_t i = 0; i < bytes; i++) {
    Cell& cell = cells_[offset + i];
    if (!write && !cell.written()) {
      fail(pc, {}, "read of uninitialised threadgroup memory `%s` byte %zu", in->name, offset + i - in->offset);
    }
    if (const char* wrong = cell.touch(by, write, atomic)) {
      fail(pc, {}, "data race on threadgroup memory: %s of `%s` byte %zu: %s", what, in->name, offset + i - in->offset,
           wrong);
    }
  }
}

void Worker::access(std::uintptr_t address, std::size_t bytes, Access access, const void* pc) {
  if (!device_ || !current) return;
  const auto within = [&](const void* base, std::size_t size) {
    const std::size_t offset = address - reinterpret_cast<std::uintptr_t>(base);
    return offset < size && offset + bytes <= size;
  };
  if (within(current->stack, kStack)) return;
  if (within(arena_, kArena)) {
    return access_threadgroup(address - reinterpret_cast<std::uintptr_t>(arena_), bytes, access, pc);
  }
  // What the runtime lets the compiled headers see: lanes' values, a thread's context.
  if (within(simdgroups_.get(), sizeof(Simdgroup) * (kMaxThreads / 32)) ||
      within(fibers_.get(), sizeof(Fiber) * kMaxThreads) || within(this, sizeof *this)) {
    return;
  }
  const bool write = access == Access::write || access == Access::atomic_write;
  if (address >= kernel_->code && address + bytes <= kernel_->code_end) {
    if (write) fail(pc, {}, "write to a constant of the program");
    return;
  }
  if (within(stacks_, kStack * kMaxThreads)) {
    fail(pc, {}, "%s of another thread's private memory", write ? "write" : "read");
  }
  const char* wrong = device_->touch(address, bytes, access, accessor(true), pc);
  if (wrong) fail(pc, {}, "%s", wrong);
}

}  // namespace metalsim
