// csrc/gpu/gpu_codec_weights.h: weights of the codec in memory of a GPU, arranged as kernels/codec_*.metal read them.
#pragma once

#include <memory>

#include "gpu/gpu_weights.h"

namespace personaplex::gpu {

/// A linear layer or a convolution as a product over a window [columns][in]: for every output, `groups` stretches of
/// `width` values. A transposed convolution is one over two columns, with stride * out outputs.
struct GpuPanels : ops::Weight {
  int outputs = 0;
  int groups = 1, width = 0;  // one stretch where the taps follow each other
  int in = 0, taps = 1, stride = 1, dilation = 1;
  int carried = 0;    // columns of the window that outlive a frame
  ops::Place values;  // int16 [ceil(outputs / 8)][groups][ceil(width / 8)][8 outputs][8 values]
  ops::Place scales;  // float32 [outputs]
  ops::Place bias;    // float32 [outputs], or absent

  int octets() const { return groups * ((width + 7) / 8); }
  int panels() const { return (outputs + 7) / 8; }
  std::size_t value_bytes() const { return static_cast<std::size_t>(panels() * octets()) * 128; }
  std::size_t output_bytes() const { return static_cast<std::size_t>(outputs) * sizeof(float); }
};

/// A depthwise transposed convolution.
struct GpuUpsample : ops::Weight {
  int channels = 0, stride = 1;
  ops::Place taps;  // float32 [2 * stride][channels]
  ops::Place bias;  // float32 [channels], or absent
};

struct GpuCodebook : ops::Weight {
  int bins = 0, d = 0;
  ops::Place codewords;  // float32 [bins][d]

  std::size_t bytes() const { return static_cast<std::size_t>(bins) * static_cast<std::size_t>(d) * sizeof(float); }
};

// All of these throw WeightsError where a weight is not finite.

/// [N, K] or [N, K, 1].
std::unique_ptr<GpuPanels> put_linear(WeightMemory& memory, const TensorView& weight);
/// [out, in, kernel].
std::unique_ptr<GpuPanels> put_conv(WeightMemory& memory, const Conv& conv, int stride, int dilation);
/// [in, out, 2 * stride].
std::unique_ptr<GpuPanels> put_conv_transpose(WeightMemory& memory, const Conv& conv, int stride);
/// [C, 1, 2 * stride].
std::unique_ptr<GpuUpsample> put_upsample(WeightMemory& memory, const Conv& conv, int stride);
std::unique_ptr<GpuCodebook> put_codebook(WeightMemory& memory, const RvqLevel& level);
/// y = x exactly, for d values.
std::unique_ptr<GpuPanels> put_identity(WeightMemory& memory, int d);

}  // namespace personaplex::gpu
