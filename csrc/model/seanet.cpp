// csrc/model/seanet.cpp: convolution, (residual blocks, resampling) per ratio, convolution; ELU before each.
#include "model/seanet.h"

#include <algorithm>

namespace personaplex {

StreamConv StreamConv::plain(ops::Ops& ops, const Conv& c, int stride, int dilation) {
  const auto kernel = static_cast<int>(c.weight.dim(2));
  return {.weight = ops.conv(c, stride, dilation),
          .in = static_cast<int>(c.weight.dim(1)),
          .out = static_cast<int>(c.weight.dim(0)),
          .carried = (kernel - 1) * dilation + 1 - stride,
          .stride = stride,
          .transposed = false};
}

StreamConv StreamConv::transpose(ops::Ops& ops, const Conv& c, int stride) {
  return {.weight = ops.conv_transpose(c, stride),
          .in = static_cast<int>(c.weight.dim(0)),
          .out = static_cast<int>(c.weight.dim(1)),
          .carried = 1,
          .stride = stride,
          .transposed = true};
}

Window StreamConv::window(BlockLayout& layout, int count) const {
  const auto width = static_cast<std::size_t>(in);
  const std::size_t front = static_cast<std::size_t>(carried) * width;
  return {.values = layout.add<float>(front + static_cast<std::size_t>(count) * width), .carried = front};
}

SeanetHalf SeanetHalf::encoder(ops::Ops& ops, const Seanet& weights, const MimiConfig& config) {
  return {ops, weights, config, /* decodes = */ false};
}

SeanetHalf SeanetHalf::decoder(ops::Ops& ops, const Seanet& weights, const MimiConfig& config) {
  return {ops, weights, config, /* decodes = */ true};
}

SeanetHalf::SeanetHalf(ops::Ops& ops, const Seanet& weights, const MimiConfig& config, bool decodes)
    : decodes_(decodes),
      input_columns_(decodes ? 2 : config.frame_samples()),
      first_(StreamConv::plain(ops, weights.first)),
      last_(StreamConv::plain(ops, weights.last)) {
  for (std::size_t i = 0; i < weights.stages.size(); ++i) {
    const SeanetStage& stage = weights.stages[i];
    const int ratio = config.ratios.at(decodes ? i : config.ratios.size() - 1 - i);
    std::vector<Residual> residuals;
    int dilation = 1;
    for (const SeanetResidual& r : stage.residuals) {
      residuals.push_back({StreamConv::plain(ops, r.conv1, 1, dilation), StreamConv::plain(ops, r.conv2)});
      dilation *= config.dilation_base;
    }
    stages_.push_back({std::move(residuals), decodes ? StreamConv::transpose(ops, stage.resample, ratio)
                                                     : StreamConv::plain(ops, stage.resample, ratio)});
  }
  std::size_t largest = 0;
  for_each([&](const StreamConv& conv, int count) {
    largest = std::max(largest, static_cast<std::size_t>(conv.outputs(count)) * static_cast<std::size_t>(conv.out));
  });
  x_ = Buffer<float>(ops, largest);
}

template <typename Visit>
void SeanetHalf::for_each(Visit visit) const {
  int count = input_columns_;
  const auto pass = [&](const StreamConv& conv) {
    visit(conv, count);
    count = conv.outputs(count);
  };
  pass(first_);
  for (const Stage& stage : stages_) {
    if (decodes_) pass(stage.resample);
    for (const Residual& r : stage.residuals) {
      pass(r.conv1);
      pass(r.conv2);
    }
    if (!decodes_) pass(stage.resample);
  }
  pass(last_);
}

Windows SeanetHalf::windows(BlockLayout& layout) const {
  Windows out;
  for_each([&](const StreamConv& conv, int count) { out.push_back(conv.window(layout, count)); });
  return out;
}

void SeanetHalf::forward(ops::Ops& ops, const Windows& windows, const ops::Memory& block, ops::Place y) const {
  std::size_t i = 0;
  int count = input_columns_;
  // Convolution i: its window is there; its result goes to `raw` and elu of it to the next window.
  const auto pass = [&](const StreamConv& conv, ops::Place residual, ops::Place raw) {
    const ops::Place next = i + 1 < windows.size() ? windows[i + 1].fresh(block) : ops::Place{};
    const int outputs = conv.outputs(count);
    ops.conv(*conv.weight, windows[i].in(block), conv.transposed ? count : outputs,
             {.residual = residual, .raw = raw, .elu = next});
    count = outputs;
    ++i;
  };
  const ops::Place none;
  const ops::Place x = x_.at();
  pass(first_, none, x);
  for (const Stage& stage : stages_) {
    if (decodes_) pass(stage.resample, none, x);
    for (const Residual& r : stage.residuals) {
      pass(r.conv1, none, none);
      pass(r.conv2, x, x);
    }
    if (!decodes_) pass(stage.resample, none, x);
  }
  pass(last_, none, y);
}

}  // namespace personaplex
