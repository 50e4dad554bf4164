// csrc/cpu/matmul_by_columns.h: kernels that are compiled for 1 to 8 columns, for any number of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "checkpoint/weights.h"

namespace personaplex::cpu {

/// Calls run(std::integral_constant<int, count>()), count from 1 to 8.
template <typename Run, int... kFrom0>
void with_constant(int count, Run&& run, std::integer_sequence<int, kFrom0...>) {
  ((count == kFrom0 + 1 ? run(std::integral_constant<int, kFrom0 + 1>()) : void()), ...);
}

/// Calls run(first, count, n, last) until rows [begin, end) have met all columns: columns [first, first + count), up to
/// 8 at a time, rows [n, last), few enough to stay in the second-level cache from one eight to the next.
template <typename Run>
void by_columns(const Matrix& w, int columns, std::int64_t begin, std::int64_t end, Run&& run) {
  constexpr std::int64_t kStretch = 128 << 10;  // bytes
  const std::int64_t row_bytes = std::max<std::int64_t>(1, static_cast<std::int64_t>(w.nbytes()) / w.n);
  const std::int64_t rows = columns <= 8 ? end - begin : std::max<std::int64_t>(24, kStretch / row_bytes / 24 * 24);
  for (std::int64_t n = begin; n < end; n += rows) {
    for (int first = 0; first < columns; first += 8) {
      with_constant(
          std::min(8, columns - first), [&](auto count) { run(first, count, n, std::min(n + rows, end)); },
          std::make_integer_sequence<int, 8>());
    }
  }
}

}  // namespace personaplex::cpu
