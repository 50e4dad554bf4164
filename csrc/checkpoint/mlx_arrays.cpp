// csrc/checkpoint/mlx_arrays.cpp: the dtypes of both sides, and views wrapped as arrays.
#include "checkpoint/mlx_arrays.h"

#include <mlx/backend/cuda/cuda.h>
#include <mlx/backend/metal/metal.h>

#include <stdexcept>
#include <utility>

namespace personaplex {

namespace mx = mlx::core;

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

mx::array wrap(const TensorView& t) {
  mx::Shape shape;
  for (const auto d : t.shape) shape.push_back(static_cast<int>(d));
  return wrap(t, shape);
}

mx::array wrap(const TensorView& t, mx::Shape shape) {
  // MLX wants a mutable pointer; it writes only to buffers it may donate, and callers hold a second reference.
  auto* data = const_cast<std::byte*>(t.data);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  if (!mx::metal::is_available() && !mx::cu::is_available()) {
    // The CPU allocator cannot adopt memory (the constructor below would copy), but its buffers are plain: a size, then
    // the data. The size is only read when the buffer is freed or donated, and neither happens to a buffer of ours.
    mx::allocator::Buffer buffer(data - sizeof(std::size_t));
    if (buffer.raw_ptr() == data) {
      const auto let_go = [owner = t.owner](mx::allocator::Buffer) {};
      return mx::array(mx::allocator::Data(buffer, let_go), std::move(shape), to_mlx(t.dtype));
    }
  }
  return mx::array(static_cast<void*>(data), std::move(shape), to_mlx(t.dtype), [owner = t.owner](void*) {});
}

mx::array converted(const TensorView& t, mx::Dtype dtype, mx::StreamOrDevice stream) {
  const mx::array source = wrap(t);  // held until the result is there: a sole reference could be written to
  mx::array out = mx::astype(source, dtype, stream);
  mx::eval(out);
  return out;
}

}  // namespace personaplex
