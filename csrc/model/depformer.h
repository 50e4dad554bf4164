// csrc/model/depformer.h: the depformer: from one hidden state, the audio tokens of one column, one after the other.
#pragma once

#include <vector>

#include "model/kv_rings.h"

namespace personaplex {

class Depformer {
 public:
  Depformer(ops::Ops& ops, const Weights& weights);

  int steps() const { return static_cast<int>(in_.size()); }
  /// hidden [D]; tokens int32 [1 + steps]: the text token in, the audio tokens out; draws Draw [1 + steps], those from
  /// 1 on; logits [steps, card]. The host has no part between the steps.
  void frame(ops::Place hidden, ops::Place tokens, ops::Place draws, ops::Place logits);

 private:
  struct Slice {
    ops::WeightPtr in_proj, out_proj, linear_in, linear_out;
  };
  struct Layer {
    ops::WeightPtr norm1, norm2;  // [d]
    std::vector<Slice> steps;
  };
  void step(int k, ops::Place hidden, ops::Place previous, ops::Place logits);

  ops::Ops& ops_;
  std::vector<ops::WeightPtr> embeddings_, in_, linears_;  // one a step
  std::vector<Layer> layers_;
  int card_;
  BlockLayout layout_;
  Field<std::byte*> pages_;
  std::unique_ptr<ops::Memory> block_;  // like a conversation's, for the rings
  KvRings rings_;                       // of the steps of one frame; nothing outlives a frame
  Buffer<ops::Column> columns_;         // one a step
  Buffer<float> x_, q_, seen_, inner_;
};

}  // namespace personaplex
