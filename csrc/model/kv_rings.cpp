// csrc/model/kv_rings.cpp: slots and pages, copies on write, and snapshots.
#include "model/kv_rings.h"

#include <algorithm>

#include "engine/take_tensor.h"

namespace personaplex {

namespace {

constexpr auto kPage = static_cast<std::size_t>(ops::kRingPage);

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }  // layers start on a cache line

ops::Ring ring_of(const RingShape& shape) {
  ops::Ring ring;
  ring.bits = shape.bits;
  ring.heads = shape.heads;
  ring.head_dim = shape.head_dim;
  ring.slots = shape.slots();
  ring.visible = shape.context;
  return ring;
}

}  // namespace

KvRings::KvRings(ops::Ops& ops, const RingShape& shape, ops::Memory& block, const Field<std::byte*>& table)
    : ops_(&ops),
      shape_(shape),
      layer_bytes_(aligned(ring_of(shape).page_bytes())),
      pages_(static_cast<std::size_t>(shape.slots()) / kPage),
      block_(&block),
      table_(table) {}

ops::Ring KvRings::layer(int index) const {
  ops::Ring ring = ring_of(shape_);
  ring.pages = table_.in(*block_);
  ring.offset = layer_bytes_ * static_cast<std::size_t>(index);
  return ring;
}

void KvRings::own_page(int slot) {
  const std::size_t index = static_cast<std::size_t>(slot) / kPage;
  std::shared_ptr<ops::Memory>& page = pages_[index];
  if (page != nullptr && page.use_count() == 1) return;
  std::shared_ptr<ops::Memory> own =
      ops_->allocate(layer_bytes_ * static_cast<std::size_t>(shape_.layers), ops::Use::kState);
  if (page != nullptr) own->copy_from(*page);
  page = std::move(own);
  block_->write(table_.in(*block_, index).offset, sizeof page->base, &page->base);
}

void KvRings::advance(int count, ops::Column* columns) {
  for (int t = 0; t < count; ++t, ++position_) {
    const auto slot = static_cast<std::int32_t>(position_ % shape_.slots());
    own_page(slot);
    columns[t].position = position_;
    columns[t].first_visible = std::max<std::int64_t>(0, shape_.first_visible(position_, shape_.context));
    columns[t].kv_slot = slot;
  }
}

int KvRings::filled() const { return static_cast<int>(std::min<std::int64_t>(position_, shape_.slots())); }

std::vector<KvRings::Side> KvRings::sides() const {
  const std::size_t rows = static_cast<std::size_t>(shape_.heads) * kPage;
  const std::size_t row = static_cast<std::size_t>(shape_.head_dim) * static_cast<std::size_t>(shape_.bits) / 8;
  const DType dtype = shape_.bits == 32 ? DType::kF32 : shape_.bits == 16 ? DType::kBF16 : DType::kI8;
  std::vector<Side> out = {{"k", 0, row, dtype}, {"v", rows * row, row, dtype}};
  if (shape_.bits == 8) {
    out.push_back({"k_scale", 2 * rows * row, sizeof(float), DType::kF32});
    out.push_back({"v_scale", 2 * rows * row + rows * sizeof(float), sizeof(float), DType::kF32});
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
  pages_ = other.pages_;
  position_ = other.position_;
  if (const auto slot = static_cast<int>(position_ % shape_.slots()); slot % ops::kRingPage != 0) own_page(slot);
}

template <typename Visit>
void KvRings::for_each_stretch(int layer, const Side& side, Visit visit) const {
  const auto count = static_cast<std::size_t>(filled());
  const std::size_t start = layer_bytes_ * static_cast<std::size_t>(layer) + side.offset;
  for (std::size_t head = 0; head < static_cast<std::size_t>(shape_.heads); ++head) {
    for (std::size_t slot = 0; slot < count; slot += kPage) {
      visit(*pages_[slot / kPage], start + head * kPage * side.row, std::min(kPage, count - slot) * side.row,
            (head * count + slot) * side.row);
    }
  }
}

void KvRings::save(const std::string& prefix, std::vector<NamedTensor>& out) const {
  out.push_back(position_tensor(prefix + ".position", position_));
  if (filled() == 0) return;
  for (int i = 0; i < shape_.layers; ++i) {
    for (const Side& side : sides()) {
      const auto width = static_cast<std::int64_t>(side.row / size_of(side.dtype));
      OwnedTensor t = allocate_tensor(side.dtype, {shape_.heads, filled(), width});
      for_each_stretch(i, side, [&](const ops::Memory& page, std::size_t from, std::size_t bytes, std::size_t at) {
        page.read(from, bytes, t.mutable_data + at);
      });
      out.push_back({prefix + "." + side.name + "." + std::to_string(i), t.view});
    }
  }
}

void KvRings::load(const std::string& prefix, std::map<std::string, TensorView>& in) {
  position_ = take_position(in, prefix + ".position");
  for (int slot = 0; slot < filled(); slot += ops::kRingPage) own_page(slot);
  for (int i = 0; filled() > 0 && i < shape_.layers; ++i) {
    for (const Side& side : sides()) {
      const auto width = static_cast<std::int64_t>(side.row / size_of(side.dtype));
      const TensorView t = take_tensor(in, prefix + "." + side.name + "." + std::to_string(i), side.dtype,
                                       {shape_.heads, filled(), width});
      for_each_stretch(i, side, [&](ops::Memory& page, std::size_t to, std::size_t bytes, std::size_t at) {
        page.write(to, bytes, t.data + at);
      });
    }
  }
}

}  // namespace personaplex
