// csrc/gpu/gpu_codec_weights.cpp: weights of the codec from torch's orientation to panels of int16, once at load.
#include "gpu/gpu_codec_weights.h"

#include <algorithm>
#include <vector>

#include "checkpoint/int16.h"
#include "checkpoint/to_floats.h"

namespace personaplex::gpu {

namespace {

constexpr int kPanel = 8;  // outputs
constexpr int kOctet = 8;  // values

/// Panels on the host, output by output.
class HostPanels {
 public:
  explicit HostPanels(const GpuPanels& shape)
      : groups_(shape.groups),
        width_(shape.width),
        octets_(shape.octets()),
        values_(shape.value_bytes() / sizeof(std::int16_t)),
        scales_(static_cast<std::size_t>(shape.outputs)),
        row_(static_cast<std::size_t>(shape.groups * shape.width)) {}

  /// `row` [groups][width]. `of`: whose weights they are.
  void put(int output, const float* row, const TensorView& of) {
    put(output, int16::round_row(row, groups_ * width_, of, row_.data()), row_.data());
  }
  void put(int output, float scale, const std::int16_t* row) {
    scales_[static_cast<std::size_t>(output)] = scale;
    const int in_group = octets_ / groups_;
    for (int g = 0; g < groups_; ++g) {
      for (int j = 0; j < width_; ++j) {
        const int octet = (output / kPanel * groups_ + g) * in_group + j / kOctet;
        values_[static_cast<std::size_t>((octet * kPanel + output % kPanel) * kOctet + j % kOctet)] = *row++;
      }
    }
  }
  void upload(WeightMemory& memory, GpuPanels& to) const {
    to.values = memory.put(values_.data(), values_.size() * sizeof(std::int16_t));
    to.scales = memory.put(scales_.data(), scales_.size() * sizeof(float));
  }

 private:
  int groups_, width_, octets_;
  std::vector<std::int16_t> values_;
  std::vector<float> scales_;
  std::vector<std::int16_t> row_;
};

int size(const TensorView& t, int axis) { return static_cast<int>(t.dim(axis)); }

void check(const char* where, const char* expected, const TensorView& weight, bool fits) {
  if (!fits) bad_argument(where, std::string("expected ") + expected + ", got " + shape_string(weight.shape) + ".");
}

/// A bias of [n], `times` times; absent where there is none.
ops::Place put_bias(WeightMemory& memory, const TensorView& bias, int times) {
  if (bias.empty()) return {};
  const std::vector<float> once = to_floats(bias);
  std::vector<float> all;
  for (int t = 0; t < times; ++t) all.insert(all.end(), once.begin(), once.end());
  return memory.put(all.data(), all.size() * sizeof(float));
}

/// A weight of [outputs, in, taps].
void put_rows(WeightMemory& memory, const TensorView& weight, GpuPanels& to) {
  HostPanels panels(to);
  const std::int64_t k = std::int64_t{to.in} * to.taps;
  std::vector<float> torch(static_cast<std::size_t>(k));
  std::vector<float> row(torch.size());
  for (int n = 0; n < to.outputs; ++n) {
    int16::read(weight, n * k, k, torch.data());
    auto value = row.begin();
    for (int tap = 0; tap < to.taps; ++tap) {
      for (int c = 0; c < to.in; ++c) *value++ = torch[static_cast<std::size_t>(c * to.taps + tap)];
    }
    panels.put(n, row.data(), weight);
  }
  panels.upload(memory, to);
}

}  // namespace

std::unique_ptr<GpuPanels> put_linear(WeightMemory& memory, const TensorView& weight) {
  check("put_linear", "[N, K] or [N, K, 1]", weight,
        weight.shape.size() == 2 || (weight.shape.size() == 3 && weight.shape[2] == 1));
  auto w = std::make_unique<GpuPanels>();
  w->outputs = size(weight, 0);
  w->in = w->width = size(weight, 1);
  put_rows(memory, weight, *w);
  return w;
}

std::unique_ptr<GpuPanels> put_conv(WeightMemory& memory, const Conv& conv, int stride, int dilation) {
  check("put_conv", "[out, in, kernel]", conv.weight, conv.weight.shape.size() == 3);
  auto w = std::make_unique<GpuPanels>();
  w->outputs = size(conv.weight, 0);
  w->in = size(conv.weight, 1);
  w->taps = size(conv.weight, 2);
  w->stride = stride;
  w->dilation = dilation;
  w->carried = (w->taps - 1) * dilation + 1 - stride;
  w->groups = dilation == 1 ? 1 : w->taps;
  w->width = w->taps / w->groups * w->in;
  put_rows(memory, conv.weight, *w);
  w->bias = put_bias(memory, conv.bias, 1);
  return w;
}

std::unique_ptr<GpuPanels> put_conv_transpose(WeightMemory& memory, const Conv& conv, int stride) {
  const TensorView& weight = conv.weight;
  check("put_conv_transpose", "[in, out, 2 * stride]", weight,
        weight.shape.size() == 3 && weight.shape[2] == 2 * std::int64_t{stride});
  const int filters = size(weight, 1);
  const std::int64_t kernel = 2 * std::int64_t{stride};
  auto w = std::make_unique<GpuPanels>();
  w->outputs = stride * filters;
  w->in = size(weight, 0);
  w->taps = 2;
  w->width = 2 * w->in;
  w->carried = 1;
  HostPanels panels(*w);
  // Output (s, filter) has value s of a channel's kernel for this column, and value stride + s for the one before.
  std::vector<float> kernels(static_cast<std::size_t>(w->in * kernel));
  std::vector<float> row(static_cast<std::size_t>(w->width));
  for (int filter = 0; filter < filters; ++filter) {
    for (int c = 0; c < w->in; ++c) {
      int16::read(weight, (std::int64_t{c} * filters + filter) * kernel, kernel, kernels.data() + c * kernel);
    }
    for (int s = 0; s < stride; ++s) {
      for (int c = 0; c < w->in; ++c) {
        row[static_cast<std::size_t>(c)] = kernels[static_cast<std::size_t>(c * kernel + stride + s)];
        row[static_cast<std::size_t>(w->in + c)] = kernels[static_cast<std::size_t>(c * kernel + s)];
      }
      panels.put(s * filters + filter, row.data(), weight);
    }
  }
  panels.upload(memory, *w);
  w->bias = put_bias(memory, conv.bias, stride);
  return w;
}

std::unique_ptr<GpuUpsample> put_upsample(WeightMemory& memory, const Conv& conv, int stride) {
  check("put_upsample", "[C, 1, 2 * stride]", conv.weight,
        conv.weight.shape.size() == 3 && conv.weight.shape[1] == 1 && conv.weight.shape[2] == 2 * std::int64_t{stride});
  auto w = std::make_unique<GpuUpsample>();
  w->channels = size(conv.weight, 0);
  w->stride = stride;
  const std::vector<float> torch = to_floats(conv.weight);
  std::vector<float> taps;
  for (int tap = 0; tap < 2 * stride; ++tap) {
    for (int c = 0; c < w->channels; ++c) taps.push_back(torch[static_cast<std::size_t>(c * 2 * stride + tap)]);
  }
  w->taps = memory.put(taps.data(), taps.size() * sizeof(float));
  w->bias = put_bias(memory, conv.bias, 1);
  return w;
}

std::unique_ptr<GpuCodebook> put_codebook(WeightMemory& memory, const RvqLevel& level) {
  auto w = std::make_unique<GpuCodebook>();
  w->bins = size(level.embedding_sum, 0);
  w->d = size(level.embedding_sum, 1);
  std::vector<float> codewords = to_floats(level.embedding_sum);
  const std::vector<float> usage = to_floats(level.cluster_usage);
  for (std::size_t i = 0; i < codewords.size(); ++i) {
    codewords[i] /= std::max(usage[i / static_cast<std::size_t>(w->d)], 1e-5F);
  }
  w->codewords = memory.put(codewords.data(), codewords.size() * sizeof(float));
  return w;
}

std::unique_ptr<GpuPanels> put_identity(WeightMemory& memory, int d) {
  auto w = std::make_unique<GpuPanels>();
  w->outputs = w->in = w->width = d;
  HostPanels panels(*w);
  std::vector<std::int16_t> row(static_cast<std::size_t>(d));
  for (int i = 0; i < d; ++i) {
    row[static_cast<std::size_t>(i)] = 1;
    panels.put(i, 1.0F, row.data());
    row[static_cast<std::size_t>(i)] = 0;
  }
  panels.upload(memory, *w);
  return w;
}

}  // namespace personaplex::gpu
