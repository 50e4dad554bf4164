// csrc/model/temporal.h: the temporal transformer: 17 tokens a column in, hidden state and text logits out.
#pragma once

#include <vector>

#include "model/kv_rings.h"

namespace personaplex {

class Temporal {
 public:
  Temporal(ops::Ops& ops, const Weights& weights);

  /// x [T, D] = sum of the columns' embeddings. ids [rows][kMaxColumns] int32 in the order of id_row(); -1 adds
  /// nothing.
  void embed(ops::Place ids, int columns, ops::Place x);
  /// Takes x [T, D] through the layers, appending to the rings at `at` (Column [T]): x is the residual stream, changed.
  void forward(ops::Place x, const KvRings& rings, ops::Place at, int columns);
  /// The same where only the rings matter: the last layer appends its keys and values, and that is all.
  void prefill(ops::Place x, const KvRings& rings, ops::Place at, int columns);
  /// hidden [T, D] = out_norm(x), logits [T, text_card].
  void head(ops::Place x, int columns, ops::Place hidden, ops::Place logits);

  RingShape ring_shape(int kv_bits) const;
  /// Which row of a grid column the i-th row of ids is: the reference adds the audio tables in order and the text last.
  int id_row(int i) const { return (i + 1) % static_cast<int>(tables_.size()); }

 private:
  struct Layer {
    ops::WeightPtr norm1, norm2;  // [D]
    ops::WeightPtr in_proj, out_proj, linear_in, linear_out;
  };
  void attention(const Layer& layer, ops::Place x, const ops::Ring& ring, ops::Place at, int columns);
  void feed_forward(const Layer& layer, ops::Place x, int columns);

  ops::Ops& ops_;
  std::vector<ops::WeightPtr> embeddings_;
  std::vector<const ops::Weight*> tables_;  // of embed()
  std::vector<Layer> layers_;
  ops::WeightPtr out_norm_, text_linear_;
  int heads_, head_dim_, context_;
  float max_period_;
  Buffer<float> q_, seen_, inner_;  // [kMaxColumns, D], the same, [kMaxColumns, F]
};

}  // namespace personaplex
