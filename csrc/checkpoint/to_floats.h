// csrc/checkpoint/to_floats.h: a tensor of any float format as float32.
#pragma once

#include <vector>

#include "checkpoint/tensor.h"

namespace personaplex {

/// The values of a tensor of F32, F16 or BF16, row-contiguous. WeightsError for another dtype.
std::vector<float> to_floats(const TensorView& t);

}  // namespace personaplex
