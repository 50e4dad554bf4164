// tests/cpp/test_checkpoint_config.cpp: config.json's defaults, Kyutai's key names, and refusal of what is not
// implemented.
#include <doctest/doctest.h>

#include "test_checkpoint_files.h"

using namespace personaplex;
using namespace personaplex::testing;

TEST_CASE("config: an empty object is PersonaPlex-7B") {
  const Config config = parse_config("{}", "t");
  CHECK(config.dim == 4096);
  CHECK(config.ffn_hidden() == 11264);
  CHECK(config.depformer_ffn_hidden() == 2816);
  CHECK(config.codebooks() == 8);
  CHECK(config.rows() == 17);
  CHECK(config.max_delay() == 1);
  CHECK(config.silence_codes.at(2) == 1178);
  CHECK(config.mimi.hop_length() == 960);
  CHECK(config.mimi.frame_samples() == 1920);
  CHECK(config.file_bits == 16);
  validate_config(config, "t");
}

TEST_CASE("config: a full file in Kyutai's names") {
  const Config config =
      parse_config(R"({"delays": [0,0,1,1,1,1,1,1,1,0,1,1,1,1,1,1,1], "n_q": 16, "dep_q": 16, "card": 2048,
    "text_card": 32000, "dim": 4096, "num_heads": 32, "num_layers": 32, "hidden_scale": 4.125, "causal": true,
    "layer_scale": null, "context": 3000, "max_period": 10000, "gating": "silu", "norm": "rms_norm_f32",
    "positional_embedding": "rope", "existing_text_padding_id": 3, "depformer_dim": 1024,
    "depformer_dim_feedforward": null, "depformer_num_heads": 16, "depformer_num_layers": 6,
    "depformer_layer_scale": null, "depformer_multi_linear": true, "depformer_context": 8,
    "depformer_gating": "silu", "depformer_pos_emb": "none", "depformer_weights_per_step": true,
    "quantization": {"bits": 4, "group_size": 64, "quantized_components": ["temporal", "depformer"]}})",
                   "t");
  CHECK(config.depformer_dim_feedforward == 4224);
  CHECK(config.file_bits == 4);
  CHECK(config.quantized_components == std::vector<std::string>{"temporal", "depformer"});
}

TEST_CASE("config: feed-forward of four times the width is Kyutai's special case") {
  const Config config = parse_config(R"({"hidden_scale": 4, "depformer_dim_feedforward": null})", "t");
  CHECK(config.ffn_hidden() == 21 * 4096 / 8);
  CHECK(config.depformer_ffn_hidden() == 21 * 1024 / 8);
}

TEST_CASE("config: prompt codes and delays follow the sizes of the model") {
  const Config config = small_config();
  CHECK(config.silence_codes == std::vector<int>{948 % 32, 243 % 32});
  CHECK(config.sine_codes == std::vector<int>{430 % 32, 1268 % 32});
  CHECK(config.delays == std::vector<int>{0, 0, 1, 0, 1});
  CHECK(config.ffn_hidden() == 64);
  CHECK(config.depformer_ffn_hidden() == 32);
}

TEST_CASE("config: all wrong keys in one error") {
  const std::string message = message_of<WeightsError>([] {
    parse_config(R"({"dim": "big", "num_layers": 0, "context": 1.5, "card": null, "max_period": -1, "delays": [0, -1],
      "norm": "layer_norm", "gating": "gelu", "depformer_pos_emb": "sin", "layer_scale": 0.1, "sample_rate": 16000,
      "mimi": {"seanet": {"pad_mode": "reflect", "norm": "weight_norm", "true_skip": false, "dimension": 256},
               "transformer": {"d_model": 512, "layer_scale": null}, "quantizer": []},
      "quantization": {"quantized_components": [1]}})",
                 "dir/config.json");
  });
  for (const char* part : {"dir/config.json",
                           "dim: expected a whole number",
                           "got \"big\"",
                           "num_layers",
                           "context",
                           "card: ",
                           "max_period",
                           "delays",
                           "norm: expected \"rms_norm_f32\"",
                           "gating",
                           "depformer_pos_emb",
                           "layer_scale: expected null",
                           "sample_rate: expected 24000",
                           "mimi.seanet.pad_mode: expected \"constant\"",
                           "mimi.seanet.norm",
                           "mimi.seanet.true_skip: expected true",
                           "mimi.transformer.d_model: expected 256, got 512",
                           "mimi.transformer.layer_scale",
                           "mimi.quantizer: expected an object",
                           "quantization.quantized_components"}) {
    CAPTURE(part);
    CHECK(contains(message, part));
  }
}

TEST_CASE("config: contradictions") {
  const std::pair<const char*, const char*> bad[] = {
      {R"({"n_q": 15, "delays": [0]})", "n_q"},
      {R"({"dep_q": 7})", "dep_q"},
      {R"({"num_heads": 3})", "num_heads"},
      {R"({"depformer_num_heads": 3})", "depformer_num_heads"},
      {R"({"delays": [0, 1]})", "delays"},
      {R"({"silence_codes": [1, 2]})", "silence_codes"},
      {R"({"sine_codes": [1, 2, 3, 4, 5, 6, 7, 2048]})", "sine_codes"},
      {R"({"existing_text_padding_id": 32000})", "existing_text_padding_id"},
      {R"({"card": 1024})", "mimi.quantizer.bins"},
      {R"({"mimi": {"quantizer": {"n_q": 7}}})", "mimi.quantizer.n_q"},
      {R"({"mimi": {"transformer": {"num_heads": 7}}})", "mimi.transformer.num_heads"},
      {R"({"mimi": {"seanet": {"ratios": []}}})", "ratios"},
      {R"({"quantization": {"bits": 3}})", "quantization.bits"},
      {R"({"quantization": {"group_size": 128}})", "quantization.group_size"},
      {R"([])", "an object"},
  };
  for (const auto& [json, key] : bad) {
    const std::string text = json;
    CAPTURE(text);
    CHECK(contains(message_of<WeightsError>([&] { parse_config(text, "t"); }), key));
  }
  Config zero;
  zero.num_heads = 0;
  CHECK_THROWS_AS(validate_config(zero, "t"), WeightsError);
}

TEST_CASE("config: random presets are valid") {
  validate_config(random_config("7b"), "7b");
  const Config tiny = random_config("tiny");
  validate_config(tiny, "tiny");
  CHECK(tiny.mimi.frame_samples() == 1920);
  CHECK_THROWS_AS(random_config("huge"), std::invalid_argument);
}
