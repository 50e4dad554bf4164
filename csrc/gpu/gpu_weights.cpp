// csrc/gpu/gpu_weights.cpp: pieces of memory that grow with the model.
#include "gpu/gpu_weights.h"

#include <algorithm>

namespace personaplex::gpu {

ops::Place WeightMemory::put(const void* data, std::size_t bytes) {
  constexpr std::size_t kAlign = 256;
  constexpr std::size_t kSmallest = std::size_t{1} << 20;
  constexpr std::size_t kLargest = std::size_t{256} << 20;
  if (pieces_.empty() || used_ + bytes > pieces_.back()->bytes) {
    const std::size_t next = pieces_.empty() ? kSmallest : std::min(kLargest, 2 * pieces_.back()->bytes);
    pieces_.push_back(queue_.allocate(std::max(bytes, next), ops::Use::kScratch));
    used_ = 0;
  }
  const ops::Place at{pieces_.back().get(), used_};
  pieces_.back()->write(used_, bytes, data);
  used_ = (used_ + bytes + kAlign - 1) / kAlign * kAlign;
  return at;
}

ops::Place WeightMemory::put_once(const void* data, std::size_t bytes) {
  ops::Place& at = once_[std::string(static_cast<const char*>(data), bytes)];
  if (!at) at = put(data, bytes);
  return at;
}

ops::Place WeightMemory::joined(const std::vector<ops::Place>& parts, std::size_t bytes) {
  for (const Joined& j : joined_) {
    if (j.bytes == bytes && j.parts == parts) return j.at;
  }
  std::vector<std::byte> all(parts.size() * bytes);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i].memory->read(parts[i].offset, bytes, all.data() + i * bytes);
  }
  return joined_.emplace_back(Joined{parts, bytes, put(all.data(), all.size())}).at;
}

const char* GpuMatrix::format() const {
  if (bits == 16) return "bf16";
  if (bits == 8) return half_scales ? "b8_f16" : "b8_bf16";
  return half_scales ? "b4_f16" : "b4_bf16";
}

}  // namespace personaplex::gpu
