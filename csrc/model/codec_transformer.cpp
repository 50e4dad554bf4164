// csrc/model/codec_transformer.cpp: layer norm, rotary attention over a window, erf GELU, layer scale.
#include "model/codec_transformer.h"

namespace personaplex {

CodecTransformer::CodecTransformer(ops::Ops& ops, const std::vector<CodecLayer>& layers, const MimiConfig& config)
    : ops_(ops),
      heads_(config.num_heads),
      head_dim_(config.dimension / config.num_heads),
      context_(config.context),
      max_period_(config.max_period),
      q_(ops, static_cast<std::size_t>(kColumns) * static_cast<std::size_t>(config.dimension)),
      seen_(ops, q_.size()),
      inner_(ops, static_cast<std::size_t>(kColumns) * static_cast<std::size_t>(config.dim_feedforward)) {
  for (const CodecLayer& l : layers) {
    layers_.push_back({ops.vector(l.norm1_weight), ops.vector(l.norm1_bias), ops.vector(l.norm2_weight),
                       ops.vector(l.norm2_bias), ops.linear(l.in_proj), ops.linear(l.out_proj), ops.linear(l.linear1),
                       ops.linear(l.linear2), ops.vector(l.layer_scale1), ops.vector(l.layer_scale2)});
  }
}

void CodecTransformer::forward(ops::Place x, const KvRings& rings, ops::Place at) const {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& l = layers_[i];
    const ops::Ring ring = rings.layer(static_cast<int>(i));
    const ops::Norm norm1 = {.weight = l.norm1_weight.get(), .bias = l.norm1_bias.get()};
    const ops::Norm norm2 = {.weight = l.norm2_weight.get(), .bias = l.norm2_bias.get()};
    ops_.project_qkv(*l.in_proj, x, kColumns, norm1, max_period_, ring, at, q_.at());
    ops_.attend(q_.at(), ring, at, kColumns, seen_.at());
    ops_.project(*l.out_proj, seen_.at(), kColumns, {.epilogue = ops::Epilogue::kAdd, .scale = l.scale1.get()}, x);
    ops_.project(*l.linear1, x, kColumns, {.norm = norm2, .epilogue = ops::Epilogue::kGelu}, inner_.at());
    ops_.project(*l.linear2, inner_.at(), kColumns, {.epilogue = ops::Epilogue::kAdd, .scale = l.scale2.get()}, x);
  }
}

RingShape CodecTransformer::ring_shape() const {
  // NVIDIA's ring appends both columns of a frame before it masks its oldest slots: both see the same keys.
  return {.layers = static_cast<int>(layers_.size()),
          .heads = heads_,
          .head_dim = head_dim_,
          .context = context_,
          .bits = 32,
          .first_visible = [](std::int64_t p, int context) { return 2 * (p / 2) + 3 - context; }};
}

}  // namespace personaplex
