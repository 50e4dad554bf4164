// csrc/graph/codec_transformer.cpp: LayerNorm, rotary attention over a window, erf GELU, layer scale; all float32.
#include "graph/codec_transformer.h"

#include <cmath>

#include "graph/arrays.h"

namespace personaplex::graph {

namespace {

constexpr float kEpsilon = 1e-5F;

array vector_of(const TensorView& t) { return converted(t, mx::float32, stream()); }
array matrix_of(const TensorView& t) { return op::transpose(vector_of(t), {1, 0}); }

array gelu(const array& x) {
  const array half = op::mul(x, array(0.5F));
  return op::mul(half, op::add(array(1.0F), op::erf(op::mul(x, array(static_cast<float>(std::sqrt(0.5)))))));
}

}  // namespace

CodecTransformer::CodecTransformer(const std::vector<CodecLayer>& layers, const MimiConfig& config)
    : heads_(config.num_heads),
      head_dim_(config.dimension / config.num_heads),
      context_(config.context),
      max_period_(config.max_period) {
  for (const CodecLayer& l : layers) {
    layers_.push_back({vector_of(l.norm1_weight), vector_of(l.norm1_bias), vector_of(l.norm2_weight),
                       vector_of(l.norm2_bias), matrix_of(l.in_proj), matrix_of(l.out_proj), matrix_of(l.linear1),
                       matrix_of(l.linear2), vector_of(l.layer_scale1), vector_of(l.layer_scale2)});
  }
}

array CodecTransformer::operator()(array x, KvRing& ring) const {
  const Columns columns = ring.begin(x.shape(0));
  const Rope rope = rope_table(columns.first, columns.count, head_dim_, max_period_);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& l = layers_[i];
    const array normed = mx::fast::layer_norm(x, l.norm1_weight, l.norm1_bias, kEpsilon, stream());
    const auto qkv = split_qkv(op::matmul(normed, l.in_proj), heads_);
    ring.k[i] = append(ring.k[i], apply_rope(qkv[1], rope), columns.slot);
    ring.v[i] = append(ring.v[i], qkv[2], columns.slot);
    const array seen = attention(apply_rope(qkv[0], rope), ring.k[i], ring.v[i], columns.mask);
    x = op::add(x, op::mul(op::matmul(seen, l.out_proj), l.layer_scale1));
    const array inner = mx::fast::layer_norm(x, l.norm2_weight, l.norm2_bias, kEpsilon, stream());
    x = op::add(x, op::mul(op::matmul(gelu(op::matmul(inner, l.linear1)), l.linear2), l.layer_scale2));
  }
  return x;
}

KvRing CodecTransformer::make_ring() const {
  // NVIDIA's ring appends both columns of a frame before it masks its oldest slots: both see the same keys.
  const std::int64_t context = context_;
  return {static_cast<int>(layers_.size()), heads_, head_dim_, context_, mx::float32, [context](std::int64_t p) {
            return 2 * (p / 2) + 3 - context;
          }};
}

}  // namespace personaplex::graph
