// tools/gpu/gpu_frame.cpp: the fused engine on a real GPU, with random weights: against the fused CPU engine, or its
// time.
//
//   gpu_frame CACHE_FOLDER NVRTC_FOLDER compare tiny [BITS]              largest distances of probes, codes and audio
//   gpu_frame CACHE_FOLDER NVRTC_FOLDER time 7b [BITS] [CONTEXT] [KV_BITS]  medians of a frame's parts
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/weights.h"
#include "gpu/cuda_queue.h"
#include "gpu/gpu_ops.h"
#include "gpu/kernel_source.h"
#include "model/fused_engine.h"
#include "ops/case_run.h"

using namespace personaplex;

namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point start) { return 1e3 * std::chrono::duration<double>(Clock::now() - start).count(); }

void compare(const char* what, const Probe& gpu, const Probe& cpu) {
  for (const auto& [name, t] : cpu) {
    const auto floats = [](const TensorView& v) {
      return std::span(reinterpret_cast<const float*>(v.data), static_cast<std::size_t>(v.size()));
    };
    std::printf("%s %s: off %.1e\n", what, name.c_str(), ops::distance(floats(gpu.at(name)), floats(t)));
  }
}

std::vector<std::vector<int>> random_columns(const Config& c, int count, std::mt19937& random) {
  std::vector<std::vector<int>> out;
  for (int t = 0; t < count; ++t) {
    std::vector<int> column(static_cast<std::size_t>(c.rows()));
    for (std::size_t i = 0; i < column.size(); ++i) {
      column[i] = static_cast<int>(random() % static_cast<unsigned>(i == 0 ? c.text_card : c.card));
    }
    out.push_back(std::move(column));
  }
  return out;
}

std::vector<float> noise(std::size_t n, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, 0.1F);
  std::vector<float> out(n);
  for (float& v : out) v = normal(random);
  return out;
}

void compare_engines(Engine& gpu, Engine& cpu) {
  const Config& c = gpu.config();
  std::mt19937 random(1);
  const auto columns = random_columns(c, 2 * c.context + 5, random);
  for (const int chunk : {1, 8, 32}) {
    std::printf("chunk %d: ", chunk);
    compare("temporal", gpu.probe_temporal(columns, chunk), cpu.probe_temporal(columns, chunk));
  }
  const auto hidden = noise(static_cast<std::size_t>(3 * c.dim), random);
  const std::vector<int> text = {1, 2, 3};
  std::vector<std::vector<int>> given(3, std::vector<int>(static_cast<std::size_t>(gpu.depformer_steps()), 5));
  compare("depformer", gpu.probe_depformer(hidden, text, given), cpu.probe_depformer(hidden, text, given));
  const auto a = gpu.new_state();
  const auto b = cpu.new_state();
  for (int frame = 0; frame < 5; ++frame) {
    const auto pcm = noise(static_cast<std::size_t>(c.mimi.frame_samples()), random);
    Probe ours, theirs;
    const auto codes = gpu.encode(*a, pcm, frame % 2 == 0 ? &ours : nullptr);
    const auto expected = cpu.encode(*b, pcm, frame % 2 == 0 ? &theirs : nullptr);
    std::printf("frame %d codes %s; ", frame, codes == expected ? "equal" : "DIFFER");
    if (frame % 2 == 0) compare("encode", ours, theirs);
    Probe out, wanted;
    const auto audio = gpu.decode(*a, expected, frame % 2 == 1 ? &out : nullptr);
    const auto reference = cpu.decode(*b, expected, frame % 2 == 1 ? &wanted : nullptr);
    std::printf("audio off %.1e\n", ops::distance(audio, reference));
    if (frame % 2 == 1) compare("decode", out, wanted);
    FrameInput input{columns[static_cast<std::size_t>(frame)],
                     std::vector<int>(static_cast<std::size_t>(1 + gpu.depformer_steps()), 3),
                     std::vector<std::uint8_t>(static_cast<std::size_t>(1 + gpu.depformer_steps()), 1), 1,
                     static_cast<std::uint64_t>(frame)};
    Probe one, two;
    gpu.step(*a, input, {}, &one, nullptr);
    cpu.step(*b, input, {}, &two, nullptr);
    compare("step", one, two);
  }
  // A whole frame as one list is its parts, bit for bit.
  const auto twin = a->clone();
  int equal = 0;
  for (std::uint64_t frame = 0; frame < 40; ++frame) {
    const auto pcm = noise(static_cast<std::size_t>(c.mimi.frame_samples()), random);
    const auto steps = static_cast<std::size_t>(1 + gpu.depformer_steps());
    const FrameInput input{columns[frame % 8], std::vector<int>(steps, 0), std::vector<std::uint8_t>(steps, 0), 1,
                           frame};
    const auto heard = gpu.encode(*a, pcm, nullptr);
    const FrameTokens tokens = gpu.step(*a, input, {}, nullptr, nullptr);
    std::vector<int> codes(tokens.begin() + 1, tokens.begin() + 1 + c.codebooks()), references;
    for (int k = 0; k < c.codebooks(); ++k) references.push_back(later(1 + k));
    const auto audio = gpu.decode(*a, codes, nullptr);
    const FrameOutput whole = gpu.frame(*twin, pcm, input, references, {});
    equal += whole.user == heard && whole.tokens == tokens && whole.audio == audio ? 1 : 0;
  }
  std::printf("whole frames equal to their parts: %d of 40\n", equal);
  const auto copy = a->clone();
  FrameInput input{columns[7], std::vector<int>(static_cast<std::size_t>(1 + gpu.depformer_steps()), 3),
                   std::vector<std::uint8_t>(static_cast<std::size_t>(1 + gpu.depformer_steps()), 0), 1, 9};
  std::printf(
      "a clone draws %s tokens\n",
      gpu.step(*a, input, {}, nullptr, nullptr) == gpu.step(*copy, input, {}, nullptr, nullptr) ? "the same" : "OTHER");
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

void time_engine(Engine& engine, int context) {
  const Config& c = engine.config();
  std::mt19937 random(1);
  const auto state = engine.new_state();
  const auto columns = random_columns(c, context, random);
  auto start = Clock::now();
  engine.prefill_tokens(*state, columns);
  std::printf("prefill of %d columns %.1f ms\n", context, ms_since(start));
  const auto pcm = noise(static_cast<std::size_t>(c.mimi.frame_samples()), random);
  std::vector<double> encode, step, decode, parts, temporal, depformer, whole;
  const auto steps = static_cast<std::size_t>(1 + engine.depformer_steps());
  for (int i = 0; i < 210; ++i) {
    FrameInput input{columns[static_cast<std::size_t>(i) % columns.size()], std::vector<int>(steps, 0),
                     std::vector<std::uint8_t>(steps, 0), 1, static_cast<std::uint64_t>(i)};
    start = Clock::now();
    engine.encode(*state, pcm, nullptr);
    const double after_encode = ms_since(start);
    const FrameTokens tokens = engine.step(*state, input, {}, nullptr, nullptr);
    const double after_step = ms_since(start);
    std::vector<int> codes(tokens.begin() + 1, tokens.begin() + 1 + c.codebooks());
    engine.decode(*state, codes, nullptr);
    const double all = ms_since(start);
    if (i < 10) continue;
    encode.push_back(after_encode);
    step.push_back(after_step - after_encode);
    decode.push_back(all - after_step);
    parts.push_back(all);
    std::vector<int> references;
    for (int k = 0; k < c.codebooks(); ++k) references.push_back(later(1 + k));
    start = Clock::now();
    engine.frame(*state, pcm, input, references, {});
    whole.push_back(ms_since(start));
    if (i % 4 == 0) {
      StepTiming timing;
      engine.step(*state, input, {}, nullptr, &timing);
      temporal.push_back(timing.temporal_ms);
      depformer.push_back(timing.depformer_ms);
    }
  }
  const std::uint64_t before = engine.calls();
  engine.encode(*state, pcm, nullptr);
  const std::uint64_t of_encode = engine.calls() - before;
  FrameInput input{columns[0], std::vector<int>(steps, 0), std::vector<std::uint8_t>(steps, 0), 1, 999};
  engine.step(*state, input, {}, nullptr, nullptr);
  const std::uint64_t of_step = engine.calls() - before - of_encode;
  engine.decode(*state, std::vector<int>(static_cast<std::size_t>(c.codebooks()), 1), nullptr);
  std::printf("dispatches: encode %llu, language model %llu, decode %llu\n", static_cast<unsigned long long>(of_encode),
              static_cast<unsigned long long>(of_step),
              static_cast<unsigned long long>(engine.calls() - before - of_encode - of_step));
  std::printf(
      "p50 ms: encode %.3f, language model %.3f (temporal %.3f + depformer %.3f apart), decode %.3f, together %.3f; as "
      "one list %.3f (fastest %.3f)\n",
      median(encode), median(step), median(temporal), median(depformer), median(decode), median(parts), median(whole),
      *std::min_element(whole.begin(), whole.end()));
  start = Clock::now();
  const auto copy = state->clone();
  std::printf("clone at %lld positions %.2f ms\n", static_cast<long long>(state->position()), ms_since(start));
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 5) {
    std::fprintf(stderr,
                 "usage: gpu_frame CACHE_FOLDER NVRTC_FOLDER compare|time tiny|7b [BITS] [CONTEXT] [KV_BITS]\n");
    return 2;
  }
  const int bits = count > 5 ? std::atoi(arguments[5]) : 4;
  const int context = count > 6 ? std::atoi(arguments[6]) : 250;
  const int kv_bits = count > 7 ? std::atoi(arguments[7]) : 16;
  LoadOptions load;
  load.temporal_bits = load.depformer_bits = bits;
  const Weights weights = random_weights(random_config(arguments[4]), 1, load);
  const auto make_gpu = [&](bool overlap) {
    const auto start = Clock::now();
    auto engine = make_fused_engine(
        weights,
        std::make_unique<gpu::GpuOps>(gpu::make_cuda_queue(
            {.nvrtc = arguments[2], .cache = arguments[1], .sources = gpu::cuda_sources(), .overlap = overlap})),
        kv_bits);
    std::printf("engine made in %.1f ms, kernels %s\n", ms_since(start),
                overlap ? "overlapping" : "one after the other");
    return engine;
  };
  if (std::strcmp(arguments[3], "compare") == 0) {
    compare_engines(*make_gpu(true), *make_fused_cpu_engine(weights, {.kv_bits = kv_bits}));
  } else {
    for (const bool overlap : {false, true}) time_engine(*make_gpu(overlap), context);
  }
  return 0;
}
