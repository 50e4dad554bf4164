// tests/cpp/test_metal_barriers.cpp: memory barriers of the host code, dropped one by one: does the simulated Mac
// notice?
//
// What the dispatches of a frame touched says which barriers it would notice, without running the frame once for each:
// the check that finds a missing barrier is asked about the dispatches on both sides. That this is what happens when a
// barrier is really dropped is tried with some of them, and with all where PERSONAPLEX_ALL_MUTANTS is set. Barriers
// that could go are listed in tests/survivors/host_barriers.txt, each with its reason.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/weights.h"
#include "core/error.h"
#include "engine/engine.h"
#include "gpu/borrowed_queue.h"
#include "gpu/gpu_ops.h"
#include "gpu/kernel_source.h"
#include "metalsim_objc.h"
#include "model/fused_engine.h"

using namespace personaplex;
using namespace personaplex::gpu;

namespace {

/// The real queue, but for one of the barriers of the lists that it records.
class Careless final : public BorrowedQueue {
 public:
  Careless(std::unique_ptr<Queue> queue, int dropped)
      : BorrowedQueue(*queue), queue_(std::move(queue)), dropped_(dropped) {}
  std::unique_ptr<List> record(std::vector<Dispatch> dispatches) override {
    for (Dispatch& d : dispatches) {
      if (d.barrier && count_++ == dropped_) d.barrier = false;
    }
    return queue_->record(std::move(dispatches));
  }

 private:
  std::unique_ptr<Queue> queue_;
  int dropped_, count_ = 0;
};

/// As many layers and steps as show all that can lie next to each other.
Config small_config() {
  Config config = random_config("tiny");
  config.num_layers = 2;
  config.depformer_num_layers = 2;
  config.n_q = config.dep_q = 4;
  config.delays.resize(5);
  config.silence_codes.resize(2);
  config.sine_codes.resize(2);
  config.mimi.num_layers = 2;
  config.context = 600;  // shared out among threadgroups
  return config;
}

struct Small {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<EngineState> state;

  explicit Small(int dropped = -1) {
    LoadOptions load;
    load.temporal_bits = load.depformer_bits = 4;
    const Weights weights = random_weights(small_config(), 3, load);
    auto queue = std::make_unique<Careless>(make_metal_queue({metal_sources(), {}}), dropped);
    engine = make_fused_engine(weights, make_gpu_ops(std::move(queue)), 16);
    state = engine->new_state();
  }
};

using Program = std::pair<std::string, std::function<void(Engine&, EngineState&)>>;

/// The programs of a conversation, in the order in which one runs them.
const std::vector<Program>& programs() {
  const auto pcm = [](const Engine& e) {
    return std::vector<float>(static_cast<std::size_t>(e.config().mimi.frame_samples()), 0.1F);
  };
  const auto input = [](const Engine& e) {
    const auto rows = static_cast<std::size_t>(e.config().rows());
    FrameInput in;
    in.column.assign(rows, 1);
    in.target.assign(rows, 0);
    in.forced.assign(rows, 0);
    return in;
  };
  const auto codes = [](const Engine& e) {
    return std::vector<int>(static_cast<std::size_t>(e.config().codebooks()), 1);
  };
  static const std::vector<Program> all = {
      {"prefill",
       [=](Engine& e, EngineState& state) {
         e.prefill_tokens(state, std::vector<std::vector<int>>(9, input(e).column));
       }},
      {"encode", [=](Engine& e, EngineState& state) { e.encode(state, pcm(e)); }},
      {"step", [=](Engine& e, EngineState& state) { e.step(state, input(e), {}, nullptr, nullptr); }},
      {"decode", [=](Engine& e, EngineState& state) { e.decode(state, codes(e)); }},
      {"frame",
       [=](Engine& e, EngineState& state) {
         std::vector<int> drawn = codes(e);
         for (std::size_t k = 0; k < drawn.size(); ++k) drawn[k] = later(static_cast<int>(1 + k));
         e.frame(state, pcm(e), input(e), drawn, {});
       }},
  };
  return all;
}

/// "program: before > after" and why, of the barriers that may stay unnoticed.
std::map<std::string, std::string> known_survivors() {
  std::ifstream file(PERSONAPLEX_SURVIVORS);
  REQUIRE(file.good());
  std::map<std::string, std::string> found;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const auto colon = line.find(": ", line.find(": ") + 1);
    REQUIRE(colon != std::string::npos);
    found[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return found;
}

std::string run_all(Small& small) {
  try {
    for (const auto& [name, run] : programs()) run(*small.engine, *small.state);
  } catch (const DeviceError& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("metal: every barrier of a frame is needed") {
  setenv("METALSIM_CHECK", "1", 1);
  const std::map<std::string, std::string> known = known_survivors();
  std::set<std::string> survived;
  std::vector<bool> needed;  // by the barriers' order
  {
    Small small;
    metalsim::objc::take_barriers();
    for (const auto& [name, run] : programs()) {
      CAPTURE(name);
      run(*small.engine, *small.state);
      const auto barriers = metalsim::objc::take_barriers();
      CHECK(barriers.size() > 2);
      std::size_t killed = 0;
      for (const auto& barrier : barriers) {
        needed.push_back(!barrier.hazard.empty());
        if (needed.back()) {
          ++killed;
          continue;
        }
        survived.insert(name + ": " + barrier.before + " > " + barrier.after);
      }
      MESSAGE(name << ": " << killed << " of " << barriers.size() << " barriers are missed when they are dropped");
    }
  }
  for (const std::string& one : survived) {
    CAPTURE(one);
    CHECK(known.contains(one));
  }
  for (const auto& [one, reason] : known) {
    CAPTURE(one);
    CHECK(survived.contains(one));
  }

  const std::size_t step = std::getenv("PERSONAPLEX_ALL_MUTANTS") != nullptr ? 1 : needed.size() / 3;
  for (std::size_t i = 0; i < needed.size(); i += step) {
    CAPTURE(i);
    Small small(static_cast<int>(i));
    const bool noticed = run_all(small).find("the GPU failed: no barrier between ") != std::string::npos;
    CHECK(noticed == needed[i]);
  }
  CHECK(metalsim::objc::alive_classes() == "");
}
