// csrc/cpu/gemm_pack.cpp: weights of the codec from torch's orientation to panels of float16, once at load.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/bf16.h"
#include "core/error.h"
#include "cpu/gemm.h"

namespace personaplex::cpu {

namespace {

constexpr std::uint16_t kInfinity16 = 0x7C00;

/// Rounds to nearest, ties to even; what is no finite float16 becomes infinite. No branches: compilers vectorize it.
std::uint16_t to_f16_bits(float value) {
  const auto bits = std::bit_cast<std::int32_t>(value);
  const std::int32_t magnitude = bits & 0x7FFFFFFF;
  const std::int32_t odd = (magnitude >> 13) & 1;
  // Wraps for NaN only, whose result is replaced.
  const auto normal = static_cast<std::int32_t>(
      (static_cast<std::uint32_t>(magnitude) - (112U << 23) + 0xFFFU + static_cast<std::uint32_t>(odd)) >> 13);
  // 0.5 has float16's smallest step as its last place.
  const std::int32_t small = std::bit_cast<std::int32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000;
  std::int32_t half = magnitude < 0x38800000 ? small : normal;  // 2^-14
  half = magnitude < 0x477FF000 ? half : kInfinity16;           // 65520, which rounds to 65536
  return static_cast<std::uint16_t>(half | ((bits >> 16) & 0x8000));
}

/// Copies values [begin, begin + count) of t as float16. Throws WeightsError where that has no finite value.
void read_f16(const TensorView& t, std::int64_t begin, std::int64_t count, std::uint16_t* out) {
  const std::byte* from = t.data + static_cast<std::size_t>(begin) * size_of(t.dtype);
  switch (t.dtype) {
    case DType::kF32:
      for (std::int64_t i = 0; i < count; ++i) {
        float value;
        std::memcpy(&value, from + i * 4, 4);
        out[i] = to_f16_bits(value);
      }
      break;
    case DType::kBF16:
      for (std::int64_t i = 0; i < count; ++i) {
        std::uint16_t value;
        std::memcpy(&value, from + i * 2, 2);
        out[i] = to_f16_bits(from_bf16_bits(value));
      }
      break;
    case DType::kF16:
      std::memcpy(out, from, static_cast<std::size_t>(count) * 2);
      break;
    default:
      bad_argument("pack", std::string("expected weights of F32, F16 or BF16, got ") + name_of(t.dtype) + ".");
  }
  std::int16_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, static_cast<std::int16_t>(out[i] & 0x7FFF));
  }
  if (largest >= kInfinity16) {
    throw WeightsError("[Mimi] expected finite weights of at most 65504, the largest float16, in " +
                       shape_string(t.shape) + "; one is larger or not a number.");
  }
}

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
  for (std::size_t i = 0; i < count; ++i) {
    float value = 0.0F;
    std::uint16_t half = 0;
    switch (bias.dtype) {
      case DType::kF32:
        std::memcpy(&value, bias.data + i * 4, 4);
        break;
      case DType::kBF16:
        std::memcpy(&half, bias.data + i * 2, 2);
        value = from_bf16_bits(half);
        break;
      case DType::kF16:
        std::memcpy(&half, bias.data + i * 2, 2);
        value = from_f16_bits(half);
        break;
      default:
        bad_argument("pack", std::string("expected a bias of F32, F16 or BF16, got ") + name_of(bias.dtype) + ".");
    }
    for (int t = 0; t < times; ++t) out.get()[static_cast<std::size_t>(t) * count + i] = value;
  }
  return out;
}

/// A weight of [n, channels, taps].
Panels pack_rows(const TensorView& weight, int n, int channels, int taps) {
  constexpr int kBlock = 64;
  Panels out{nullptr, nullptr, n, taps, channels};
  const int width = out.width();
  const int k = out.k();
  std::shared_ptr<std::uint16_t> packed =
      aligned_array<std::uint16_t>(static_cast<std::size_t>(out.count()) * static_cast<std::size_t>(k * width));
  std::uint16_t tile[Panels::kWidth][kBlock + 2] = {};  // 2 more: columns fall into different banks
  for (int panel = 0; panel < out.count(); ++panel) {
    std::uint16_t* to = packed.get() + static_cast<std::int64_t>(panel) * k * width;
    const int used = std::min(width, n - panel * width);
    for (int row = used; row < width; ++row) std::fill_n(tile[row], kBlock, std::uint16_t{0});
    for (int begin = 0; begin < k; begin += kBlock) {
      const int count = std::min(kBlock, k - begin);
      for (int row = 0; row < used; ++row) {
        read_f16(weight, static_cast<std::int64_t>(panel * width + row) * k + begin, count, tile[row]);
      }
      int channel = begin / taps;
      int tap = begin % taps;
      for (int i = 0; i < count; ++i) {
        std::uint16_t* at = to + static_cast<std::int64_t>(tap * channels + channel) * width;
        for (int row = 0; row < width; ++row) at[row] = tile[row][i];
        if (++tap == taps) {
          tap = 0;
          ++channel;
        }
      }
    }
  }
  out.weights = std::move(packed);
  return out;
}

int size(const TensorView& t, int axis) { return static_cast<int>(t.dim(axis)); }

void check(const char* where, const char* expected, const TensorView& weight, bool fits) {
  if (!fits) bad_argument(where, std::string("expected ") + expected + ", got " + shape_string(weight.shape) + ".");
}

}  // namespace

std::size_t Panels::nbytes() const {
  return static_cast<std::size_t>(count()) * static_cast<std::size_t>(k() * width()) * sizeof(std::uint16_t) +
         (bias ? static_cast<std::size_t>(n) * sizeof(float) : 0);
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
  Panels out{nullptr, repeated_bias(conv.bias, stride), stride * filters, 2, in};
  const int width = out.width();
  const int k = out.k();
  const auto values = static_cast<std::size_t>(out.count()) * static_cast<std::size_t>(k * width);
  std::shared_ptr<std::uint16_t> packed = aligned_array<std::uint16_t>(values);
  if (out.n % width != 0) std::fill_n(packed.get(), values, std::uint16_t{0});
  std::vector<std::uint16_t> row(static_cast<std::size_t>(filters * kernel));
  for (int channel = 0; channel < in; ++channel) {
    read_f16(conv.weight, static_cast<std::int64_t>(channel) * filters * kernel, filters * kernel, row.data());
    for (int i = 0; i < kernel; ++i) {
      const int at = (i < stride ? in : 0) + channel;  // tap 1, this column; tap 0, the one before
      for (int filter = 0; filter < filters; ++filter) {
        const int n = i % stride * filters + filter;
        packed.get()[(static_cast<std::int64_t>(n / width) * k + at) * width + n % width] =
            row[static_cast<std::size_t>(filter * kernel + i)];
      }
    }
  }
  out.weights = std::move(packed);
  return out;
}

}  // namespace personaplex::cpu
