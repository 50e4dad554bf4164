// tests/cpp/test_session.cpp: a session on a scripted engine: failing steps, cancelled prompts, unloading; and on a
// real one.
#include <doctest/doctest.h>

#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/error.h"
#include "graph/kv_ring.h"
#include "session/session.h"

using namespace personaplex;

namespace {

struct ScriptedState : EngineState {
  int columns = 0;
  int encoded = 0;
  std::unique_ptr<EngineState> clone() const override { return std::make_unique<ScriptedState>(*this); }
  std::vector<NamedTensor> save() const override { return {}; }
  void load(const std::map<std::string, TensorView>&) override {}
  std::int64_t position() const override { return columns; }
  std::size_t nbytes() const override { return sizeof *this; }
};

ScriptedState& scripted(EngineState& state) { return static_cast<ScriptedState&>(state); }

/// Draws the number of columns seen so far for every cell, and fails when told to.
class ScriptedEngine : public Engine {
 public:
  bool fail_decode = false;
  std::atomic<bool>* cancel_after_first = nullptr;

  explicit ScriptedEngine(int delay) {
    config_.mimi.ratios = {2, 2};
    for (int& d : config_.delays) d *= delay;
  }
  const Config& config() const override { return config_; }
  int depformer_steps() const override { return config_.codebooks(); }
  std::unique_ptr<EngineState> new_state() const override { return std::make_unique<ScriptedState>(); }
  void prefill_tokens(EngineState& state, std::span<const std::vector<int>> columns) override {
    scripted(state).columns += static_cast<int>(columns.size());
    if (cancel_after_first != nullptr) *cancel_after_first = true;
  }
  void prefill_embeddings(EngineState& state, std::span<const float> embeddings) override {
    scripted(state).columns += static_cast<int>(embeddings.size()) / config_.dim;
  }
  FrameTokens step(EngineState& state, const FrameInput& input, const SamplingOptions&, Probe*, StepTiming*) override {
    FrameTokens out(static_cast<std::size_t>(1 + config_.codebooks()), scripted(state).columns++);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (input.forced[i] != 0) out[i] = input.target[i];
    }
    return out;
  }
  std::vector<float> embed(std::span<const std::vector<int>> columns) override {
    return std::vector<float>(columns.size() * static_cast<std::size_t>(config_.dim));
  }
  void reset_mimi(EngineState& state) override { scripted(state).encoded = 0; }
  std::vector<int> encode(EngineState& state, std::span<const float>, Probe*) override {
    return std::vector<int>(static_cast<std::size_t>(config_.codebooks()), scripted(state).encoded++);
  }
  std::vector<float> decode(EngineState&, std::span<const int>, Probe*) override {
    if (fail_decode) throw std::runtime_error("scripted failure");
    return std::vector<float>(static_cast<std::size_t>(config_.mimi.frame_samples()));
  }
  Probe probe_temporal(std::span<const std::vector<int>>, int) override { return {}; }
  Probe probe_depformer(std::span<const float>, std::span<const int>, std::span<const std::vector<int>>) override {
    return {};
  }

 private:
  Config config_;
};

struct Scripted {
  explicit Scripted(int most_delay = 1) : delay(most_delay) {}

  int delay;
  ScriptedEngine* engine = nullptr;
  std::shared_ptr<Model> model = std::make_shared<Model>([this]() -> std::unique_ptr<Engine> {
    auto made = std::make_unique<ScriptedEngine>(delay);
    engine = made.get();
    return made;
  });
  std::shared_ptr<Session> session = std::make_shared<Session>(model, SamplingOptions{}, 1);
  PromptProgress progress;
  std::vector<float> silence = std::vector<float>(static_cast<std::size_t>(model->config().mimi.frame_samples()));
};

}  // namespace

TEST_CASE("a step before the prompt is refused") {
  Scripted s;
  CHECK_THROWS_AS(s.session->step(s.silence, std::nullopt), StreamError);
}

TEST_CASE("the first frame returned is the last spacer frame, codebook 0 waits for the others") {
  Scripted s;
  s.session->prompt({}, s.progress);
  CHECK(s.progress.done == s.progress.total);
  CHECK(s.session->position() == 2 * s.model->config().spacer_frames - 1);
  const StepOutput first = s.session->step(s.silence, std::nullopt);
  CHECK(first.index == 0);
  CHECK(first.tokens[0] == s.model->config().text_padding_id);
  for (std::size_t k = 0; k < 8; ++k) {
    CHECK(first.tokens[1 + k] == s.model->config().silence_codes[k]);
    CHECK(first.tokens[9 + k] == s.model->config().sine_codes[k]);
  }
  const StepOutput second = s.session->step(s.silence, 17);
  CHECK(second.tokens[0] == 11);  // drawn in the first step; the forced text comes out one frame later
  CHECK(second.tokens[1] == 11);
  CHECK(second.tokens[2] == 12);
  CHECK(second.tokens[9] == 0);
  CHECK(s.session->step(s.silence, std::nullopt).tokens[0] == 17);
}

TEST_CASE("a step that fails half way poisons the session until it is reset") {
  Scripted s;
  s.session->prompt({}, s.progress);
  s.session->step(s.silence, std::nullopt);
  s.engine->fail_decode = true;
  CHECK_THROWS_WITH(s.session->step(s.silence, std::nullopt), "scripted failure");
  CHECK(s.session->poisoned());
  s.engine->fail_decode = false;
  CHECK_THROWS_AS(s.session->step(s.silence, std::nullopt), StreamError);
  CHECK_THROWS_AS(s.session->snapshot(), StreamError);
  s.session->reset();
  CHECK_FALSE(s.session->poisoned());
  CHECK(s.session->step(s.silence, std::nullopt).index == 0);
}

TEST_CASE("a cancelled prompt leaves an unprompted session that can be prompted again") {
  Scripted s;
  s.engine->cancel_after_first = &s.progress.cancel;
  Prompt in_passes;
  in_passes.chunk = 1;
  CHECK_THROWS_AS(s.session->prompt(in_passes, s.progress), Cancelled);
  CHECK_FALSE(s.session->ready());
  CHECK_THROWS_AS(s.session->step(s.silence, std::nullopt), StreamError);
  CHECK_THROWS_AS(s.session->reset(), StreamError);
  s.engine->cancel_after_first = nullptr;
  PromptProgress again;
  s.session->prompt({}, again);
  CHECK(s.session->step(s.silence, std::nullopt).index == 0);
}

TEST_CASE("a clone goes its own way") {
  Scripted s;
  s.session->prompt({}, s.progress);
  s.session->step(s.silence, std::nullopt);
  const auto copy = s.session->clone();
  const StepOutput a = s.session->step(s.silence, std::nullopt);
  const StepOutput b = copy->step(s.silence, std::nullopt);
  CHECK(a.tokens == b.tokens);
  CHECK(s.session->frames() == 2);
  CHECK(copy->frames() == 2);
  s.session->step(s.silence, std::nullopt);
  CHECK(copy->frames() == 2);
}

TEST_CASE("unloading frees every session's state; using it afterwards says so") {
  Scripted s;
  s.model->adopt(s.session);
  s.session->prompt({}, s.progress);
  s.model->unload();
  CHECK_FALSE(s.model->loaded());
  CHECK_THROWS_AS(s.session->step(s.silence, std::nullopt), DeviceError);
  s.model->unload();
}

TEST_CASE("arguments are checked by name") {
  Scripted s;
  s.session->prompt({}, s.progress);
  CHECK_THROWS_AS(s.session->check_pcm(std::vector<float>(7)), std::invalid_argument);
  CHECK_THROWS_AS(s.session->check_text(32000), std::invalid_argument);
  CHECK_THROWS_AS(s.session->check_codes(std::vector<int>(8, 2048)), std::invalid_argument);
  Prompt half;
  half.voice_cache.resize(17 * 4);
  CHECK_THROWS_AS(s.session->check_prompt(half), std::invalid_argument);
  CHECK_THROWS_AS(check_sampling({{-1.0F, 0}, {}}), std::invalid_argument);
}

TEST_CASE("a prompt has the frames that the first output needs, and no fewer") {
  for (const int delay : {0, 1, 12, 13, 20}) {
    Scripted s(delay);
    Prompt prompt;  // 12 frames of silence
    if (delay > 11) {
      prompt.text.assign(static_cast<std::size_t>(delay - 12), 5);
      CHECK_THROWS_AS(s.session->check_prompt(prompt), std::invalid_argument);
      prompt.text.push_back(5);
    }
    s.session->check_prompt(prompt);
    s.session->prompt(prompt, s.progress);
    CHECK(s.session->step(s.silence, std::nullopt).tokens[0] >= 0);
    CHECK_FALSE(s.session->poisoned());
  }
}

TEST_CASE("a ring's context is bounded") {
  const auto ring = [](int context) { graph::KvRing(1, 1, 2, context, mlx::core::float32, [](auto p) { return p; }); };
  CHECK_THROWS_AS(ring(kMaxContext + 1), std::invalid_argument);
  CHECK_THROWS_AS(ring(INT32_MAX), std::invalid_argument);
  CHECK_THROWS_AS(ring(0), std::invalid_argument);
  ring(kMaxContext);
}

namespace {

std::vector<int> converse(const std::shared_ptr<Model>& model, std::uint64_t seed, int frames) {
  std::vector<int> tokens;
  std::shared_ptr<Session> session;
  // Call by call, as from Python: other sessions come in between.
  model->worker().run([&] {
    session = std::make_shared<Session>(model, SamplingOptions{}, seed);
    PromptProgress progress;
    Prompt prompt;
    prompt.text = {5, 6, 7};
    session->prompt(prompt, progress);
  });
  std::vector<float> pcm(1920);
  for (std::size_t n = 0; n < pcm.size(); ++n) pcm[n] = 0.1F * static_cast<float>(static_cast<int>(n) % 7 - 3);
  for (int i = 0; i < frames; ++i) {
    model->worker().run([&] {
      const StepOutput out = session->step(pcm, std::nullopt);
      tokens.insert(tokens.end(), out.tokens.begin(), out.tokens.end());
      if (i == frames / 2) session->restore(*session->snapshot());
      if (i == frames - 1) session.reset();
    });
  }
  return tokens;
}

std::shared_ptr<Model> tiny_model(const std::string& engine, int threads = 0) {
  ModelOptions options;
  options.source = "random:tiny";
  options.device = "cpu";
  options.engine = engine;
  options.threads = threads;
  return std::make_shared<Model>(options);
}

}  // namespace

TEST_CASE("random:tiny converses, alike for alike seeds, through snapshots and past the codec's context") {
  for (const char* engine : {"graph", "fused"}) {
    const auto model = tiny_model(engine);
    const auto once = converse(model, 3, 30);
    CHECK(once == converse(model, 3, 30));
    CHECK(once != converse(model, 4, 30));
  }
}

TEST_CASE("a step from audio is the step from the codes of that audio, with all rows predicted too") {
  for (const int steps : {8, 16}) {
    ModelOptions options;
    options.source = "random:tiny";
    options.device = "cpu";
    options.engine = "fused";
    options.load.depformer_steps = steps;
    const auto model = std::make_shared<Model>(options);
    model->worker().run([&] {
      Session session(model, SamplingOptions{}, 5);
      PromptProgress progress;
      session.prompt({}, progress);
      const auto twin = session.clone();
      Engine& engine = model->engine();
      const auto listener = engine.new_state();
      std::vector<float> pcm(1920);
      for (std::size_t i = 0; i < 9; ++i) {
        for (std::size_t n = 0; n < pcm.size(); ++n) pcm[n] = 0.2F * static_cast<float>((n * (7 + i)) % 11) - 1.0F;
        const std::optional<int> text = i == 4 ? std::optional(17) : std::nullopt;
        session.timing = session.probing = i % 3 == 2;
        const StepOutput heard = session.step(pcm, text);
        const auto codes = engine.encode(*listener, pcm);
        const StepOutput given = twin->step_codes(codes, text, /* decode = */ true);
        CHECK(heard.tokens == given.tokens);
        CHECK(heard.audio == given.audio);
        CHECK(heard.timing.has_value() == session.timing);
        const auto ring = session.grid().ring(), other = twin->grid().ring();
        CHECK(std::equal(ring.begin(), ring.end(), other.begin(), other.end()));
      }
    });
  }
}

TEST_CASE("sessions in several threads, of one model and of two on one pool, say what they say alone") {
  const auto one = tiny_model("fused", 3);
  const auto two = tiny_model("fused", 2);
  std::vector<std::vector<int>> alone, together(4);
  for (std::uint64_t seed = 0; seed < 4; ++seed) alone.push_back(converse(seed < 2 ? one : two, seed, 12));
  std::vector<std::thread> callers;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    callers.emplace_back([&, seed] { together[seed] = converse(seed < 2 ? one : two, seed, 12); });
  }
  for (auto& caller : callers) caller.join();
  CHECK(together == alone);
}
