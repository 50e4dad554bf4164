// csrc/gpu/metal_keep_warm.h: a little work for an idle GPU, now and then, so that the next frame finds it awake.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "gpu/metal_gpu.h"

namespace personaplex::gpu::metal {

/// Has a thread and a command queue of its own: work of one queue would wait for each other.
class KeepWarm {
 public:
  KeepWarm(std::shared_ptr<Gpu> gpu, std::chrono::milliseconds every);
  ~KeepWarm();
  KeepWarm(const KeepWarm&) = delete;
  KeepWarm& operator=(const KeepWarm&) = delete;

 private:
  void work();
  bool touch();

  std::shared_ptr<Gpu> gpu_;
  std::chrono::milliseconds every_;
  Ref<MTL::CommandQueue> queue_;
  Ref<MTL::ComputePipelineState> pipeline_;
  Ref<MTL::Buffer> buffer_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace personaplex::gpu::metal
