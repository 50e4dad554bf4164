// tools/cudasim/runtime.h: what a kernel's threads ask of the simulator: to meet, to wait, to be told who they are.
//
// A block is a system thread, of which one runs at a time, so that `__shared__` is `static thread_local`; its threads
// are fibers. A launch ends with a fault when nobody can go on, when memory that is not there is touched, or when lanes
// of a warp do not come to the same place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cudasim {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Fiber {
  void* stack_pointer = nullptr;
  Index thread;
  int linear = 0;
  enum class State : unsigned char { kReady, kMeeting, kAtBarrier, kInCluster, kExited } state = State::kReady;
  const char* waits = "";  // for what
};

/// What all threads of a block see.
struct Block {
  Index block, threads;
};

/// Of the system thread. One struct, since all thread-local memory is filled with garbage before a block begins.
struct Own {
  Fiber* fiber;
  Block* block;
};
extern thread_local Own own;

struct Lanes {
  unsigned char slot[32][32];
};

/// All 32 lanes of the warp have come with `bytes` (at most 32) of each; valid until the lane's next meeting.
const Lanes& meet(const char* what, const void* value, std::size_t bytes);
/// __syncthreads: all threads of the block.
void barrier();
/// All threads of the cluster.
void cluster_barrier();
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// Shared memory as 32-bit addresses, and that of another block of the cluster.
std::uint32_t shared_address(const void* p);
void* shared_pointer(std::uint32_t address);
std::uint32_t shared_of_rank(std::uint32_t address, int rank);

}  // namespace cudasim
