// csrc/checkpoint/to_floats.cpp: float16 and bfloat16 are widened exactly.
#include "checkpoint/to_floats.h"

#include <cstring>
#include <string>

#include "checkpoint/bf16.h"
#include "core/error.h"

namespace personaplex {

std::vector<float> to_floats(const TensorView& t) {
  std::vector<float> values(static_cast<std::size_t>(t.size()));
  if (t.dtype == DType::kF32) {
    std::memcpy(values.data(), t.data, t.nbytes());
  } else if (t.dtype == DType::kBF16 || t.dtype == DType::kF16) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::uint16_t half;
      std::memcpy(&half, t.data + 2 * i, 2);
      values[i] = t.dtype == DType::kBF16 ? from_bf16_bits(half) : from_f16_bits(half);
    }
  } else {
    throw WeightsError(std::string("[load] expected a tensor of F32, F16 or BF16, got ") + name_of(t.dtype) + ".");
  }
  return values;
}

}  // namespace personaplex
