// csrc/checkpoint/mimi_layout.cpp: Mimi's tensors by the names of Kyutai's file; convolutions keep torch's orientation.
#include "checkpoint/source.h"

namespace personaplex {

namespace {

Conv conv(Source& source, const std::string& name, std::int64_t out, std::int64_t in, std::int64_t kernel) {
  return {source.tensor({name + ".conv.conv.weight"}, {out, in, kernel}),
          source.tensor({name + ".conv.conv.bias"}, {out})};
}

Conv transposed_conv(Source& source, const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel) {
  return {source.tensor({name + ".convtr.convtr.weight"}, {in, out, kernel}),
          source.tensor({name + ".convtr.convtr.bias"}, {out})};
}

/// Walks torch's Sequential: `next()` names the module, activations take a place without having tensors.
class Modules {
 public:
  explicit Modules(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string next() { return prefix_ + std::to_string(index_++); }
  void skip_activation() { ++index_; }

 private:
  std::string prefix_;
  int index_ = 0;
};

std::vector<SeanetResidual> residuals(Source& source, Modules& modules, const MimiConfig& config,
                                      std::int64_t channels) {
  const std::int64_t hidden = channels / config.compress;
  std::vector<SeanetResidual> blocks;
  for (int j = 0; j < config.n_residual_layers; ++j) {
    const std::string name = modules.next() + ".block.";
    blocks.push_back({conv(source, name + "1", hidden, channels, config.residual_kernel_size),
                      conv(source, name + "3", channels, hidden, 1)});
  }
  return blocks;
}

Seanet encoder(Source& source, const MimiConfig& config) {
  Modules modules("encoder.model.");
  std::int64_t channels = config.n_filters;
  Seanet seanet;
  seanet.first = conv(source, modules.next(), channels, 1, config.kernel_size);
  for (auto ratio = config.ratios.rbegin(); ratio != config.ratios.rend(); ++ratio) {
    SeanetStage stage;
    stage.residuals = residuals(source, modules, config, channels);
    modules.skip_activation();
    stage.resample = conv(source, modules.next(), 2 * channels, channels, 2 * *ratio);
    seanet.stages.push_back(std::move(stage));
    channels *= 2;
  }
  modules.skip_activation();
  seanet.last = conv(source, modules.next(), config.dimension, channels, config.last_kernel_size);
  return seanet;
}

Seanet decoder(Source& source, const MimiConfig& config) {
  Modules modules("decoder.model.");
  std::int64_t channels = std::int64_t{config.n_filters} << config.ratios.size();
  Seanet seanet;
  seanet.first = conv(source, modules.next(), channels, config.dimension, config.kernel_size);
  for (const int ratio : config.ratios) {
    SeanetStage stage;
    modules.skip_activation();
    stage.resample = transposed_conv(source, modules.next(), channels, channels / 2, 2 * ratio);
    channels /= 2;
    stage.residuals = residuals(source, modules, config, channels);
    seanet.stages.push_back(std::move(stage));
  }
  modules.skip_activation();
  seanet.last = conv(source, modules.next(), 1, channels, config.last_kernel_size);
  return seanet;
}

std::vector<CodecLayer> codec_layers(Source& source, const MimiConfig& config, const std::string& side) {
  const std::int64_t d = config.dimension;
  const std::int64_t f = config.dim_feedforward;
  std::vector<CodecLayer> layers;
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string p = side + "_transformer.transformer.layers." + std::to_string(i) + ".";
    CodecLayer layer;
    layer.norm1_weight = source.tensor({p + "norm1.weight"}, {d});
    layer.norm1_bias = source.tensor({p + "norm1.bias"}, {d});
    layer.norm2_weight = source.tensor({p + "norm2.weight"}, {d});
    layer.norm2_bias = source.tensor({p + "norm2.bias"}, {d});
    // Kyutai's current code writes in_projs.0 and out_projs.0.
    layer.in_proj = source.tensor({p + "self_attn.in_proj_weight", p + "self_attn.in_projs.0.weight"}, {3 * d, d});
    layer.out_proj = source.tensor({p + "self_attn.out_proj.weight", p + "self_attn.out_projs.0.weight"}, {d, d});
    layer.linear1 = source.tensor({p + "linear1.weight"}, {f, d});
    layer.linear2 = source.tensor({p + "linear2.weight"}, {d, f});
    layer.layer_scale1 = source.tensor({p + "layer_scale_1.scale"}, {d});
    layer.layer_scale2 = source.tensor({p + "layer_scale_2.scale"}, {d});
    layers.push_back(std::move(layer));
  }
  return layers;
}

RvqPart rvq(Source& source, const MimiConfig& config, const std::string& part, int levels) {
  const std::string prefix = "quantizer." + part + ".";
  const std::int64_t d = config.quantizer_dimension;
  RvqPart result;
  result.input_proj = source.tensor({prefix + "input_proj.weight"}, {d, config.dimension, 1});
  result.output_proj = source.tensor({prefix + "output_proj.weight"}, {config.dimension, d, 1});
  for (int level = 0; level < levels; ++level) {
    const std::string p = prefix + "vq.layers." + std::to_string(level) + "._codebook.";
    result.levels.push_back({source.tensor({p + "embedding_sum", p + "embed_sum", p + "embed_avg"}, {config.bins, d}),
                             source.tensor({p + "cluster_usage", p + "cluster_size"}, {config.bins})});
  }
  return result;
}

}  // namespace

MimiWeights mimi_weights(Source& source, const Config& config) {
  const MimiConfig& mimi = config.mimi;
  const std::int64_t d = mimi.dimension;
  MimiWeights weights;
  weights.encoder = encoder(source, mimi);
  weights.decoder = decoder(source, mimi);
  weights.encoder_transformer = codec_layers(source, mimi, "encoder");
  weights.decoder_transformer = codec_layers(source, mimi, "decoder");
  weights.downsample.weight = source.tensor({"downsample.conv.conv.conv.weight"}, {d, d, 4});
  weights.upsample.weight = source.tensor({"upsample.convtr.convtr.convtr.weight"}, {d, 1, 4});
  weights.rvq_first = rvq(source, mimi, "rvq_first", 1);
  weights.rvq_rest = rvq(source, mimi, "rvq_rest", config.codebooks() - 1);
  return weights;
}

}  // namespace personaplex
