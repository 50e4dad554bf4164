// csrc/engine/engine.cpp: a frame in parts, for engines that have nothing better.
#include "engine/engine.h"

#include "core/stopwatch.h"

namespace personaplex {

namespace {

/// Tokens in place of what was not known yet.
std::vector<int> resolved(std::span<const int> cells, std::span<const int> known) {
  std::vector<int> out(cells.begin(), cells.end());
  for (int& cell : out) {
    if (is_later(cell)) cell = known[static_cast<std::size_t>(index_of_later(cell))];
  }
  return out;
}

}  // namespace

FrameOutput Engine::frame(EngineState& state, std::span<const float> pcm, const FrameInput& input,
                          std::span<const int> codes, const SamplingOptions& sampling, Probe* probe,
                          StepTiming* timing) {
  FrameOutput out;
  Stopwatch stopwatch;
  out.user = encode(state, pcm);
  if (timing != nullptr) timing->encode_ms = stopwatch.ms();
  FrameInput known = input;
  known.target = resolved(input.target, out.user);
  out.tokens = step(state, known, sampling, probe, timing);
  stopwatch = {};
  out.audio = decode(state, resolved(codes, out.tokens));
  if (timing != nullptr) timing->decode_ms = stopwatch.ms();
  return out;
}

}  // namespace personaplex
