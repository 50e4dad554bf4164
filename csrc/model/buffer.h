// csrc/model/buffer.h: a piece of device memory of a fixed number of values.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace personaplex {

/// `count` values of T, zero at first. The host may touch them between frames.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(ops::Ops& ops, std::size_t count) : memory_(ops.allocate(count * sizeof(T))), count_(count) {}

  ops::Place at(std::size_t index = 0) const { return {memory_->base, index * sizeof(T)}; }
  T* data() const { return reinterpret_cast<T*>(memory_->base); }
  T& operator[](std::size_t index) const { return data()[index]; }
  std::size_t size() const { return count_; }

 private:
  std::unique_ptr<ops::Memory> memory_;
  std::size_t count_ = 0;
};

}  // namespace personaplex
