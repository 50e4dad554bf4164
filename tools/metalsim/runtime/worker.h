// tools/metalsim/runtime/worker.h: one system thread's executor: a fiber for every thread of a threadgroup, and the
// rendezvous in which they meet.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checker.h"
#include "library.h"

namespace metalsim {

using msl::Access;
using msl::LaneBuffer;
using msl::Site;

constexpr std::size_t kStack = 128 << 10, kGuard = 4096, kArena = 64 << 10, kRedZone = 64;
constexpr unsigned kMaxThreads = 1024;
constexpr std::size_t kMaxThreadgroupBytes = 32 << 10;
constexpr int kThreadgroupMemory = 2, kDeviceMemory = 1;  // mem_flags

enum class State : std::uint8_t { kRunning, kInSimdOperation, kAtBarrier, kAtSimdBarrier, kExited };

struct Fiber {
  void* stack_pointer;
  char* stack;
  Fiber *next, *previous;  // the ring of those that can run
  std::uint16_t thread;
  State state;
  Site site;  // where it waits
  msl::ThreadContext context;
  int lane() const { return thread & 31; }
  int simdgroup() const { return thread >> 5; }
};

struct Simdgroup {
  LaneBuffer buffer[2];  // of this rendezvous and the one before, which slower lanes may still read
  std::uint32_t alive, arrived, at_barrier;
  unsigned generation;
  int kind;  // of the operation that the arrived lanes wait in
  Site site;
  std::uint16_t threadgroup_epoch, device_epoch;
};

struct Variable {
  const void* identity;
  std::size_t offset, bytes;
  const char* name;
};

/// The system thread's own fibers and threadgroup memory, kept from launch to launch.
class Worker {
 public:
  Worker();
  ~Worker();
  std::string run(const Kernel& kernel, const Launch& how, Record* record);

  // What the kernel calls, on a fiber.
  const LaneBuffer* collective(int kind, const void* value, std::size_t bytes, void (*finish)(LaneBuffer*), Site site);
  void barrier(int flags, Site site);
  void simd_barrier(int flags, Site site);
  void* variable(const void* identity, std::size_t bytes, const char* name);
  void access(std::uintptr_t address, std::size_t bytes, Access access, const void* pc);
  void exit_fiber();
  [[noreturn]] void fail(const void* pc, Site site, const char* format, ...) __attribute__((format(printf, 4, 5)));
  [[noreturn]] void fail_from_signal();

  Fiber* current = nullptr;
  msl::Thunk thunk = nullptr;
  const void* signal_address = nullptr;
  const void* signal_pc = nullptr;
  int signal_number = 0;
  char* stack_top() const { return current->stack + kStack; }

 private:
  void run_group(const Launch& how, unsigned group);
  void order(std::vector<unsigned>& items, const Launch& how, unsigned salt) const;
  void block(State state, Site site);
  void wake(int simdgroup, State state);
  void insert(Fiber* fiber);
  void remove(Fiber* fiber);
  void go_to(Fiber* fiber, void** save);
  void release_barrier(int flags);
  [[noreturn]] void deadlock();
  [[noreturn]] void leave();
  Accessor accessor(bool device) const;
  void access_threadgroup(std::size_t offset, std::size_t bytes, Access access, const void* pc);

  std::unique_ptr<Fiber[]> fibers_;
  std::unique_ptr<Simdgroup[]> simdgroups_;
  char* stacks_;
  char* arena_;
  std::unique_ptr<Cell[]> cells_;  // of the arena
  std::unique_ptr<char[]> signal_stack_;
  void* main_ = nullptr;
  Fiber* head_ = nullptr;

  const Kernel* kernel_ = nullptr;
  DeviceChecker* device_ = nullptr;  // null: unchecked
  std::string fault_;
  std::vector<Variable> variables_;
  std::size_t arena_used_ = 0, threadgroup_bytes_ = 0;
  void* buffers_[32];
  void* threadgroup_buffers_[8];

  unsigned group_ = 0, threads_ = 0, alive_ = 0, at_barrier_ = 0;
  int barrier_flags_ = 0;
  Site barrier_site_{};
  std::uint32_t threadgroup_epoch_ = 0, device_epoch_ = 0;
};

void install_handlers();
extern constinit thread_local Worker* running;  // null outside of a launch

inline int line(Site site) { return site.line >> 9; }
const char* file_name(Site site);

}  // namespace metalsim
