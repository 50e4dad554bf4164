// csrc/graph/seanet.cpp: convolution, (residual blocks, resampling) per ratio, convolution; ELU before each.
#include "graph/seanet.h"

namespace personaplex::graph {

array SeanetEncoder::Residual::operator()(const array& x, Carries& carries, std::size_t& next) const {
  const array inner = conv1(elu(x), carries.at(next++));
  return op::add(x, conv2(elu(inner), carries.at(next++)));
}

std::vector<SeanetEncoder::Residual> SeanetEncoder::residuals(const SeanetStage& stage, const MimiConfig& config) {
  std::vector<Residual> out;
  int dilation = 1;
  for (const SeanetResidual& r : stage.residuals) {
    out.push_back({Conv1d(r.conv1, 1, dilation), Conv1d(r.conv2, 1)});
    dilation *= config.dilation_base;
  }
  return out;
}

SeanetEncoder::SeanetEncoder(const Seanet& weights, const MimiConfig& config)
    : first_(weights.first, 1), last_(weights.last, 1) {
  for (std::size_t i = 0; i < weights.stages.size(); ++i) {
    const int ratio = config.ratios.at(config.ratios.size() - 1 - i);
    stages_.push_back({residuals(weights.stages[i], config), Conv1d(weights.stages[i].resample, ratio)});
  }
}

array SeanetEncoder::operator()(const array& pcm, Carries& carries) const {
  std::size_t next = 0;
  array x = first_(pcm, carries.at(next++));
  for (const Stage& stage : stages_) {
    for (const Residual& residual : stage.residuals) x = residual(x, carries, next);
    x = stage.down(elu(x), carries.at(next++));
  }
  return last_(elu(x), carries.at(next++));
}

std::size_t SeanetEncoder::carries() const {
  std::size_t count = 2;
  for (const Stage& stage : stages_) count += 2 * stage.residuals.size() + 1;
  return count;
}

SeanetDecoder::SeanetDecoder(const Seanet& weights, const MimiConfig& config)
    : first_(weights.first, 1), last_(weights.last, 1) {
  for (std::size_t i = 0; i < weights.stages.size(); ++i) {
    stages_.push_back({ConvTranspose1d(weights.stages[i].resample, config.ratios.at(i)),
                       SeanetEncoder::residuals(weights.stages[i], config)});
  }
}

array SeanetDecoder::operator()(const array& latent, Carries& carries) const {
  std::size_t next = 0;
  array x = first_(latent, carries.at(next++));
  for (const Stage& stage : stages_) {
    x = stage.up(elu(x), carries.at(next++));
    for (const auto& residual : stage.residuals) x = residual(x, carries, next);
  }
  return last_(elu(x), carries.at(next++));
}

std::size_t SeanetDecoder::carries() const {
  std::size_t count = 2;
  for (const Stage& stage : stages_) count += 2 * stage.residuals.size() + 1;
  return count;
}

}  // namespace personaplex::graph
