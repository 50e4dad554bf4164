// csrc/graph/conv.h: streaming convolutions of SEANet: what one call leaves over is carried to the next.
#pragma once

#include <optional>

#include "checkpoint/weights.h"
#include "graph/op.h"

namespace personaplex::graph {

/// What a convolution keeps between calls; absent before the first one. Time is axis 0 everywhere: x [L, C].
using Carry = std::optional<array>;

enum class Padding { kZero, kReplicate };

/// Causal convolution. The first call sees (kernel - 1) * dilation + 1 - stride columns of padding before its input.
class Conv1d {
 public:
  Conv1d(const Conv& weights, int stride, int dilation = 1, Padding padding = Padding::kZero);
  array operator()(const array& x, Carry& carry) const;  // [L, in], L a multiple of stride -> [L / stride, out]

 private:
  array weight_;  // [kernel * in, out] float32
  std::optional<array> bias_;
  int kernel_, stride_, dilation_;
  Padding padding_;
};

/// Transposed convolution of kernel 2 * stride: an input column reaches its own stride outputs and the next ones,
/// which are carried. Depthwise when the weight is [C, 1, kernel].
class ConvTranspose1d {
 public:
  ConvTranspose1d(const Conv& weights, int stride);
  array operator()(const array& x, Carry& carry) const;  // [L, in] -> [L * stride, out]

 private:
  array weight_;  // [in, kernel * out], or depthwise [kernel, C], float32
  std::optional<array> bias_;
  int stride_, out_;
  bool depthwise_;
};

/// x for x > 0, exp(x) - 1 otherwise.
array elu(const array& x);

}  // namespace personaplex::graph
