// csrc/graph/op.h: the MLX operations the graph engine uses, each bound to the calling thread's stream.
//
// MLX's default device is one global of the process. Naming the stream in every call lets models on different devices,
// and other users of MLX, live in one process; writing it out at every call would bury the formulas.
#pragma once

#include <mlx/mlx.h>

#include <utility>
#include <vector>

namespace personaplex::graph {

namespace mx = mlx::core;
using mx::array;

/// Makes `device` the one that op:: functions of this thread run on.
void use_device(mx::Device device);
mx::Stream stream();

namespace op {

inline array add(const array& a, const array& b) { return mx::add(a, b, stream()); }
inline array sub(const array& a, const array& b) { return mx::subtract(a, b, stream()); }
inline array mul(const array& a, const array& b) { return mx::multiply(a, b, stream()); }
inline array div(const array& a, const array& b) { return mx::divide(a, b, stream()); }
inline array maximum(const array& a, const array& b) { return mx::maximum(a, b, stream()); }
inline array minimum(const array& a, const array& b) { return mx::minimum(a, b, stream()); }
inline array matmul(const array& a, const array& b) { return mx::matmul(a, b, stream()); }
inline array where(const array& c, const array& a, const array& b) { return mx::where(c, a, b, stream()); }
inline array square(const array& a) { return mx::square(a, stream()); }
inline array sigmoid(const array& a) { return mx::sigmoid(a, stream()); }
inline array expm1(const array& a) { return mx::expm1(a, stream()); }
inline array erf(const array& a) { return mx::erf(a, stream()); }
inline array greater(const array& a, const array& b) { return mx::greater(a, b, stream()); }
inline array less(const array& a, const array& b) { return mx::less(a, b, stream()); }
inline array less_equal(const array& a, const array& b) { return mx::less_equal(a, b, stream()); }
inline array equal(const array& a, const array& b) { return mx::equal(a, b, stream()); }
inline array logical_or(const array& a, const array& b) { return mx::logical_or(a, b, stream()); }
inline array logical_and(const array& a, const array& b) { return mx::logical_and(a, b, stream()); }
inline array softmax(const array& a, int axis) { return mx::softmax(a, axis, /* precise = */ true, stream()); }
inline array sum(const array& a, int axis) { return mx::sum(a, axis, /* keepdims = */ false, stream()); }
inline array cumsum(const array& a, int axis) { return mx::cumsum(a, axis, false, true, stream()); }
inline array sort(const array& a, int axis) { return mx::sort(a, axis, stream()); }
inline array argmax(const array& a, int axis) { return mx::argmax(a, axis, false, stream()); }
inline array argmin(const array& a, int axis) { return mx::argmin(a, axis, false, stream()); }
inline array take(const array& a, const array& ids, int axis) { return mx::take(a, ids, axis, stream()); }
inline array astype(const array& a, mx::Dtype t) { return mx::astype(a, t, stream()); }
inline array reshape(const array& a, mx::Shape shape) { return mx::reshape(a, std::move(shape), stream()); }
inline array transpose(const array& a, std::vector<int> axes) { return mx::transpose(a, std::move(axes), stream()); }
inline array expand_dims(const array& a, int axis) { return mx::expand_dims(a, axis, stream()); }
inline array contiguous(const array& a) { return mx::contiguous(a, false, stream()); }
inline array concatenate(std::vector<array> parts, int axis) {
  return mx::concatenate(std::move(parts), axis, stream());
}
inline array stack(const std::vector<array>& parts, int axis) { return mx::stack(parts, axis, stream()); }
inline array slice_of(const array& a, mx::Shape start, mx::Shape stop) {
  return mx::slice(a, std::move(start), std::move(stop), stream());
}
inline array zeros(const mx::Shape& shape, mx::Dtype t) { return mx::zeros(shape, t, stream()); }

/// a[..., begin:end, ...] along one axis (negative axes count from the end).
array narrow(const array& a, int axis, int begin, int end);

}  // namespace op
}  // namespace personaplex::graph
