// csrc/engine/take_tensor.h: a snapshot's tensors, checked one by one.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/tensor.h"

namespace personaplex {

/// Moves a tensor out of a snapshot file's tensors. WeightsError unless it is there with this dtype and shape, and
/// finite where it is of floats.
TensorView take_tensor(std::map<std::string, TensorView>& in, const std::string& name, DType dtype,
                       const std::vector<std::int64_t>& shape);

}  // namespace personaplex
