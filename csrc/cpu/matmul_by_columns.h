// csrc/cpu/matmul_by_columns.h: kernels that are compiled for 1 to 8 columns, for any number of them.
#pragma once

#include <algorithm>
#include <type_traits>

#include "checkpoint/weights.h"

namespace personaplex::cpu {

/// Calls run(first, count) with `count` a constant of 1 to 8.
template <typename Run>
void with_constant(int first, int count, Run&& run) {
  switch (count) {
    case 1:
      return run(first, std::integral_constant<int, 1>());
    case 2:
      return run(first, std::integral_constant<int, 2>());
    case 3:
      return run(first, std::integral_constant<int, 3>());
    case 4:
      return run(first, std::integral_constant<int, 4>());
    case 5:
      return run(first, std::integral_constant<int, 5>());
    case 6:
      return run(first, std::integral_constant<int, 6>());
    case 7:
      return run(first, std::integral_constant<int, 7>());
    default:
      return run(first, std::integral_constant<int, 8>());
  }
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
      with_constant(first, std::min(8, columns - first),
                    [&](int from, auto count) { run(from, count, n, std::min(n + rows, end)); });
    }
  }
}

}  // namespace personaplex::cpu
