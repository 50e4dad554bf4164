// csrc/graph/sampling.h: one token from logits, with noise that was drawn beforehand.
#pragma once

#include <optional>

#include "engine/engine.h"
#include "graph/op.h"

namespace personaplex::graph {

/// logits [n] float32, noise [n] float32 Exp(1) (unused when greedy) -> token [] int32.
/// p = softmax(logits / temperature); argmax of p / noise over the top_k largest logits. All ties go to the lowest
/// index, also the tie for the last place among the top_k.
array sample(const array& logits, const std::optional<array>& noise, const Sampling& sampling);

/// Exp(1) noise of one stream and frame, [n].
array noise_array(std::uint64_t seed, std::uint64_t frame, int stream, int n);

}  // namespace personaplex::graph
