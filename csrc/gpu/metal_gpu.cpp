// csrc/gpu/metal_gpu.cpp: residency, waiting and copies. Holds metal-cpp's one definition of selectors and classes.
#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#define METALCPP_SYMBOL_VISIBILITY_HIDDEN  // MLX has definitions of its own
#include "gpu/metal_gpu.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace personaplex::gpu::metal {

namespace {

// A list that is nearly over is seen at once; a sleeper wakes some tens of microseconds late.
constexpr auto kSpin = std::chrono::microseconds(50);
// A list that failed signals nothing: how often a sleeper looks for that.
constexpr std::uint64_t kLookForFaultMs = 100;

std::string gigabytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / (1U << 30));
  return text;
}

void check_range(const char* where, const ops::Memory& memory, std::size_t offset, std::size_t count) {
  if (offset > memory.bytes || count > memory.bytes - offset) {
    bad_argument(where, "expected a range within " + std::to_string(memory.bytes) + " bytes, got " +
                            std::to_string(count) + " bytes from " + std::to_string(offset) + ".");
  }
}

}  // namespace

std::string words(const NS::Error* error) {
  if (error == nullptr || error->localizedDescription() == nullptr) return "Metal gives no reason";
  return error->localizedDescription()->utf8String();
}

Gpu::Gpu() : owner_(getpid()) {
  const Pool pool;
  device_ = owned(MTL::CreateSystemDefaultDevice());
  if (!device_ || !device_->supportsFamily(MTL::GPUFamilyApple7)) {
    throw DeviceError("[MetalQueue] expected a Mac with Apple silicon, got " +
                      (device_ ? std::string(device_->name()->utf8String()) : "no Metal GPU") +
                      ". Choose another device.");
  }
  queue_ = owned(device_->newCommandQueue());
  done_ = owned(device_->newSharedEvent());
  if (!queue_ || !done_) throw DeviceError("[MetalQueue] expected a command queue of the GPU, got none.");
  // The class is absent before macOS 15, and a message to nothing gives nothing.
  if (const auto how = owned(MTL::ResidencySetDescriptor::alloc())) {
    how->init();
    NS::Error* error = nullptr;
    resident_ = owned(device_->newResidencySet(how.get(), &error));
    if (!resident_) throw DeviceError("[MetalQueue] expected a residency set: " + words(error) + ".");
    queue_->addResidencySet(resident_.get());
  }
}

void Gpu::use(const char* where) {
  if (getpid() != owner_) {
    throw DeviceError("[MetalQueue." + std::string(where) + "] expected the process that opened the GPU, got a child " +
                      "forked from it, in which Metal does not work. Load the model after forking.");
  }
  const std::lock_guard lock(mutex_);
  if (!fault_.empty()) {
    throw DeviceError("[MetalQueue." + std::string(where) + "] the GPU failed earlier (" + fault_ +
                      "), and what it held may be wrong. Load the model again.");
  }
}

Ref<MTL::Buffer> Gpu::allocate(std::size_t bytes) {
  const Pool pool;
  // Untracked: a list says itself where it needs a barrier, and lists do not overlap.
  auto buffer =
      owned(device_->newBuffer(bytes, MTL::ResourceStorageModeShared | MTL::ResourceHazardTrackingModeUntracked));
  if (!buffer) {
    const std::size_t most = device_->maxBufferLength();
    throw DeviceError("[MetalQueue.allocate] expected " + gigabytes(bytes) + " of memory on the GPU, got none of " +
                      gigabytes(free_bytes()) + " that are free, at most " + gigabytes(most) +
                      " at once. Close other programs, or load fewer bits per weight.");
  }
  const std::lock_guard lock(mutex_);
  buffers_.push_back(buffer.get());
  ++generation_;
  if (resident_) {
    resident_->addAllocation(buffer.get());
    resident_changed_ = true;  // made known once before the next run, not once for every weight
  }
  return buffer;
}

void Gpu::release(MTL::Buffer* buffer) noexcept {
  if (getpid() != owner_) return;
  const Pool pool;
  const std::lock_guard lock(mutex_);
  std::erase(buffers_, buffer);
  ++generation_;
  if (resident_) {
    resident_->removeAllocation(buffer);
    resident_->commit();  // until then the set keeps the memory
  }
}

std::size_t Gpu::free_bytes() const {
  const std::size_t most = device_->recommendedMaxWorkingSetSize();
  return most - std::min<std::size_t>(most, device_->currentAllocatedSize());
}

Ref<MTL::CommandBuffer> Gpu::commands() {
  auto commands = NS::RetainPtr(queue_->commandBufferWithUnretainedReferences());
  if (!commands) throw DeviceError("[MetalQueue.run] expected a command buffer of the GPU, got none.");
  return commands;
}

void Gpu::make_reachable(MTL::ComputeCommandEncoder* encoder) {
  if (resident_) return;
  const std::lock_guard lock(mutex_);
  encoder->useResources(buffers_.data(), buffers_.size(), MTL::ResourceUsageRead | MTL::ResourceUsageWrite);
}

std::uint64_t Gpu::generation() {
  const std::lock_guard lock(mutex_);
  return generation_;
}

void Gpu::make_resident() {
  const std::lock_guard lock(mutex_);
  if (!resident_changed_) return;
  resident_->commit();
  resident_->requestResidency();
  resident_changed_ = false;
}

void Gpu::keep_resident() {
  const std::lock_guard lock(mutex_);
  if (resident_) resident_->requestResidency();
}

void Gpu::fail(MTL::CommandBuffer* commands) {
  const std::string why = words(commands->error());
  {
    const std::lock_guard lock(mutex_);
    if (fault_.empty()) fault_ = why;
  }
  throw DeviceError("[MetalQueue.run] the GPU failed: " + why + ". What it held may be wrong: load the model again.");
}

void Gpu::start(MTL::CommandBuffer* commands) {
  // The event comes before the command buffer's own end: it wakes the host sooner, but a fault can still follow it.
  if (last_ && last_->status() == MTL::CommandBufferStatusError) fail(last_.get());
  make_resident();
  commands->encodeSignalEvent(done_.get(), ++runs_);
  commands->commit();
  last_ = NS::RetainPtr(commands);
}

void Gpu::finish(MTL::CommandBuffer* commands) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  bool done = false;
  do {
    done = done_->signaledValue() >= runs_;
  } while (!done && std::chrono::steady_clock::now() < end);
  while (!done && commands->status() < MTL::CommandBufferStatusCompleted) {
    done = done_->waitUntilSignaledValue(runs_, kLookForFaultMs);
  }
  if (commands->status() == MTL::CommandBufferStatusError) fail(commands);
}

MetalMemory::MetalMemory(std::shared_ptr<Gpu> on, std::size_t size, ops::Use how)
    : gpu(std::move(on)), buffer(gpu->allocate(size)), use(how) {
  contents = static_cast<std::byte*>(buffer->contents());
  base = reinterpret_cast<std::byte*>(buffer->gpuAddress());
  bytes = size;
  if (use == ops::Use::kInput || use == ops::Use::kOutput) host = contents;
}

MetalMemory::~MetalMemory() { gpu->release(buffer.get()); }

void MetalMemory::read(std::size_t offset, std::size_t count, void* to) const {
  check_range("Memory.read", *this, offset, count);
  if (count > 0) std::memcpy(to, contents + offset, count);
}

void MetalMemory::write(std::size_t offset, std::size_t count, const void* from) {
  check_range("Memory.write", *this, offset, count);
  if (count > 0) std::memcpy(contents + offset, from, count);
}

void MetalMemory::copy_from(const ops::Memory& other) {
  if (bytes != other.bytes) {
    bad_argument("Memory.copy_from", "expected memory of the same size, " + std::to_string(bytes) + " bytes, got " +
                                         std::to_string(other.bytes) + ".");
  }
  other.read(0, bytes, contents);
}

}  // namespace personaplex::gpu::metal
