// csrc/checkpoint/mlx_arrays.h: TensorView as mx::array. Views are wrapped, not copied: the array keeps the mapping
// alive.
#pragma once

#include <mlx/mlx.h>

#include "checkpoint/tensor.h"

namespace personaplex {

mlx::core::Dtype to_mlx(DType dtype);
DType from_mlx(mlx::core::Dtype dtype);  // std::logic_error for complex64, which no tensor of ours has

/// Wraps the view's memory where the device can read it (CPU), uploads it where not. Never write to the result.
mlx::core::array wrap(const TensorView& t);
/// wrap() with another shape of the same size.
mlx::core::array wrap(const TensorView& t, mlx::core::Shape shape);

}  // namespace personaplex
