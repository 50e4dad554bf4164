// csrc/gpu/metal_keep_warm.h: a little work for an idle GPU, now and then, so that the next frame finds it awake.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "gpu/metal_gpu.h"

namespace personaplex::gpu::metal {

/// Has a thread and a command queue of its own: work of one queue would wait for each other. Rests until the first
/// call of again(), and when `rest_after` has passed since the last one.
class KeepWarm {
 public:
  KeepWarm(std::shared_ptr<Gpu> gpu, std::chrono::milliseconds every, std::chrono::milliseconds rest_after);
  ~KeepWarm();
  KeepWarm(const KeepWarm&) = delete;
  KeepWarm& operator=(const KeepWarm&) = delete;

  /// The GPU was used: it is likely to be used again soon.
  void again();

 private:
  using Clock = std::chrono::steady_clock;

  void work();
  bool touch();

  std::shared_ptr<Gpu> gpu_;
  std::chrono::milliseconds every_, rest_after_;
  Ref<MTL::CommandQueue> queue_;
  Ref<MTL::ComputePipelineState> pipeline_;
  Ref<MTL::Buffer> buffer_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  Clock::time_point until_ = Clock::time_point::min();
  std::thread thread_;
};

}  // namespace personaplex::gpu::metal
