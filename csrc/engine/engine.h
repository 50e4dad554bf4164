// csrc/engine/engine.h: what a session asks of an implementation of the model; csrc/graph and csrc/model are the two.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/safetensors.h"

namespace personaplex {

/// Columns that go through the temporal transformer in one pass at most.
inline constexpr int kMaxColumns = 32;

/// Positions stay below this, also in a snapshot: 2700 years, and far from where sums of them would overflow.
inline constexpr std::int64_t kMaxPosition = std::int64_t{1} << 40;

/// How one stream's tokens are drawn. temperature 0 means greedy (argmax, ties to the lowest index).
struct Sampling {
  float temperature = 0.8F;
  int top_k = 250;  // <= 0 or >= card: no limit
  bool greedy() const { return temperature <= 0.0F; }
};

struct SamplingOptions {
  Sampling text{0.7F, 25};
  Sampling audio{0.8F, 250};
};

/// The mutable half of one conversation on the device: KV rings, codec buffers. A value: a clone is as
/// good as a deep copy; memory that it shares is copied before anybody writes to it.
struct EngineState {
  virtual ~EngineState() = default;
  virtual std::unique_ptr<EngineState> clone() const = 0;
  /// Every buffer by name, filled positions only.
  virtual std::vector<NamedTensor> save() const = 0;
  /// Replaces everything by what save() gave; WeightsError for anything else. Only for a state that has encoded and
  /// decoded a frame: its buffers show the shapes that fit. After an error the state is of no use.
  virtual void load(const std::map<std::string, TensorView>& tensors) = 0;
  virtual std::int64_t position() const = 0;  // temporal positions so far
  virtual std::size_t nbytes() const = 0;     // of all buffers, shared or not
};

/// What the language model draws in one frame, [1 + depformer steps]: text, then the audio rows. Forced cells come back
/// unchanged.
using FrameTokens = std::vector<int>;

/// In place of a token that only the frame itself brings forth: the index-th of what it hears or draws, see
/// Engine::frame(). Below everything else that a cell can hold.
constexpr int later(int index) { return -16 - index; }
constexpr bool is_later(int cell) { return cell <= later(0); }
constexpr int index_of_later(int cell) { return -16 - cell; }

/// One frame's question to the language model.
struct FrameInput {
  std::vector<int> column;           // [rows] tokens to embed; -1 contributes zero
  std::vector<int> target;           // [rows] the cells being predicted
  std::vector<std::uint8_t> forced;  // [rows] 1 where target is given and must be kept
  std::uint64_t seed = 0;            // Philox key
  std::uint64_t frame = 0;           // Philox counter, high half: index of the step call
};

/// Where the time of one frame went, in milliseconds.
struct StepTiming {
  double encode_ms = 0;    // Mimi's; 0 where codes came in
  double temporal_ms = 0;  // embedding, temporal transformer, text head, the text token
  double depformer_ms = 0;
  double decode_ms = 0;  // Mimi's; 0 where no audio went out
};

/// What a whole frame gives.
struct FrameOutput {
  std::vector<int> user;     // [Q] what was heard
  FrameTokens tokens;        // what was drawn
  std::vector<float> audio;  // [1920] what is said
};

/// Named float32 tensors for the tests ("hidden", "text_logits", "enc_seanet", ...).
using Probe = std::map<std::string, TensorView>;

/// Every call runs on the one thread that the model owns. States belong to the engine that made them.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const Config& config() const = 0;
  virtual int depformer_steps() const = 0;
  /// Operations dispatched so far; 0: not counted.
  virtual std::uint64_t calls() const { return 0; }
  virtual std::unique_ptr<EngineState> new_state() const = 0;

  // Language model.
  /// Appends columns of tokens [T][rows]: no sampling, no heads, no depformer. A caller that wants to stop between
  /// passes hands over at most kMaxColumns columns at a time.
  virtual void prefill_tokens(EngineState& state, std::span<const std::vector<int>> columns) = 0;
  /// The same for ready-made embeddings, [T, dim] float32.
  virtual void prefill_embeddings(EngineState& state, std::span<const float> embeddings) = 0;
  /// One frame: temporal step, text, depformer. `probe`, when given, receives hidden and logits; `timing`, when given,
  /// where the time went: an engine that evaluates lazily stops in between for it, and is a little slower.
  virtual FrameTokens step(EngineState& state, const FrameInput& input, const SamplingOptions& sampling,
                           Probe* probe = nullptr, StepTiming* timing = nullptr) = 0;
  /// Sum of the embeddings of each column, [T, dim] float32: what a voice preset stores.
  virtual std::vector<float> embed(std::span<const std::vector<int>> columns) = 0;

  // Codec. Encoder and decoder state are separate; reset_mimi clears both.
  virtual void reset_mimi(EngineState& state) = 0;
  virtual std::vector<int> encode(EngineState& state, std::span<const float> pcm,
                                  Probe* probe = nullptr) = 0;  // [1920] -> [Q]
  virtual std::vector<float> decode(EngineState& state, std::span<const int> codes,
                                    Probe* probe = nullptr) = 0;  // [Q] -> [1920]

  // Both.
  /// encode(), step() and decode() of one frame, as one list of work where a device has such a thing. Of input.target,
  /// later(k) is the user's code k that this frame hears; of `codes` [Q], to decode, later(r) is the token of row r
  /// that it draws. With `probe` (step()'s) or `timing`, part by part.
  virtual FrameOutput frame(EngineState& state, std::span<const float> pcm, const FrameInput& input,
                            std::span<const int> codes, const SamplingOptions& sampling, Probe* probe = nullptr,
                            StepTiming* timing = nullptr);

  // Teacher-forced parts, for tests/golden.
  /// tokens [S][rows], in chunks -> "embeddings" [S, D], "hidden" [S, D], "text_logits" [S, text_card]
  virtual Probe probe_temporal(std::span<const std::vector<int>> columns, int chunk) = 0;
  /// hidden [n, D], text [n], given [n][steps] -> "logits" [n, steps, card]
  virtual Probe probe_depformer(std::span<const float> hidden, std::span<const int> text,
                                std::span<const std::vector<int>> given) = 0;
};

}  // namespace personaplex
