// csrc/core/rotary.h: the angles of rotary position embeddings, the same in every engine.
#pragma once

#include <cmath>
#include <cstdint>

namespace personaplex {

/// What pair i (values 2i and 2i + 1) of a head is rotated by at a position: position * max_period^(-2i / head_dim).
/// The reference multiplies in float32; the product decides what large positions rotate by.
inline double rotary_angle(std::int64_t position, int i, int head_dim, float max_period) {
  const auto frequency = static_cast<float>(std::exp(-std::log(static_cast<double>(max_period)) * 2.0 * i / head_dim));
  return frequency * static_cast<float>(position);
}

}  // namespace personaplex
