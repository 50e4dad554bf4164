// csrc/graph/arrays.cpp: host vectors to MLX arrays, and MLX arrays to host memory.
#include "graph/arrays.h"

#include <cstring>

namespace personaplex::graph {

array from_host(std::span<const float> values, mx::Shape shape) {
  return array(values.data(), std::move(shape), mx::float32);
}

array from_host(std::span<const int> values, mx::Shape shape) {
  return array(values.data(), std::move(shape), mx::int32);
}

TensorView to_host(const array& a) {
  array c = op::contiguous(a);
  mx::eval(c);
  std::vector<std::int64_t> shape;
  for (const auto d : c.shape()) shape.push_back(d);
  OwnedTensor out = allocate_tensor(from_mlx(c.dtype()), std::move(shape));
  if (c.nbytes() > 0) std::memcpy(out.mutable_data, c.data<char>(), c.nbytes());
  return out.view;
}

std::vector<float> to_floats(const array& a) {
  array c = op::contiguous(op::astype(a, mx::float32));
  mx::eval(c);
  return {c.data<float>(), c.data<float>() + c.size()};
}

std::vector<int> to_ints(const array& a) {
  array c = op::contiguous(op::astype(a, mx::int32));
  mx::eval(c);
  return {c.data<int>(), c.data<int>() + c.size()};
}

}  // namespace personaplex::graph
