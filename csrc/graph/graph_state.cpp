// csrc/graph/graph_state.cpp: a state as named tensors and back.
#include "graph/graph_state.h"

#include "core/error.h"
#include "graph/arrays.h"

namespace personaplex::graph {

namespace {

void save_carry(const std::string& name, const Carry& carry, std::vector<NamedTensor>& out) {
  if (carry) out.push_back({name, to_host(*carry)});
}

void load_carry(const std::string& name, const std::map<std::string, TensorView>& in, Carry& carry) {
  const auto it = in.find(name);
  if (it == in.end()) {
    carry.reset();
    return;
  }
  if (it->second.dtype != DType::kF32) {
    throw WeightsError("[Snapshot.load] " + name + ": expected F32, got " + name_of(it->second.dtype) + ".");
  }
  // A copy: MLX may reuse a carry's buffer for its successor, and the file's mapping is read-only.
  mx::Shape shape;
  for (const auto d : it->second.shape) shape.push_back(static_cast<int>(d));
  const auto* values = reinterpret_cast<const float*>(it->second.data);
  carry = from_host(std::span(values, static_cast<std::size_t>(it->second.size())), shape);
}

template <typename Visit>
void for_each_carry(const std::string& prefix, Carries& carries, Carry& resample, Visit visit) {
  for (std::size_t i = 0; i < carries.size(); ++i) visit(prefix + ".carry." + std::to_string(i), carries[i]);
  visit(prefix + ".resample", resample);
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
  const auto load = [&](const std::string& name, Carry& carry) { load_carry(name, tensors, carry); };
  for_each_carry("encoder", encoder.carries, encoder.downsample, load);
  for_each_carry("decoder", decoder.carries, decoder.upsample, load);
  encoder.ring.load("encoder.ring", tensors);
  decoder.ring.load("decoder.ring", tensors);
  temporal.load("temporal", tensors);
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
