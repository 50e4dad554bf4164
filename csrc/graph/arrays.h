// csrc/graph/arrays.h: TensorView <-> mx::array, and host vectors.
#pragma once

#include <span>
#include <vector>

#include "checkpoint/mlx_arrays.h"
#include "graph/op.h"

namespace personaplex::graph {

using personaplex::converted;
using personaplex::from_mlx;
using personaplex::to_mlx;
using personaplex::wrap;

/// Host values as a fresh array.
array from_host(std::span<const float> values, mx::Shape shape);
array from_host(std::span<const int> values, mx::Shape shape);

/// Evaluates and copies to host memory, row-contiguous.
TensorView to_host(const array& a);
std::vector<float> to_floats(const array& a);  // casts to float32 first
std::vector<int> to_ints(const array& a);

}  // namespace personaplex::graph
