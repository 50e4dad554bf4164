// csrc/engine/take_tensor.cpp: presence, dtype, shape, finite values.
#include "engine/take_tensor.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/error.h"
#include "engine/engine.h"

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

NamedTensor position_tensor(const std::string& name, std::int64_t position) {
  OwnedTensor t = allocate_tensor(DType::kI64, {1});
  std::memcpy(t.mutable_data, &position, sizeof position);
  return {name, t.view};
}

std::int64_t take_position(std::map<std::string, TensorView>& in, const std::string& name) {
  std::int64_t position = 0;
  std::memcpy(&position, take_tensor(in, name, DType::kI64, {1}).data, sizeof position);
  if (position < 0 || position >= kMaxPosition) {
    throw WeightsError("[Snapshot.load] " + name + ": expected 0 to 2^40, got " + std::to_string(position) + ".");
  }
  return position;
}

void check_codec_position(const std::string& prefix, std::int64_t position) {
  if (position % 2 != 0) {
    throw WeightsError("[Snapshot.load] " + prefix + ".ring.position: expected two positions a frame, got " +
                       std::to_string(position) + ".");
  }
}

void check_all_taken(const std::map<std::string, TensorView>& rest) {
  if (!rest.empty()) {
    throw WeightsError("[Snapshot.load] tensor " + rest.begin()->first + " belongs to no state of this model.");
  }
}

}  // namespace personaplex
