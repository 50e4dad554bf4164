// csrc/checkpoint/to_floats.cpp: float16 and bfloat16 are widened exactly.
#include "checkpoint/to_floats.h"

#include <cstring>
#include <string>

#include "checkpoint/bf16.h"
#include "core/error.h"

namespace personaplex {

bool read_floats(const TensorView& t, std::int64_t begin, std::int64_t count, float* out) {
  if (t.dtype != DType::kF32 && t.dtype != DType::kBF16 && t.dtype != DType::kF16) return false;
  if (count == 0) return true;
  const std::byte* from = t.data + static_cast<std::size_t>(begin) * size_of(t.dtype);
  if (t.dtype == DType::kF32) {
    std::memcpy(out, from, static_cast<std::size_t>(count) * sizeof(float));
    return true;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t half;
    std::memcpy(&half, from + i * 2, 2);
    out[i] = t.dtype == DType::kBF16 ? from_bf16_bits(half) : from_f16_bits(half);
  }
  return true;
}

std::vector<float> to_floats(const TensorView& t) {
  std::vector<float> values(static_cast<std::size_t>(t.size()));
  if (!read_floats(t, 0, t.size(), values.data())) {
    throw WeightsError(std::string("[load] expected a tensor of F32, F16 or BF16, got ") + name_of(t.dtype) + ".");
  }
  return values;
}

}  // namespace personaplex
