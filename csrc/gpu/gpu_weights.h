// csrc/gpu/gpu_weights.h: weights in memory of a GPU.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gpu/queue.h"

namespace personaplex::gpu {

/// Memory for weights, a few large pieces of it: a model has two thousand tensors.
class WeightMemory {
 public:
  explicit WeightMemory(Queue& queue) : queue_(queue) {}
  /// A copy on the device, at a multiple of 256 bytes.
  ops::Place put(const void* data, std::size_t bytes);
  /// The same, made once for equal bytes: what a recording needs, and the next one again.
  ops::Place put_once(const void* data, std::size_t bytes);
  /// Where these stretches of weights, `bytes` from each place on, lie one behind the other: a copy, made once.
  ops::Place joined(const std::vector<ops::Place>& parts, std::size_t bytes);

 private:
  Queue& queue_;
  std::vector<std::unique_ptr<ops::Memory>> pieces_;
  std::size_t used_ = 0;  // of the last one
  struct Joined {
    std::vector<ops::Place> parts;
    std::size_t bytes;  // of each
    ops::Place at;
  };
  std::vector<Joined> joined_;
  std::map<std::string, ops::Place> once_;  // by their bytes
};

/// A matrix of the language model in the checkpoint's layout.
struct GpuMatrix : ops::Weight {
  std::int64_t n = 0, k = 0;
  int bits = 16;
  int group_shift = 0;  // log2(group size)
  bool half_scales = false;
  ops::Place words, scales, biases;
  std::size_t word_bytes = 0, scale_bytes = 0;

  /// "b4_bf16", "b8_f16", "bf16": how kernels' names say it.
  const char* format() const;
};

struct GpuVector : ops::Weight {
  ops::Place values;  // float32
  std::size_t count = 0;
};

}  // namespace personaplex::gpu
