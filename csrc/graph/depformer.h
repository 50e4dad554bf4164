// csrc/graph/depformer.h: the depformer: from one hidden state, the audio tokens of one column, one after the other.
#pragma once

#include <functional>
#include <vector>

#include "graph/layers.h"

namespace personaplex::graph {

class Depformer {
 public:
  Depformer(const Weights& weights, mx::Dtype dtype, bool cast);

  /// logits [card] float32 of step k -> the token of audio row k + 1, [] int32 (drawn, or forced).
  using Choose = std::function<array(int k, const array& logits)>;

  struct Result {
    std::vector<array> tokens;  // steps x [] int32
    std::vector<array> logits;  // steps x [card] float32
  };
  /// hidden [1, D], text [] int32: the column's text token.
  Result forward(const array& hidden, const array& text, const Choose& choose) const;

  int steps() const { return static_cast<int>(in_.size()); }

 private:
  struct Slice {
    Linear in_proj, out_proj, linear_in, linear_out;
  };
  struct Layer {
    array norm1, norm2;
    std::vector<Slice> steps;
  };
  Linear text_emb_;
  std::vector<Linear> audio_emb_, in_, linears_;
  std::vector<Layer> layers_;
  mx::Dtype dtype_;
  int heads_;
  // NVIDIA's ring of n_q steps hides its oldest entry once full: step 15 does not see step 0, the others see all.
  int window_;
};

}  // namespace personaplex::graph
