// csrc/graph/depformer.cpp: every step has its own weights, sees the steps before it, and uses no positions.
#include "graph/depformer.h"

#include "graph/temporal.h"

namespace personaplex::graph {

Depformer::Depformer(const Weights& weights, mx::Dtype dtype, bool cast)
    : text_emb_(weights.depformer.text_emb, dtype, cast),
      dtype_(dtype),
      heads_(weights.config.depformer_num_heads),
      window_(weights.config.n_q - 1) {
  for (const Matrix& m : weights.depformer.audio_emb) audio_emb_.emplace_back(m, dtype, cast);
  for (const Matrix& m : weights.depformer.in) in_.emplace_back(m, dtype, cast);
  for (const Matrix& m : weights.depformer.linears) linears_.emplace_back(m, dtype, cast);
  for (const DepformerLayer& layer : weights.depformer.layers) {
    std::vector<Slice> steps;
    for (const DepformerSlice& s : layer.steps) {
      steps.push_back({Linear(s.in_proj, dtype, cast), Linear(s.out_proj, dtype, cast),
                       Linear(s.linear_in, dtype, cast), Linear(s.linear_out, dtype, cast)});
    }
    layers_.push_back({norm_weight(layer.norm1), norm_weight(layer.norm2), std::move(steps)});
  }
}

Depformer::Result Depformer::forward(const array& hidden, const array& text, const Choose& choose) const {
  Result result;
  std::vector<std::vector<array>> keys(layers_.size());  // per layer, one [1, H, 1, Dh] a step
  std::vector<std::vector<array>> values(layers_.size());
  array previous = text;
  for (int k = 0; k < steps(); ++k) {
    const auto at = static_cast<std::size_t>(k);
    const Linear& table = k == 0 ? text_emb_ : audio_emb_[at - 1];
    array x = op::add(in_[at](hidden), embed(table, op::reshape(previous, {1}), dtype_));  // [1, d]
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      const Slice& step = layer.steps[at];
      const auto qkv = split_qkv(step.in_proj(rms_norm(x, layer.norm1)), heads_);
      keys[i].push_back(op::expand_dims(op::transpose(qkv[1], {1, 0, 2}), 0));
      values[i].push_back(op::expand_dims(op::transpose(qkv[2], {1, 0, 2}), 0));
      if (k >= window_) {
        keys[i].erase(keys[i].begin());
        values[i].erase(values[i].begin());
      }
      const array seen = attention(qkv[0], op::concatenate(keys[i], 2), op::concatenate(values[i], 2), std::nullopt);
      x = op::add(x, step.out_proj(seen));
      x = op::add(x, gated_ffn(rms_norm(x, layer.norm2), step.linear_in, step.linear_out));
    }
    const array logits = op::astype(linears_[at](x), mx::float32);  // [1, card], no final norm
    result.logits.push_back(op::reshape(logits, {logits.shape(1)}));
    previous = choose(k, result.logits.back());
    result.tokens.push_back(previous);
  }
  return result;
}

}  // namespace personaplex::graph
