// csrc/model/buffer.h: a piece of device memory of a fixed number of values, of the model's or of each conversation's.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace personaplex {

/// `count` values of T, zero at first. The host sees inputs and outputs, between runs.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(ops::Ops& ops, std::size_t count, ops::Use use = ops::Use::kScratch)
      : memory_(ops.allocate(count * sizeof(T), use)), count_(count) {}

  ops::Place at(std::size_t index = 0) const { return {memory_.get(), index * sizeof(T)}; }
  T* data() const { return reinterpret_cast<T*>(memory_->host); }
  T& operator[](std::size_t index) const { return data()[index]; }
  std::size_t size() const { return count_; }
  ops::Memory& memory() const { return *memory_; }

 private:
  std::unique_ptr<ops::Memory> memory_;
  std::size_t count_ = 0;
};

/// Values that every conversation has, in its block.
template <typename T>
struct Field {
  std::size_t offset = 0;

  ops::Place in(const ops::Memory& block, std::size_t index = 0) const { return {&block, offset + index * sizeof(T)}; }
};

/// Where a conversation's block has what.
class BlockLayout {
 public:
  template <typename T>
  Field<T> add(std::size_t count) {
    const Field<T> field{bytes_};
    bytes_ = (bytes_ + count * sizeof(T) + 63) / 64 * 64;
    return field;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 64;  // so that no block is empty
};

}  // namespace personaplex
