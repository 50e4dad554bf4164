// csrc/checkpoint/tensor.h: TensorView, a typed view of bytes that somebody else keeps alive (usually a mapped file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace personaplex {

enum class DType : std::uint8_t { kF32, kF16, kBF16, kU32, kI32, kI64, kU8, kBool, kU16, kI16, kI8, kF64, kU64 };

std::size_t size_of(DType dtype);  // bytes of one element
const char* name_of(DType dtype);  // the safetensors name: "F32", "BF16", ...

/// Row-contiguous, immutable. `owner` keeps the bytes alive (the mapping, or a buffer).
/// `data` is aligned to an element; nothing more is promised.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;
  std::shared_ptr<const void> owner;
  bool mapped = false;  // a file's pages, which the system reads again after they were dropped

  std::int64_t size() const;  // elements
  std::size_t nbytes() const;
  bool empty() const { return data == nullptr; }
  std::int64_t dim(int axis) const { return shape.at(static_cast<std::size_t>(axis)); }
};

std::string shape_string(const std::vector<std::int64_t>& shape);  // "[12288, 512]"

/// A view of rows [begin, end) of axis 0; shares the owner.
TensorView rows(const TensorView& t, std::int64_t begin, std::int64_t end);

/// A tensor of its own memory, zero-filled; `mutable_data` may be written until the view is handed on.
struct OwnedTensor {
  TensorView view;
  std::byte* mutable_data = nullptr;
};
OwnedTensor allocate_tensor(DType dtype, std::vector<std::int64_t> shape);

}  // namespace personaplex
