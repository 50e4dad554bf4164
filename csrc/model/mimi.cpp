// csrc/model/mimi.cpp: the way of one frame through the codec, and what stays of it.
#include "model/mimi.h"

#include <cstring>

#include "engine/take_tensor.h"
#include "model/probes.h"

namespace personaplex {

namespace {

constexpr std::size_t kColumns = CodecTransformer::kColumns;

CodecState make_state(ops::Ops& ops, Windows windows, Window resample, const CodecTransformer& transformer) {
  CodecState state{std::move(windows), std::move(resample), KvRings(ops, transformer.ring_shape()),
                   Buffer<ops::Column>(ops, kColumns), Buffer<std::int32_t>(ops, 1)};
  state.is_first[0] = 1;
  return state;
}

}  // namespace

std::size_t CodecState::nbytes() const {
  std::size_t floats = resample.carried;
  for (const Window& window : windows) floats += window.carried;
  return floats * sizeof(float) + rings.nbytes();
}

void CodecState::reset() {
  clear_carried(windows);
  std::fill_n(resample.values.data(), resample.carried, 0.0F);
  rings.reset();
}

void CodecState::copy_from(const CodecState& other) {
  copy_carried(other.windows, windows);
  std::copy_n(other.resample.values.data(), resample.carried, resample.values.data());
  rings.copy_from(other.rings);
}

void CodecState::save(const std::string& prefix, std::vector<NamedTensor>& out) const {
  save_carried(prefix, windows, out);
  OwnedTensor t = allocate_tensor(DType::kF32, {static_cast<std::int64_t>(resample.carried)});
  std::memcpy(t.mutable_data, resample.values.data(), t.view.nbytes());
  out.push_back({prefix + ".resample", t.view});
  rings.save(prefix + ".ring", out);
}

void CodecState::load(const std::string& prefix, std::map<std::string, TensorView>& in) {
  load_carried(prefix, windows, in);
  const TensorView t =
      take_tensor(in, prefix + ".resample", DType::kF32, {static_cast<std::int64_t>(resample.carried)});
  std::memcpy(resample.values.data(), t.data, t.nbytes());
  rings.load(prefix + ".ring", in);
  check_codec_position(prefix, rings.position());
}

void CodecState::advance() {
  is_first[0] = rings.position() == 0 ? 1 : 0;
  rings.advance(CodecTransformer::kColumns, columns.data());
}

MimiEncoder::MimiEncoder(ops::Ops& ops, const MimiWeights& weights, const MimiConfig& config, const Rvq& rvq)
    : ops_(ops),
      rvq_(rvq),
      seanet_(SeanetHalf::encoder(ops, weights.encoder, config)),
      transformer_(ops, weights.encoder_transformer, config),
      downsample_(StreamConv::plain(ops, weights.downsample, /* stride = */ 2)),
      dimension_(config.dimension),
      latent_(ops, static_cast<std::size_t>(config.dimension)) {}

CodecState MimiEncoder::new_state() const {
  return make_state(ops_, seanet_.windows(ops_), downsample_.window(ops_, kColumns), transformer_);
}

void MimiEncoder::step(CodecState& state, ops::Place codes, Probe* probe) {
  state.advance();
  const ops::Place x = state.resample.fresh();  // [2, D]
  ProbedFrame frame(ops_, probe);
  seanet_.forward(ops_, state.windows, x);
  frame.note("enc_seanet", x, {kColumns, dimension_});
  transformer_.forward(x, state.rings, state.columns.at());
  frame.note("enc_transformer", x, {kColumns, dimension_});
  ops_.replicate(*downsample_.weight, state.resample.at(), state.is_first.at());
  ops_.conv(*downsample_.weight, state.resample.at(), 1, {.residual = {}, .raw = latent_.at(), .elu = {}});
  frame.note("latent", latent_.at(), {1, dimension_});
  rvq_.encode(latent_.at(), codes);
}

MimiDecoder::MimiDecoder(ops::Ops& ops, const MimiWeights& weights, const MimiConfig& config, const Rvq& rvq)
    : ops_(ops),
      rvq_(rvq),
      upsample_(ops.upsample(weights.upsample, 2)),
      transformer_(ops, weights.decoder_transformer, config),
      seanet_(SeanetHalf::decoder(ops, weights.decoder, config)),
      dimension_(config.dimension) {}

CodecState MimiDecoder::new_state() const {
  const auto width = static_cast<std::size_t>(dimension_);
  Window resample{.values = Buffer<float>(ops_, 2 * width), .carried = width};
  return make_state(ops_, seanet_.windows(ops_), std::move(resample), transformer_);
}

void MimiDecoder::step(CodecState& state, ops::Place codes, ops::Place pcm, Probe* probe) {
  state.advance();
  const ops::Place quantized = state.resample.fresh();  // [1, D]
  const ops::Place x = state.windows.front().fresh();   // [2, D]
  ProbedFrame frame(ops_, probe);
  rvq_.decode(codes, quantized);
  frame.note("dec_quantized", quantized, {1, dimension_});
  ops_.upsample(*upsample_, state.resample.at(), 1, x);
  frame.note("dec_upsampled", x, {kColumns, dimension_});
  transformer_.forward(x, state.rings, state.columns.at());
  frame.note("dec_transformer", x, {kColumns, dimension_});
  seanet_.forward(ops_, state.windows, pcm);
}

}  // namespace personaplex
