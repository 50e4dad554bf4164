// csrc/graph/temporal.h: the temporal transformer: 17 tokens in, hidden and text logits out, one column a frame.
#pragma once

#include <vector>

#include "graph/kv_ring.h"
#include "graph/layers.h"

namespace personaplex::graph {

class Temporal {
 public:
  Temporal(const Weights& weights, mx::Dtype dtype, bool cast);

  /// Sum of the embeddings of each column. ids [rows, T] int32, -1 contributes zero -> [T, D].
  array embed(const array& ids) const;
  /// Appends x [T, D] to the ring's buffers k, v (per layer, replaced) -> hidden [T, D], after out_norm.
  array forward(array x, const Rope& rope, const array& mask, const array& slot, std::vector<array>& k,
                std::vector<array>& v) const;
  /// hidden [T, D] -> text logits [T, text_card] float32.
  array text_logits(const array& hidden) const;

  KvRing make_ring() const;
  Rope rope(const Columns& columns) const;

 private:
  struct Layer {
    array norm1, norm2;
    Linear in_proj, out_proj, linear_in, linear_out;
  };
  std::vector<Linear> audio_emb_;
  Linear text_emb_;
  std::vector<Layer> layers_;
  array out_norm_;
  Linear text_linear_;
  mx::Dtype dtype_;
  int heads_, head_dim_, context_;
  float max_period_;
};

/// A norm's alpha in float32, as the norm is computed in.
array norm_weight(const TensorView& t);

}  // namespace personaplex::graph
