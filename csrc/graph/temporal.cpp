// csrc/graph/temporal.cpp: embeddings, pre-norm layers with rotary attention and a gated FFN, text head.
#include "graph/temporal.h"

#include "graph/arrays.h"

namespace personaplex::graph {

array norm_weight(const TensorView& t) { return converted(t, mx::float32, stream()); }

Temporal::Temporal(const Weights& weights, mx::Dtype dtype, bool cast)
    : text_emb_(weights.temporal.text_emb, dtype, cast),
      out_norm_(norm_weight(weights.temporal.out_norm)),
      text_linear_(weights.temporal.text_linear, dtype, cast),
      dtype_(dtype),
      heads_(weights.config.num_heads),
      head_dim_(weights.config.head_dim()),
      context_(weights.config.context),
      max_period_(weights.config.max_period) {
  for (const Matrix& table : weights.temporal.audio_emb) audio_emb_.emplace_back(table, dtype, cast);
  for (const TemporalLayer& layer : weights.temporal.layers) {
    layers_.push_back({norm_weight(layer.norm1), norm_weight(layer.norm2), Linear(layer.in_proj, dtype, cast),
                       Linear(layer.out_proj, dtype, cast), Linear(layer.linear_in, dtype, cast),
                       Linear(layer.linear_out, dtype, cast)});
  }
}

array Temporal::embed(const array& ids) const {
  const int count = ids.shape(1);
  const auto row = [&](int r) { return op::reshape(op::narrow(ids, 0, r, r + 1), {count}); };
  // The reference adds the audio tables in order and the text last; float32 sums depend on it.
  array x = graph::embed(audio_emb_[0], row(1), dtype_);
  for (std::size_t i = 1; i < audio_emb_.size(); ++i) {
    x = op::add(x, graph::embed(audio_emb_[i], row(static_cast<int>(i) + 1), dtype_));
  }
  return op::add(x, graph::embed(text_emb_, row(0), dtype_));
}

array Temporal::forward(array x, const Rope& rope, const array& mask, const array& slot, std::vector<array>& k,
                        std::vector<array>& v) const {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto qkv = split_qkv(layer.in_proj(rms_norm(x, layer.norm1)), heads_);
    k[i] = append(k[i], apply_rope(qkv[1], rope), slot);
    v[i] = append(v[i], qkv[2], slot);
    x = op::add(x, layer.out_proj(attention(apply_rope(qkv[0], rope), k[i], v[i], mask)));
    x = op::add(x, gated_ffn(rms_norm(x, layer.norm2), layer.linear_in, layer.linear_out));
  }
  return rms_norm(x, out_norm_);
}

array Temporal::text_logits(const array& hidden) const { return op::astype(text_linear_(hidden), mx::float32); }

KvRing Temporal::make_ring() const {
  // Once NVIDIA's ring of `context` slots is full, its oldest slot is masked: context - 1 positions are seen.
  const std::int64_t window = context_ - 1;
  return {static_cast<int>(layers_.size()), heads_, head_dim_, context_, dtype_, [window](std::int64_t p) {
            return p - window + 1;
          }};
}

Rope Temporal::rope(const Columns& columns) const {
  return rope_table(columns.first, columns.count, head_dim_, max_period_);
}

}  // namespace personaplex::graph
