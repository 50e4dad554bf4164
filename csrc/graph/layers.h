// csrc/graph/layers.h: the building blocks that temporal, depformer and codec transformer share.
#pragma once

#include <optional>
#include <vector>

#include "checkpoint/weights.h"
#include "graph/op.h"

namespace personaplex::graph {

/// A Matrix on the device. y = x W^T.
struct Linear {
  array weight;                         // [N, K], or packed uint32
  std::optional<array> scales, biases;  // [N, K / group_size]
  int bits = 16;
  int group_size = 0;

  /// `cast` converts a 16-bit weight to the compute dtype once instead of in every call.
  Linear(const Matrix& m, mx::Dtype dtype, bool cast);
  array operator()(const array& x) const;               // [..., K] -> [..., N], dtype of x
  array rows(const array& ids, mx::Dtype dtype) const;  // ids [T] int32 -> [T, K]: embedding look-up
};

/// Rows of `table` for ids [T]; id -1 ("zero") gives an exact 0.
array embed(const Linear& table, const array& ids, mx::Dtype dtype);

/// x * rsqrt(mean(x^2) + 1e-8) * alpha, in float32 whatever the dtype of x. x [..., D], alpha [D] float32.
array rms_norm(const array& x, const array& alpha);

/// linear_out(silu(gate) * value) with [gate; value] = linear_in(x).
array gated_ffn(const array& x, const Linear& linear_in, const Linear& linear_out);

/// cos and sin of the rotary angles of positions first .. first + T - 1, each [T, 1, head_dim / 2] float32.
struct Rope {
  array cos, sin;
};
Rope rope_table(std::int64_t first, int count, int head_dim, float max_period);

/// Rotates interleaved pairs (2i, 2i + 1) by position * max_period^(-2i / head_dim), in float32. x [T, H, Dh].
array apply_rope(const array& x, const Rope& rope);

/// Splits packed qkv [T, 3 * H * Dh] into three [T, H, Dh].
std::vector<array> split_qkv(const array& qkv, int heads);

/// softmax(q k^T / sqrt(Dh)) v. q [T, H, Dh]; k, v [1, H, L, Dh]; mask [T, L] bool (true = visible) -> [T, H * Dh].
array attention(const array& q, const array& k, const array& v, const std::optional<array>& mask);

}  // namespace personaplex::graph
