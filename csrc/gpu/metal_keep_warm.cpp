// csrc/gpu/metal_keep_warm.cpp: one threadgroup that multiplies for some microseconds.
#include "gpu/metal_keep_warm.h"

#include <utility>

#include "core/error.h"

namespace personaplex::gpu::metal {

namespace {

constexpr char kText[] = R"~(#include <metal_stdlib>
using namespace metal;
kernel void keep_warm(device uint* out [[buffer(0)]], constant uint& rounds [[buffer(1)]],
                      uint i [[thread_position_in_grid]]) {
  uint v = i;
  for (uint r = 0; r < rounds; ++r) v = v * 1664525u + 1013904223u;
  out[i] = v;
}
)~";
constexpr std::uint32_t kThreads = 32, kRounds = 2000;

}  // namespace

KeepWarm::KeepWarm(std::shared_ptr<Gpu> gpu, std::chrono::milliseconds every, std::chrono::milliseconds rest_after)
    : gpu_(std::move(gpu)), every_(every), rest_after_(rest_after) {
  const Pool pool;
  MTL::Device* device = gpu_->device();
  NS::Error* error = nullptr;
  const auto library = owned(device->newLibrary(string(kText), nullptr, &error));
  if (library) {
    const auto function = owned(library->newFunction(string("keep_warm")));
    pipeline_ = owned(device->newComputePipelineState(function.get(), &error));
  }
  queue_ = owned(device->newCommandQueue());
  buffer_ = owned(device->newBuffer(kThreads * sizeof(std::uint32_t), MTL::ResourceStorageModeShared));
  if (!pipeline_ || !queue_ || !buffer_) throw DeviceError("[MetalQueue] cannot keep the GPU warm: " + words(error));
  thread_ = std::thread([this] { work(); });
}

KeepWarm::~KeepWarm() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void KeepWarm::again() {
  bool resting = false;
  {
    const std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now();
    resting = until_ <= now;
    until_ = now + rest_after_;
  }
  if (resting) wake_.notify_one();
}

void KeepWarm::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || Clock::now() < until_; });
    if (wake_.wait_for(lock, every_, [this] { return stop_; })) return;
    lock.unlock();
    const bool well = touch();
    lock.lock();
    if (!well) return;  // whoever runs a list learns why
  }
}

bool KeepWarm::touch() {
  const Pool pool;
  gpu_->keep_resident();
  MTL::CommandBuffer* const commands = queue_->commandBuffer();
  MTL::ComputeCommandEncoder* const encoder = commands->computeCommandEncoder();
  encoder->setComputePipelineState(pipeline_.get());
  encoder->setBuffer(buffer_.get(), 0, 0);
  encoder->setBytes(&kRounds, sizeof kRounds, 1);
  encoder->dispatchThreadgroups(MTL::Size(1, 1, 1), MTL::Size(kThreads, 1, 1));
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  return commands->status() == MTL::CommandBufferStatusCompleted;
}

}  // namespace personaplex::gpu::metal
