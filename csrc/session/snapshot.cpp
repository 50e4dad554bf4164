// csrc/session/snapshot.cpp: a state on disk: a safetensors file whose metadata says what it fits.
#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "session/session.h"

namespace personaplex {

namespace {

constexpr const char* kFormat = "personaplex-snapshot-1";

const TensorView& find(const Safetensors& file, const std::string& name, DType dtype, std::int64_t size) {
  const auto it = file.tensors.find(name);
  if (it == file.tensors.end())
    throw WeightsError("[load_snapshot] " + file.path + ": tensor " + name + " is missing.");
  if (it->second.dtype != dtype || it->second.size() != size) {
    throw WeightsError("[load_snapshot] " + file.path + ": " + name + " has another type or size than expected.");
  }
  return it->second;
}

}  // namespace

void save_snapshot(const Snapshot& snapshot, const std::string& path, const std::string& key) {
  if (!snapshot.state) throw DeviceError("[Snapshot.save] the snapshot's model was unloaded.");
  const SessionState& state = *snapshot.state;
  std::vector<NamedTensor> tensors = state.engine->save();
  const std::int64_t counters[3] = {state.grid.frames(), static_cast<std::int64_t>(state.frames), state.position};
  OwnedTensor numbers = allocate_tensor(DType::kI64, {3});
  std::memcpy(numbers.mutable_data, counters, sizeof counters);
  tensors.push_back({"session.counters", numbers.view});

  const auto size = static_cast<std::int64_t>(state.grid.ring().size());
  OwnedTensor ring = allocate_tensor(DType::kI64, {size});
  const std::vector<std::int64_t> tokens(state.grid.ring().begin(), state.grid.ring().end());
  std::memcpy(ring.mutable_data, tokens.data(), tokens.size() * sizeof(std::int64_t));
  tensors.push_back({"session.ring", ring.view});
  OwnedTensor forced = allocate_tensor(DType::kU8, {size});
  std::memcpy(forced.mutable_data, state.grid.ring_forced().data(), static_cast<std::size_t>(size));
  tensors.push_back({"session.forced", forced.view});
  write_safetensors(path, tensors, {{"format", kFormat}, {"key", key}});
}

std::shared_ptr<Snapshot> load_snapshot(const std::shared_ptr<Model>& model, const std::string& path,
                                        const std::string& key) {
  const Safetensors file = read_safetensors(path);
  const auto meta = [&](const char* name) {
    const auto it = file.metadata.find(name);
    return it == file.metadata.end() ? std::string() : it->second;
  };
  if (meta("format") != kFormat) {
    throw WeightsError("[load_snapshot] " + path + ": expected format " + kFormat + ", got '" + meta("format") + "'.");
  }
  if (meta("key") != key)
    throw WeightsError("[load_snapshot] " + path + " was made for another model, voice or prompt.");

  TokenGrid grid(model->config());
  const auto size = static_cast<std::int64_t>(grid.ring().size());
  const TensorView& counters = find(file, "session.counters", DType::kI64, 3);
  const TensorView& ring = find(file, "session.ring", DType::kI64, size);
  const TensorView& forced = find(file, "session.forced", DType::kU8, size);
  std::int64_t numbers[3];
  std::memcpy(numbers, counters.data, sizeof numbers);
  if (numbers[0] < 2 || numbers[1] < 0 || numbers[2] < 0) {
    throw WeightsError("[load_snapshot] " + path + ": session.counters are out of range.");
  }
  const std::span tokens(reinterpret_cast<const std::int64_t*>(ring.data), static_cast<std::size_t>(size));
  const int highest = std::max(model->config().card, model->config().text_card);
  if (std::any_of(tokens.begin(), tokens.end(),
                  [highest](std::int64_t t) { return t < TokenGrid::kUngenerated || t > highest; })) {
    throw WeightsError("[load_snapshot] " + path + ": session.ring holds tokens that the model does not have.");
  }
  grid.restore(numbers[0], tokens,
               {reinterpret_cast<const std::uint8_t*>(forced.data), static_cast<std::size_t>(size)});

  auto out = std::make_shared<Snapshot>();
  out->model = model;
  SessionState state{model->engine().new_state(), grid, static_cast<std::uint64_t>(numbers[1]), numbers[2]};
  state.engine->load(file.tensors);
  out->nbytes = state.engine->nbytes();
  out->state = std::move(state);
  return out;
}

}  // namespace personaplex
