// csrc/graph/arrays.h: TensorView <-> mx::array. Views are wrapped, not copied: the array keeps the mapping alive.
#pragma once

#include <span>
#include <vector>

#include "checkpoint/tensor.h"
#include "graph/op.h"

namespace personaplex::graph {

mx::Dtype to_mlx(DType dtype);
DType from_mlx(mx::Dtype dtype);

/// Wraps the view's memory where the device can read it (CPU), uploads it where not. Never write to the result.
array wrap(const TensorView& t);
/// wrap() with another shape of the same size.
array wrap(const TensorView& t, mx::Shape shape);

/// Host values as a fresh array.
array from_host(std::span<const float> values, mx::Shape shape);
array from_host(std::span<const int> values, mx::Shape shape);

/// Evaluates and copies to host memory, row-contiguous.
TensorView to_host(const array& a);
std::vector<float> to_floats(const array& a);  // casts to float32 first
std::vector<int> to_ints(const array& a);

}  // namespace personaplex::graph
