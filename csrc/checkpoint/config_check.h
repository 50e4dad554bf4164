// csrc/checkpoint/config_check.h: the largest size that config.json may ask for.
#pragma once

#include "checkpoint/config.h"

namespace personaplex {

/// Far above any real model; a product of two such sizes still fits 64 bits, and a sum of a few fits int.
constexpr int kMaxConfigSize = 1 << 26;

}  // namespace personaplex
