// csrc/cpu/sampling.h: one token from logits.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/ops.h"

namespace personaplex::cpu {

/// As Ops::sample says. `scratch` grows to what it needs and is kept between calls. A NaN counts as the smallest logit.
int sample(const float* logits, int n, const ops::Draw& draw, int stream, std::vector<float>& scratch);

}  // namespace personaplex::cpu
