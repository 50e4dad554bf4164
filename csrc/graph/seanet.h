// csrc/graph/seanet.h: SEANet, the convolutional encoder and decoder of Mimi (24 kHz <-> 25 Hz).
#pragma once

#include <vector>

#include "graph/conv.h"

namespace personaplex::graph {

/// Carries of all convolutions, in the order of the data.
using Carries = std::vector<Carry>;

class SeanetEncoder {
 public:
  SeanetEncoder(const Seanet& weights, const MimiConfig& config);
  array operator()(const array& pcm, Carries& carries) const;  // [S, 1] -> [S / 960, D]
  std::size_t carries() const;

 private:
  friend class SeanetDecoder;
  struct Residual {
    Conv1d conv1, conv2;
    array operator()(const array& x, Carries& carries, std::size_t& next) const;
  };
  static std::vector<Residual> residuals(const SeanetStage& stage, const MimiConfig& config);

  struct Stage {
    std::vector<Residual> residuals;
    Conv1d down;
  };
  Conv1d first_, last_;
  std::vector<Stage> stages_;
};

class SeanetDecoder {
 public:
  SeanetDecoder(const Seanet& weights, const MimiConfig& config);
  array operator()(const array& latent, Carries& carries) const;  // [L, D] -> [L * 960, 1]
  std::size_t carries() const;

 private:
  struct Stage {
    ConvTranspose1d up;
    std::vector<SeanetEncoder::Residual> residuals;
  };
  Conv1d first_, last_;
  std::vector<Stage> stages_;
};

}  // namespace personaplex::graph
