// csrc/model/kv_rings.h: the keys and values of one transformer in one conversation, a ring for every layer.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "model/buffer.h"

namespace personaplex {

/// What a transformer's rings look like, and which positions are seen.
struct RingShape {
  int layers = 0, heads = 0, head_dim = 0;
  int context = 0;
  int bits = 16;  // ops::Ring::bits

  /// `first_visible(p)` is the oldest position that position p attends to (p - context < first_visible(p) <= p).
  std::int64_t (*first_visible)(std::int64_t position, int context) = nullptr;

  /// kMaxColumns - 1 more than the context at least, so that a pass evicts nothing that one of its columns still sees.
  int slots() const { return (context + kMaxColumns - 1 + ops::kRingPage - 1) / ops::kRingPage * ops::kRingPage; }
};

/// Pages are made when a position first needs them, and shared with copies until one of them writes.
class KvRings {
 public:
  /// `table` in `block`, which outlives this, takes the pages' addresses.
  KvRings(ops::Ops& ops, const RingShape& shape, ops::Memory& block, const Field<std::byte*>& table);
  static Field<std::byte*> table_for(const RingShape& shape, BlockLayout& layout) {
    return layout.add<std::byte*>(static_cast<std::size_t>(shape.slots() / ops::kRingPage));
  }

  ops::Ring layer(int index) const;
  /// Where the next `count` columns go and what they see; positions move on.
  void advance(int count, ops::Column* columns);
  void reset() { position_ = 0; }

  std::int64_t position() const { return position_; }
  std::size_t nbytes() const;  // of the filled slots, shared or not

  /// Becomes equal to `other`, a ring of the same shape whose block has been copied to this one's. Whole pages are
  /// shared, the one being filled is copied.
  void copy_from(const KvRings& other);
  void save(const std::string& prefix, std::vector<NamedTensor>& out) const;
  /// Takes what save() gave out of `in`. WeightsError for a position from 2^40, another shape, NaN or infinity.
  void load(const std::string& prefix, std::map<std::string, TensorView>& in);

 private:
  /// What a layer has of one kind in a page: [heads, kRingPage] rows of `row` bytes, from `offset` on.
  struct Side {
    const char* name;  // "k", "v", "k_scale", "v_scale"
    std::size_t offset;
    std::size_t row;
    DType dtype;
  };
  std::vector<Side> sides() const;
  int filled() const;
  /// A tensor of a snapshot: its name behind the prefix, its type, [heads, filled, values of a row].
  struct Named {
    std::string name;
    DType dtype;
    std::vector<std::int64_t> shape;
  };
  Named tensor(std::size_t index) const;
  std::size_t tensors() const;  // of a snapshot: those of each layer in the order of sides()
  std::size_t page_bytes() const;
  std::size_t filled_pages() const;
  /// Calls visit(tensor, offset, bytes, at) for everything that is filled in a page, which the host can copy at once.
  /// `at` is where the stretch belongs in the tensor.
  template <typename Visit>
  void for_each_stretch(std::size_t page, Visit visit) const;
  /// Makes the page of a slot, or makes it this conversation's own.
  void own_page(int slot);

  ops::Ops* ops_;
  RingShape shape_;
  std::size_t layer_bytes_;                          // in a page
  std::vector<std::shared_ptr<ops::Memory>> pages_;  // null until needed
  ops::Memory* block_;
  Field<std::byte*> table_;  // of the pages' addresses
  std::int64_t position_ = 0;
};

}  // namespace personaplex
