// tests/cpp/test_checkpoint_quantize.cpp: bits applied to loaded weights, and random weights as a function of their
// seed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "checkpoint/bf16.h"
#include "checkpoint/quantize.h"
#include "test_checkpoint_files.h"

using namespace personaplex;
using namespace personaplex::testing;

namespace {

float at(const TensorView& t, std::int64_t i) {
  const std::byte* element = t.data + static_cast<std::size_t>(i) * size_of(t.dtype);
  if (t.dtype == DType::kF32) {
    float value = 0.0F;
    std::memcpy(&value, element, 4);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, element, 2);
  return t.dtype == DType::kBF16 ? from_bf16_bits(bits) : from_f16_bits(bits);
}

/// The value that a quantized matrix stands for, by the definition in weights.h.
float value_of(const Matrix& m, std::int64_t row, std::int64_t column) {
  const std::int64_t words = m.k * m.bits / 32, per_word = 32 / m.bits, groups = m.k / m.group_size;
  std::uint32_t word = 0;
  std::memcpy(&word, m.weight.data + 4 * (row * words + column / per_word), 4);
  const std::uint32_t q = (word >> (column % per_word * m.bits)) & ((1U << m.bits) - 1U);
  const std::int64_t group = row * groups + column / m.group_size;
  return at(m.scales, group) * static_cast<float>(q) + at(m.biases, group);
}

LoadOptions all_bits(int bits) {
  LoadOptions options;
  options.temporal_bits = options.depformer_bits = options.head_bits = options.embedding_bits = bits;
  return options;
}

struct Moments {
  double mean = 0.0, std = 0.0;
};

Moments moments(const std::vector<float>& values) {
  double sum = 0.0, squares = 0.0;
  for (const float v : values) {
    sum += v;
    squares += static_cast<double>(v) * v;
  }
  const double n = static_cast<double>(values.size());
  return {sum / n, std::sqrt(squares / n - sum / n * (sum / n))};
}

}  // namespace

TEST_CASE("quantize: values stay within one step, dequantize gives the definition exactly") {
  TemporaryDirectory dir;
  write_nvidia_checkpoint(dir.path, language_model_tensors(small_config(), 2));
  const Weights original = load_checkpoint(dir.path, {});
  for (const int bits : {4, 8}) {
    CAPTURE(bits);
    const Weights weights = load_checkpoint(dir.path, all_bits(bits));
    LoadOptions expand = all_bits(bits);
    expand.dequantize = true;
    const Weights expanded = load_checkpoint(dir.path, expand);
    const Matrix& before = original.temporal.layers[1].linear_in;
    const Matrix& after = weights.temporal.layers[1].linear_in;
    const Matrix& plain = expanded.temporal.layers[1].linear_in;
    REQUIRE(after.bits == bits);
    CHECK(after.group_size == 64);
    CHECK(after.weight.shape == std::vector<std::int64_t>{after.n, after.k * bits / 32});
    REQUIRE(plain.weight.dtype == DType::kF32);
    CHECK(plain.bits == 16);
    for (std::int64_t r = 0; r < after.n; ++r) {
      for (std::int64_t c = 0; c < after.k; ++c) {
        const float value = value_of(after, r, c);
        // One step, and the rounding of scale and bias to bfloat16 at 0.12.
        REQUIRE(std::abs(value - at(before.weight, r * before.k + c)) <=
                std::abs(at(after.scales, r)) * 1.01F + 0.002F);
        REQUIRE(value == at(plain.weight, r * plain.k + c));
      }
    }
    CHECK(weights.depformer.layers[0].steps[1].in_proj.group_size == 32);  // K = 32
    CHECK(weights.kept_16bit.empty());
  }
}

TEST_CASE("quantize: components, group sizes, and what no group divides") {
  TemporaryDirectory dir;
  std::string text = small_config_text();
  text.replace(text.find("\"depformer_dim_feedforward\": 48"), 31, "\"depformer_dim_feedforward\": 60");  // hidden 40
  const Config config = parse_config(text, "t");
  write_nvidia_checkpoint(dir.path, language_model_tensors(config, 2));
  write_text(dir / "config.json", text);
  LoadOptions options;
  options.depformer_bits = 4;
  options.head_bits = 8;
  options.group_size = 32;
  const Weights weights = load_checkpoint(dir.path, options);
  CHECK(weights.temporal.layers[0].in_proj.bits == 16);
  CHECK(weights.temporal.text_emb.bits == 16);
  CHECK(weights.temporal.text_linear.bits == 8);
  CHECK(weights.temporal.text_linear.group_size == 32);
  CHECK(weights.depformer.in[1].bits == 4);
  CHECK(weights.depformer.layers[0].steps[0].linear_in.bits == 4);
  CHECK(weights.depformer.layers[0].steps[0].linear_out.bits == 16);
  REQUIRE(weights.kept_16bit.size() == 4);
  CHECK(weights.kept_16bit[1] == "depformer.layers.0.gating.1.linear_out.weight");
  options.group_size = 64;
  const Weights wide = load_checkpoint(dir.path, options);
  CHECK(std::count(wide.kept_16bit.begin(), wide.kept_16bit.end(), "depformer.layers.1.self_attn.in_proj_weight") == 1);
}

TEST_CASE("quantize: what is quantized stays, fewer bits and other groups are refused") {
  Weights weights = random_weights(random_config("tiny"), 1, all_bits(4));
  CHECK_NOTHROW(apply_bits(weights, all_bits(4)));
  CHECK_NOTHROW(apply_bits(weights, {}));
  const TensorView before = weights.temporal.layers[0].in_proj.weight;
  Weights eight = random_weights(random_config("tiny"), 1, all_bits(8));
  CHECK(contains(message_of<std::invalid_argument>([&] { apply_bits(eight, all_bits(4)); }),
                 "is stored in 8 bits, groups of 64"));
  CHECK(eight.temporal.layers[0].in_proj.bits == 8);
  LoadOptions other_group = all_bits(4);
  other_group.group_size = 32;
  CHECK_THROWS_AS(apply_bits(weights, other_group), std::invalid_argument);
  CHECK(weights.temporal.layers[0].in_proj.weight.data == before.data);

  const Config config = random_config("tiny");
  LoadOptions bad;
  bad.head_bits = 5;
  CHECK_THROWS_AS(check_options(config, bad), std::invalid_argument);
  bad = {};
  bad.group_size = 128;
  CHECK_THROWS_AS(check_options(config, bad), std::invalid_argument);
  bad = {};
  bad.depformer_steps = 9;
  CHECK_THROWS_AS(check_options(config, bad), std::invalid_argument);
}

TEST_CASE("quantize: wider bits hold what is stored, exactly in 8 and rounded to bfloat16 in 16") {
  const Config config = random_config("tiny");
  const Weights stored = random_weights(config, 1, all_bits(4));
  Weights eight = random_weights(config, 1, all_bits(4));
  apply_bits(eight, all_bits(8));
  Weights sixteen = random_weights(config, 1, all_bits(4));
  LoadOptions options = all_bits(16);
  options.group_size = 32;  // of no effect where nothing stays quantized
  apply_bits(sixteen, options);
  const auto check = [&](const Matrix& four, const Matrix& wide, const Matrix& plain) {
    REQUIRE(wide.bits == 8);
    CHECK(wide.group_size == four.group_size);
    CHECK(wide.weight.shape == std::vector<std::int64_t>{four.n, four.k / 4});
    REQUIRE(plain.bits == 16);
    CHECK(plain.weight.dtype == DType::kBF16);
    CHECK(plain.weight.shape == std::vector<std::int64_t>{four.n, four.k});
    for (std::int64_t r = 0; r < four.n; ++r) {
      for (std::int64_t c = 0; c < four.k; ++c) {
        const float value = value_of(four, r, c);
        REQUIRE(value_of(wide, r, c) == value);
        REQUIRE(at(plain.weight, r * plain.k + c) == from_bf16_bits(to_bf16_bits(value)));
      }
    }
  };
  check(stored.temporal.layers[1].linear_in, eight.temporal.layers[1].linear_in, sixteen.temporal.layers[1].linear_in);
  check(stored.depformer.layers[1].steps[3].in_proj, eight.depformer.layers[1].steps[3].in_proj,
        sixteen.depformer.layers[1].steps[3].in_proj);
  check(stored.depformer.text_emb, eight.depformer.text_emb, sixteen.depformer.text_emb);
  apply_bits(eight, all_bits(16));
  CHECK(same_bytes(eight.temporal.layers[1].linear_in.weight, sixteen.temporal.layers[1].linear_in.weight));
}

TEST_CASE("random: a pure function of the seed, whatever the number of steps") {
  const Config config = random_config("tiny");
  LoadOptions sixteen;
  sixteen.depformer_steps = 16;
  const Weights a = random_weights(config, 7, {});
  const Weights b = random_weights(config, 7, sixteen);
  const Weights c = random_weights(config, 8, {});
  CHECK(a.config.dep_q == 8);
  CHECK(b.config.dep_q == 16);
  CHECK(b.depformer.layers[1].steps.size() == 16);
  CHECK(same_bytes(a.temporal.layers[2].linear_in.weight, b.temporal.layers[2].linear_in.weight));
  CHECK(same_bytes(a.depformer.layers[1].steps[7].in_proj.weight, b.depformer.layers[1].steps[7].in_proj.weight));
  CHECK(same_bytes(a.mimi.encoder.last.weight, b.mimi.encoder.last.weight));
  CHECK_FALSE(same_bytes(a.temporal.layers[2].linear_in.weight, c.temporal.layers[2].linear_in.weight));
  CHECK_FALSE(same_bytes(a.mimi.encoder.last.weight, c.mimi.encoder.last.weight));
  CHECK_FALSE(same_bytes(a.temporal.audio_emb[0].weight, a.temporal.audio_emb[1].weight));
}

TEST_CASE("random: quantized weights have the width of the others") {
  const Config config = random_config("tiny");
  for (const int bits : {16, 8, 4}) {
    CAPTURE(bits);
    const Weights weights = random_weights(config, 3, all_bits(bits));
    CHECK(weights.kept_16bit.empty());
    const std::pair<const Matrix*, double> expected[] = {{&weights.temporal.layers[0].in_proj, 1.0 / 16.0},
                                                         {&weights.temporal.text_emb, 0.5},
                                                         {&weights.depformer.text_emb, 1.0},
                                                         {&weights.depformer.layers[0].steps[3].linear_in, 1.0 / 8.0},
                                                         {&weights.temporal.text_linear, 3.0 / 16.0}};
    for (const auto& [matrix, std] : expected) {
      CHECK(matrix->bits == bits);
      std::vector<float> values;
      for (std::int64_t i = 0; i < matrix->n * matrix->k; ++i) {
        values.push_back(bits == 16 ? at(matrix->weight, i) : value_of(*matrix, i / matrix->k, i % matrix->k));
      }
      const Moments m = moments(values);
      CHECK(m.std == doctest::Approx(std).epsilon(0.03));
      CHECK(std::abs(m.mean) < 0.03 * std);
    }
  }
}
