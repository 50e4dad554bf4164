// tools/metalsim/objc/commands.cpp: queues, command buffers, events and compute encoders.
#include "commands.h"

#include <mutex>

#include "foundation.h"

namespace metalsim::objc {
namespace {

constexpr std::size_t kMaxBytes = 4096;  // of setBytes
constexpr unsigned long kMaxBuffers = 31, kConcurrent = 1, kScopeBuffers = 1;

std::recursive_mutex mutex;  // one command buffer at a time
std::vector<Ref<CommandBuffer>> committed;

struct Encoder : Object {
  Encoder(CommandBuffer* into, bool is_concurrent)
      : Object("MTLComputeCommandEncoder"), commands(into), concurrent(is_concurrent) {
    if (commands->encoding) misuse("a command buffer has one encoder at a time: endEncoding is missing");
    if (commands->status != Status::kNotEnqueued) misuse("a command buffer was committed before it was encoded");
    commands->encoding = true;
    commands->passes.emplace_back();
  }
  ~Encoder() override {
    if (!ended) misuse("an encoder was released without endEncoding");
  }
  Pass& pass() {
    if (ended) misuse("an encoder is used after endEncoding");
    return commands->passes.back();
  }
  Binding& at(unsigned long index) {
    if (index >= kMaxBuffers) misuse("there are buffers 0 to 30, not " + std::to_string(index));
    return now.bindings[index];
  }

  Ref<CommandBuffer> commands;
  bool concurrent, ended = false;
  Dispatch now;  // as set so far; stays from dispatch to dispatch
};

void set_buffer(Encoder* self, Selector, Buffer* buffer, unsigned long offset, unsigned long index) {
  if (!buffer) misuse("setBuffer: of nil");
  if (is_dead(buffer)) misuse("setBuffer: of a buffer that was released");
  if (offset >= buffer->length) misuse("setBuffer: offset " + std::to_string(offset) + " is not in the buffer");
  self->at(index) = {buffer, offset, nullptr};
  self->commands->uses(buffer);
}

void set_bytes(Encoder* self, Selector, const std::byte* bytes, unsigned long length, unsigned long index) {
  if (length == 0 || length > kMaxBytes) misuse("setBytes: takes 1 to 4096 bytes, not " + std::to_string(length));
  self->at(index) = {nullptr, 0, std::make_shared<std::vector<std::byte>>(bytes, bytes + length)};
}

void dispatch(Encoder* self, Selector, Size grid, Size group) {
  if (!self->now.pipeline) misuse("a dispatch needs a pipeline");
  if (group.width * group.height * group.depth > 1024) misuse("a threadgroup has at most 1024 threads");
  self->now.grid = grid;
  self->now.group = group;
  auto& intervals = self->pass().intervals;
  intervals.back().push_back(self->now);
  if (!self->concurrent) intervals.emplace_back();
}

/// The value before committed work is looked at.
template <typename T>
T poll(const std::atomic<T>& value) {
  const T seen = value;
  run_committed();
  return seen;
}

const bool kMethods = [] {
  method("MTLCommandQueue", "commandBuffer",
         [](CommandQueue* self, Selector) { return autoreleased(new CommandBuffer(self, true)); });
  method("MTLCommandQueue", "commandBufferWithUnretainedReferences",
         [](CommandQueue* self, Selector) { return autoreleased(new CommandBuffer(self, false)); });
  method("MTLCommandQueue", "addResidencySet:", [](CommandQueue* self, Selector, ResidencySet* set) {
    self->residency.emplace_back(set);
  });

  const char* c = "MTLCommandBuffer";
  method(c, "computeCommandEncoder",
         [](CommandBuffer* self, Selector) { return autoreleased(new Encoder(self, false)); });
  method(c, "computeCommandEncoderWithDispatchType:", [](CommandBuffer* self, Selector, unsigned long type) {
    return autoreleased(new Encoder(self, type == kConcurrent));
  });
  method(c, "encodeSignalEvent:value:", [](CommandBuffer* self, Selector, SharedEvent* event, std::uint64_t value) {
    if (self->encoding) misuse("encodeSignalEvent: inside an encoder");
    self->signals.emplace_back(event, value);
  });
  method(c, "commit", [](CommandBuffer* self, Selector) { commit(self); });
  method(c, "waitUntilCompleted", [](CommandBuffer* self, Selector) {
    if (self->status == Status::kNotEnqueued) misuse("waitUntilCompleted before commit never returns");
    run_committed();
  });
  method(c, "status", [](CommandBuffer* self, Selector) { return poll(self->status); });
  method(c, "error", [](CommandBuffer* self, Selector) -> Error* {
    return self->status == Status::kError ? autoreleased(new Error(self->error)) : nullptr;
  });

  method("MTLSharedEvent", "signaledValue", [](SharedEvent* self, Selector) { return poll(self->value); });
  method("MTLSharedEvent",
         "waitUntilSignaledValue:timeoutMS:", [](SharedEvent* self, Selector, std::uint64_t value, std::uint64_t) {
           run_committed();
           return self->value >= value;
         });

  const char* e = "MTLComputeCommandEncoder";
  method(e, "setComputePipelineState:", [](Encoder* self, Selector, Pipeline* pipeline) {
    self->now.pipeline = pipeline;
    self->commands->uses(pipeline);
  });
  method(e, "setBuffer:offset:atIndex:", set_buffer);
  method(e, "setBytes:length:atIndex:", set_bytes);
  method(e,
         "setThreadgroupMemoryLength:atIndex:", [](Encoder* self, Selector, unsigned long bytes, unsigned long index) {
           self->now.threadgroup_bytes.at(index) = bytes;
         });
  method(e, "useResources:count:usage:",
         [](Encoder* self, Selector, Buffer* const* buffers, unsigned long count, unsigned long) {
           self->pass().used.insert(buffers, buffers + count);
           for (unsigned long i = 0; i < count; ++i) self->commands->uses(buffers[i]);
         });
  method(e, "memoryBarrierWithScope:", [](Encoder* self, Selector, unsigned long scope) {
    if (scope & kScopeBuffers) self->pass().intervals.emplace_back();
  });
  method(e, "dispatchThreadgroups:threadsPerThreadgroup:", dispatch);
  method(e, "endEncoding", [](Encoder* self, Selector) {
    self->pass();
    self->ended = true;
    self->commands->encoding = false;
  });
  return true;
}();

}  // namespace

void commit(CommandBuffer* commands) {
  if (commands->encoding) misuse("commit before endEncoding");
  if (commands->status != Status::kNotEnqueued) misuse("a command buffer is committed once");
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  commands->status = Status::kCommitted;
  committed.emplace_back(commands);
}

void run_committed() {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  for (const auto& commands : std::exchange(committed, {})) {
    commands->error = execute(*commands.get());
    if (!commands->error.empty()) {
      commands->status = Status::kError;
      continue;
    }
    for (const auto& [event, value] : commands->signals) event->value = value;
    commands->status = Status::kCompleted;
  }
}

}  // namespace metalsim::objc
