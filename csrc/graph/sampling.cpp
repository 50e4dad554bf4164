// csrc/graph/sampling.cpp: temperature, top-k and the exponential race, in MLX operations.
#include "graph/sampling.h"

#include <vector>

#include "core/philox.h"
#include "graph/arrays.h"

namespace personaplex::graph {

namespace {

/// True for exactly k entries of logits [n]: the largest, earlier ones first among equals.
array top_k_mask(const array& logits, int k) {
  const int n = logits.shape(0);
  const array threshold = op::narrow(op::sort(logits, 0), 0, n - k, n - k + 1);  // [1]
  const array above = op::greater(logits, threshold);
  const array ties = op::equal(logits, threshold);
  const array places = op::sub(array(k), op::sum(op::astype(above, mx::int32), 0));
  const array rank = op::cumsum(op::astype(ties, mx::int32), 0);  // 1 for the first tie
  return op::logical_or(above, op::logical_and(ties, op::less_equal(rank, places)));
}

}  // namespace

array sample(const array& logits, const std::optional<array>& noise, const Sampling& sampling) {
  if (sampling.greedy()) return op::astype(op::argmax(logits, 0), mx::int32);
  const int n = logits.shape(0);
  // The largest is subtracted before the division, which may overflow when the temperature is tiny.
  const array shifted = op::sub(logits, mx::max(logits, false, stream()));
  const array p = op::softmax(op::div(shifted, array(sampling.temperature)), 0);
  array race = op::div(p, *noise);
  if (sampling.top_k > 0 && sampling.top_k < n) {
    race = op::where(top_k_mask(logits, sampling.top_k), race, array(-1.0F));
  }
  return op::astype(op::argmax(race, 0), mx::int32);
}

array noise_array(std::uint64_t seed, std::uint64_t frame, int stream, int n) {
  std::vector<float> noise(static_cast<std::size_t>(n));
  exponential_noise(seed, frame, static_cast<std::uint32_t>(stream), noise.data(), n);
  return from_host(noise, {n});
}

}  // namespace personaplex::graph
