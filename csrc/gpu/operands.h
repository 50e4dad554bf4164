// csrc/gpu/operands.h: what kernels are given, in the terms of the operations.
#pragma once

#include "gpu/recorder.h"

namespace personaplex::gpu {

inline std::uint32_t count(std::int64_t n, std::int64_t each) {
  return static_cast<std::uint32_t>((n + each - 1) / each);
}
inline std::int32_t int32(std::int64_t n) { return static_cast<std::int32_t>(n); }
inline std::size_t floats(std::int64_t n) { return static_cast<std::size_t>(n) * sizeof(float); }

/// A weight that a caller takes for a T.
template <typename T>
const T& as(const ops::Weight& w) {
  return dynamic_cast<const T&>(w);
}

inline Operand reads_if(const ops::Place& at, std::size_t bytes) { return at ? reads(at, bytes) : Operand{}; }
inline Operand writes_if(const ops::Place& at, std::size_t bytes) { return at ? writes(at, bytes) : Operand{}; }

/// A layer's part of the pages, which a kernel reaches through the table.
inline Operand pages(const ops::Ring& ring, bool written) {
  return {ring.pages, ring.page_bytes(), written, ring.offset};
}
inline Operand page_table(const ops::Ring& ring) {
  return reads(ring.pages, static_cast<std::size_t>(ring.slots / ops::kRingPage) * sizeof(std::byte*));
}
inline Operand columns_at(ops::Place at, int columns) {
  return reads(at, static_cast<std::size_t>(columns) * sizeof(ops::Column));
}

}  // namespace personaplex::gpu
