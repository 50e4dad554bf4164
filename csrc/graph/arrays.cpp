// csrc/graph/arrays.cpp: conversions between views, host vectors and MLX arrays.
#include "graph/arrays.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace personaplex::graph {

mx::Dtype to_mlx(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return mx::float32;
    case DType::kF16:
      return mx::float16;
    case DType::kBF16:
      return mx::bfloat16;
    case DType::kF64:
      return mx::float64;
    case DType::kU8:
      return mx::uint8;
    case DType::kU16:
      return mx::uint16;
    case DType::kU32:
      return mx::uint32;
    case DType::kU64:
      return mx::uint64;
    case DType::kI8:
      return mx::int8;
    case DType::kI16:
      return mx::int16;
    case DType::kI32:
      return mx::int32;
    case DType::kI64:
      return mx::int64;
    case DType::kBool:
      return mx::bool_;
  }
  throw std::logic_error("[to_mlx] unknown dtype");
}

DType from_mlx(mx::Dtype dtype) {
  for (int i = 0; i <= static_cast<int>(DType::kU64); ++i) {
    if (to_mlx(static_cast<DType>(i)) == dtype) return static_cast<DType>(i);
  }
  throw std::logic_error("[from_mlx] unknown dtype");
}

array wrap(const TensorView& t) {
  mx::Shape shape;
  for (const auto d : t.shape) shape.push_back(static_cast<int>(d));
  return wrap(t, shape);
}

array wrap(const TensorView& t, mx::Shape shape) {
  // MLX wants a mutable pointer; it writes only to buffers it may donate, and callers hold a second reference.
  auto* data = const_cast<std::byte*>(t.data);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  return array(static_cast<void*>(data), std::move(shape), to_mlx(t.dtype), [owner = t.owner](void*) {});
}

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
