// csrc/checkpoint/source.h: where weights come from, a file or a random generator, and the walk over all of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/weights.h"

namespace personaplex {

/// Names of one tensor: NVIDIA's first, then what other writers call it.
using Names = std::vector<std::string>;

/// Gives a tensor of the language model or of Mimi by name. Implementations note what is missing and go on.
class Source {
 public:
  virtual ~Source() = default;
  virtual bool has(const std::string& name) const = 0;
  /// A matrix of the language model, [n, k], quantized or bfloat16.
  virtual Matrix matrix(const Names& names, std::int64_t n, std::int64_t k) = 0;
  /// A norm of the language model, bfloat16 [d].
  virtual TensorView norm(const Names& names, std::int64_t d) = 0;
  /// A tensor of Mimi, float of any width.
  virtual TensorView tensor(const Names& names, const std::vector<std::int64_t>& shape) = 0;
};

/// The walks: every tensor of the model in NVIDIA's names. `stored_steps` depformer steps are in the source, `steps`
/// are taken; steps beyond the stored ones repeat step k - stored_steps, as NVIDIA's loader fills a file of n_q / 2
/// steps up to n_q.
TemporalWeights temporal_weights(Source& source, const Config& config);
DepformerWeights depformer_weights(Source& source, const Config& config, int stored_steps, int steps);
MimiWeights mimi_weights(Source& source, const Config& config);

}  // namespace personaplex
