// csrc/gpu/metal_gpu.h: the Mac's GPU as a Metal queue sees it, and the memory of that queue.
#pragma once

#include <sys/types.h>

#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace personaplex::gpu::metal {

template <typename T>
using Ref = NS::SharedPtr<T>;

/// Takes over a reference that a method named new... or alloc gave.
template <typename T>
Ref<T> owned(T* object) {
  return NS::TransferPtr(object);
}

/// What Metal autoreleases goes when this does. Every call that sends messages has one.
class Pool {
 public:
  Pool() : pool_(NS::AutoreleasePool::alloc()->init()) {}
  ~Pool() { pool_->release(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

 private:
  NS::AutoreleasePool* pool_;
};

inline NS::String* string(const std::string& text) { return NS::String::string(text.c_str(), NS::UTF8StringEncoding); }
std::string words(const NS::Error* error);

/// The device and the one command queue on which lists run. Whatever lives on the GPU holds it.
class Gpu {
 public:
  Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  MTL::Device* device() const { return device_.get(); }
  /// DeviceError after a fault, or in a forked child.
  void use(const char* where);

  /// Zero-filled, shared with the host, and known to every list from now on.
  Ref<MTL::Buffer> allocate(std::size_t bytes);
  void release(MTL::Buffer* buffer) noexcept;
  std::size_t free_bytes() const;

  /// A command buffer without references of its own: a list and its memory outlive their run.
  Ref<MTL::CommandBuffer> commands();
  /// Lets an encoder's kernels follow addresses into all memory, where the queue does not do so already.
  void make_reachable(MTL::ComputeCommandEncoder* encoder);
  /// Changes when what was encoded before cannot be run any more: memory has come or gone.
  std::uint64_t generation();
  /// Commits. DeviceError for a fault of the commands before.
  void start(MTL::CommandBuffer* commands);
  /// Returns when all of what was started last is done. DeviceError for its fault.
  void finish(MTL::CommandBuffer* commands);
  /// Asks macOS again to keep the memory wired: after a second of idleness it would not be.
  void keep_resident();

 private:
  [[noreturn]] void fail(MTL::CommandBuffer* commands);
  void make_resident();

  Ref<MTL::Device> device_;
  Ref<MTL::CommandQueue> queue_;
  Ref<MTL::SharedEvent> done_;       // its value counts the runs that have ended
  Ref<MTL::ResidencySet> resident_;  // of all buffers; null before macOS 15
  Ref<MTL::CommandBuffer> last_;     // of which a fault may still be to come
  std::uint64_t runs_ = 0;
  pid_t owner_;

  std::mutex mutex_;  // of what follows, and of changes to resident_
  std::vector<const MTL::Resource*> buffers_;
  std::uint64_t generation_ = 0;
  bool resident_changed_ = false;
  std::string fault_;
};

struct MetalMemory final : ops::Memory {
  MetalMemory(std::shared_ptr<Gpu> on, std::size_t size, ops::Use how);
  ~MetalMemory() override;
  void read(std::size_t offset, std::size_t count, void* to) const override;
  void write(std::size_t offset, std::size_t count, const void* from) override;
  void copy_from(const ops::Memory& other) override;

  std::shared_ptr<Gpu> gpu;
  Ref<MTL::Buffer> buffer;
  std::byte* contents = nullptr;
  ops::Use use;
};

}  // namespace personaplex::gpu::metal
