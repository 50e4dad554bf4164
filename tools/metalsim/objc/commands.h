// tools/metalsim/objc/commands.h: what has been encoded, as it waits to be run.
//
// Committed work runs when the program waits for it, or has polled once in vain: a program that reads results without
// waiting reads what was there before.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "library.h"
#include "memory.h"

namespace metalsim::objc {

struct Size {
  unsigned long width, height, depth;
};

struct CommandQueue : Object {
  CommandQueue() : Object("MTLCommandQueue") {}
  std::vector<Ref<ResidencySet>> residency;
};

struct SharedEvent : Object {
  SharedEvent() : Object("MTLSharedEvent") {}
  std::atomic<std::uint64_t> value{0};
};

/// At one [[buffer(n)]]: a buffer from an offset on, or bytes that were copied.
struct Binding {
  Buffer* buffer = nullptr;
  std::size_t offset = 0;
  std::shared_ptr<std::vector<std::byte>> copy;
};

struct Dispatch {
  Pipeline* pipeline = nullptr;
  std::map<unsigned long, Binding> bindings;
  std::array<std::size_t, 8> threadgroup_bytes{};
  Size grid{}, group{};
};

/// What one encoder encoded: dispatches between barriers are in any order.
struct Pass {
  std::vector<std::vector<Dispatch>> intervals{1};
  std::set<const Buffer*> used;  // useResource
};

enum class Status : unsigned long { kNotEnqueued = 0, kCommitted = 2, kCompleted = 4, kError = 5 };

struct CommandBuffer : Object {
  CommandBuffer(CommandQueue* on, bool retains) : Object("MTLCommandBuffer"), queue(on), retains_uses(retains) {}
  /// Notes that `object` is used, and holds it unless the program does that itself.
  void uses(Object* object) {
    used.insert(object);
    if (retains_uses) held.emplace_back(object);
  }

  Ref<CommandQueue> queue;
  bool retains_uses, encoding = false;
  std::vector<Pass> passes;
  std::set<const Object*> used;
  std::vector<Ref<Object>> held;
  std::vector<std::pair<Ref<SharedEvent>, std::uint64_t>> signals;
  std::atomic<Status> status{Status::kNotEnqueued};
  std::string error;
};

/// Hands a command buffer over to the GPU.
void commit(CommandBuffer* commands);
/// Runs all that has been committed.
void run_committed();
/// Runs the passes of one command buffer. Returns what went wrong, or an empty string.
std::string execute(const CommandBuffer& commands);

}  // namespace metalsim::objc
