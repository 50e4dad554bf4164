// csrc/graph/graph_state.cpp: a state as named tensors and back.
#include "graph/graph_state.h"

#include "core/error.h"
#include "graph/arrays.h"

namespace personaplex::graph {

namespace {

void save_carry(const std::string& name, const Carry& carry, std::vector<NamedTensor>& out) {
  if (carry) out.push_back({name, to_host(*carry)});
}

template <typename Visit>
void for_each_carry(const std::string& prefix, Carries& carries, Carry& resample, Visit visit) {
  for (std::size_t i = 0; i < carries.size(); ++i) visit(prefix + ".carry." + std::to_string(i), carries[i]);
  visit(prefix + ".resample", resample);
}

using Tensors = std::map<std::string, TensorView>;

// One half of the codec. Its carries show the shapes that fit, and which convolutions carry nothing.
void load_codec(const std::string& prefix, Carries& carries, Carry& resample, KvRing& ring, Tensors& in) {
  ring.load(prefix + ".ring", in);
  if (ring.position() % 2 != 0) {
    throw WeightsError("[Snapshot.load] " + prefix + ".ring.position: expected two positions a frame, got " +
                       std::to_string(ring.position()) + ".");
  }
  for_each_carry(prefix, carries, resample, [&](const std::string& name, Carry& carry) {
    if (!carry) return;
    if (ring.position() == 0) {
      carry.reset();
      return;
    }
    const mx::Shape shape = carry->shape();
    const TensorView stored = take_tensor(in, name, DType::kF32, {shape.begin(), shape.end()});
    // A copy: MLX may reuse a carry's buffer for its successor, and the file's mapping is read-only.
    const auto* values = reinterpret_cast<const float*>(stored.data);
    carry = from_host(std::span(values, static_cast<std::size_t>(stored.size())), shape);
  });
}

}  // namespace

std::vector<NamedTensor> GraphState::save() const {
  std::vector<NamedTensor> out;
  GraphState copy = *this;  // handles only
  const auto save = [&](const std::string& name, const Carry& carry) { save_carry(name, carry, out); };
  for_each_carry("encoder", copy.encoder.carries, copy.encoder.downsample, save);
  for_each_carry("decoder", copy.decoder.carries, copy.decoder.upsample, save);
  encoder.ring.save("encoder.ring", out);
  decoder.ring.save("decoder.ring", out);
  temporal.save("temporal", out);
  return out;
}

void GraphState::load(const std::map<std::string, TensorView>& tensors) {
  Tensors rest = tensors;
  load_codec("encoder", encoder.carries, encoder.downsample, encoder.ring, rest);
  load_codec("decoder", decoder.carries, decoder.upsample, decoder.ring, rest);
  temporal.load("temporal", rest);
  if (!rest.empty()) {
    throw WeightsError("[Snapshot.load] tensor " + rest.begin()->first + " belongs to no state of this model.");
  }
}

std::size_t GraphState::nbytes() const {
  std::vector<array> arrays = temporal.k;
  arrays.insert(arrays.end(), temporal.v.begin(), temporal.v.end());
  collect(encoder, arrays);
  collect(decoder, arrays);
  std::size_t bytes = 0;
  for (const array& a : arrays) bytes += a.nbytes();
  return bytes;
}

}  // namespace personaplex::graph
