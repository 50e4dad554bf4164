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

  /// kMaxColumns - 1 more than the context, so that a pass evicts nothing that one of its columns still sees; even.
  int slots() const { return (context + kMaxColumns) / 2 * 2; }
};

class KvRings {
 public:
  KvRings(ops::Ops& ops, const RingShape& shape);

  ops::Ring layer(int index) const;
  /// Where the next `count` columns go and what they see; positions move on.
  void advance(int count, ops::Column* columns);
  void reset() { position_ = 0; }

  std::int64_t position() const { return position_; }
  std::size_t nbytes() const;  // of the filled slots

  /// Becomes equal to `other`, a ring of the same shape: filled slots are copied.
  void copy_from(const KvRings& other);
  void save(const std::string& prefix, std::vector<NamedTensor>& out) const;
  /// Takes what save() gave out of `in`. WeightsError for a position from 2^40, another shape, NaN or infinity.
  void load(const std::string& prefix, std::map<std::string, TensorView>& in);

 private:
  /// A stretch of equal rows, one row a slot, one such stretch a head.
  struct Side {
    const char* name;    // "k", "v", "k_scale", "v_scale"
    std::size_t offset;  // from the layer's start
    std::size_t row;     // bytes of one slot of one head
    DType dtype;
  };
  std::vector<Side> sides() const;
  int filled() const;

  RingShape shape_;
  std::size_t layer_bytes_;
  std::unique_ptr<ops::Memory> memory_;
  std::int64_t position_ = 0;
};

}  // namespace personaplex
