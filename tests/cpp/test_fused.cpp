// tests/cpp/test_fused.cpp: the fused engine on a CPU against the graph engine, for odd sizes, formats, instruction
// sets.
#include <doctest/doctest.h>
#include <mlx/mlx.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "core/error.h"
#include "graph/layers.h"
#include "graph/temporal.h"
#include "model/kv_rings.h"
#include "twins.h"

using namespace personaplex;
using mlx::core::array;

namespace {

/// Calls check(config, twins, tolerance, random) for every format of weights and of keys and values, and every
/// instruction set.
template <typename Check>
void for_all_twins(unsigned seed, Check check) {
  for (const Config& config : {odd_config(), grouped_config()}) {
    for (const int bits : {16, 8, 4}) {
      if (bits < 16 && config.dim % 32 != 0) continue;
      for (const cpu::Isa isa : cpu::supported_isas()) {
        for (const int kv_bits : {16, 8}) {
          CAPTURE(bits);
          CAPTURE(std::string(cpu::name_of(isa)));
          CAPTURE(kv_bits);
          std::mt19937 random(seed);
          check(config, make_twins(config, bits, isa, 2, kv_bits), tolerance(isa, kv_bits), random);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("temporal and depformer equal the graph engine's, in any chunk, past the ring's end") {
  for_all_twins(1, [](const Config& config, const Twins& twins, double allowed, std::mt19937& random) {
    const auto columns = random_columns(config, 47, random);
    for (const int chunk : {1, 3, 8, 19, 32}) {
      const Probe want = twins.graph->probe_temporal(columns, chunk);
      const Probe got = twins.fused->probe_temporal(columns, chunk);
      CHECK(relative_error(got.at("embeddings"), want.at("embeddings")) < 1e-6);
      CHECK(relative_error(got.at("hidden"), want.at("hidden")) < allowed);
      CHECK(relative_error(got.at("text_logits"), want.at("text_logits")) < allowed);
    }
    const TensorView hidden = twins.graph->probe_temporal(columns, kMaxColumns).at("hidden");
    const std::vector<int> text = {1, 2, 3};
    const std::vector<std::vector<int>> given(3, std::vector<int>(16, 7));
    const std::span<const float> rows(reinterpret_cast<const float*>(hidden.data),
                                      3 * static_cast<std::size_t>(config.dim));
    CHECK(relative_error(twins.fused->probe_depformer(rows, text, given).at("logits"),
                         twins.graph->probe_depformer(rows, text, given).at("logits")) < allowed);
  });
}

TEST_CASE("steps with forced tokens equal the graph engine's, from a prompt on past the ring's end") {
  for_all_twins(8, [](const Config& config, const Twins& twins, double allowed, std::mt19937& random) {
    check_forced_steps(twins, RingShape{.context = config.context}.slots() - 4, 9, allowed, random);
  });
}

TEST_CASE("tokens past two wraps of the ring equal those of a full table with an explicit mask") {
  const Config config = grouped_config();  // context 9
  const int total = 3 * RingShape{.context = config.context}.slots() + 5;
  const Twins twins = make_twins(config, 16, cpu::chosen_isa(), 2);
  LoadOptions options;
  options.depformer_steps = config.n_q;
  const graph::Temporal temporal(random_weights(config, 5, options), mlx::core::float32, true);
  std::mt19937 random(6);
  const auto columns = random_columns(config, total, random);

  // Every position has a row of its own; position p sees the last context - 1 of them.
  std::vector<array> k, v;
  for (int i = 0; i < config.num_layers; ++i) {
    const mlx::core::Shape shape = {1, config.num_heads, total, config.head_dim()};
    k.push_back(mlx::core::zeros(shape));
    v.push_back(mlx::core::zeros(shape));
  }
  const Probe got = twins.fused->probe_temporal(columns, kMaxColumns);
  const auto* fused_logits = reinterpret_cast<const float*>(got.at("text_logits").data);
  int clear = 0;
  for (int p = 0; p < total; ++p) {
    std::vector<std::uint8_t> visible(static_cast<std::size_t>(total));
    for (int i = std::max(0, p - (config.context - 1) + 1); i <= p; ++i) visible[static_cast<std::size_t>(i)] = 1;
    const array ids(columns[static_cast<std::size_t>(p)].data(), {config.rows(), 1}, mlx::core::int32);
    const array hidden =
        temporal.forward(temporal.embed(ids), graph::rope_table(p, 1, config.head_dim(), config.max_period),
                         array(visible.data(), {1, total}, mlx::core::bool_), array(&p, {1}, mlx::core::int32), k, v);
    array logits = mlx::core::contiguous(temporal.text_logits(hidden));
    mlx::core::eval(logits);
    const float* want = logits.data<float>();
    const float* have = fused_logits + static_cast<std::ptrdiff_t>(p) * config.text_card;
    const auto best = std::max_element(want, want + config.text_card) - want;
    double square = 0;
    float second = -1e30F;
    for (int i = 0; i < config.text_card; ++i) {
      square += static_cast<double>(want[i]) * want[i];
      if (i != best) second = std::max(second, want[i]);
    }
    if (want[best] - second <= 4 * 0.009 * std::sqrt(square / config.text_card)) continue;
    ++clear;
    CHECK(std::max_element(have, have + config.text_card) - have == best);
  }
  CHECK(clear > total / 2);
}

TEST_CASE("Mimi equals the graph engine's, past the end of its window") {
  for (const Config& config : {odd_config(), random_config("tiny")}) {
    for (const cpu::Isa isa : cpu::supported_isas()) {
      CAPTURE(std::string(cpu::name_of(isa)));
      std::mt19937 random(2);
      const Twins twins = make_twins(config, 16, isa, 2);
      check_mimi(twins, 9, random);
    }
  }
}

TEST_CASE("a frame is the same on one thread and on several, alone and from a clone or a snapshot") {
  const Config config = grouped_config();
  const SamplingOptions sampling;
  std::vector<FrameTokens> first;
  std::vector<float> first_pcm;
  for (const int threads : {1, 2, 3}) {
    std::mt19937 random(4);
    const Twins twins = make_twins(config, 4, cpu::chosen_isa(), threads);
    Engine& engine = *twins.fused;
    auto state = engine.new_state();
    engine.prefill_tokens(*state, random_columns(config, 21, random));
    std::vector<FrameTokens> tokens;
    std::vector<float> pcm;
    for (std::uint64_t frame = 0; frame < 12; ++frame) {
      FrameInput input = forced_input(config, engine.depformer_steps(), frame, random);
      input.forced.assign(input.forced.size(), 0);
      const auto codes = engine.encode(*state, noise(config, random));
      const auto copy = state->clone();
      const auto loaded = engine.new_state();
      std::map<std::string, TensorView> tensors;
      for (const NamedTensor& t : state->save()) tensors[t.name] = t.tensor;
      loaded->load(tensors);
      CHECK(state->nbytes() == loaded->nbytes());
      tokens.push_back(engine.step(*state, input, sampling));
      CHECK(engine.step(*copy, input, sampling) == tokens.back());
      CHECK(engine.step(*loaded, input, sampling) == tokens.back());
      pcm = engine.decode(*state, codes);
      CHECK(engine.decode(*copy, codes) == pcm);
      CHECK(engine.decode(*loaded, codes) == pcm);
      if (frame % 2 == 1) state = copy->clone();
    }
    if (threads == 1) {
      first = tokens;
      first_pcm = pcm;
    }
    CHECK(tokens == first);
    CHECK(pcm == first_pcm);
  }
}

TEST_CASE("a frame in one is encode, step and decode, bit for bit") {
  for (const bool user_rows : {false, true}) {
    Config config = grouped_config();
    config.dep_q = user_rows ? config.n_q : config.codebooks();
    const Twins twins = make_twins(config, 4, cpu::chosen_isa(), 2);
    const auto codebooks = static_cast<std::size_t>(config.codebooks());
    for (Engine* engine : {twins.fused.get(), static_cast<Engine*>(twins.graph.get())}) {
      std::mt19937 random(9);
      auto parts = engine->new_state();
      engine->prefill_tokens(*parts, random_columns(config, 5, random));
      auto whole = parts->clone();
      for (std::uint64_t frame = 0; frame < 9; ++frame) {
        CAPTURE(frame);
        FrameInput input = forced_input(config, engine->depformer_steps(), frame, random);
        for (auto& flag : input.forced) flag = random() % 4 == 0 ? 1 : 0;
        const auto pcm = noise(config, random);
        const auto heard = engine->encode(*parts, pcm);
        FrameInput known = input;
        for (std::size_t k = 0; user_rows && k < codebooks; ++k) {
          const std::size_t row = 1 + codebooks + k;
          if (random() % 3 == 0) continue;
          input.forced[row] = known.forced[row] = 1;
          input.target[row] = later(static_cast<int>(k));
          known.target[row] = heard[k];
        }
        const FrameTokens tokens = engine->step(*parts, known, {});
        for (std::size_t k = 0; user_rows && k < codebooks; ++k) {
          if (is_later(input.target[1 + codebooks + k])) CHECK(tokens[1 + codebooks + k] == heard[k]);
        }
        std::vector<int> codes(codebooks), references(codebooks);
        for (std::size_t k = 0; k < codebooks; ++k) {
          const auto row = static_cast<int>(1 + random() % codebooks);
          const bool drawn = random() % 2 == 0;
          codes[k] = drawn ? tokens[static_cast<std::size_t>(row)] : row;
          references[k] = drawn ? later(row) : row;
        }
        const auto audio = engine->decode(*parts, codes);

        const auto copy = whole->clone();
        const FrameOutput out = engine->frame(*whole, pcm, input, references, {});
        CHECK(out.user == heard);
        CHECK(out.tokens == tokens);
        CHECK(out.audio == audio);
        Probe probe;
        StepTiming timing;
        const FrameOutput apart = engine->frame(*copy, pcm, input, references, {}, &probe, &timing);
        CHECK(apart.user == heard);
        CHECK(apart.tokens == tokens);
        CHECK(apart.audio == audio);
        CHECK(probe.count("text_logits") == 1);
        CHECK(std::min({timing.encode_ms, timing.temporal_ms, timing.depformer_ms, timing.decode_ms}) > 0);
        if (frame % 3 == 2) whole = copy->clone();
      }
    }
  }
}

TEST_CASE("a snapshot of another shape is refused") {
  const Twins twins = make_twins(grouped_config(), 16, cpu::chosen_isa(), 1);
  const Twins other = make_twins(grouped_config(), 16, cpu::chosen_isa(), 1, 8);
  std::mt19937 random(1);
  const auto state = twins.fused->new_state();
  twins.fused->prefill_tokens(*state, random_columns(grouped_config(), 3, random));
  std::map<std::string, TensorView> tensors;
  for (const NamedTensor& t : state->save()) tensors[t.name] = t.tensor;
  CHECK_THROWS_AS(other.fused->new_state()->load(tensors), WeightsError);
  auto missing = tensors;
  missing.erase("temporal.k.0");
  CHECK_THROWS_AS(twins.fused->new_state()->load(missing), WeightsError);
  auto more = tensors;
  more["stranger"] = tensors.begin()->second;
  CHECK_THROWS_AS(twins.fused->new_state()->load(more), WeightsError);
}
