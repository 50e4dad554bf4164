// csrc/session/frame_bytes.cpp: sums over the weight table, part by part.
#include "session/frame_bytes.h"

namespace personaplex {

namespace {

std::size_t row_bytes(const Matrix& table) { return table.nbytes() / static_cast<std::size_t>(table.n); }

std::size_t temporal_bytes(const TemporalWeights& w) {
  std::size_t sum = row_bytes(w.text_emb) + w.out_norm.nbytes() + w.text_linear.nbytes();
  for (const Matrix& table : w.audio_emb) sum += row_bytes(table);
  for (const TemporalLayer& layer : w.layers) {
    sum += layer.norm1.nbytes() + layer.norm2.nbytes() + layer.in_proj.nbytes() + layer.out_proj.nbytes() +
           layer.linear_in.nbytes() + layer.linear_out.nbytes();
  }
  return sum;
}

std::size_t depformer_bytes(const DepformerWeights& w) {
  std::size_t sum = row_bytes(w.text_emb);
  for (const Matrix& table : w.audio_emb) sum += row_bytes(table);
  for (const Matrix& m : w.in) sum += m.nbytes();
  for (const Matrix& m : w.linears) sum += m.nbytes();
  for (const DepformerLayer& layer : w.layers) {
    sum += layer.norm1.nbytes() + layer.norm2.nbytes();
    for (const DepformerSlice& step : layer.steps) {
      sum += step.in_proj.nbytes() + step.out_proj.nbytes() + step.linear_in.nbytes() + step.linear_out.nbytes();
    }
  }
  return sum;
}

std::size_t values(const TensorView& t) { return t.data == nullptr ? 0 : static_cast<std::size_t>(t.size()); }
std::size_t values(const Conv& conv) { return values(conv.weight) + values(conv.bias); }

std::size_t values(const Seanet& net) {
  std::size_t sum = values(net.first) + values(net.last);
  for (const SeanetStage& stage : net.stages) {
    sum += values(stage.resample);
    for (const SeanetResidual& residual : stage.residuals) sum += values(residual.conv1) + values(residual.conv2);
  }
  return sum;
}

std::size_t values(const std::vector<CodecLayer>& layers) {
  std::size_t sum = 0;
  for (const CodecLayer& l : layers) {
    for (const TensorView* t : {&l.norm1_weight, &l.norm1_bias, &l.norm2_weight, &l.norm2_bias, &l.in_proj, &l.out_proj,
                                &l.linear1, &l.linear2, &l.layer_scale1, &l.layer_scale2}) {
      sum += values(*t);
    }
  }
  return sum;
}

// Encoding compares with every codeword, decoding takes one of each level.
std::size_t searched(const RvqPart& part) {
  std::size_t sum = values(part.input_proj);
  for (const RvqLevel& level : part.levels) sum += values(level.embedding_sum);
  return sum;
}

std::size_t looked_up(const RvqPart& part) {
  std::size_t sum = values(part.output_proj);
  for (const RvqLevel& level : part.levels) sum += static_cast<std::size_t>(level.embedding_sum.dim(1));
  return sum;
}

}  // namespace

FrameBytes frame_bytes(const Weights& weights, int kv_bits, int mimi_bits) {
  const Config& config = weights.config;
  const MimiWeights& mimi = weights.mimi;
  const auto mimi_bytes = static_cast<std::size_t>(mimi_bits / 8);
  const auto dim = static_cast<std::size_t>(config.dim);
  const std::size_t scales = kv_bits == 8 ? static_cast<std::size_t>(config.num_heads) * sizeof(float) : 0;
  FrameBytes out;
  out.mimi_encode = mimi_bytes * (values(mimi.encoder) + values(mimi.encoder_transformer) + values(mimi.downsample) +
                                  searched(mimi.rvq_first) + searched(mimi.rvq_rest));
  out.temporal = temporal_bytes(weights.temporal);
  out.depformer = depformer_bytes(weights.depformer);
  out.mimi_decode = mimi_bytes * (looked_up(mimi.rvq_first) + looked_up(mimi.rvq_rest) + values(mimi.upsample) +
                                  values(mimi.decoder_transformer) + values(mimi.decoder));
  out.temporal_kv = 2 * weights.temporal.layers.size() * (dim * static_cast<std::size_t>(kv_bits) / 8 + scales);
  out.mimi_kv = 2 * static_cast<std::size_t>(config.mimi.num_layers * config.mimi.dimension) * sizeof(float);
  return out;
}

ResidentBytes resident_bytes(const Weights& weights, int kv_bits) {
  const FrameBytes frame = frame_bytes(weights, kv_bits, 16);
  const MimiConfig& mimi = weights.config.mimi;
  ResidentBytes out;
  for_each_matrix(weights, [&](Component, const Matrix& m) { out.weights += m.nbytes(); });
  out.weights += frame.mimi_encode + frame.mimi_decode;
  out.conversation = static_cast<std::size_t>(weights.config.context) * frame.temporal_kv +
                     2 * static_cast<std::size_t>(mimi.context) * frame.mimi_kv;
  return out;
}

}  // namespace personaplex
