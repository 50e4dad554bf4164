// csrc/session/snapshot.cpp: a state on disk: a safetensors file whose metadata says what it fits.
#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "session/session.h"

namespace personaplex {

namespace {

constexpr const char* kFormat = "personaplex-snapshot-1";
constexpr const char* kCounters = "session.counters";  // frames put, steps, temporal positions
constexpr const char* kRing = "session.ring";
constexpr const char* kForced = "session.forced";

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
  tensors.push_back({kCounters, numbers.view});

  const auto size = static_cast<std::int64_t>(state.grid.ring().size());
  OwnedTensor ring = allocate_tensor(DType::kI64, {size});
  const std::vector<std::int64_t> tokens(state.grid.ring().begin(), state.grid.ring().end());
  std::memcpy(ring.mutable_data, tokens.data(), tokens.size() * sizeof(std::int64_t));
  tensors.push_back({kRing, ring.view});
  OwnedTensor forced = allocate_tensor(DType::kU8, {size});
  std::memcpy(forced.mutable_data, state.grid.ring_forced().data(), static_cast<std::size_t>(size));
  tensors.push_back({kForced, forced.view});
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

  const Config& config = model->config();
  TokenGrid grid(config);
  const auto size = static_cast<std::int64_t>(grid.ring().size());
  const TensorView& counters = find(file, kCounters, DType::kI64, 3);
  const TensorView& ring = find(file, kRing, DType::kI64, size);
  const TensorView& forced = find(file, kForced, DType::kU8, size);
  std::int64_t numbers[3];
  std::memcpy(numbers, counters.data, sizeof numbers);
  const auto [put, steps, position] = numbers;
  // The first frame is never read, and the prompt had max_delay + 1 frames at least.
  if (steps < 0 || position < 0 || position >= kMaxPosition || put != position + 1 ||
      put - steps < config.max_delay() + 1) {
    throw WeightsError("[load_snapshot] " + path + ": session.counters contradict each other.");
  }
  const std::span flags(reinterpret_cast<const std::uint8_t*>(forced.data), static_cast<std::size_t>(size));
  if (std::any_of(flags.begin(), flags.end(), [](std::uint8_t f) { return f > 1; })) {
    throw WeightsError("[load_snapshot] " + path + ": session.forced holds other values than 0 and 1.");
  }
  const std::span tokens(reinterpret_cast<const std::int64_t*>(ring.data), static_cast<std::size_t>(size));
  for (int row = 0; row < grid.rows(); ++row) {
    for (std::int64_t column = 0; column < grid.depth(); ++column) {
      const auto at = grid.cell(row, column);
      const bool read = flags[at] != 0 || column == (put - 1) % grid.depth();
      const int lowest = read ? TokenGrid::kZero : TokenGrid::kUngenerated;
      if (tokens[at] < lowest || tokens[at] > grid.highest(row)) {
        throw WeightsError("[load_snapshot] " + path + ": session.ring holds token " + std::to_string(tokens[at]) +
                           " in row " + std::to_string(row) + ", expected " + std::to_string(lowest) + " to " +
                           std::to_string(grid.highest(row)) + ".");
      }
    }
  }
  grid.restore(put, tokens, flags);

  SessionState state{model->engine().new_state(), grid, static_cast<std::uint64_t>(steps), position};
  // Any frame: load() compares the file with the buffers that the codec has after it.
  model->engine().encode(*state.engine, std::vector<float>(static_cast<std::size_t>(config.mimi.frame_samples())));
  model->engine().decode(*state.engine, std::vector<int>(static_cast<std::size_t>(config.codebooks())));
  auto buffers = file.tensors;
  for (const char* name : {kCounters, kRing, kForced}) buffers.erase(name);
  state.engine->load(buffers);
  if (state.engine->position() != position) {
    throw WeightsError("[load_snapshot] " + path + ": session.counters and the engine's state contradict each other.");
  }
  auto out = std::make_shared<Snapshot>();
  out->model = model;
  out->nbytes = state.engine->nbytes();
  out->state = std::move(state);
  return out;
}

}  // namespace personaplex
