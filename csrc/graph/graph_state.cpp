// csrc/graph/graph_state.cpp: a state as named tensors and back.
#include "graph/graph_state.h"

#include "engine/take_tensor.h"
#include "graph/arrays.h"

namespace personaplex::graph {

namespace {

using Tensors = std::map<std::string, TensorView>;

/// Visits every carry with its name. `State` is CodecState, const or not.
template <typename State, typename Visit>
void for_each_carry(const std::string& prefix, State& state, Visit visit) {
  for (std::size_t i = 0; i < state.carries.size(); ++i) {
    visit(prefix + ".carry." + std::to_string(i), state.carries[i]);
  }
  visit(prefix + ".resample", state.resample);
}

void save_codec(const std::string& prefix, const CodecState& state, std::vector<NamedTensor>& out) {
  for_each_carry(prefix, state, [&](const std::string& name, const Carry& carry) {
    if (carry) out.push_back({name, to_host(*carry)});
  });
  state.ring.save(prefix + ".ring", out);
}

// The carries of `state` show the shapes that fit, and which convolutions carry nothing.
void load_codec(const std::string& prefix, CodecState& state, Tensors& in) {
  state.ring.load(prefix + ".ring", in);
  const std::int64_t position = state.ring.position();
  check_codec_position(prefix, position);
  for_each_carry(prefix, state, [&](const std::string& name, Carry& carry) {
    if (!carry) return;
    if (position == 0) {
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
  save_codec("encoder", encoder, out);
  save_codec("decoder", decoder, out);
  temporal.save("temporal", out);
  return out;
}

void GraphState::load(const std::map<std::string, TensorView>& tensors) {
  Tensors rest = tensors;
  load_codec("encoder", encoder, rest);
  load_codec("decoder", decoder, rest);
  temporal.load("temporal", rest);
  check_all_taken(rest);
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
