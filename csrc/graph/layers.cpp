// csrc/graph/layers.cpp: see layers.h for the formulas.
#include "graph/layers.h"

#include <cmath>

#include "core/rotary.h"
#include "graph/arrays.h"

namespace personaplex::graph {

Linear::Linear(const Matrix& m, mx::Dtype dtype, bool cast)
    : weight(wrap(m.weight)), bits(m.bits), group_size(m.group_size) {
  if (m.quantized()) {
    scales = wrap(m.scales);
    biases = wrap(m.biases);
  } else if (cast) {
    weight = converted(m.weight, dtype, stream());
  }
}

array Linear::operator()(const array& x) const {
  if (scales) {
    return op::astype(
        mx::quantized_matmul(x, weight, *scales, biases, /* transpose = */ true, group_size, bits, "affine", stream()),
        x.dtype());
  }
  return op::matmul(x, op::transpose(op::astype(weight, x.dtype()), {1, 0}));
}

array Linear::rows(const array& ids, mx::Dtype dtype) const {
  if (!scales) return op::astype(op::take(weight, ids, 0), dtype);
  // Widened before the product: w = scale * q + bias is then exact, as in the matrix product.
  return op::astype(mx::dequantize(op::take(weight, ids, 0), op::astype(op::take(*scales, ids, 0), mx::float32),
                                   op::astype(op::take(*biases, ids, 0), mx::float32), group_size, bits, "affine",
                                   std::nullopt, std::nullopt, stream()),
                    dtype);
}

array embed(const Linear& table, const array& ids, mx::Dtype dtype) {
  const array zero(0);
  const array found = table.rows(op::maximum(ids, zero), dtype);
  return op::where(op::expand_dims(op::less(ids, zero), -1), array(0.0F, dtype), found);
}

array rms_norm(const array& x, const array& alpha) {
  return op::astype(mx::fast::rms_norm(op::astype(x, mx::float32), alpha, 1e-8F, stream()), x.dtype());
}

array gated_ffn(const array& x, const Linear& linear_in, const Linear& linear_out) {
  const array both = linear_in(x);
  const int hidden = both.shape(-1) / 2;
  const array gate = op::narrow(both, -1, 0, hidden);
  const array value = op::narrow(both, -1, hidden, 2 * hidden);
  return linear_out(op::mul(op::mul(gate, op::sigmoid(gate)), value));
}

Rope rope_table(std::int64_t first, int count, int head_dim, float max_period) {
  const int half = head_dim / 2;
  std::vector<float> cosines, sines;
  for (int t = 0; t < count; ++t) {
    for (int i = 0; i < half; ++i) {
      const double angle = rotary_angle(first + t, i, head_dim, max_period);
      cosines.push_back(static_cast<float>(std::cos(angle)));
      sines.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return {from_host(cosines, {count, 1, half}), from_host(sines, {count, 1, half})};
}

array apply_rope(const array& x, const Rope& rope) {
  const mx::Shape shape = x.shape();
  const array pairs = op::reshape(op::astype(x, mx::float32), {shape[0], shape[1], shape[2] / 2, 2});
  const array even = op::reshape(op::narrow(pairs, -1, 0, 1), {shape[0], shape[1], shape[2] / 2});
  const array odd = op::reshape(op::narrow(pairs, -1, 1, 2), {shape[0], shape[1], shape[2] / 2});
  const array rotated = op::stack({op::sub(op::mul(even, rope.cos), op::mul(odd, rope.sin)),
                                   op::add(op::mul(even, rope.sin), op::mul(odd, rope.cos))},
                                  -1);
  return op::astype(op::reshape(rotated, shape), x.dtype());
}

std::vector<array> split_qkv(const array& qkv, int heads) {
  const int count = qkv.shape(0);
  const int dim = qkv.shape(1) / 3;
  const array packed = op::reshape(qkv, {count, 3, heads, dim / heads});
  std::vector<array> parts;
  for (int i = 0; i < 3; ++i) {
    parts.push_back(op::reshape(op::narrow(packed, 1, i, i + 1), {count, heads, dim / heads}));
  }
  return parts;
}

array attention(const array& q, const array& k, const array& v, const std::optional<array>& mask) {
  const int count = q.shape(0);
  const int heads = q.shape(1);
  const int head_dim = q.shape(2);
  const array queries = op::expand_dims(op::transpose(q, {1, 0, 2}), 0);  // [1, H, T, Dh]
  const array out =
      mx::fast::scaled_dot_product_attention(queries, k, v, 1.0F / std::sqrt(static_cast<float>(head_dim)),
                                             mask ? "array" : "", mask, std::nullopt, false, stream());
  return op::reshape(op::transpose(out, {0, 2, 1, 3}), {count, heads * head_dim});
}

}  // namespace personaplex::graph
