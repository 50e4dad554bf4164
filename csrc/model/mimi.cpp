// csrc/model/mimi.cpp: the way of one frame through the codec, and what stays of it.
#include "model/mimi.h"

#include <algorithm>

#include "engine/take_tensor.h"

namespace personaplex {

namespace {

constexpr std::size_t kColumns = CodecTransformer::kColumns;

/// Every piece of a block that outlives a frame, with the name it has in a snapshot.
template <typename Visit>
void for_each_carried(const CodecLayout& layout, Visit visit) {
  for (std::size_t i = 0; i < layout.windows.size(); ++i) {
    if (layout.windows[i].carried > 0) visit(".carried." + std::to_string(i), layout.windows[i]);
  }
  visit(std::string(".resample"), layout.resample);
}

}  // namespace

std::size_t CodecState::nbytes() const {
  std::size_t floats = 0;
  for_each_carried(*layout, [&](const std::string&, const Window& window) { floats += window.carried; });
  return floats * sizeof(float) + rings.nbytes();
}

void CodecState::reset() {
  for_each_carried(*layout, [&](const std::string&, const Window& window) {
    const std::vector<float> zeros(window.carried);
    block->write(window.values.offset, zeros.size() * sizeof(float), zeros.data());
  });
  rings.reset();
}

void CodecState::save(const std::string& prefix, std::vector<NamedTensor>& out) const {
  for_each_carried(*layout, [&](const std::string& name, const Window& window) {
    out.push_back({prefix + name, copy_floats(window.in(*block), {static_cast<std::int64_t>(window.carried)})});
  });
  rings.save(prefix + ".ring", out);
}

void CodecState::load(const std::string& prefix, std::map<std::string, TensorView>& in) {
  for_each_carried(*layout, [&](const std::string& name, const Window& window) {
    const TensorView t = take_tensor(in, prefix + name, DType::kF32, {static_cast<std::int64_t>(window.carried)});
    block->write(window.values.offset, t.nbytes(), t.data);
  });
  rings.load(prefix + ".ring", in);
  check_codec_position(prefix, rings.position());
}

CodecInputs::CodecInputs(ops::Ops& ops)
    : columns(ops, kColumns, ops::Use::kInput), is_first(ops, 1, ops::Use::kInput) {}

void CodecInputs::advance(CodecState& state) {
  is_first[0] = state.position() == 0 ? 1 : 0;
  state.rings.advance(CodecTransformer::kColumns, columns.data());
}

MimiEncoder::MimiEncoder(ops::Ops& ops, const MimiWeights& weights, const MimiConfig& config, const Rvq& rvq,
                         BlockLayout& layout)
    : ops_(ops),
      rvq_(rvq),
      seanet_(SeanetHalf::encoder(ops, weights.encoder, config)),
      transformer_(ops, weights.encoder_transformer, config),
      downsample_(StreamConv::plain(ops, weights.downsample, /* stride = */ 2)),
      dimension_(config.dimension),
      layout_{seanet_.windows(layout), downsample_.window(layout, kColumns), transformer_.ring_shape(),
              KvRings::table_for(transformer_.ring_shape(), layout)},
      inputs_(ops),
      pcm_(ops, static_cast<std::size_t>(config.frame_samples()), ops::Use::kInput),
      latent_(ops, static_cast<std::size_t>(config.dimension)) {}

void MimiEncoder::put(CodecState& state, std::span<const float> pcm) {
  std::copy(pcm.begin(), pcm.end(), pcm_.data());
  inputs_.advance(state);
}

std::vector<Stage> MimiEncoder::stages(const CodecState& state, ops::Place codes) const {
  const ops::Memory& block = *state.block;
  const ops::Place window = layout_.resample.in(block);
  const ops::Place x = layout_.resample.fresh(block);  // [2, D]
  return {{[this, &block, x] {
             ops_.select(static_cast<int>(pcm_.size()), pcm_.at(), {}, {}, 0, layout_.windows.front().fresh(block));
             seanet_.forward(ops_, layout_.windows, block, x);
           },
           "enc_seanet",
           x,
           {kColumns, dimension_}},
          {[this, &state, x] { transformer_.forward(x, state.rings, inputs_.columns.at()); },
           "enc_transformer",
           x,
           {kColumns, dimension_}},
          {[this, window] {
             ops_.replicate(*downsample_.weight, window, inputs_.is_first.at());
             ops_.conv(*downsample_.weight, window, 1, {.residual = {}, .raw = latent_.at(), .elu = {}});
           },
           "latent",
           latent_.at(),
           {1, dimension_}},
          {[this, codes] { rvq_.encode(latent_.at(), codes); }}};
}

MimiDecoder::MimiDecoder(ops::Ops& ops, const MimiWeights& weights, const MimiConfig& config, const Rvq& rvq,
                         BlockLayout& layout)
    : ops_(ops),
      rvq_(rvq),
      upsample_(ops.upsample(weights.upsample, 2)),
      transformer_(ops, weights.decoder_transformer, config),
      seanet_(SeanetHalf::decoder(ops, weights.decoder, config)),
      dimension_(config.dimension),
      layout_{seanet_.windows(layout),
              {.values = layout.add<float>(2 * static_cast<std::size_t>(dimension_)),
               .carried = static_cast<std::size_t>(dimension_)},
              transformer_.ring_shape(),
              KvRings::table_for(transformer_.ring_shape(), layout)},
      inputs_(ops) {}

std::vector<Stage> MimiDecoder::stages(const CodecState& state, const ops::Codes& codes, ops::Place pcm) const {
  const ops::Memory& block = *state.block;
  const ops::Place quantized = layout_.resample.fresh(block);  // [1, D]
  const ops::Place x = layout_.windows.front().fresh(block);   // [2, D]
  return {{[this, codes, quantized] { rvq_.decode(codes, quantized); }, "dec_quantized", quantized, {1, dimension_}},
          {[this, &block, x] { ops_.upsample(*upsample_, layout_.resample.in(block), 1, x); },
           "dec_upsampled",
           x,
           {kColumns, dimension_}},
          {[this, &state, x] { transformer_.forward(x, state.rings, inputs_.columns.at()); },
           "dec_transformer",
           x,
           {kColumns, dimension_}},
          {[this, &block, pcm] { seanet_.forward(ops_, layout_.windows, block, pcm); }}};
}

}  // namespace personaplex
