// csrc/checkpoint/matrices.h: the walk over the language model's matrices with their names, for what changes them.
#pragma once

#include <functional>
#include <string>

#include "checkpoint/weights.h"

namespace personaplex {

/// The component of the tensor of this name (NVIDIA's).
Component component_of(const std::string& name);

using VisitNamed = std::function<void(const std::string& name, Matrix& matrix)>;

/// Visits the same matrices as the walk of weights.h. The steps of one stored in_proj or out_proj share its name.
void for_each_matrix(Weights& weights, const VisitNamed& visit);

}  // namespace personaplex
