// csrc/checkpoint/int16.h: weights of the codec as int16 times one float32 scale per output, its largest weight /
// 32767. Where weights are bell-shaped that is five times closer than float16.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "checkpoint/bf16.h"
#include "checkpoint/tensor.h"
#include "core/error.h"

namespace personaplex::int16 {

/// Copies values [begin, begin + count) of t, of any float dtype.
inline void read(const TensorView& t, std::int64_t begin, std::int64_t count, float* out) {
  const std::byte* from = t.data + static_cast<std::size_t>(begin) * size_of(t.dtype);
  if (t.dtype == DType::kF32) {
    std::memcpy(out, from, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  if (t.dtype != DType::kBF16 && t.dtype != DType::kF16) {
    bad_argument("pack", std::string("expected weights of F32, F16 or BF16, got ") + name_of(t.dtype) + ".");
  }
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t half;
    std::memcpy(&half, from + i * 2, 2);
    out[i] = t.dtype == DType::kBF16 ? from_bf16_bits(half) : from_f16_bits(half);
  }
}

/// The largest magnitude, as bits, whose order is that of the values, with infinity and NaN above all others.
inline std::int32_t largest_bits(const float* values, std::int64_t count) {
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<std::int32_t>(values[i]) & 0x7FFFFFFF);
  }
  return largest;
}

/// The scale of weights whose largest magnitude has these bits; 0, of weights that become 0, where it would be
/// denormal. Throws WeightsError where that is no finite number.
inline float scale_of(std::int32_t bits, const TensorView& weight) {
  constexpr float kLargest = 32767.0F;
  const auto largest = std::bit_cast<float>(bits);
  if (!std::isfinite(largest)) {
    throw WeightsError("[Mimi] expected finite weights in " + shape_string(weight.shape) +
                       "; one is infinite or not a number.");
  }
  const float scale = largest / kLargest;
  return scale < std::numeric_limits<float>::min() ? 0.0F : scale;
}

/// What `rounded` divides by: everything becomes 0 where the scale is.
inline float divisor_of(float scale) { return scale == 0.0F ? std::numeric_limits<float>::infinity() : scale; }

/// value / divisor to the nearest integer, ties to even. No branches: compilers vectorize it.
inline std::int16_t rounded(float value, float divisor) {
  constexpr float kNoFraction = 12582912.0F;  // 1.5 * 2^23: a sum with it has no bits after the point
  return static_cast<std::int16_t>((value / divisor + kNoFraction) - kNoFraction);
}

/// The weights of one output as integers; returns their scale. `of`: whose they are, for the error's words.
inline float round_row(const float* row, int k, const TensorView& of, std::int16_t* out) {
  const float scale = scale_of(largest_bits(row, k), of);
  const float divisor = divisor_of(scale);
  for (int i = 0; i < k; ++i) out[i] = rounded(row[i], divisor);
  return scale;
}

}  // namespace personaplex::int16
