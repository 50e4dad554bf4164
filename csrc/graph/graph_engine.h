// csrc/graph/graph_engine.h: the Engine made of plain MLX operations: the specification, and the baseline.
#pragma once

#include <list>
#include <memory>
#include <set>
#include <string>

#include "checkpoint/weights.h"
#include "engine/engine.h"
#include "graph/depformer.h"
#include "graph/mimi.h"
#include "graph/temporal.h"

namespace personaplex::graph {

struct GraphOptions {
  mx::Device device = mx::Device::cpu;
  mx::Dtype dtype = mx::float32;  // of the language model's activations; Mimi is always float32
  bool compile = false;           // mx::compile of the language model's frame
};

class GraphEngine : public Engine {
 public:
  /// Must be built, used and destroyed on one thread. `weights` may go afterwards: what is needed is kept alive.
  GraphEngine(const Weights& weights, const GraphOptions& options);

  const Config& config() const override { return config_; }
  int depformer_steps() const override { return depformer_.steps(); }
  /// Empty when frames are compiled, else why they are not.
  const std::string& compile_note() const { return compile_note_; }
  bool compiled() const { return compile_; }

  std::unique_ptr<EngineState> new_state() const override;
  void prefill_tokens(EngineState& state, std::span<const std::vector<int>> columns) override;
  void prefill_embeddings(EngineState& state, std::span<const float> embeddings) override;
  FrameTokens step(EngineState& state, const FrameInput& input, const SamplingOptions& sampling, Probe* probe,
                   StepTiming* timing) override;
  std::vector<float> embed(std::span<const std::vector<int>> columns) override;
  void reset_mimi(EngineState& state) override;
  std::vector<int> encode(EngineState& state, std::span<const float> pcm, Probe* probe) override;
  std::vector<float> decode(EngineState& state, std::span<const int> codes, Probe* probe) override;
  Probe probe_temporal(std::span<const std::vector<int>> columns, int chunk) override;
  Probe probe_depformer(std::span<const float> hidden, std::span<const int> text,
                        std::span<const std::vector<int>> given) override;

 private:
  GraphEngine(const Weights& weights, const GraphOptions& options, bool cast);

  using Arrays = std::vector<array>;
  using FrameFunction = std::function<Arrays(const Arrays&)>;

  /// The language model's frame as a pure function, see FrameInputs in the .cpp for the order.
  Arrays lm_frame(const Arrays& inputs, const SamplingOptions& sampling) const;
  /// A frame function compiled for these sampling options, and the ring lengths that it has been traced for.
  struct CompiledFrame {
    SamplingOptions sampling;
    FrameFunction function;
    std::set<int> lengths;
  };
  CompiledFrame& compiled_frame(const SamplingOptions& sampling);
  void prefill(KvRing& ring, const std::function<array(int begin, int count)>& columns, int total);

  Config config_;
  mx::Dtype dtype_;
  bool on_cpu_;
  bool compile_;
  std::string compile_note_;
  Temporal temporal_;
  Depformer depformer_;
  MimiEncoder mimi_encoder_;
  MimiDecoder mimi_decoder_;
  std::list<CompiledFrame> compiled_frames_;  // newest first, at most kCompiledFrames
};

}  // namespace personaplex::graph
