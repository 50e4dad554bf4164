// csrc/graph/mimi.cpp: the way of one frame through the codec.
#include "graph/mimi.h"

namespace personaplex::graph {

namespace {

void note(Stages* stages, const char* name, const array& a) {
  if (stages != nullptr) stages->insert_or_assign(name, a);
}

}  // namespace

MimiEncoder::MimiEncoder(const MimiWeights& weights, const MimiConfig& config)
    : seanet_(weights.encoder, config),
      transformer_(weights.encoder_transformer, config),
      downsample_(weights.downsample, 2, 1, Padding::kReplicate),
      rvq_(weights.rvq_first, weights.rvq_rest) {}

CodecState MimiEncoder::new_state() const {
  return {Carries(seanet_.carries()), std::nullopt, transformer_.make_ring()};
}

array MimiEncoder::step(const array& pcm, CodecState& state, Stages* stages) const {
  array x = seanet_(op::expand_dims(pcm, 1), state.carries);
  note(stages, "enc_seanet", x);
  x = transformer_(x, state.ring);
  note(stages, "enc_transformer", x);
  x = downsample_(x, state.resample);
  note(stages, "latent", x);
  return rvq_.encode(x);
}

MimiDecoder::MimiDecoder(const MimiWeights& weights, const MimiConfig& config)
    : rvq_(weights.rvq_first, weights.rvq_rest),
      upsample_(weights.upsample, 2),
      transformer_(weights.decoder_transformer, config),
      seanet_(weights.decoder, config) {}

CodecState MimiDecoder::new_state() const {
  return {Carries(seanet_.carries()), std::nullopt, transformer_.make_ring()};
}

array MimiDecoder::step(const array& codes, CodecState& state, Stages* stages) const {
  array x = rvq_.decode(codes);
  note(stages, "dec_quantized", x);
  x = upsample_(x, state.resample);
  note(stages, "dec_upsampled", x);
  x = transformer_(x, state.ring);
  note(stages, "dec_transformer", x);
  const array pcm = seanet_(x, state.carries);
  return op::reshape(pcm, {pcm.shape(0)});
}

void collect(const CodecState& state, std::vector<array>& out) {
  for (const Carry& carry : state.carries) {
    if (carry) out.push_back(*carry);
  }
  if (state.resample) out.push_back(*state.resample);
  out.insert(out.end(), state.ring.k.begin(), state.ring.k.end());
  out.insert(out.end(), state.ring.v.begin(), state.ring.v.end());
}

}  // namespace personaplex::graph
