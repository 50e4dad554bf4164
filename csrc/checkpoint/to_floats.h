// csrc/checkpoint/to_floats.h: a tensor of any float format as float32.
#pragma once

#include <vector>

#include "checkpoint/tensor.h"

namespace personaplex {

/// Values [begin, begin + count) of a tensor of F32, F16 or BF16 to out. False, and nothing written, for another dtype.
bool read_floats(const TensorView& t, std::int64_t begin, std::int64_t count, float* out);

/// All values of a tensor of F32, F16 or BF16, row-contiguous. WeightsError for another dtype.
std::vector<float> to_floats(const TensorView& t);

}  // namespace personaplex
