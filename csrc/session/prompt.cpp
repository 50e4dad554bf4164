// csrc/session/prompt.cpp: what the agent is given before it hears anything: voice, silence, text, silence.
//
// Every cell of these frames is forced, so nothing is sampled and no head runs: the columns go through the temporal
// transformer in chunks, and the state afterwards depends on nothing but the prompt.
#include <algorithm>

#include "core/error.h"
#include "session/session.h"

namespace personaplex {

namespace {

// Collects the columns that a run of forced frames reads, and puts them through in chunks.
class Prefill {
 public:
  Prefill(Engine& engine, SessionState& state, PromptProgress& progress, int chunk)
      : engine_(engine), state_(state), progress_(progress), chunk_(static_cast<std::size_t>(chunk)) {}

  void frame(std::span<const int> user, std::span<const int> agent, int text) {
    state_.grid.put(user, agent, text);
    if (!state_.grid.readable()) return;
    if (!state_.grid.all_forced()) throw StreamError("[Session.prompt] a prompt frame leaves cells open.");
    columns_.push_back(state_.grid.column());
    state_.grid.commit({});
    if (columns_.size() == chunk_) flush();
  }

  void flush() {
    if (columns_.empty()) return;
    check_cancel();
    engine_.prefill_tokens(*state_.engine, columns_);
    count(columns_.size());
    columns_.clear();
  }

  void embeddings(std::span<const float> rows, std::size_t dim) {
    for (std::size_t done = 0; done < rows.size(); done += chunk_ * dim) {
      check_cancel();
      const auto part = rows.subspan(done, std::min(chunk_ * dim, rows.size() - done));
      engine_.prefill_embeddings(*state_.engine, part);
      count(part.size() / dim);
    }
  }

 private:
  void check_cancel() const {
    if (progress_.cancel) throw Cancelled("[Session.prompt] cancelled.");
  }
  void count(std::size_t columns) {
    state_.position += static_cast<std::int64_t>(columns);
    progress_.done += static_cast<int>(columns);
  }

  Engine& engine_;
  SessionState& state_;
  PromptProgress& progress_;
  std::size_t chunk_;
  std::vector<std::vector<int>> columns_;
};

}  // namespace

std::size_t Prompt::frames(const Config& config) const {
  const auto replayed = voice_embeddings.size() / static_cast<std::size_t>(config.dim);
  return (replayed > 0 ? replayed + 1 : voice_frames.size()) + 2 * static_cast<std::size_t>(config.spacer_frames) +
         text.size();
}

void Session::prompt(const Prompt& prompt, PromptProgress& progress) {
  Engine& engine = model_->engine();
  const Config& config = model_->config();
  const auto dim = static_cast<std::size_t>(config.dim);
  ready_ = false;
  poisoned_ = false;
  origin_.reset();
  voice_columns_.clear();
  voice_ring_.clear();
  state_.reset();

  SessionState state{engine.new_state(), TokenGrid(config), 0, 0};
  Prefill prefill(engine, state, progress, prompt.chunk);
  const auto replayed = prompt.voice_embeddings.size() / dim;
  const auto spacer = static_cast<std::size_t>(config.spacer_frames);
  progress.total = static_cast<int>(prompt.frames(config)) - 1;  // the first frame is never read

  // Voice: a preset's embeddings stand for V + 1 frames, whose tokens are only known from its ring.
  if (replayed > 0) {
    const std::vector<int> nothing(static_cast<std::size_t>(config.codebooks()), config.card);
    for (std::size_t i = 0; i <= replayed; ++i) {
      state.grid.put(nothing, nothing, config.text_padding_id);
      if (i > 0) state.grid.commit({});
    }
    prefill.embeddings(prompt.voice_embeddings, dim);
    state.grid.load_ring(prompt.voice_cache);
  }
  std::vector<std::vector<int>> voice_columns;
  for (const auto& codes : prompt.voice_frames) {
    prefill.frame(config.sine_codes, codes, config.text_padding_id);
    if (state.grid.readable()) voice_columns.push_back(state.grid.column());
  }
  std::vector<std::int64_t> voice_ring(state.grid.ring().begin(), state.grid.ring().end());

  const auto say = [&](int text) { prefill.frame(config.sine_codes, config.silence_codes, text); };
  for (std::size_t i = 0; i < spacer; ++i) say(config.text_padding_id);
  for (const int token : prompt.text) say(token);
  for (std::size_t i = 0; i < spacer; ++i) say(config.text_padding_id);
  prefill.flush();

  engine.reset_mimi(*state.engine);
  state_ = std::move(state);
  origin_ = state_->clone();
  voice_columns_ = std::move(voice_columns);
  voice_ring_ = std::move(voice_ring);
  ready_ = true;
}

}  // namespace personaplex
