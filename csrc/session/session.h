// csrc/session/session.h: one conversation: prompt, then frame in, frame out.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "session/model.h"
#include "session/token_grid.h"

namespace personaplex {

/// Everything a conversation has, as a value: clone() is as good as a deep copy.
struct SessionState {
  std::unique_ptr<EngineState> engine;
  TokenGrid grid;
  std::uint64_t frames = 0;   // step calls since the prompt; the Philox frame counter
  std::int64_t position = 0;  // temporal positions so far

  SessionState clone() const { return {engine->clone(), grid, frames, position}; }
};

/// States to be freed, on the model's thread.
using Discarded = std::shared_ptr<std::vector<SessionState>>;

/// A state that nobody changes any more.
struct Snapshot : Resident {
  std::shared_ptr<Model> model;
  std::optional<SessionState> state;
  std::size_t nbytes = 0;  // of the engine's buffers
  void drop() override { take(); }
  /// Moves the state out.
  Discarded take();

 private:
  std::mutex mutex_;  // drop() and take() may come from different threads
};

/// What the agent does before it hears anything: voice, silence, text, silence.
struct Prompt {
  std::vector<float> voice_embeddings;         // [V, dim]: replayed, with the ring below
  std::vector<std::int64_t> voice_cache;       // [rows, depth]
  std::vector<std::vector<int>> voice_frames;  // frames x [Q]: fed as the agent's codes instead
  std::vector<int> text;                       // one token a frame
  int chunk = kMaxColumns;                     // columns a prefill pass, 1..32

  /// Frames that this puts into the grid; V embeddings stand for V + 1.
  std::size_t frames(const Config& config) const;
};

/// Shared with the waiting thread while a prompt runs.
struct PromptProgress {
  std::atomic<bool> cancel{false};
  std::atomic<int> done{0}, total{0};  // columns
};

struct StepOutput {
  std::vector<float> audio;  // [frame_samples] 24 kHz; the frame before the user's newest (output lags by one)
  std::vector<int> tokens;   // [rows] text, agent codes, user codes of that frame
  std::uint64_t index = 0;   // 0 for the first step after the prompt
  double step_ms = 0;
  std::optional<StepTiming> timing;  // its parts, while Session::timing is set
};

/// Methods run on the model's thread; the bindings see to it, and to one caller at a time.
class Session : public Resident {
 public:
  Session(std::shared_ptr<Model> model, const SamplingOptions& sampling, std::uint64_t seed);

  void prompt(const Prompt& prompt, PromptProgress& progress);
  /// pcm [frame_samples] float32 of the user; `text` forces the agent's text token of this frame.
  StepOutput step(std::span<const float> pcm, std::optional<int> text);
  /// The same with the user's codes [Q] instead of audio.
  StepOutput step_codes(std::span<const int> user, std::optional<int> text, bool decode);

  void reset();  // back to the moment after the prompt
  std::shared_ptr<Session> clone() const;
  std::shared_ptr<Snapshot> snapshot() const;
  void restore(const Snapshot& snapshot);
  void drop() override { take(); }
  /// Moves all states out; the session is of no use afterwards.
  Discarded take();

  /// (embeddings [V, dim], ring [rows, depth]) of a prompt whose voice was fed as codes.
  std::pair<std::vector<float>, std::vector<std::int64_t>> voice_preset() const;

  /// Throws what step() would throw now, before any state moves. Any thread.
  void check_step(const char* where) const;
  void check_pcm(std::span<const float> pcm) const;
  void check_codes(std::span<const int> codes) const;
  void check_text(std::optional<int> text) const;
  void check_prompt(const Prompt& prompt) const;

  bool ready() const { return ready_; }
  bool poisoned() const { return poisoned_; }
  std::uint64_t frames() const { return state_ ? state_->frames : 0; }
  std::int64_t position() const { return state_ ? state_->position : 0; }
  const TokenGrid& grid() const;
  const Probe& probe() const { return probe_; }
  const std::shared_ptr<Model>& model() const { return model_; }

  SamplingOptions sampling;
  std::uint64_t seed;
  bool probing = false;
  bool timing = false;  // a frame then goes through the device part by part, and is a little slower

 private:
  class StepGuard;
  /// The question of the frame that was put last.
  FrameInput question() const;
  /// The agent's cells [Q] as codes of the codec: start tokens are none, whatever is drawn later is one.
  std::vector<int> playable(std::vector<int> codes) const;
  StepOutput begin();

  std::shared_ptr<Model> model_;
  std::optional<SessionState> state_;
  std::optional<SessionState> origin_;           // the state after the prompt
  std::vector<std::vector<int>> voice_columns_;  // what a voice preset of this prompt would embed
  std::vector<std::int64_t> voice_ring_;
  Probe probe_;
  std::atomic<bool> ready_{false}, poisoned_{false};
  std::mutex mutex_;  // drop() and take() may come from different threads
};

/// std::invalid_argument, naming `where`, unless a prefill pass may have this many columns.
void check_chunk(const char* where, int chunk);
/// std::invalid_argument, naming `where` and the first bad sample.
void check_finite(const char* where, std::span<const float> pcm);
/// Sampling options must be finite and not negative.
void check_sampling(const SamplingOptions& sampling);

/// A snapshot file is a safetensors file that is only read back under the same key.
void save_snapshot(const Snapshot& snapshot, const std::string& path, const std::string& key);
std::shared_ptr<Snapshot> load_snapshot(const std::shared_ptr<Model>& model, const std::string& path,
                                        const std::string& key);

}  // namespace personaplex
