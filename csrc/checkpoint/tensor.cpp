// csrc/checkpoint/tensor.cpp: sizes, names and slices of TensorView, and tensors of their own memory.
#include "checkpoint/tensor.h"

#include <cstdlib>
#include <new>
#include <utility>

#include "checkpoint/weights.h"
#include "core/error.h"

namespace personaplex {

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
    case DType::kF32:
    case DType::kU32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kU16:
    case DType::kI16:
      return 2;
    case DType::kU8:
    case DType::kI8:
    case DType::kBool:
      return 1;
  }
  bad_argument("size_of", "unknown dtype.");
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kU32:
      return "U32";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kU8:
      return "U8";
    case DType::kBool:
      return "BOOL";
    case DType::kU16:
      return "U16";
    case DType::kI16:
      return "I16";
    case DType::kI8:
      return "I8";
    case DType::kF64:
      return "F64";
    case DType::kU64:
      return "U64";
  }
  bad_argument("name_of", "unknown dtype.");
}

std::int64_t TensorView::size() const {
  std::int64_t count = 1;
  for (const std::int64_t d : shape) count *= d;
  return count;
}

std::size_t TensorView::nbytes() const { return empty() ? 0 : static_cast<std::size_t>(size()) * size_of(dtype); }

std::string shape_string(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

TensorView rows(const TensorView& t, std::int64_t begin, std::int64_t end) {
  if (t.empty() || t.shape.empty() || begin < 0 || end < begin || end > t.shape[0]) {
    bad_argument("rows", "expected rows within " + shape_string(t.shape) + ", got [" + std::to_string(begin) + ", " +
                             std::to_string(end) + ").");
  }
  const std::size_t row_bytes = t.shape[0] == 0 ? 0 : t.nbytes() / static_cast<std::size_t>(t.shape[0]);
  TensorView slice = t;
  slice.shape[0] = end - begin;
  slice.data = t.data + static_cast<std::size_t>(begin) * row_bytes;
  return slice;
}

Matrix rows(const Matrix& m, std::int64_t begin, std::int64_t end) {
  Matrix slice = m;
  slice.weight = rows(m.weight, begin, end);
  if (m.quantized()) {
    slice.scales = rows(m.scales, begin, end);
    slice.biases = rows(m.biases, begin, end);
  }
  slice.n = end - begin;
  return slice;
}

OwnedTensor allocate_tensor(DType dtype, std::vector<std::int64_t> shape) {
  std::size_t bytes = size_of(dtype);
  for (const std::int64_t d : shape) {
    if (d < 0 || (d > 0 && bytes > SIZE_MAX / 2 / static_cast<std::size_t>(d))) {
      bad_argument("allocate_tensor", "expected a shape that memory can hold, got " + shape_string(shape) + ".");
    }
    bytes *= static_cast<std::size_t>(d);
  }
  // calloc: large blocks come as untouched zero pages, so an allocation costs nothing until it is written.
  // The data has kPrefix readable bytes before it, which wrapping it as an MLX array needs, and keeps malloc's
  // alignment.
  constexpr std::size_t kPrefix = 64;
  void* memory = std::calloc(kPrefix + bytes, 1);
  if (memory == nullptr) throw std::bad_alloc();
  OwnedTensor tensor;
  tensor.view.owner = std::shared_ptr<const void>(memory, [](void* p) { std::free(p); });
  tensor.view.dtype = dtype;
  tensor.view.shape = std::move(shape);
  tensor.mutable_data = static_cast<std::byte*>(memory) + kPrefix;
  tensor.view.data = tensor.mutable_data;
  return tensor;
}

}  // namespace personaplex
