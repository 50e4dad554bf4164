// csrc/cpu/sampling.cpp: the k largest are found first, so that noise is drawn for them alone.
#include "cpu/sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "core/philox.h"

namespace personaplex::cpu {

namespace {

int argmax(const float* x, int n) {
  int best = 0;
  for (int i = 1; i < n; ++i) {
    if (x[i] > x[best] || (std::isnan(x[best]) && !std::isnan(x[i]))) best = i;
  }
  return best;
}

float kth_largest(std::vector<float>& values, int k) {
  const auto at = values.begin() + (k - 1);
  std::nth_element(values.begin(), at, values.end(), std::greater<>());
  return *at;
}

/// The k-th largest of x [n]. A NaN counts as minus infinity.
float threshold(const float* x, int n, int k, std::vector<float>& scratch) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  // k blocks have a maximum of at least the k-th largest of the block maxima: whatever is below is not among the top k.
  const int block = std::max(1, n / (4 * k));
  scratch.clear();
  for (int i = 0; i < n; i += block) {
    float largest = kLowest;
    for (int j = i; j < std::min(n, i + block); ++j) largest = x[j] > largest ? x[j] : largest;
    scratch.push_back(largest);
  }
  const float bound = kth_largest(scratch, k);
  if (block == 1) return bound;
  scratch.clear();
  for (int i = 0; i < n; ++i) {
    if (x[i] >= bound) scratch.push_back(x[i]);
  }
  return scratch.size() < static_cast<std::size_t>(k) ? bound : kth_largest(scratch, k);
}

/// The Exp(1) noise of one index, as exponential_noise() draws it.
class Noise {
 public:
  Noise(const ops::Draw& draw, int stream) : draw_(draw), stream_(static_cast<std::uint32_t>(stream)) {}
  float operator()(int index) {
    if (const int block = index / 4; block != block_) {
      words_ = noise_words(draw_.seed, draw_.frame, stream_, static_cast<std::uint32_t>(block));
      block_ = block;
    }
    return exponential(words_[static_cast<std::size_t>(index % 4)]);
  }

 private:
  const ops::Draw& draw_;
  std::uint32_t stream_;
  int block_ = -1;
  std::array<std::uint32_t, 4> words_{};
};

}  // namespace

int sample(const float* logits, int n, const ops::Draw& draw, int stream, std::vector<float>& scratch) {
  if (draw.forced != 0) return draw.target;
  const int largest = argmax(logits, n);
  if (draw.temperature <= 0.0F) return largest;
  const bool limited = draw.top_k > 0 && draw.top_k < n;
  const float lowest = limited ? threshold(logits, n, draw.top_k, scratch) : -std::numeric_limits<float>::infinity();
  int ties = n;  // places left for logits that equal the threshold: earlier ones first
  if (limited) {
    ties = draw.top_k;
    for (int i = 0; i < n; ++i) ties -= logits[i] > lowest ? 1 : 0;
  }
  // The sum of the softmax is the same for all and plays no part. The largest is subtracted before the division, which
  // may overflow when the temperature is tiny.
  Noise noise(draw, stream);
  int best = largest;
  float best_race = -1.0F;
  for (int i = 0; i < n; ++i) {
    if (!(logits[i] >= lowest) || (logits[i] == lowest && ties-- <= 0)) continue;
    const float race = std::exp((logits[i] - logits[largest]) / draw.temperature) / noise(i);
    if (race > best_race) {
      best = i;
      best_race = race;
    }
  }
  return best;
}

}  // namespace personaplex::cpu
