// csrc/cpu/cpu_weights.h: weights as CpuOps keeps them.
#pragma once

#include <memory>
#include <vector>

#include "cpu/gemm.h"
#include "ops/ops.h"

namespace personaplex::cpu {

/// A matrix of the language model: the checkpoint's own bytes.
struct MatrixWeight : ops::Weight {
  Matrix matrix;
};

struct VectorWeight : ops::Weight {
  std::vector<float> values;
};

/// A linear layer or a convolution of the codec.
struct PanelsWeight : ops::Weight {
  Panels panels;
  int in = 0;      // input channels
  int stride = 1;  // input columns from one output to the next
  int dilation = 1;
  int carried = 0;  // columns
};

/// A depthwise transposed convolution.
struct UpsampleWeight : ops::Weight {
  std::vector<float> taps;  // [2 * stride, channels]
  std::vector<float> bias;  // [channels], or empty
  int channels = 0, stride = 1;
};

struct CodebookWeight : ops::Weight {
  Codewords codewords;
};

template <typename T>
const T& as(const ops::Weight& w) {
  return static_cast<const T&>(w);
}

}  // namespace personaplex::cpu
