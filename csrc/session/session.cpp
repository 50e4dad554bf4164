// csrc/session/session.cpp: the way of one frame, and the life of a session.
#include "session/session.h"

#include <algorithm>

#include "core/error.h"
#include "core/stopwatch.h"

namespace personaplex {

/// Marks the session as poisoned unless the step comes to its end.
class Session::StepGuard {
 public:
  explicit StepGuard(Session& session) : session_(session) { session_.poisoned_ = true; }
  StepOutput commit(StepOutput output) {
    output.index = session_.state_->frames++;
    output.step_ms = stopwatch_.ms();
    session_.poisoned_ = false;
    return output;
  }

 private:
  Session& session_;
  Stopwatch stopwatch_;
};

Session::Session(std::shared_ptr<Model> model, const SamplingOptions& how, std::uint64_t key)
    : sampling(how), seed(key), model_(std::move(model)) {}

StepOutput Session::step(std::span<const float> pcm, std::optional<int> text) {
  check_step("Session.step");
  StepGuard guard(*this);  // poisons the session unless committed
  const Stopwatch stopwatch;
  const auto user = model_->engine().encode(*state_->engine, pcm);  // [Q] codes
  const double encode_ms = stopwatch.ms();
  StepOutput out = advance(user, text, /* decode = */ true);
  out.encode_ms = encode_ms;
  return guard.commit(std::move(out));
}

StepOutput Session::step_codes(std::span<const int> user, std::optional<int> text, bool decode) {
  check_step("Session.step_codes");
  StepGuard guard(*this);
  return guard.commit(advance(user, text, decode));
}

StepOutput Session::advance(std::span<const int> user, std::optional<int> text, bool decode) {
  Engine& engine = model_->engine();
  TokenGrid& grid = state_->grid;
  grid.put(user, {}, text);  // the agent's text and codes stay open
  probe_.clear();
  StepOutput out;
  if (timing) out.timing.emplace();
  grid.commit(engine.step(*state_->engine, {grid.column(), grid.target(), grid.forced(), seed, state_->frames},
                          sampling, probing ? &probe_ : nullptr,
                          timing ? &*out.timing : nullptr));  // temporal, text, depformer
  state_->position += 1;
  out.tokens = grid.output().value();  // delays undone; a prompt has come before
  if (decode) {
    const int codebooks = model_->config().codebooks();
    std::vector<int> agent(out.tokens.begin() + 1, out.tokens.begin() + 1 + codebooks);
    for (int& code : agent) code = std::clamp(code, 0, model_->config().mimi.bins - 1);  // start tokens are no codes
    const Stopwatch stopwatch;
    out.audio = engine.decode(*state_->engine, agent);
    out.decode_ms = stopwatch.ms();
  }
  return out;
}

void Session::reset() {
  if (!origin_) throw StreamError("[Session.reset] there is nothing to return to: call prompt() first.");
  state_ = origin_->clone();
  probe_.clear();
  ready_ = true;
  poisoned_ = false;
}

std::shared_ptr<Session> Session::clone() const {
  auto copy = std::make_shared<Session>(model_, sampling, seed);
  copy->probing = probing;
  copy->timing = timing;
  if (state_) copy->state_ = state_->clone();
  if (origin_) copy->origin_ = origin_->clone();
  copy->voice_columns_ = voice_columns_;
  copy->voice_ring_ = voice_ring_;
  copy->ready_ = ready_.load();
  copy->poisoned_ = poisoned_.load();
  return copy;
}

std::shared_ptr<Snapshot> Session::snapshot() const {
  check_step("Session.snapshot");
  auto out = std::make_shared<Snapshot>();
  out->model = model_;
  out->state = state_->clone();
  out->nbytes = out->state->engine->nbytes();
  return out;
}

void Session::restore(const Snapshot& snapshot) {
  if (!snapshot.state) throw DeviceError("[Session.restore] the snapshot's model was unloaded.");
  state_ = snapshot.state->clone();
  origin_ = snapshot.state->clone();
  voice_columns_.clear();
  voice_ring_.clear();
  probe_.clear();
  ready_ = true;
  poisoned_ = false;
}

Discarded Session::take() {
  const std::lock_guard lock(mutex_);
  ready_ = false;
  auto out = std::make_shared<std::vector<SessionState>>();
  if (state_) out->push_back(std::move(*state_));
  if (origin_) out->push_back(std::move(*origin_));
  state_.reset();
  origin_.reset();
  return out;
}

Discarded Snapshot::take() {
  const std::lock_guard lock(mutex_);
  auto out = std::make_shared<std::vector<SessionState>>();
  if (state) out->push_back(std::move(*state));
  state.reset();
  return out;
}

std::pair<std::vector<float>, std::vector<std::int64_t>> Session::voice_preset() const {
  if (voice_columns_.empty()) {
    throw StreamError("[Session.voice_preset] no voice was fed as codes: call prompt(voice_codes=...) first.");
  }
  return {model_->engine().embed(voice_columns_), voice_ring_};
}

const TokenGrid& Session::grid() const {
  if (!state_) throw StreamError("[Session.grid] the session has no state yet: call prompt() first.");
  return state_->grid;
}

}  // namespace personaplex
