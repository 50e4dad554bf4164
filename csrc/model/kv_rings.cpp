// csrc/model/kv_rings.cpp: slot arithmetic, copies of what is filled, and snapshots.
#include "model/kv_rings.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "engine/take_tensor.h"

namespace personaplex {

namespace {

// Layers start on a cache line.
std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

KvRings::KvRings(ops::Ops& ops, const RingShape& shape)
    : shape_(shape),
      layer_bytes_(aligned(ops::Ring{
          .at = {}, .bits = shape.bits, .heads = shape.heads, .head_dim = shape.head_dim, .slots = shape.slots()}
                               .nbytes())),
      memory_(ops.allocate(layer_bytes_ * static_cast<std::size_t>(shape.layers))) {}

ops::Ring KvRings::layer(int index) const {
  return {.at = {memory_->base, layer_bytes_ * static_cast<std::size_t>(index)},
          .bits = shape_.bits,
          .heads = shape_.heads,
          .head_dim = shape_.head_dim,
          .slots = shape_.slots()};
}

void KvRings::advance(int count, ops::Column* columns) {
  for (int t = 0; t < count; ++t, ++position_) {
    columns[t].position = position_;
    columns[t].first_visible = std::max<std::int64_t>(0, shape_.first_visible(position_, shape_.context));
    columns[t].kv_slot = static_cast<std::int32_t>(position_ % shape_.slots());
  }
}

int KvRings::filled() const { return static_cast<int>(std::min<std::int64_t>(position_, shape_.slots())); }

std::vector<KvRings::Side> KvRings::sides() const {
  const auto cells = static_cast<std::size_t>(shape_.heads) * static_cast<std::size_t>(shape_.slots());
  const std::size_t row = static_cast<std::size_t>(shape_.head_dim) * static_cast<std::size_t>(shape_.bits) / 8;
  const DType dtype = shape_.bits == 32 ? DType::kF32 : shape_.bits == 16 ? DType::kBF16 : DType::kI8;
  std::vector<Side> out = {{"k", 0, row, dtype}, {"v", cells * row, row, dtype}};
  if (shape_.bits == 8) {
    out.push_back({"k_scale", 2 * cells * row, sizeof(float), DType::kF32});
    out.push_back({"v_scale", 2 * cells * row + cells * sizeof(float), sizeof(float), DType::kF32});
  }
  return out;
}

std::size_t KvRings::nbytes() const {
  std::size_t row = 0;
  for (const Side& side : sides()) row += side.row;
  return row * static_cast<std::size_t>(shape_.layers) * static_cast<std::size_t>(shape_.heads) *
         static_cast<std::size_t>(filled());
}

void KvRings::copy_from(const KvRings& other) {
  const auto count = static_cast<std::size_t>(other.filled());
  const auto slots = static_cast<std::size_t>(shape_.slots());
  for (int i = 0; i < shape_.layers; ++i) {
    const std::size_t layer = layer_bytes_ * static_cast<std::size_t>(i);
    for (const Side& side : sides()) {
      for (std::size_t h = 0; h < static_cast<std::size_t>(shape_.heads); ++h) {
        const std::size_t at = layer + side.offset + h * slots * side.row;
        std::memcpy(memory_->base + at, other.memory_->base + at, count * side.row);
      }
    }
  }
  position_ = other.position_;
}

void KvRings::save(const std::string& prefix, std::vector<NamedTensor>& out) const {
  OwnedTensor position = allocate_tensor(DType::kI64, {1});
  std::memcpy(position.mutable_data, &position_, sizeof position_);
  out.push_back({prefix + ".position", position.view});
  const auto count = static_cast<std::size_t>(filled());
  if (count == 0) return;
  const auto slots = static_cast<std::size_t>(shape_.slots());
  for (int i = 0; i < shape_.layers; ++i) {
    for (const Side& side : sides()) {
      const auto width = static_cast<std::int64_t>(side.row / size_of(side.dtype));
      OwnedTensor t = allocate_tensor(side.dtype, {shape_.heads, static_cast<std::int64_t>(count), width});
      const std::byte* from = memory_->base + layer_bytes_ * static_cast<std::size_t>(i) + side.offset;
      for (std::size_t h = 0; h < static_cast<std::size_t>(shape_.heads); ++h) {
        std::memcpy(t.mutable_data + h * count * side.row, from + h * slots * side.row, count * side.row);
      }
      out.push_back({prefix + "." + side.name + "." + std::to_string(i), t.view});
    }
  }
}

void KvRings::load(const std::string& prefix, std::map<std::string, TensorView>& in) {
  std::int64_t position = 0;
  std::memcpy(&position, take_tensor(in, prefix + ".position", DType::kI64, {1}).data, sizeof position);
  if (position < 0 || position >= kMaxPosition) {
    throw WeightsError("[Snapshot.load] " + prefix + ".position: expected 0 to 2^40, got " + std::to_string(position) +
                       ".");
  }
  const std::int64_t count = std::min<std::int64_t>(position, shape_.slots());
  const auto slots = static_cast<std::size_t>(shape_.slots());
  for (int i = 0; count > 0 && i < shape_.layers; ++i) {
    for (const Side& side : sides()) {
      const auto width = static_cast<std::int64_t>(side.row / size_of(side.dtype));
      const TensorView t =
          take_tensor(in, prefix + "." + side.name + "." + std::to_string(i), side.dtype, {shape_.heads, count, width});
      std::byte* to = memory_->base + layer_bytes_ * static_cast<std::size_t>(i) + side.offset;
      const std::size_t stretch = static_cast<std::size_t>(count) * side.row;
      for (std::size_t h = 0; h < static_cast<std::size_t>(shape_.heads); ++h) {
        std::memcpy(to + h * slots * side.row, t.data + h * stretch, stretch);
      }
    }
  }
  position_ = position;
}

}  // namespace personaplex
