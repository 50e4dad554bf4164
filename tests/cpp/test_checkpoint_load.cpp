// tests/cpp/test_checkpoint_load.cpp: both layouts, 8 and 16 steps' worth of depformer, quantized files, and errors
// that list all.
#include <doctest/doctest.h>

#include <algorithm>

#include "checkpoint/bf16.h"
#include "checkpoint/weights.h"
#include "test_checkpoint_files.h"

using namespace personaplex;
using namespace personaplex::testing;

namespace {

TensorView find(const std::vector<NamedTensor>& tensors, const std::string& name) {
  for (const NamedTensor& t : tensors) {
    if (t.name == name) return t.tensor;
  }
  FAIL("no tensor " << name);
  return {};
}

void rename(std::vector<NamedTensor>& tensors, const std::string& from, const std::string& to) {
  for (NamedTensor& t : tensors) {
    const auto at = t.name.find(from);
    if (at != std::string::npos) t.name.replace(at, from.size(), to);
  }
}

/// All-zero packed words for every matrix that `wanted` accepts; scales tell the tensors apart.
template <typename Wanted>
std::vector<NamedTensor> pack(const std::vector<NamedTensor>& tensors, int bits, int group, Wanted wanted) {
  std::vector<NamedTensor> packed;
  for (const NamedTensor& t : tensors) {
    if (t.tensor.shape.size() != 2 || !wanted(t.name)) {
      packed.push_back(t);
      continue;
    }
    const std::string base = t.name.substr(0, t.name.size() - 6);
    const std::int64_t n = t.tensor.dim(0), k = t.tensor.dim(1);
    packed.push_back({t.name, allocate_tensor(DType::kU32, {n, k * bits / 32}).view});
    packed.push_back({base + "scales", allocate_tensor(DType::kF16, {n, k / group}).view});
    packed.push_back({base + "biases", allocate_tensor(DType::kF16, {n, k / group}).view});
  }
  return packed;
}

/// Splits NVIDIA's names into the three files of the MLX layout.
void write_mlx_checkpoint(const std::string& directory, std::vector<NamedTensor> tensors, const std::string& config) {
  std::vector<NamedTensor> temporal, depformer, embeddings;
  for (NamedTensor& t : tensors) {
    if (t.name.rfind("transformer.", 0) == 0) {
      temporal.push_back({t.name.substr(12), t.tensor});
    } else if (t.name.rfind("out_norm.", 0) == 0) {
      temporal.push_back(t);
    } else if (t.name.rfind("depformer.", 0) == 0) {
      depformer.push_back({t.name.substr(10), t.tensor});
    } else if (t.name.rfind("depformer_in.", 0) == 0) {
      depformer.push_back(t);
    } else {
      embeddings.push_back(t);
    }
  }
  rename(depformer, "self_attn.out_proj.", "self_attn.out_proj_");
  rename(temporal, "norm1.alpha", "norm1.weight");
  write_text(directory + "/config.json", config);
  write_safetensors(directory + "/temporal.safetensors", temporal, {});
  write_safetensors(directory + "/depformer.safetensors", depformer, {});
  write_safetensors(directory + "/embeddings.safetensors", embeddings, {});
  write_safetensors(directory + "/mimi.safetensors", mimi_tensors(small_config()), {});
}

std::string config_with(const std::string& member) {
  std::string text = small_config_text();
  return text.replace(text.find('{'), 1, "{" + member + ", ");
}

bool is_temporal(const std::string& name) { return name.rfind("transformer.", 0) == 0; }

}  // namespace

TEST_CASE("load: NVIDIA's layout with all steps, half of them taken by default") {
  TemporaryDirectory dir;
  const Config config = small_config();
  const auto tensors = language_model_tensors(config, 4);
  write_nvidia_checkpoint(dir.path, tensors);
  const Weights weights = load_checkpoint(dir.path, {});
  CHECK(weights.config.dep_q == 2);
  REQUIRE(weights.depformer.layers.at(1).steps.size() == 2);
  CHECK(weights.depformer.audio_emb.size() == 1);
  CHECK(weights.temporal.out_norm.shape == std::vector<std::int64_t>{64});
  CHECK(same_bytes(weights.temporal.audio_emb.at(3).weight, find(tensors, "emb.3.weight")));
  CHECK(same_bytes(weights.temporal.layers.at(1).linear_out.weight,
                   find(tensors, "transformer.layers.1.gating.linear_out.weight")));
  const TensorView in_proj = find(tensors, "depformer.layers.1.self_attn.in_proj_weight");
  CHECK(in_proj.shape == std::vector<std::int64_t>{4 * 96, 32});
  CHECK(same_bytes(weights.depformer.layers[1].steps[1].in_proj.weight, rows(in_proj, 96, 192)));
  CHECK(weights.mimi.rvq_first.levels.size() == 1);
  CHECK(weights.mimi.rvq_rest.levels.size() == 1);
  CHECK(weights.mimi.encoder.stages.size() == 4);
  CHECK(weights.mimi.decoder.stages[0].resample.weight.shape == std::vector<std::int64_t>{32, 16, 16});

  LoadOptions all;
  all.depformer_steps = 4;
  const Weights four = load_checkpoint(dir.path, all);
  CHECK(four.config.dep_q == 4);
  CHECK(same_bytes(four.depformer.layers[1].steps[3].in_proj.weight, rows(in_proj, 288, 384)));
  CHECK(same_bytes(four.depformer.layers[1].steps[3].linear_in.weight,
                   find(tensors, "depformer.layers.1.gating.3.linear_in.weight")));
}

TEST_CASE("load: NVIDIA's files with a full config.json of Kyutai's, all steps stored") {
  TemporaryDirectory dir;
  const std::string config_text = R"({"dim": 64, "text_card": 40, "existing_text_padding_id": 3, "n_q": 4, "dep_q": 4,
    "card": 32, "num_heads": 2, "num_layers": 2, "hidden_scale": 4.125, "causal": true, "layer_scale": null,
    "context": 20, "max_period": 10000, "gating": "silu", "norm": "rms_norm_f32", "positional_embedding": "rope",
    "depformer_dim": 32, "depformer_dim_feedforward": null, "depformer_num_heads": 2, "depformer_num_layers": 2,
    "depformer_causal": true, "depformer_layer_scale": null, "depformer_multi_linear": true, "depformer_context": 4,
    "depformer_max_period": 10000, "depformer_gating": "silu", "depformer_pos_emb": "none",
    "depformer_weights_per_step": true, "delays": [0, 0, 1, 0, 1], "cross_attention": false,
    "demux_second_stream": false, "conditioners": {}, "fuser": {"cross_attention_pos_emb": false, "sum": []},
    "model_type": "moshi", "mimi_name": "tokenizer-e351c8d8-checkpoint125.safetensors",
    "moshi_name": "model.safetensors", "tokenizer_name": "tokenizer_spm_32k_3.model",
    "lm_gen_config": {"temp": 0.8, "temp_text": 0.7, "top_k": 250, "top_k_text": 25},
    "mimi": {"seanet": {"dimension": 16, "n_filters": 2}, "quantizer": {"dimension": 8, "n_q": 2, "bins": 32},
             "transformer": {"num_heads": 2, "num_layers": 1, "dim_feedforward": 16, "context": 8}}})";
  const Config config = parse_config(config_text, "full");
  CHECK(config.dep_q == 4);
  CHECK(config.depformer_dim_feedforward == 132);  // 4.125 * 32
  CHECK(config.depformer_ffn_hidden() == 88);
  CHECK(config.ffn_hidden() == 176);
  const auto tensors = language_model_tensors(config, 4);
  write_nvidia_checkpoint(dir.path, tensors);
  write_text(dir / "config.json", config_text);

  const Weights half = load_checkpoint(dir.path, {});
  CHECK(half.config.dep_q == 2);
  CHECK(half.depformer.in.size() == 2);
  LoadOptions all;
  all.depformer_steps = 4;
  const Weights weights = load_checkpoint(dir.path, all);
  CHECK(weights.config.delays == std::vector<int>{0, 0, 1, 0, 1});
  REQUIRE(weights.depformer.layers.at(1).steps.size() == 4);
  CHECK(same_bytes(weights.depformer.layers[1].steps[3].linear_in.weight,
                   find(tensors, "depformer.layers.1.gating.3.linear_in.weight")));
  CHECK(weights.depformer.layers[1].steps[3].linear_in.n == 176);
  CHECK(same_bytes(weights.temporal.layers[1].linear_in.weight,
                   find(tensors, "transformer.layers.1.gating.linear_in.weight")));
}

TEST_CASE("load: a file of half the steps is doubled when all are asked for") {
  TemporaryDirectory dir;
  const auto tensors = language_model_tensors(small_config(), 2);
  write_nvidia_checkpoint(dir.path, tensors);
  CHECK(load_checkpoint(dir.path, {}).depformer.in.size() == 2);
  LoadOptions all;
  all.depformer_steps = 4;
  const DepformerWeights depformer = load_checkpoint(dir.path, all).depformer;
  REQUIRE(depformer.in.size() == 4);
  CHECK(same_bytes(depformer.in[3].weight, find(tensors, "depformer_in.1.weight")));
  CHECK(same_bytes(depformer.linears[2].weight, find(tensors, "linears.0.weight")));
  CHECK(same_bytes(depformer.audio_emb.at(2).weight, find(tensors, "depformer_emb.0.weight")));
  CHECK(same_bytes(depformer.layers[0].steps[2].out_proj.weight, depformer.layers[0].steps[0].out_proj.weight));
  CHECK(same_bytes(depformer.layers[0].steps[3].linear_out.weight, depformer.layers[0].steps[1].linear_out.weight));
}

TEST_CASE("load: other writers' names, wider floats and old codebook names") {
  TemporaryDirectory dir;
  const Config config = small_config();
  auto tensors = language_model_tensors(config, 2);
  rename(tensors, "out_norm.alpha", "out_norm.weight");
  rename(tensors, "transformer.layers.0.self_attn.in_proj_weight", "transformer.layers.0.self_attn.in_projs.0.weight");
  // Steps apart, as Kyutai's current code writes them.
  const TensorView joined = find(tensors, "depformer.layers.0.self_attn.in_proj_weight");
  std::erase_if(tensors, [](const NamedTensor& t) { return t.name == "depformer.layers.0.self_attn.in_proj_weight"; });
  for (int k = 0; k < 2; ++k) {
    tensors.push_back(
        {"depformer.layers.0.self_attn.in_projs." + std::to_string(k) + ".weight", rows(joined, 96 * k, 96 * k + 96)});
  }
  OwnedTensor wide = allocate_tensor(DType::kF32, {40, 64});
  OwnedTensor half = allocate_tensor(DType::kF16, {41, 64});
  const float odd = 1.00390625F + 0.001F;  // above the middle of two bfloat16 values
  const std::uint16_t half_bits = 0x3C05;  // 1 + 5 / 1024: below the middle
  std::memcpy(wide.mutable_data, &odd, 4);
  std::memcpy(half.mutable_data, &half_bits, 2);
  for (NamedTensor& t : tensors) {
    if (t.name == "text_linear.weight") t.tensor = wide.view;
    if (t.name == "text_emb.weight") t.tensor = half.view;
  }
  tensors.push_back({"something.else", allocate_tensor(DType::kI64, {1}).view});
  write_nvidia_checkpoint(dir.path, tensors);
  auto mimi = mimi_tensors(config);
  rename(mimi, "embedding_sum", "embed_avg");
  rename(mimi, "cluster_usage", "cluster_size");
  rename(mimi, "self_attn.in_proj_weight", "self_attn.in_projs.0.weight");
  write_safetensors(dir / "tokenizer-e351c8d8-checkpoint125.safetensors", mimi, {});

  const Weights weights = load_checkpoint(dir.path, {});
  CHECK(same_bytes(weights.depformer.layers[0].steps[1].in_proj.weight, rows(joined, 96, 192)));
  REQUIRE(weights.temporal.text_linear.weight.dtype == DType::kBF16);
  REQUIRE(weights.temporal.text_emb.weight.dtype == DType::kBF16);
  std::uint16_t bits = 0;
  std::memcpy(&bits, weights.temporal.text_linear.weight.data, 2);
  CHECK(from_bf16_bits(bits) == 1.0078125F);
  std::memcpy(&bits, weights.temporal.text_emb.weight.data, 2);
  CHECK(from_bf16_bits(bits) == 1.0078125F);
  CHECK(weights.mimi.rvq_rest.levels[0].cluster_usage.size() == 32);
}

TEST_CASE("load: the MLX layout, quantized where scales are, 2 or 4 steps, gating joined or apart") {
  const Config config = small_config();
  for (const int steps : {2, 4}) {
    TemporaryDirectory dir;
    auto tensors = language_model_tensors(config, steps);
    if (steps == 4) {  // join the gating of layer 0: four steps below each other
      for (const char* part : {"linear_in.weight", "linear_out.weight"}) {
        const std::string prefix = "depformer.layers.0.gating.";
        const TensorView first = find(tensors, prefix + "0." + part);
        OwnedTensor all = allocate_tensor(DType::kBF16, {4 * first.dim(0), first.dim(1)});
        for (std::size_t k = 0; k < 4; ++k) {
          const TensorView one = find(tensors, prefix + std::to_string(k) + "." + part);
          std::memcpy(all.mutable_data + k * one.nbytes(), one.data, one.nbytes());
        }
        tensors.push_back({prefix + part, all.view});
      }
    }
    const auto packed = pack(tensors, 4, 32, is_temporal);
    const std::string config_text =
        config_with(R"("quantization": {"bits": 4, "group_size": 32, "quantized_components": ["temporal"]})");
    write_mlx_checkpoint(dir.path, packed, config_text);
    const Weights weights = load_checkpoint(dir.path, {});
    const Matrix& in_proj = weights.temporal.layers[0].in_proj;
    CHECK(in_proj.bits == 4);
    CHECK(in_proj.group_size == 32);
    CHECK(in_proj.n == 192);
    CHECK(in_proj.k == 64);
    CHECK(in_proj.scales.dtype == DType::kF16);
    CHECK(weights.depformer.layers[0].steps[1].in_proj.bits == 16);
    CHECK(same_bytes(weights.depformer.layers[0].steps[1].linear_out.weight,
                     find(tensors, "depformer.layers.0.gating.1.linear_out.weight")));
    CHECK(same_bytes(weights.temporal.layers[1].norm1, [&] {
      TensorView norm = find(tensors, "transformer.layers.1.norm1.alpha");
      norm.shape = {64};
      return norm;
    }()));
  }
}

TEST_CASE("load: quantized tensors are checked against their shape and config.json") {
  TemporaryDirectory dir;
  const auto tensors = language_model_tensors(small_config(), 2);
  auto everything = [](const std::string&) { return true; };
  write_nvidia_checkpoint(dir.path, pack(tensors, 8, 32, everything));
  const Weights weights = load_checkpoint(dir.path, {});
  CHECK(weights.temporal.text_emb.bits == 8);
  CHECK(weights.depformer.layers[0].steps[1].in_proj.scales.shape == std::vector<std::int64_t>{96, 1});

  write_text(dir / "config.json", config_with(R"("quantization": {"bits": 4, "group_size": 32})"));
  CHECK(contains(message_of<WeightsError>([&] { load_checkpoint(dir.path, {}); }),
                 "which is not 8 bits in groups of 32"));
  write_text(dir / "config.json", small_config_text());

  auto broken = pack(tensors, 4, 32, is_temporal);
  std::erase_if(broken, [](const NamedTensor& t) { return t.name == "transformer.layers.0.gating.linear_in.scales"; });
  for (NamedTensor& t : broken) {
    if (t.name == "transformer.layers.1.self_attn.in_proj_biases")
      t.tensor = allocate_tensor(DType::kF16, {192, 1}).view;
    if (t.name == "transformer.layers.1.gating.linear_out.weight")
      t.tensor = allocate_tensor(DType::kU32, {64, 7}).view;
  }
  write_nvidia_checkpoint(dir.path, broken);
  const std::string message = message_of<WeightsError>([&] { load_checkpoint(dir.path, {}); });
  CHECK(contains(message,
                 "model.safetensors: transformer.layers.0.gating.linear_in.scales: expected [128, 1] or [128, 2]"));
  CHECK(contains(message, "got nothing"));
  CHECK(contains(message, "transformer.layers.1.self_attn.in_proj_biases: expected the shape and dtype of its scales"));
  CHECK(contains(message, "transformer.layers.1.gating.linear_out.weight: expected [64, 8] or [64, 16] U32"));
}

TEST_CASE("load: all missing keys, wrong shapes and wrong dtypes of both files in one error") {
  TemporaryDirectory dir;
  const Config config = small_config();
  auto tensors = language_model_tensors(config, 2);
  std::erase_if(tensors, [](const NamedTensor& t) { return t.name == "emb.2.weight"; });
  for (NamedTensor& t : tensors) {
    if (t.name == "text_linear.weight") t.tensor = allocate_tensor(DType::kBF16, {40, 63}).view;
    if (t.name == "out_norm.alpha") t.tensor = allocate_tensor(DType::kI32, {64}).view;
    if (t.name == "depformer.layers.0.self_attn.in_proj_weight")
      t.tensor = allocate_tensor(DType::kBF16, {3 * 96, 32}).view;
  }
  write_nvidia_checkpoint(dir.path, tensors);
  auto mimi = mimi_tensors(config);
  std::erase_if(mimi, [](const NamedTensor& t) { return t.name == "downsample.conv.conv.conv.weight"; });
  write_safetensors(dir / "tokenizer-e351c8d8-checkpoint125.safetensors", mimi, {});
  const std::string message = message_of<WeightsError>([&] { load_checkpoint(dir.path, {}); });
  CAPTURE(message);
  for (const char* line :
       {"model.safetensors: emb.2.weight: expected [33, 64] F32, F16 or BF16, got nothing",
        "text_linear.weight: expected [40, 64] F32, F16 or BF16, got [40, 63] BF16",
        "out_norm.alpha: expected [1, 1, 64] or [64] F32, F16 or BF16, got [64] I32",
        "expected 2 or 4 depformer steps of 96 rows",
        "tokenizer-e351c8d8-checkpoint125.safetensors: downsample.conv.conv.conv.weight: expected [16, 16, 4]"}) {
    CAPTURE(line);
    CHECK(contains(message, line));
  }
  // Long lists are cut, and say so.
  write_safetensors(dir / "model.safetensors", {}, {});
  const std::string cut = message_of<WeightsError>([&] { load_checkpoint(dir.path, {}); });
  CHECK(std::count(cut.begin(), cut.end(), '\n') == 42);
  CHECK(contains(cut, " more\n"));
}

TEST_CASE("load: files of a larger model than config.json says, in both layouts; other surplus is ignored") {
  auto tensors = language_model_tensors(small_config(), 4);
  const TensorView any = tensors.front().tensor;
  tensors.push_back({"transformer.layers.10.norm1.alpha", any});
  tensors.push_back({"transformer.layers.2.norm1.alpha", any});
  tensors.push_back({"depformer.layers.2.norm1.alpha", any});
  tensors.push_back({"emb.4.weight", any});
  tensors.push_back({"emb.extra", any});
  tensors.push_back({"extra_heads.7.weight", any});
  const TemporaryDirectory nvidia, mlx;
  write_nvidia_checkpoint(nvidia.path, tensors);
  CHECK(message_of<WeightsError>([&] { load_checkpoint(nvidia.path, {}); }) ==
        "[load_checkpoint] " + nvidia.path +
            ": the files do not fit the model that config.json describes:"
            "\n  model.safetensors: transformer.layers.10: config.json says num_layers = 2, numbered from 0"
            "\n  model.safetensors: depformer.layers.2: config.json says depformer_num_layers = 2, numbered from 0"
            "\n  model.safetensors: emb.4: config.json says n_q = 4, numbered from 0"
            "\n(Without config.json, or with a key absent from it, PersonaPlex-7B's sizes are expected.)");
  write_mlx_checkpoint(mlx.path, tensors, small_config_text());
  const auto message = message_of<WeightsError>([&] { load_checkpoint(mlx.path, {}); });
  CHECK(contains(message, "temporal.safetensors: layers.10: config.json says num_layers = 2"));
  CHECK(contains(message, "depformer.safetensors: layers.2: config.json says depformer_num_layers = 2"));
  CHECK(contains(message, "embeddings.safetensors: emb.4: config.json says n_q = 4"));
}

TEST_CASE("load: directories that hold no checkpoint say what was looked for") {
  TemporaryDirectory dir;
  CHECK(contains(message_of<WeightsError>([&] { load_checkpoint(dir / "absent", {}); }), "absent"));
  CHECK(contains(message_of<WeightsError>([&] { load_checkpoint(dir.path, {}); }), "is empty"));
  write_text(dir / "readme.txt", "x");
  const std::string nothing = message_of<WeightsError>([&] { load_checkpoint(dir.path, {}); });
  CHECK(contains(nothing, "model.safetensors (NVIDIA's layout) or temporal.safetensors (the MLX layout)"));
  CHECK(contains(nothing, "holds readme.txt"));
  write_safetensors(dir / "temporal.safetensors", {}, {});
  CHECK(contains(message_of<WeightsError>([&] { load_checkpoint(dir.path, {}); }), "depformer.safetensors beside"));
  write_nvidia_checkpoint(dir.path, language_model_tensors(small_config(), 2));
  std::filesystem::remove(dir / "tokenizer-e351c8d8-checkpoint125.safetensors");
  CHECK(contains(message_of<WeightsError>([&] { load_checkpoint(dir.path, {}); }), "Mimi's weights as"));
}
