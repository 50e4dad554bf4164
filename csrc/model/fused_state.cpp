// csrc/model/fused_state.cpp: a state as named tensors and back, and its copy.
#include "model/fused_state.h"

#include "engine/take_tensor.h"

namespace personaplex {

FusedState::FusedState(ops::Ops& ops, const StateLayout& layout)
    : block(ops.allocate(layout.block.bytes(), ops::Use::kState)),
      temporal(ops, layout.temporal, *block, layout.temporal_pages),
      encoder(ops, *layout.encoder, *block),
      decoder(ops, *layout.decoder, *block),
      ops_(ops),
      layout_(layout) {}

std::unique_ptr<EngineState> FusedState::clone() const {
  auto copy = std::make_unique<FusedState>(ops_, layout_);
  copy->block->copy_from(*block);
  copy->temporal.copy_from(temporal);
  copy->encoder.rings.copy_from(encoder.rings);
  copy->decoder.rings.copy_from(decoder.rings);
  return copy;
}

std::vector<NamedTensor> FusedState::save() const {
  std::vector<NamedTensor> out;
  encoder.save("encoder", out);
  decoder.save("decoder", out);
  temporal.save("temporal", out);
  return out;
}

void FusedState::load(const std::map<std::string, TensorView>& tensors) {
  std::map<std::string, TensorView> rest = tensors;
  encoder.load("encoder", rest);
  decoder.load("decoder", rest);
  temporal.load("temporal", rest);
  check_all_taken(rest);
}

std::size_t FusedState::nbytes() const { return temporal.nbytes() + encoder.nbytes() + decoder.nbytes(); }

}  // namespace personaplex
