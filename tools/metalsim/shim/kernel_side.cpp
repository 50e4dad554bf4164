// tools/metalsim/shim/kernel_side.cpp: the part of the runtime that is linked into every kernel library: the table of
// its kernels, calls into the executor, and what -fsanitize=thread and the undefined-behaviour checks call. The
// sanitizers' own runtimes are not linked; all symbols but msl_library stay hidden, so those of a sanitized host
// program are not met either.
#include "kernel_side.h"

#include <cstring>
#include <vector>

namespace msl {
namespace {

const Host* host;

std::vector<KernelEntry>& entries() {
  static std::vector<KernelEntry> all;
  return all;
}

}  // namespace

Registration::Registration(const KernelEntry& entry) { entries().push_back(entry); }

const LaneBuffer* collective(int kind, const void* value, std::size_t bytes, void (*finish)(LaneBuffer*), Site site) {
  return host->collective(kind, value, bytes, finish, site);
}
void barrier(int flags, Site site) { host->threadgroup_barrier(flags, site); }
void simd_barrier(int flags, Site site) { host->simdgroup_barrier(flags, site); }
void inactive_lane(unsigned lane, Site site) { host->inactive_lane(lane, site); }
unsigned lane() { return host->lane(); }
const ThreadContext& context() { return *host->context(); }
void* threadgroup_variable(const void* identity, std::size_t bytes, const char* name) {
  return host->threadgroup_variable(identity, bytes, name);
}

}  // namespace msl

extern "C" __attribute__((visibility("default"))) msl::Exports msl_library(const msl::Host* host) {
  msl::host = host;
  const auto& all = msl::entries();
  return {msl::kAbiVersion, MSL_CHECKED, all.data(), static_cast<int>(all.size())};
}

#if MSL_CHECKED
#define PC __builtin_return_address(0)
// The constructors of the table run before there is a host.
#define ON(address, bytes, kind) (msl::host ? msl::host->access(address, bytes, msl::Access::kind, PC) : (void)0)

extern "C" {

#define ACCESSES(prefix, n)                                           \
  void __tsan_##prefix##read##n(void* a) { ON(a, n, read); }          \
  void __tsan_##prefix##write##n(void* a) { ON(a, n, write); }        \
  void __tsan_##prefix##read_write##n(void* a) {                      \
    ON(a, n, read);                                                   \
    ON(a, n, write);                                                  \
  }                                                                   \
  void __tsan_##prefix##volatile_read##n(void* a) { ON(a, n, read); } \
  void __tsan_##prefix##volatile_write##n(void* a) { ON(a, n, write); }
#define BOTH(n) \
  ACCESSES(, n) \
  ACCESSES(unaligned_, n)
BOTH(1)
BOTH(2)
BOTH(4)
BOTH(8)
BOTH(16)

void __tsan_read_range(void* a, std::size_t n) { ON(a, n, read); }
void __tsan_write_range(void* a, std::size_t n) { ON(a, n, write); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

void* __tsan_memcpy(void* to, const void* from, std::size_t n) {
  if (n) {
    ON(from, n, read);
    ON(to, n, write);
  }
  return std::memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, std::size_t n) {
  if (n) {
    ON(from, n, read);
    ON(to, n, write);
  }
  return std::memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, std::size_t n) {
  if (n) ON(to, n, write);
  return std::memset(to, value, n);
}

// Clang's builtin atomics arrive here; a launch is run by one system thread, so plain arithmetic would do.
#define ATOMICS(bits, T)                                                                     \
  T __tsan_atomic##bits##_load(const volatile T* a, int) {                                   \
    ON(const_cast<const T*>(a), bits / 8, atomic_read);                                      \
    return __atomic_load_n(a, __ATOMIC_RELAXED);                                             \
  }                                                                                          \
  void __tsan_atomic##bits##_store(volatile T* a, T v, int) {                                \
    ON(const_cast<const T*>(a), bits / 8, atomic_write);                                     \
    __atomic_store_n(a, v, __ATOMIC_RELAXED);                                                \
  }                                                                                          \
  T __tsan_atomic##bits##_exchange(volatile T* a, T v, int) {                                \
    ON(const_cast<const T*>(a), bits / 8, atomic_write);                                     \
    return __atomic_exchange_n(a, v, __ATOMIC_RELAXED);                                      \
  }                                                                                          \
  T __tsan_atomic##bits##_fetch_add(volatile T* a, T v, int) {                               \
    ON(const_cast<const T*>(a), bits / 8, atomic_write);                                     \
    return __atomic_fetch_add(a, v, __ATOMIC_RELAXED);                                       \
  }                                                                                          \
  T __tsan_atomic##bits##_fetch_sub(volatile T* a, T v, int) {                               \
    ON(const_cast<const T*>(a), bits / 8, atomic_write);                                     \
    return __atomic_fetch_sub(a, v, __ATOMIC_RELAXED);                                       \
  }                                                                                          \
  T __tsan_atomic##bits##_fetch_and(volatile T* a, T v, int) {                               \
    ON(const_cast<const T*>(a), bits / 8, atomic_write);                                     \
    return __atomic_fetch_and(a, v, __ATOMIC_RELAXED);                                       \
  }                                                                                          \
  T __tsan_atomic##bits##_fetch_or(volatile T* a, T v, int) {                                \
    ON(const_cast<const T*>(a), bits / 8, atomic_write);                                     \
    return __atomic_fetch_or(a, v, __ATOMIC_RELAXED);                                        \
  }                                                                                          \
  T __tsan_atomic##bits##_fetch_xor(volatile T* a, T v, int) {                               \
    ON(const_cast<const T*>(a), bits / 8, atomic_write);                                     \
    return __atomic_fetch_xor(a, v, __ATOMIC_RELAXED);                                       \
  }                                                                                          \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* a, T expected, T v, int, int) {   \
    ON(const_cast<const T*>(a), bits / 8, atomic_write);                                     \
    __atomic_compare_exchange_n(a, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
    return expected;                                                                         \
  }
ATOMICS(8, std::uint8_t)
ATOMICS(16, std::uint16_t)
ATOMICS(32, std::uint32_t)
ATOMICS(64, std::uint64_t)

// The first member of what each handler gets is the place in the source.
struct UbsanSite {
  const char* file;
  std::uint32_t line, column;
};
static void undefined(const char* what, const UbsanSite* s, std::uintptr_t value) {
  msl::host->undefined(what, static_cast<long>(value), {s->file, static_cast<int>(s->line << 9 | (s->column & 511))});
}
void __ubsan_handle_out_of_bounds(UbsanSite* s, std::uintptr_t i) { undefined("array index out of bounds", s, i); }
void __ubsan_handle_type_mismatch_v1(UbsanSite* s, std::uintptr_t p) { undefined("misaligned or null access", s, p); }
void __ubsan_handle_shift_out_of_bounds(UbsanSite* s, std::uintptr_t, std::uintptr_t by) {
  undefined("shift by more than the type's width", s, by);
}
void __ubsan_handle_divrem_overflow(UbsanSite* s, std::uintptr_t, std::uintptr_t by) {
  undefined("integer division by zero or overflow", s, by);
}

}  // extern "C"
#endif
