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
  StepOutput out = begin();
  TokenGrid& grid = state_->grid;
  std::vector<int> user;  // [Q] codes of what is heard now: the frame itself will tell
  for (int k = 0; k < model_->config().codebooks(); ++k) user.push_back(later(k));
  grid.put(user, {}, text);  // the agent's text and codes stay open
  FrameOutput frame = model_->engine().frame(*state_->engine, pcm, question(), playable(grid.agent()), sampling,
                                             probing ? &probe_ : nullptr,
                                             timing ? &*out.timing : nullptr);  // encode, temporal, depformer, decode
  grid.hear(frame.user);
  grid.commit(frame.tokens);
  state_->position += 1;
  out.tokens = grid.output().value();  // delays undone; a prompt has come before
  out.audio = std::move(frame.audio);
  return guard.commit(std::move(out));
}

StepOutput Session::step_codes(std::span<const int> user, std::optional<int> text, bool decode) {
  check_step("Session.step_codes");
  StepGuard guard(*this);
  StepOutput out = begin();
  Engine& engine = model_->engine();
  TokenGrid& grid = state_->grid;
  grid.put(user, {}, text);
  grid.commit(
      engine.step(*state_->engine, question(), sampling, probing ? &probe_ : nullptr, timing ? &*out.timing : nullptr));
  state_->position += 1;
  out.tokens = grid.output().value();
  if (decode) {
    const Stopwatch stopwatch;
    const auto agent = out.tokens.begin() + 1;
    out.audio = engine.decode(*state_->engine, playable({agent, agent + model_->config().codebooks()}));
    if (timing) out.timing->decode_ms = stopwatch.ms();
  }
  return guard.commit(std::move(out));
}

StepOutput Session::begin() {
  probe_.clear();
  StepOutput out;
  if (timing) out.timing.emplace();
  return out;
}

FrameInput Session::question() const {
  const TokenGrid& grid = state_->grid;
  return {grid.column(), grid.target(), grid.forced(), seed, state_->frames};
}

std::vector<int> Session::playable(std::vector<int> codes) const {
  for (int& code : codes) {
    if (!is_later(code)) code = std::clamp(code, 0, model_->config().mimi.bins - 1);
  }
  return codes;
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
  auto state = snapshot.state->clone();  // both, before anything changes: there may not be memory for two
  auto origin = snapshot.state->clone();
  state_ = std::move(state);
  origin_ = std::move(origin);
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
