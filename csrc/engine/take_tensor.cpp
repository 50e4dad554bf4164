// csrc/engine/take_tensor.cpp: presence, dtype, shape, finite values.
#include "engine/take_tensor.h"

#include <algorithm>
#include <cstdint>

#include "core/error.h"

namespace personaplex {

namespace {

// `Exponent` is all ones in NaN and infinity, and in nothing else.
template <typename Bits, Bits Exponent>
bool all_finite(const std::byte* data, std::size_t count) {
  const auto* bits = reinterpret_cast<const Bits*>(data);
  return std::none_of(bits, bits + count, [](Bits b) { return (b & Exponent) == Exponent; });
}

}  // namespace

TensorView take_tensor(std::map<std::string, TensorView>& in, const std::string& name, DType dtype,
                       const std::vector<std::int64_t>& shape) {
  const auto node = in.extract(name);
  if (node.empty()) throw WeightsError("[Snapshot.load] tensor " + name + " is missing.");
  const TensorView& t = node.mapped();
  if (t.dtype != dtype || t.shape != shape) {
    throw WeightsError("[Snapshot.load] " + name + ": expected " + shape_string(shape) + " " + name_of(dtype) +
                       ", got " + shape_string(t.shape) + " " + name_of(t.dtype) + ".");
  }
  const auto count = static_cast<std::size_t>(t.size());
  if ((dtype == DType::kF32 && !all_finite<std::uint32_t, 0x7F800000U>(t.data, count)) ||
      (dtype == DType::kBF16 && !all_finite<std::uint16_t, 0x7F80U>(t.data, count))) {
    throw WeightsError("[Snapshot.load] " + name + " holds NaN or infinity.");
  }
  return t;
}

}  // namespace personaplex
