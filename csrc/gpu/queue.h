// csrc/gpu/queue.h: what the operations need of a GPU: memory, kernels by name, and lists of dispatches that are made
// once and run many times. metal_queue.cpp and cuda_queue.cpp are the two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace personaplex::gpu {

/// A kernel that is ready to be dispatched. Lives as long as its queue.
struct Kernel {
  virtual ~Kernel() = default;
  std::string name;  // its host_name in kernels/*.metal
};

/// A stretch of memory that a kernel gets as one of its buffers, in the order of [[buffer(n)]].
struct Argument {
  const ops::Memory* memory = nullptr;  // null: the conversation's block, whichever one a list is run for
  std::size_t offset = 0;               // bytes, a multiple of 4 and of what the kernel reads at once
  std::size_t bytes = 0;                // that the kernel may touch from there on: for barriers
  bool written = false;
};

/// One launch. Buffers come first, then `params` as the one `constant Params&`, at index arguments.size().
struct Dispatch {
  const Kernel* kernel = nullptr;
  std::vector<Argument> arguments;
  std::vector<std::byte> params;
  std::uint32_t groups[3] = {1, 1, 1};  // threadgroups in the grid
  std::uint32_t threads = 32;           // in a threadgroup, a multiple of 32, at most 1024
  bool barrier = false;                 // what was dispatched before must be visible to this one
  // Stretches of lanes 1 and 2 may run at the same time, each after the lane 0 before them and before the lane 0 after
  // them; barriers order a lane's own dispatches. All of it in the order of the list is right as well: where the lane
  // changes there is a barrier.
  int lane = 0;
};

/// Dispatches in the form in which a device repeats them fastest.
struct List {
  virtual ~List() = default;
};

class Queue {
 public:
  virtual ~Queue() = default;

  /// Zero-filled. Memory::host is set where `use` lets the host in between runs (see ops::Use). DeviceError when there
  /// is not enough.
  virtual std::unique_ptr<ops::Memory> allocate(std::size_t bytes, ops::Use use) = 0;
  /// The kernel of this host_name. DeviceError, with the compiler's words, when it does not compile.
  virtual const Kernel& kernel(const std::string& name) = 0;
  /// Whether there is a kernel of this host_name, compiled or not.
  virtual bool has(const std::string& name) const = 0;
  /// Makes these kernels ready, several at a time where that is faster. Whoever does not ask gets them one by one.
  virtual void prepare(const std::vector<std::string>& names) {
    for (const std::string& name : names) kernel(name);
  }
  /// Prepares a list, whose dispatches run in order, each after those before it where it has a barrier.
  virtual std::unique_ptr<List> record(std::vector<Dispatch> dispatches) = 0;
  /// What can be done ahead of the next run, which is likely to be of this list and block. Any other call may follow.
  virtual void prepare_next(List&, const ops::Memory* /*state*/) {}
  /// Runs a list for the conversation whose block is `state` (may be null) and waits: inputs are read before, outputs
  /// are there afterwards. `again`: prepare_next() for the same, while the device works.
  virtual void run(List& list, const ops::Memory* state, bool again = false) = 0;

  virtual std::string device_name() const = 0;
  /// Parts of the GPU that run threadgroups apart from each other (CUDA: multiprocessors); 0 where it does not say.
  virtual int cores() const { return 0; }
  /// Bytes that can still be allocated, as far as the system says.
  virtual std::size_t free_bytes() const = 0;
  /// Of the largest cache that all of the GPU shares, where the system says; else more than GPUs of this kind have.
  virtual std::size_t cache_bytes() const { return std::size_t{64} << 20; }
};

}  // namespace personaplex::gpu
