// tests/cpp/test_fused_random.cpp: the fused engine against the graph engine for shapes that nobody has chosen.
#include "model/kv_rings.h"
#include "twins.h"

using namespace personaplex;

namespace {

/// A valid Config. `grain` divides every width of the language model: 32 for what is to be quantized. No width is so
/// small that the rounding of a few values is all there is.
Config any_config(int grain, std::mt19937& random) {
  const auto pick = [&](int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
  };
  const auto codes = [&](int count, int card) {
    std::vector<int> out;
    for (int i = 0; i < count; ++i) out.push_back(pick(0, card - 1));
    return out;
  };
  Config config;
  config.num_heads = pick(1, 6);
  config.dim = config.num_heads * grain * (grain == 32 ? pick(1, 2) : pick(8, 24));
  config.num_layers = pick(1, 3);
  // 3 / 2 of the inner width
  config.hidden_scale = 1.5 * grain * pick(grain == 32 ? 1 : 16, 4 * config.dim / grain) / config.dim;
  config.n_q = 2 * pick(1, 6);
  config.dep_q = pick(0, 1) == 0 ? config.n_q : config.n_q / 2;
  config.card = pick(5, 90);
  config.text_card = pick(10, 200);
  config.context = pick(2, 70);
  config.delays = codes(config.rows(), 3);
  config.depformer_num_heads = pick(1, 3);
  config.depformer_dim = config.depformer_num_heads * grain * (grain == 32 ? 1 : pick(8, 12));
  config.depformer_num_layers = pick(1, 3);
  config.depformer_dim_feedforward = 3 * grain / 2 * (grain == 32 ? pick(1, 5) : pick(8, 40));
  config.silence_codes = codes(config.codebooks(), config.card);
  config.sine_codes = codes(config.codebooks(), config.card);

  MimiConfig& mimi = config.mimi;
  mimi.num_heads = pick(1, 4);
  mimi.dimension = mimi.num_heads * 2 * pick(6, 9);
  mimi.compress = pick(1, 2);
  mimi.n_filters = mimi.compress * pick(3, 6);
  mimi.n_residual_layers = pick(1, 3);
  mimi.ratios.clear();
  for (int i = pick(1, 3); i > 0; --i) mimi.ratios.push_back(pick(2, 5));
  mimi.quantizer_dimension = pick(8, 20);
  mimi.quantizer_n_q = config.codebooks() + pick(0, 2);
  mimi.bins = config.card;
  mimi.num_layers = pick(1, 3);
  mimi.dim_feedforward = pick(20, 70);
  mimi.context = pick(4, 12);
  return config;
}

}  // namespace

TEST_CASE("random shapes: steps and codec equal the graph engine's") {
  for (unsigned seed = 0; seed < 5; ++seed) {
    std::mt19937 random(seed);
    const Config config = any_config(seed < 3 ? 2 : 32, random);
    CAPTURE(seed);
    REQUIRE_NOTHROW(validate_config(config, "a random shape"));
    const std::vector<cpu::Isa> isas = cpu::supported_isas();
    const cpu::Isa isa = isas[seed % isas.size()];
    const int bits = seed < 3 ? 16 : seed == 3 ? 8 : 4;
    const int kv_bits = seed % 2 == 0 ? 16 : 8;
    CAPTURE(std::string(cpu::name_of(isa)));
    const Twins twins = make_twins(config, bits, isa, 2, kv_bits);
    check_forced_steps(twins, RingShape{.context = config.context}.slots() - 3, 6, tolerance(isa, kv_bits), random);
    check_mimi(twins, 8, random);
  }
}
