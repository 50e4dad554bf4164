// csrc/cpu/gemm_pack.cpp: weights of the codec from torch's orientation to panels of int16, once at load.
#include <algorithm>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/int16.h"
#include "core/error.h"
#include "cpu/gemm.h"

namespace personaplex::cpu {

namespace {

using namespace int16;

template <typename T>
std::shared_ptr<T> aligned_array(std::size_t count) {
  constexpr std::size_t kLine = 64;
  void* memory = std::aligned_alloc(kLine, (count * sizeof(T) + kLine - 1) / kLine * kLine);
  if (memory == nullptr) throw std::bad_alloc();
  return std::shared_ptr<T>(static_cast<T*>(memory), [](T* p) { std::free(p); });
}

std::shared_ptr<const float> repeated_bias(const TensorView& bias, int times) {
  if (bias.empty()) return nullptr;
  const auto count = static_cast<std::size_t>(bias.size());
  std::shared_ptr<float> out = aligned_array<float>(count * static_cast<std::size_t>(times));
  read(bias, 0, bias.size(), out.get());
  for (int t = 1; t < times; ++t) std::copy_n(out.get(), count, out.get() + static_cast<std::size_t>(t) * count);
  return out;
}

/// Row `index` of weights [n, k] as integers; returns their scale. `row` has room for k values.
float quantize_row(const TensorView& weight, int index, int k, float* row, std::int16_t* out) {
  read(weight, std::int64_t{index} * k, k, row);
  return round_row(row, k, weight, out);
}

/// A weight of [n, channels, taps].
Panels pack_rows(const TensorView& weight, int n, int channels, int taps) {
  Panels out{nullptr, nullptr, nullptr, n, taps, channels};
  const int width = out.width();
  const int k = out.k();
  const int stride = k + 34;  // neighbouring rows fall into different sets of the cache
  auto packed =
      aligned_array<std::int16_t>(static_cast<std::size_t>(out.count()) * static_cast<std::size_t>(k * width));
  auto scales = aligned_array<float>(static_cast<std::size_t>(n));
  std::vector<float> row(static_cast<std::size_t>(k));
  std::vector<std::int16_t> rows(static_cast<std::size_t>(width * stride));
  for (int panel = 0; panel < out.count(); ++panel) {
    const int used = std::min(width, n - panel * width);
    std::fill(rows.begin() + used * stride, rows.end(), std::int16_t{0});
    for (int i = 0; i < used; ++i) {
      const int at = panel * width + i;
      scales.get()[at] = quantize_row(weight, at, k, row.data(), rows.data() + i * stride);
    }
    std::int16_t* to = packed.get() + static_cast<std::int64_t>(panel) * k * width;
    for (int channel = 0; channel < channels; ++channel) {
      for (int tap = 0; tap < taps; ++tap) {
        const std::int16_t* from = rows.data() + channel * taps + tap;
        std::int16_t* column = to + static_cast<std::int64_t>(tap * channels + channel) * width;
        for (int i = 0; i < width; ++i) column[i] = from[i * stride];
      }
    }
  }
  out.weights = std::move(packed);
  out.scales = std::move(scales);
  return out;
}

int size(const TensorView& t, int axis) { return static_cast<int>(t.dim(axis)); }

void check(const char* where, const char* expected, const TensorView& weight, bool fits) {
  if (!fits) bad_argument(where, std::string("expected ") + expected + ", got " + shape_string(weight.shape) + ".");
}

}  // namespace

std::size_t Panels::nbytes() const {
  return static_cast<std::size_t>(count()) * static_cast<std::size_t>(k() * width()) * sizeof(std::int16_t) +
         static_cast<std::size_t>(n) * sizeof(float) * (bias ? 2 : 1);
}

Panels pack_linear(const TensorView& weight) {
  check("pack_linear", "[N, K] or [N, K, 1]", weight,
        weight.shape.size() == 2 || (weight.shape.size() == 3 && weight.shape[2] == 1));
  return pack_rows(weight, size(weight, 0), size(weight, 1), 1);
}

Panels pack_conv(const Conv& conv) {
  check("pack_conv", "[out, in, kernel]", conv.weight, conv.weight.shape.size() == 3);
  Panels out = pack_rows(conv.weight, size(conv.weight, 0), size(conv.weight, 1), size(conv.weight, 2));
  out.bias = repeated_bias(conv.bias, 1);
  return out;
}

Panels pack_conv_transpose(const Conv& conv, int stride) {
  check("pack_conv_transpose", "[in, out, 2 * stride]", conv.weight,
        conv.weight.shape.size() == 3 && conv.weight.shape[2] == 2 * std::int64_t{stride});
  const int in = size(conv.weight, 0);
  const int filters = size(conv.weight, 1);
  const int kernel = 2 * stride;
  Panels out{nullptr, nullptr, repeated_bias(conv.bias, stride), stride * filters, 2, in};
  const int width = out.width();
  const int k = out.k();
  const auto values = static_cast<std::size_t>(out.count()) * static_cast<std::size_t>(k * width);
  const auto outputs = static_cast<std::size_t>(out.n);
  auto packed = aligned_array<std::int16_t>(values);
  auto scales = aligned_array<float>(outputs);
  if (out.n % width != 0) std::fill_n(packed.get(), values, std::int16_t{0});
  // Value (filter, i) of an input channel belongs to output (i modulo stride, filter).
  std::vector<float> row(static_cast<std::size_t>(filters * kernel));
  const auto each = [&](auto&& visit) {
    for (int channel = 0; channel < in; ++channel) {
      read(conv.weight, static_cast<std::int64_t>(channel) * filters * kernel, filters * kernel, row.data());
      for (int i = 0; i < kernel; ++i) {
        for (int filter = 0; filter < filters; ++filter) {
          visit(channel, i, i % stride * filters + filter, row[static_cast<std::size_t>(filter * kernel + i)]);
        }
      }
    }
  };
  std::vector<std::int32_t> largest(outputs, 0);
  each([&](int, int, int n, float value) {
    std::int32_t& bits = largest[static_cast<std::size_t>(n)];
    bits = std::max(bits, largest_bits(&value, 1));
  });
  for (std::size_t n = 0; n < outputs; ++n) scales.get()[n] = scale_of(largest[n], conv.weight);
  each([&](int channel, int i, int n, float value) {
    const int at = (i < stride ? in : 0) + channel;  // tap 1, this column; tap 0, the one before
    packed.get()[(static_cast<std::int64_t>(n / width) * k + at) * width + n % width] =
        rounded(value, divisor_of(scales.get()[n]));
  });
  out.weights = std::move(packed);
  out.scales = std::move(scales);
  return out;
}

Codewords pack_codewords(const TensorView& table) {
  check("pack_codewords", "[bins, d]", table, table.shape.size() == 2);
  Codewords out{nullptr, nullptr, size(table, 0), size(table, 1)};
  auto values = aligned_array<std::int16_t>(static_cast<std::size_t>(table.size()));
  auto scales = aligned_array<float>(static_cast<std::size_t>(out.bins));
  std::vector<float> row(static_cast<std::size_t>(out.d));
  for (int i = 0; i < out.bins; ++i) {
    scales.get()[i] = quantize_row(table, i, out.d, row.data(), values.get() + std::int64_t{i} * out.d);
  }
  out.values = std::move(values);
  out.scales = std::move(scales);
  return out;
}

}  // namespace personaplex::cpu
