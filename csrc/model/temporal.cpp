// csrc/model/temporal.cpp: embeddings, pre-norm layers of rotary attention and a gated FFN, text head.
#include "model/temporal.h"

namespace personaplex {

Temporal::Temporal(ops::Ops& ops, const Weights& weights)
    : ops_(ops),
      out_norm_(ops.vector(weights.temporal.out_norm)),
      text_linear_(ops.matrix(weights.temporal.text_linear)),
      heads_(weights.config.num_heads),
      head_dim_(weights.config.head_dim()),
      context_(weights.config.context),
      max_period_(weights.config.max_period),
      q_(ops, static_cast<std::size_t>(kMaxColumns) * static_cast<std::size_t>(weights.config.dim)),
      seen_(ops, q_.size()),
      inner_(ops, static_cast<std::size_t>(kMaxColumns) * static_cast<std::size_t>(weights.config.ffn_hidden())) {
  for (const Matrix& table : weights.temporal.audio_emb) embeddings_.push_back(ops.table(table));
  embeddings_.push_back(ops.table(weights.temporal.text_emb));
  for (const auto& table : embeddings_) tables_.push_back(table.get());
  for (const TemporalLayer& layer : weights.temporal.layers) {
    layers_.push_back({ops.vector(layer.norm1), ops.vector(layer.norm2), ops.matrix(layer.in_proj),
                       ops.matrix(layer.out_proj), ops.matrix(layer.linear_in), ops.matrix(layer.linear_out)});
  }
}

void Temporal::embed(ops::Place ids, int columns, ops::Place x) { ops_.embed_sum(tables_, ids, columns, x); }

void Temporal::attention(const Layer& layer, ops::Place x, const ops::Ring& ring, ops::Place at, int columns) {
  ops_.project_qkv(*layer.in_proj, x, columns, {.weight = layer.norm1.get()}, max_period_, ring, at, q_.at());
  ops_.attend(q_.at(), ring, at, columns, seen_.at());
  ops_.project(*layer.out_proj, seen_.at(), columns, {.epilogue = ops::Epilogue::kAdd}, x);
}

void Temporal::feed_forward(const Layer& layer, ops::Place x, int columns) {
  ops_.project(*layer.linear_in, x, columns,
               {.norm = {.weight = layer.norm2.get()}, .epilogue = ops::Epilogue::kSwiglu}, inner_.at());
  ops_.project(*layer.linear_out, inner_.at(), columns, {.epilogue = ops::Epilogue::kAdd}, x);
}

void Temporal::forward(ops::Place x, const KvRings& rings, ops::Place at, int columns) {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    attention(layers_[i], x, rings.layer(static_cast<int>(i)), at, columns);
    feed_forward(layers_[i], x, columns);
  }
}

void Temporal::prefill(ops::Place x, const KvRings& rings, ops::Place at, int columns) {
  const auto last = static_cast<int>(layers_.size()) - 1;
  for (int i = 0; i < last; ++i) {
    attention(layers_[static_cast<std::size_t>(i)], x, rings.layer(i), at, columns);
    feed_forward(layers_[static_cast<std::size_t>(i)], x, columns);
  }
  const Layer& layer = layers_.back();
  ops_.project_qkv(*layer.in_proj, x, columns, {.weight = layer.norm1.get()}, max_period_, rings.layer(last), at,
                   q_.at());
}

void Temporal::head(ops::Place x, int columns, ops::Place hidden, ops::Place logits) {
  ops_.norm({.weight = out_norm_.get()}, x, columns, hidden);
  ops_.project(*text_linear_, hidden, columns, {}, logits);
}

RingShape Temporal::ring_shape(int kv_bits) const {
  // Once NVIDIA's ring of `context` slots is full, its oldest slot is masked: context - 1 positions are seen.
  return {.layers = static_cast<int>(layers_.size()),
          .heads = heads_,
          .head_dim = head_dim_,
          .context = context_,
          .bits = kv_bits,
          .first_visible = [](std::int64_t p, int context) { return p - (context - 1) + 1; }};
}

}  // namespace personaplex
