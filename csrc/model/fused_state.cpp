// csrc/model/fused_state.cpp: a state as named tensors and back, and its copy.
#include "model/fused_state.h"

#include "engine/take_tensor.h"

namespace personaplex {

std::unique_ptr<EngineState> FusedState::clone() const {
  std::unique_ptr<FusedState> copy = make_();
  copy->temporal.copy_from(temporal);
  copy->encoder.copy_from(encoder);
  copy->decoder.copy_from(decoder);
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
