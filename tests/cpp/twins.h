// tests/cpp/twins.h: one model on the fused and on the graph engine, and what both are fed in the tests.
#pragma once

#include <doctest/doctest.h>
#include <mlx/mlx.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "checkpoint/weights.h"
#include "cpu/cpu_ops.h"
#include "graph/graph_engine.h"
#include "model/fused_engine.h"

namespace personaplex {

/// Sizes that no kernel likes: heads of 6 and 10 values, K not a multiple of a block, N not of 8, a short context.
inline Config odd_config() {
  Config config = random_config("tiny");
  config.dim = 60;
  config.num_heads = 10;
  config.num_layers = 2;
  config.card = 37;
  config.text_card = 53;
  config.context = 11;
  config.depformer_dim = 20;
  config.depformer_num_heads = 2;
  config.depformer_dim_feedforward = 45;
  for (int& code : config.silence_codes) code %= config.card;
  for (int& code : config.sine_codes) code %= config.card;
  config.mimi.dimension = 20;
  config.mimi.n_filters = 6;
  config.mimi.quantizer_dimension = 10;
  config.mimi.bins = 37;
  config.mimi.num_heads = 2;
  config.mimi.dim_feedforward = 44;
  config.mimi.context = 6;
  config.mimi.n_residual_layers = 2;  // so that one of them is dilated
  config.mimi.ratios = {5, 3};
  return config;
}

/// Sizes that divide by a group of 32, so that everything can be quantized, but by nothing more.
inline Config grouped_config() {
  Config config = random_config("tiny");
  config.dim = 96;
  config.num_heads = 3;
  config.num_layers = 2;
  config.context = 9;
  config.hidden_scale = 3.0;  // ffn 192
  config.depformer_dim = 32;
  config.depformer_num_heads = 1;
  config.depformer_dim_feedforward = 144;  // ffn 96
  return config;
}

inline double relative_error(const TensorView& a, const TensorView& b) {
  REQUIRE(a.shape == b.shape);
  const auto* x = reinterpret_cast<const float*>(a.data);
  const auto* y = reinterpret_cast<const float*>(b.data);
  double difference = 0;
  double size = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    difference += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
    size += static_cast<double>(y[i]) * y[i];
  }
  return std::sqrt(difference / std::max(size, 1e-30));
}

inline std::vector<std::vector<int>> random_columns(const Config& config, int count, std::mt19937& random) {
  std::vector<std::vector<int>> columns;
  for (int t = 0; t < count; ++t) {
    std::vector<int> column = {static_cast<int>(random() % static_cast<unsigned>(config.text_card + 1))};
    for (int r = 0; r < config.n_q; ++r) {
      // -1 adds nothing
      column.push_back(static_cast<int>(random() % static_cast<unsigned>(config.card + 2)) - 1);
    }
    columns.push_back(std::move(column));
  }
  return columns;
}

struct Twins {
  std::unique_ptr<graph::GraphEngine> graph;
  std::unique_ptr<Engine> fused;
};

inline Twins make_twins(const Config& config, int bits, cpu::Isa isa, int threads, int kv_bits = 16) {
  graph::use_device(mlx::core::Device::cpu);
  LoadOptions options;
  options.temporal_bits = options.depformer_bits = options.head_bits = options.embedding_bits = bits;
  options.depformer_steps = config.dep_q;
  const Weights weights = random_weights(config, 5, options);
  REQUIRE(fused_obstacle(weights).empty());
  LoadOptions exact = options;
  exact.dequantize = bits < 16;
  Twins twins;
  twins.graph = std::make_unique<graph::GraphEngine>(random_weights(config, 5, exact), graph::GraphOptions{});
  twins.fused = make_fused_engine(weights, std::make_unique<cpu::CpuOps>(isa, threads), kv_bits);
  return twins;
}

inline FrameInput forced_input(const Config& config, int steps, std::uint64_t frame, std::mt19937& random) {
  FrameInput input;
  input.column = random_columns(config, 1, random)[0];
  const auto ids = static_cast<unsigned>(std::min(config.card, config.text_card));
  for (int i = 0; i <= steps; ++i) input.target.push_back(static_cast<int>(random() % ids));
  input.forced.assign(static_cast<std::size_t>(steps) + 1, 1);
  input.seed = 3;
  input.frame = frame;
  return input;
}

inline std::vector<float> noise(const Config& config, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> pcm(static_cast<std::size_t>(config.mimi.frame_samples()));
  for (float& x : pcm) x = 0.1F * normal(random);
  return pcm;
}

// The reference's own bfloat16 noise is 0.009. Kernels that round only what lies in the ring must be far below.
inline double tolerance(cpu::Isa isa, int kv_bits) {
  const bool rounds = isa == cpu::Isa::kAvx512Bf16 || isa == cpu::Isa::kAvx512Vnni;
  return rounds || kv_bits == 8 ? 1.5 * 0.009 : 3e-3;
}

/// After a prompt of `prompt` columns, `steps` steps of both engines whose tokens are all given: hidden states and
/// logits within `limit`, tokens as given.
inline void check_forced_steps(const Twins& twins, int prompt, int steps, double limit, std::mt19937& random) {
  const Config& config = twins.graph->config();
  const auto columns = random_columns(config, prompt, random);
  const auto graph_state = twins.graph->new_state();
  const auto fused_state = twins.fused->new_state();
  twins.graph->prefill_tokens(*graph_state, columns);
  twins.fused->prefill_tokens(*fused_state, columns);
  for (int i = 0; i < steps; ++i) {
    CAPTURE(i);
    const FrameInput input =
        forced_input(config, twins.fused->depformer_steps(), static_cast<std::uint64_t>(i), random);
    Probe want, got;
    CHECK(twins.graph->step(*graph_state, input, SamplingOptions{}, &want, nullptr) == input.target);
    CHECK(twins.fused->step(*fused_state, input, SamplingOptions{}, &got, nullptr) == input.target);
    for (const char* name : {"hidden", "text_logits", "audio_logits"}) {
      CAPTURE(std::string(name));
      CHECK(relative_error(got.at(name), want.at(name)) < limit);
    }
  }
  CHECK(fused_state->position() == prompt + steps);
}

/// `frames` frames of noise through both codecs, which forget everything at the sixth: every stage within 2e-3.
inline void check_mimi(const Twins& twins, int frames, std::mt19937& random) {
  const auto graph_state = twins.graph->new_state();
  const auto fused_state = twins.fused->new_state();
  const auto check = [](const Probe& got, const Probe& want) {
    CHECK(got.size() == want.size());
    for (const auto& [name, tensor] : want) {
      CAPTURE(std::string(name));
      CHECK(relative_error(got.at(name), tensor) < 2e-3);
    }
  };
  for (int frame = 0; frame < frames; ++frame) {
    CAPTURE(frame);
    if (frame == 5) {
      twins.graph->reset_mimi(*graph_state);
      twins.fused->reset_mimi(*fused_state);
    }
    const auto pcm = noise(twins.graph->config(), random);
    Probe want, got;
    const auto codes = twins.graph->encode(*graph_state, pcm, &want);
    twins.fused->encode(*fused_state, pcm, &got);
    check(got, want);
    Probe want_out, got_out;
    const auto a = twins.fused->decode(*fused_state, codes, &got_out);
    const auto b = twins.graph->decode(*graph_state, codes, &want_out);
    check(got_out, want_out);
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
      difference += (a[i] - b[i]) * (a[i] - b[i]);
      size += b[i] * b[i];
    }
    CHECK(std::sqrt(difference / size) < 2e-3);
  }
}

}  // namespace personaplex
