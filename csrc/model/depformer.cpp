// csrc/model/depformer.cpp: every step has its own weights, sees the steps before it, and uses no positions.
#include "model/depformer.h"

namespace personaplex {

namespace {

RingShape shape(const Config& config) {
  // NVIDIA's ring of n_q steps hides its oldest entry once full: step 15 does not see step 0, the others see all.
  return {.layers = config.depformer_num_layers,
          .heads = config.depformer_num_heads,
          .head_dim = config.depformer_head_dim(),
          .context = config.n_q,
          .bits = 16,
          .first_visible = [](std::int64_t k, int context) { return k - (context - 1) + 1; }};
}

}  // namespace

Depformer::Depformer(ops::Ops& ops, const Weights& weights)
    : ops_(ops),
      card_(weights.config.card),
      pages_(KvRings::table_for(shape(weights.config), layout_)),
      block_(ops.allocate(layout_.bytes(), ops::Use::kScratch)),
      rings_(ops, shape(weights.config), *block_, pages_),
      columns_(ops, weights.depformer.in.size(), ops::Use::kInput),
      x_(ops, static_cast<std::size_t>(weights.config.depformer_dim)),
      q_(ops, x_.size()),
      seen_(ops, x_.size()),
      inner_(ops, static_cast<std::size_t>(weights.config.depformer_ffn_hidden())) {
  const DepformerWeights& w = weights.depformer;
  embeddings_.push_back(ops.table(w.text_emb));
  for (std::size_t k = 1; k < w.in.size(); ++k) embeddings_.push_back(ops.table(w.audio_emb.at(k - 1)));
  for (const Matrix& m : w.in) in_.push_back(ops.matrix(m));
  for (const Matrix& m : w.linears) linears_.push_back(ops.matrix(m));
  for (const DepformerLayer& layer : w.layers) {
    std::vector<Slice> slices;
    for (const DepformerSlice& s : layer.steps) {
      slices.push_back(
          {ops.matrix(s.in_proj), ops.matrix(s.out_proj), ops.matrix(s.linear_in), ops.matrix(s.linear_out)});
    }
    layers_.push_back({ops.vector(layer.norm1), ops.vector(layer.norm2), std::move(slices)});
  }
  rings_.advance(steps(), columns_.data());
}

void Depformer::frame(ops::Place hidden, ops::Place tokens, ops::Place draws, ops::Place logits) {
  for (int k = 0; k < steps(); ++k) {
    const auto at = static_cast<std::size_t>(k);
    const ops::Place own_logits = logits + at * static_cast<std::size_t>(card_) * sizeof(float);
    step(k, hidden, tokens + at * sizeof(std::int32_t), own_logits);
    ops_.sample(own_logits, card_, draws + (at + 1) * sizeof(ops::Draw), k + 1,
                tokens + (at + 1) * sizeof(std::int32_t));
  }
}

void Depformer::step(int k, ops::Place hidden, ops::Place previous, ops::Place logits) {
  const auto at = static_cast<std::size_t>(k);
  const ops::Weight* const table[] = {embeddings_[at].get()};
  const ops::Place column = columns_.at(at);
  ops_.embed_sum(table, previous, 1, x_.at());
  ops_.project(*in_[at], hidden, 1, {.epilogue = ops::Epilogue::kAdd}, x_.at());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const Slice& slice = layer.steps[at];
    const ops::Ring ring = rings_.layer(static_cast<int>(i));
    ops_.project_qkv(*slice.in_proj, x_.at(), 1, {.weight = layer.norm1.get()}, 0.0F, ring, column, q_.at());
    ops_.attend(q_.at(), ring, column, 1, seen_.at());
    ops_.project(*slice.out_proj, seen_.at(), 1, {.epilogue = ops::Epilogue::kAdd}, x_.at());
    ops_.project(*slice.linear_in, x_.at(), 1,
                 {.norm = {.weight = layer.norm2.get()}, .epilogue = ops::Epilogue::kSwiglu}, inner_.at());
    ops_.project(*slice.linear_out, inner_.at(), 1, {.epilogue = ops::Epilogue::kAdd}, x_.at());
  }
  ops_.project(*linears_[at], x_.at(), 1, {}, logits);  // no final norm
}

}  // namespace personaplex
