// csrc/graph/kv_ring.h: keys and values of the last positions, in a ring; what is visible is data, not ring size.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "engine/engine.h"
#include "graph/op.h"

namespace personaplex::graph {

/// Where one pass's columns go and what they see.
struct Columns {
  std::int64_t first;  // position of the first column
  int count;
  array slot;  // [1] int32: ring slot of the first column; the columns never straddle the ring's end
  array mask;  // [count, allocated] bool
};

/// All layers of one transformer. A ring has kMaxColumns - 1 more slots than its context, so that a pass of kMaxColumns
/// evicts nothing that one of its columns still sees.
/// Copying shares the buffers until one copy appends (MLX copies on write).
class KvRing {
 public:
  using FirstVisible = std::function<std::int64_t(std::int64_t position)>;

  /// `first_visible(p)` is the oldest position that position p attends to (p - context < first_visible(p) <= p).
  KvRing(int layers, int heads, int head_dim, int context, mx::Dtype dtype, FirstVisible first_visible);

  /// How many of `wanted` columns (1..kMaxColumns) fit before the ring's end.
  int fitting(int wanted) const;
  /// Grows the buffers for `count` <= fitting(count) columns and describes them; position moves on.
  Columns begin(int count);

  std::int64_t position() const { return position_; }
  int slots() const { return slots_; }

  std::vector<array> k, v;  // per layer [1, heads, allocated, head_dim]

  void save(const std::string& prefix, std::vector<NamedTensor>& out) const;
  /// Takes what save() gave out of `in`. WeightsError for a position from 2^40, another shape, NaN or infinity.
  void load(const std::string& prefix, std::map<std::string, TensorView>& in);

 private:
  void grow(int slots);

  int heads_, head_dim_, slots_, allocated_;
  mx::Dtype dtype_;
  FirstVisible first_visible_;
  std::int64_t position_ = 0;
};

/// Writes k_new [T, H, Dh] into cache [1, H, L, Dh] at `slot`; in place when nobody else holds the cache.
array append(const array& cache, const array& k_new, const array& slot);

}  // namespace personaplex::graph
