// csrc/graph/graph_engine.cpp: a frame of the language model as one MLX graph, and the codec around it.
#include "graph/graph_engine.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "core/error.h"
#include "core/philox.h"
#include "core/stopwatch.h"
#include "graph/arrays.h"
#include "graph/graph_state.h"
#include "graph/private_tmpdir.h"
#include "graph/sampling.h"

namespace personaplex::graph {

namespace {

// 16-bit weights are widened once when all of them together stay below this; larger models widen them in every call.
constexpr std::size_t kWidenLimit = std::size_t{1} << 30;

// Compiled frames that are kept: sessions with different sampling options take turns without compiling anew.
constexpr std::size_t kCompiledFrames = 4;

bool widen_once(const Weights& weights) {
  std::size_t bytes = 0;
  for_each_matrix(weights, [&](Component, const Matrix& m) {
    if (!m.quantized()) bytes += static_cast<std::size_t>(m.n) * static_cast<std::size_t>(m.k) * sizeof(float);
  });
  return bytes <= kWidenLimit;
}

// MLX's CPU backend compiles with this command, and quietly does not compile where it is missing.
bool on_path(const char* command) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access((folder + "/" + command).c_str(), X_OK) == 0) return true;
  }
  return false;
}

GraphState& graph(EngineState& state) { return static_cast<GraphState&>(state); }

// Columns as MLX wants them: ids [rows, T].
array column_ids(std::span<const std::vector<int>> columns, int begin, int count) {
  const auto rows = static_cast<int>(columns[0].size());
  std::vector<int> ids;
  for (int r = 0; r < rows; ++r) {
    for (int t = begin; t < begin + count; ++t) {
      ids.push_back(columns[static_cast<std::size_t>(t)][static_cast<std::size_t>(r)]);
    }
  }
  return from_host(ids, {rows, count});
}

void put(Probe* probe, const std::string& name, const array& a) {
  if (probe != nullptr) (*probe)[name] = to_host(op::astype(a, mx::float32));
}

// The output of one half of the codec, together with all that it keeps for the next frame.
void evaluate(const array& output, const CodecState& state, const Stages& stages, Probe* probe) {
  std::vector<array> wanted = {output};
  collect(state, wanted);
  mx::eval(std::move(wanted));
  for (const auto& [name, a] : stages) put(probe, name, a);
}

bool same(const Sampling& a, const Sampling& b) { return a.temperature == b.temperature && a.top_k == b.top_k; }

// Order of the inputs of a frame; the ring's k and then v of every layer follow.
enum FrameInputs { kIds, kCos, kSin, kMask, kSlot, kTarget, kForced, kTextNoise, kAudioNoise, kCaches };
// Order of its outputs; k and v follow likewise.
enum FrameOutputs { kText, kTokens, kHidden, kTextLogits, kAudioLogits, kCachesOut };

}  // namespace

GraphEngine::GraphEngine(const Weights& weights, const GraphOptions& options)
    : GraphEngine(weights, options, widen_once(weights)) {}

GraphEngine::GraphEngine(const Weights& weights, const GraphOptions& options, bool cast)
    : config_(weights.config),
      dtype_(options.dtype),
      on_cpu_(options.device == mx::Device::cpu),
      compile_(options.compile),
      temporal_(weights, options.dtype, cast),
      depformer_(weights, options.dtype, cast),
      mimi_encoder_(weights.mimi, weights.config.mimi),
      mimi_decoder_(weights.mimi, weights.config.mimi) {
  if (compile_ && on_cpu_ && !on_path("g++")) {
    compile_ = false;
    compile_note_ = "MLX needs g++ on the PATH to compile for its CPU backend; frames run uncompiled.";
  }
}

std::unique_ptr<EngineState> GraphEngine::new_state() const {
  return std::make_unique<GraphState>(temporal_.make_ring(), mimi_encoder_.new_state(), mimi_decoder_.new_state());
}

void GraphEngine::prefill(KvRing& ring, const std::function<array(int, int)>& columns, int total) {
  for (int done = 0; done < total;) {
    const int count = ring.fitting(std::min(kMaxColumns, total - done));
    const array x = columns(done, count);
    const Columns at = ring.begin(count);
    temporal_.forward(x, temporal_.rope(at), at.mask, at.slot, ring.k, ring.v);
    Arrays caches = ring.k;
    caches.insert(caches.end(), ring.v.begin(), ring.v.end());
    mx::eval(caches);
    done += count;
  }
}

void GraphEngine::prefill_tokens(EngineState& state, std::span<const std::vector<int>> columns) {
  prefill(
      graph(state).temporal, [&](int begin, int count) { return temporal_.embed(column_ids(columns, begin, count)); },
      static_cast<int>(columns.size()));
}

void GraphEngine::prefill_embeddings(EngineState& state, std::span<const float> embeddings) {
  const auto dim = static_cast<std::size_t>(config_.dim);
  prefill(
      graph(state).temporal,
      [&](int begin, int count) {
        const auto rows =
            embeddings.subspan(static_cast<std::size_t>(begin) * dim, static_cast<std::size_t>(count) * dim);
        return op::astype(from_host(rows, {count, config_.dim}), dtype_);
      },
      static_cast<int>(embeddings.size() / dim));
}

GraphEngine::Arrays GraphEngine::lm_frame(const Arrays& inputs, const SamplingOptions& sampling) const {
  const std::size_t layers = (inputs.size() - kCaches) / 2;
  const auto caches = inputs.begin() + kCaches;
  Arrays k(caches, caches + static_cast<std::ptrdiff_t>(layers));
  Arrays v(caches + static_cast<std::ptrdiff_t>(layers), inputs.end());
  const array& target = inputs[kTarget];
  const array& forced = inputs[kForced];
  const auto choose = [&](int row, const array& logits, const array& noise, const Sampling& how) {
    const array drawn = sample(logits, noise, how);
    return op::where(op::reshape(op::narrow(forced, 0, row, row + 1), {}),
                     op::reshape(op::narrow(target, 0, row, row + 1), {}), drawn);
  };

  const array x = temporal_.embed(inputs[kIds]);
  const array hidden = temporal_.forward(x, {inputs[kCos], inputs[kSin]}, inputs[kMask], inputs[kSlot], k, v);
  const array text_logits = op::reshape(temporal_.text_logits(hidden), {config_.text_card});
  const array text = choose(0, text_logits, inputs[kTextNoise], sampling.text);
  const Depformer::Result audio = depformer_.forward(hidden, text, [&](int step, const array& logits) {
    const array noise = sampling.audio.greedy()
                            ? inputs[kAudioNoise]
                            : op::reshape(op::narrow(inputs[kAudioNoise], 0, step, step + 1), {config_.card});
    return choose(step + 1, logits, noise, sampling.audio);
  });

  Arrays tokens = {text};
  tokens.insert(tokens.end(), audio.tokens.begin(), audio.tokens.end());
  Arrays outputs = {text, op::stack(tokens, 0), op::reshape(hidden, {config_.dim}), text_logits,
                    op::stack(audio.logits, 0)};
  outputs.insert(outputs.end(), k.begin(), k.end());
  outputs.insert(outputs.end(), v.begin(), v.end());
  return outputs;
}

GraphEngine::CompiledFrame& GraphEngine::compiled_frame(const SamplingOptions& sampling) {
  for (auto it = compiled_frames_.begin(); it != compiled_frames_.end(); ++it) {
    if (same(sampling.text, it->sampling.text) && same(sampling.audio, it->sampling.audio)) {
      compiled_frames_.splice(compiled_frames_.begin(), compiled_frames_, it);
      return compiled_frames_.front();
    }
  }
  const auto function = [this, sampling](const Arrays& inputs) { return lm_frame(inputs, sampling); };
  compiled_frames_.push_front({sampling, mx::compile(function), {}});
  if (compiled_frames_.size() > kCompiledFrames) compiled_frames_.pop_back();
  return compiled_frames_.front();
}

FrameTokens GraphEngine::step(EngineState& state, const FrameInput& input, const SamplingOptions& sampling,
                              Probe* probe, StepTiming* timing) {
  const Stopwatch stopwatch;
  KvRing& ring = graph(state).temporal;
  const auto rows = static_cast<int>(input.column.size());
  const int drawn = 1 + depformer_.steps();
  const Columns at = ring.begin(1);
  const Rope rope = temporal_.rope(at);

  const array unused(0.0F);
  std::vector<float> audio_noise;
  if (!sampling.audio.greedy()) {
    for (int k = 0; k < depformer_.steps(); ++k) {
      const std::size_t begin = audio_noise.size();
      audio_noise.resize(begin + static_cast<std::size_t>(config_.card));
      exponential_noise(input.seed, input.frame, static_cast<std::uint32_t>(k + 1), audio_noise.data() + begin,
                        config_.card);
    }
  }
  Arrays inputs = {from_host(input.column, {rows, 1}),
                   rope.cos,
                   rope.sin,
                   at.mask,
                   at.slot,
                   array(input.target.data(), {drawn}, mx::int32),
                   array(input.forced.data(), {drawn}, mx::bool_),
                   sampling.text.greedy() ? unused : noise_array(input.seed, input.frame, 0, config_.text_card),
                   sampling.audio.greedy() ? unused : from_host(audio_noise, {depformer_.steps(), config_.card})};
  // Moved, not copied: MLX then appends to the caches in place.
  const std::size_t layers = ring.k.size();
  for (auto* side : {&ring.k, &ring.v}) {
    for (array& cache : *side) inputs.push_back(std::move(cache));
    side->clear();
  }
  std::optional<PrivateTmpdir> tmpdir;  // until the frame is evaluated: that is when MLX builds
  CompiledFrame* compiled = compile_ ? &compiled_frame(sampling) : nullptr;
  if (compiled != nullptr && on_cpu_ && compiled->lengths.count(at.mask.shape(1)) == 0) {
    tmpdir.emplace();
    compiled->lengths.insert(at.mask.shape(1));
  }
  Arrays outputs = compiled != nullptr ? compiled->function(inputs) : lm_frame(inputs, sampling);
  inputs.clear();
  const auto caches = outputs.begin() + kCachesOut;
  ring.k.assign(caches, caches + static_cast<std::ptrdiff_t>(layers));
  ring.v.assign(caches + static_cast<std::ptrdiff_t>(layers), outputs.end());
  Arrays wanted = ring.k;
  wanted.insert(wanted.end(), ring.v.begin(), ring.v.end());
  outputs.resize(kCachesOut, array(0.0F));
  if (timing != nullptr) {
    wanted.push_back(outputs[kText]);
    wanted.push_back(outputs[kHidden]);
    mx::eval(std::move(wanted));
    wanted.clear();
    timing->temporal_ms = stopwatch.ms();
  }
  wanted.push_back(outputs[kTokens]);
  mx::eval(std::move(wanted));
  if (timing != nullptr) timing->depformer_ms = stopwatch.ms() - timing->temporal_ms;
  put(probe, "hidden", outputs[kHidden]);
  put(probe, "text_logits", outputs[kTextLogits]);
  put(probe, "audio_logits", outputs[kAudioLogits]);
  return to_ints(outputs[kTokens]);
}

std::vector<float> GraphEngine::embed(std::span<const std::vector<int>> columns) {
  if (columns.empty()) return {};
  return to_floats(temporal_.embed(column_ids(columns, 0, static_cast<int>(columns.size()))));
}

void GraphEngine::reset_mimi(EngineState& state) {
  graph(state).encoder = mimi_encoder_.new_state();
  graph(state).decoder = mimi_decoder_.new_state();
}

std::vector<int> GraphEngine::encode(EngineState& state, std::span<const float> pcm, Probe* probe) {
  CodecState& encoder = graph(state).encoder;
  Stages stages;
  const array codes =
      mimi_encoder_.step(from_host(pcm, {static_cast<int>(pcm.size())}), encoder, probe != nullptr ? &stages : nullptr);
  evaluate(codes, encoder, stages, probe);
  return to_ints(codes);
}

std::vector<float> GraphEngine::decode(EngineState& state, std::span<const int> codes, Probe* probe) {
  CodecState& decoder = graph(state).decoder;
  Stages stages;
  const array pcm = mimi_decoder_.step(from_host(codes, {static_cast<int>(codes.size())}), decoder,
                                       probe != nullptr ? &stages : nullptr);
  evaluate(pcm, decoder, stages, probe);
  return to_floats(pcm);
}

Probe GraphEngine::probe_temporal(std::span<const std::vector<int>> columns, int chunk) {
  KvRing ring = temporal_.make_ring();
  Arrays embeddings, hidden, logits;
  const auto total = static_cast<int>(columns.size());
  for (int done = 0; done < total;) {
    const int count = ring.fitting(std::min(chunk, total - done));
    embeddings.push_back(temporal_.embed(column_ids(columns, done, count)));
    const Columns at = ring.begin(count);
    hidden.push_back(temporal_.forward(embeddings.back(), temporal_.rope(at), at.mask, at.slot, ring.k, ring.v));
    logits.push_back(temporal_.text_logits(hidden.back()));
    mx::eval(hidden.back(), logits.back());
    done += count;
  }
  Probe probe;
  put(&probe, "embeddings", op::concatenate(embeddings, 0));
  put(&probe, "hidden", op::concatenate(hidden, 0));
  put(&probe, "text_logits", op::concatenate(logits, 0));
  return probe;
}

Probe GraphEngine::probe_depformer(std::span<const float> hidden, std::span<const int> text,
                                   std::span<const std::vector<int>> given) {
  const auto dim = static_cast<std::size_t>(config_.dim);
  Arrays rows;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const array h = op::astype(from_host(hidden.subspan(i * dim, dim), {1, config_.dim}), dtype_);
    const Depformer::Result result = depformer_.forward(
        h, array(text[i]), [&](int step, const array&) { return array(given[i][static_cast<std::size_t>(step)]); });
    rows.push_back(op::stack(result.logits, 0));
  }
  Probe probe;
  put(&probe, "logits", op::stack(rows, 0));
  return probe;
}

}  // namespace personaplex::graph
