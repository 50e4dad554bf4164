// csrc/model/kv_rings.cpp: slots and pages, copies on write, and snapshots.
#include "model/kv_rings.h"

#include <algorithm>
#include <cstring>

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
  std::shared_ptr<ops::Memory> own = ops_->allocate(page_bytes(), ops::Use::kState);
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

KvRings::Named KvRings::tensor(std::size_t index) const {
  const std::vector<Side> kinds = sides();
  const Side& side = kinds[index % kinds.size()];
  return {std::string(side.name) + "." + std::to_string(index / kinds.size()),
          side.dtype,
          {shape_.heads, filled(), static_cast<std::int64_t>(side.row / size_of(side.dtype))}};
}

std::size_t KvRings::tensors() const { return sides().size() * static_cast<std::size_t>(shape_.layers); }

std::size_t KvRings::page_bytes() const { return layer_bytes_ * static_cast<std::size_t>(shape_.layers); }

std::size_t KvRings::filled_pages() const { return (static_cast<std::size_t>(filled()) + kPage - 1) / kPage; }

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
void KvRings::for_each_stretch(std::size_t page, Visit visit) const {
  const auto count = static_cast<std::size_t>(filled());
  const std::size_t slot = page * kPage;
  const std::vector<Side> kinds = sides();
  for (std::size_t t = 0; t < tensors(); ++t) {
    const Side& side = kinds[t % kinds.size()];
    const std::size_t start = layer_bytes_ * (t / kinds.size()) + side.offset;
    for (std::size_t head = 0; head < static_cast<std::size_t>(shape_.heads); ++head) {
      visit(t, start + head * kPage * side.row, std::min(kPage, count - slot) * side.row,
            (head * count + slot) * side.row);
    }
  }
}

void KvRings::save(const std::string& prefix, std::vector<NamedTensor>& out) const {
  out.push_back(position_tensor(prefix + ".position", position_));
  std::vector<OwnedTensor> all;
  for (std::size_t t = 0; filled() > 0 && t < tensors(); ++t) {
    const auto [name, dtype, shape] = tensor(t);
    all.push_back(allocate_tensor(dtype, shape));
    out.push_back({prefix + "." + name, all.back().view});
  }
  std::vector<std::byte> bytes(page_bytes());
  for (std::size_t page = 0; page < filled_pages(); ++page) {
    pages_[page]->read(0, bytes.size(), bytes.data());
    for_each_stretch(page, [&](std::size_t t, std::size_t from, std::size_t count, std::size_t at) {
      std::memcpy(all[t].mutable_data + at, bytes.data() + from, count);
    });
  }
}

void KvRings::load(const std::string& prefix, std::map<std::string, TensorView>& in) {
  position_ = take_position(in, prefix + ".position");
  std::vector<TensorView> all;
  for (std::size_t t = 0; filled() > 0 && t < tensors(); ++t) {
    const auto [name, dtype, shape] = tensor(t);
    all.push_back(take_tensor(in, prefix + "." + name, dtype, shape));
  }
  std::vector<std::byte> bytes(page_bytes());
  for (std::size_t page = 0; page < filled_pages(); ++page) {
    own_page(static_cast<int>(page * kPage));
    for_each_stretch(page, [&](std::size_t t, std::size_t to, std::size_t count, std::size_t at) {
      std::memcpy(bytes.data() + to, all[t].data + at, count);
    });
    pages_[page]->write(0, bytes.size(), bytes.data());
  }
}

}  // namespace personaplex
