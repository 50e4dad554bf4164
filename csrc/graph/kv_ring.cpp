// csrc/graph/kv_ring.cpp: slot arithmetic, masks, and growth in blocks.
#include "graph/kv_ring.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/config.h"
#include "core/error.h"
#include "engine/take_tensor.h"
#include "graph/arrays.h"

namespace personaplex::graph {

namespace {

// Slots are allocated in blocks: short conversations stay small, and shapes change rarely (compiled graphs retrace
// then).
constexpr int kBlock = 256;

int checked(int context) {
  if (context < 1 || context > kMaxContext) {
    bad_argument("KvRing", "expected a context of 1 to " + std::to_string(kMaxContext) + " positions, got " +
                               std::to_string(context) + ".");
  }
  return context;
}

}  // namespace

KvRing::KvRing(int layers, int heads, int head_dim, int context, mx::Dtype dtype, FirstVisible first_visible)
    : heads_(heads),
      head_dim_(head_dim),
      slots_((checked(context) + kMaxColumns - 1 + 1) / 2 * 2),  // even: the codec's two columns never straddle the end
      allocated_(std::min(slots_, kBlock)),
      dtype_(dtype),
      first_visible_(std::move(first_visible)) {
  for (int i = 0; i < layers; ++i) {
    k.push_back(op::zeros({1, heads_, allocated_, head_dim_}, dtype_));
    v.push_back(op::zeros({1, heads_, allocated_, head_dim_}, dtype_));
  }
}

int KvRing::fitting(int wanted) const {
  const auto slot = static_cast<int>(position_ % slots_);
  return std::min(wanted, slots_ - slot);
}

void KvRing::grow(int slots) {
  if (slots <= allocated_) return;
  const int more = std::min(slots_, (slots + kBlock - 1) / kBlock * kBlock) - allocated_;
  for (auto* side : {&k, &v}) {
    for (array& cache : *side) {
      cache = op::concatenate({cache, op::zeros({1, heads_, more, head_dim_}, dtype_)}, 2);
    }
  }
  allocated_ += more;
}

Columns KvRing::begin(int count) {
  const auto slot = static_cast<int>(position_ % slots_);
  grow(slot + count);
  const std::int64_t last = position_ + count - 1;
  std::vector<std::uint8_t> visible;
  visible.reserve(static_cast<std::size_t>(count) * static_cast<std::size_t>(allocated_));
  for (int i = 0; i < count; ++i) {
    const std::int64_t p = position_ + i;
    const std::int64_t first = std::max<std::int64_t>(0, first_visible_(p));
    for (int s = 0; s < allocated_; ++s) {
      // The newest position that slot s holds once this pass is appended; negative: never written.
      const std::int64_t held = last - (((last - s) % slots_) + slots_) % slots_;
      visible.push_back(held >= first && held <= p ? 1 : 0);
    }
  }
  Columns columns{position_, count, from_host(std::span<const int>(&slot, 1), {1}),
                  array(visible.data(), {count, allocated_}, mx::bool_)};
  position_ += count;
  return columns;
}

array append(const array& cache, const array& k_new, const array& slot) {
  const array columns = op::expand_dims(op::transpose(k_new, {1, 0, 2}), 0);  // [1, H, T, Dh]
  return mx::slice_update(cache, op::astype(columns, cache.dtype()), slot, {2}, stream());
}

void KvRing::save(const std::string& prefix, std::vector<NamedTensor>& out) const {
  const auto filled = static_cast<int>(std::min<std::int64_t>(position_, allocated_));
  out.push_back(position_tensor(prefix + ".position", position_));
  if (filled == 0) return;
  for (std::size_t i = 0; i < k.size(); ++i) {
    out.push_back({prefix + ".k." + std::to_string(i), to_host(op::narrow(k[i], 2, 0, filled))});
    out.push_back({prefix + ".v." + std::to_string(i), to_host(op::narrow(v[i], 2, 0, filled))});
  }
}

void KvRing::load(const std::string& prefix, std::map<std::string, TensorView>& in) {
  const std::int64_t position = take_position(in, prefix + ".position");
  const auto filled = static_cast<int>(std::min<std::int64_t>(position, slots_));
  if (filled > 0) {
    grow(filled);
    for (std::size_t i = 0; i < k.size(); ++i) {
      for (auto* side : {&k, &v}) {
        const std::string name = prefix + (side == &k ? ".k." : ".v.") + std::to_string(i);
        const array stored = wrap(take_tensor(in, name, from_mlx(dtype_), {1, heads_, filled, head_dim_}));
        array& cache = (*side)[i];
        cache =
            mx::slice_update(cache, stored, mx::Shape{0, 0, 0, 0}, mx::Shape{1, heads_, filled, head_dim_}, stream());
        mx::eval(cache);
      }
    }
  }
  position_ = position;
}

}  // namespace personaplex::graph
