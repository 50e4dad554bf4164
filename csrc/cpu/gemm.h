// csrc/cpu/gemm.h: the codec's matrix products: float32 activations, 16-bit weights, many rows; convolutions are
// products over overlapping windows of time-major input, which lie in memory as they are.
//
// Weights are int16 times one float32 scale per output, its largest weight / 32767. Where weights are bell-shaped that
// is five times closer than float16, whose 11 bits were enough to change codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "checkpoint/weights.h"
#include "cpu/isa.h"

namespace personaplex::cpu {

/// Weights [K, N] as panels of 32 outputs, [N / 32][K][32] int16 (N padded with zeros), their scales, and the bias.
/// N = 1 is kept as one row [K]. K = taps * channels, tap by tap.
struct Panels {
  static constexpr int kWidth = 32;
  std::shared_ptr<const std::int16_t> weights;  // 64-byte aligned
  std::shared_ptr<const float> scales;          // [N]
  std::shared_ptr<const float> bias;            // [N], or null
  int n = 0, taps = 1, channels = 0;

  int k() const { return taps * channels; }
  int width() const { return n == 1 ? 1 : kWidth; }
  int count() const { return (n + width() - 1) / width(); }
  std::size_t nbytes() const;
};

// All of these throw WeightsError where a weight is not finite.

/// y = x W^T: a linear layer [N, K] (torch's orientation) of any float dtype; also a 1x1 convolution [N, K, 1].
Panels pack_linear(const TensorView& weight);
/// A convolution [out, in, kernel].
Panels pack_conv(const Conv& conv);
/// A transposed convolution [in, out, 2 * stride] of this stride, as a convolution over 2 input columns (the one before
/// and this one) with stride * out outputs: y[l][s][o] = b[o] + x[l-1] . w[:, o, stride + s] + x[l] . w[:, o, s].
Panels pack_conv_transpose(const Conv& conv, int stride);

/// An RVQ level's codewords: scales[i] * values[i][0..d).
struct Codewords {
  std::shared_ptr<const std::int16_t> values;  // [bins, d]
  std::shared_ptr<const float> scales;         // [bins]
  int bins = 0, d = 0;

  float at(int code, int i) const { return scales.get()[code] * static_cast<float>(values.get()[code * d + i]); }
};
/// [bins, d] of any float dtype.
Codewords pack_codewords(const TensorView& table);

/// Where the windows are: row m, tap t starts at x + m * row_stride + t * tap_stride; its `channels` values follow.
struct Windows {
  const float* x = nullptr;
  std::int64_t row_stride = 0, tap_stride = 0;
};

/// What becomes of y = W x + bias, row m at offset m * stride of each; null: not wanted. `residual` may be `raw`.
struct GemmOutput {
  const float* residual = nullptr;  // added
  const float* scale = nullptr;     // [N]: y * scale + residual (layer scale)
  float* raw = nullptr;
  float* elu = nullptr;   // elu(result)
  float* gelu = nullptr;  // gelu(result), erf
  std::int64_t stride = 0;
};

struct GemmKernels {
  /// Tiles of a product with this many rows; all independent, of about equal work.
  int (*tiles)(const Panels& w, int rows);
  /// Computes tiles [begin, end). Results do not depend on how tiles are split.
  void (*run)(const Panels& w, const Windows& in, int rows, const GemmOutput& out, int begin, int end);
  /// The nearest of codewords [begin, end) to x [d]: smallest sum of squared differences, ties to the lowest index.
  void (*nearest)(const Codewords& table, const float* x, int begin, int end, float* distance, int* index);
};

/// Kernels of an instruction set that this machine supports.
const GemmKernels& gemm_kernels(Isa isa);

}  // namespace personaplex::cpu
