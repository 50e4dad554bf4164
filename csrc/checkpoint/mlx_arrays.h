// csrc/checkpoint/mlx_arrays.h: TensorView as mx::array. Views are wrapped, not copied: the array keeps the mapping
// alive.
#pragma once

#include <mlx/mlx.h>

#include "checkpoint/tensor.h"

namespace personaplex {

mlx::core::Dtype to_mlx(DType dtype);
DType from_mlx(mlx::core::Dtype dtype);  // std::logic_error for complex64, which no tensor of ours has

/// Wraps the view's memory where MLX can use it as it is, uploads it where not. The memory may be read-only, and MLX
/// reuses an input's buffer for its output when it holds the only reference: keep the result, or a copy of it, until
/// everything that reads it has been evaluated. 8 bytes before the data must be readable (as in a safetensors file).
mlx::core::array wrap(const TensorView& t);
/// wrap() with another shape of the same size.
mlx::core::array wrap(const TensorView& t, mlx::core::Shape shape);

/// The view's values in another dtype, evaluated; the wrapped memory itself when it already has that dtype.
mlx::core::array converted(const TensorView& t, mlx::core::Dtype dtype, mlx::core::StreamOrDevice stream);

}  // namespace personaplex
