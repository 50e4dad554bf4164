// tests/cpp/test_checkpoint_names.cpp: the walks over tensor names ask for exactly the tensors of the published 7B
// files, and visit each matrix once.
#include <doctest/doctest.h>

#include <cctype>
#include <map>
#include <numeric>
#include <utility>

#include "checkpoint/matrices.h"
#include "test_checkpoint_files.h"

using namespace personaplex;
using namespace personaplex::testing;

namespace {

using Shape = std::vector<std::int64_t>;

std::int64_t elements(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

/// Notes what is asked for and gives nothing, so that a 7B model takes no memory.
class CountingSource : public Source {
 public:
  bool has(const std::string&) const override { return false; }
  Matrix matrix(const Names& names, std::int64_t n, std::int64_t k) override {
    note(names, {n, k});
    Matrix m;
    m.n = n;
    m.k = k;
    return m;
  }
  TensorView norm(const Names& names, std::int64_t d) override { return note(names, {d}); }
  TensorView tensor(const Names& names, const Shape& shape) override { return note(names, shape); }

  std::int64_t parameters() const {
    std::int64_t sum = 0;
    for (const auto& [name, shape] : asked) sum += elements(shape);
    return sum;
  }

  std::map<std::string, Shape> asked;

 private:
  TensorView note(const Names& names, const Shape& shape) {
    const bool first = asked.emplace(names.front(), shape).second;
    CHECK_MESSAGE(first, names.front() << " is asked for twice");
    return {};
  }
};

struct Group {
  int count = 0;
  Shape shape;
  bool operator==(const Group&) const = default;
};
using Groups = std::map<std::string, Group>;

/// Names with every number as '#', how many there are of each, and their shape.
Groups grouped(const std::map<std::string, Shape>& tensors) {
  Groups groups;
  for (const auto& [name, shape] : tensors) {
    std::string pattern;
    const auto digit = [&](std::size_t i) { return std::isdigit(static_cast<unsigned char>(name[i])) != 0; };
    for (std::size_t i = 0; i < name.size(); ++i) {
      if (i == 0 || name[i - 1] != '.' || !digit(i)) {
        pattern += name[i];
        continue;
      }
      pattern += '#';
      while (i + 1 < name.size() && digit(i + 1)) ++i;
    }
    Group& group = groups.try_emplace(pattern, Group{0, shape}).first->second;
    ++group.count;
    CHECK_MESSAGE(group.shape == shape, name);
  }
  return groups;
}

void check_groups(const Groups& found, const Groups& expected) {
  for (const auto& [pattern, group] : expected) {
    CAPTURE(pattern);
    const auto it = found.find(pattern);
    REQUIRE(it != found.end());
    CHECK(it->second.count == group.count);
    CHECK(shape_string(it->second.shape) == shape_string(group.shape));
  }
  CHECK(found.size() == expected.size());
}

CountingSource language_model(int stored_steps, int steps) {
  CountingSource source;
  temporal_weights(source, Config{});
  depformer_weights(source, Config{}, stored_steps, steps);
  return source;
}

/// The tensors whose names begin with `prefix`, taken out of `tensors`.
std::map<std::string, Shape> take(std::map<std::string, Shape>& tensors, const std::string& prefix) {
  std::map<std::string, Shape> taken;
  for (auto it = tensors.lower_bound(prefix); it != tensors.end() && it->first.rfind(prefix, 0) == 0;) {
    taken.insert(tensors.extract(it++));
  }
  return taken;
}

/// A convolution's two tensors.
void add_conv(std::map<std::string, Shape>& tensors, const std::string& name, const Shape& weight, std::int64_t bias) {
  tensors[name + ".weight"] = weight;
  tensors[name + ".bias"] = {bias};
}

}  // namespace

TEST_CASE("names: the language model is NVIDIA's model.safetensors, key by key") {
  const CountingSource source = language_model(16, 16);
  CHECK(source.asked.size() == 475);
  CHECK(source.parameters() == 8'371'408'896);
  check_groups(grouped(source.asked), {{"emb.#.weight", {16, {2049, 4096}}},
                                       {"text_emb.weight", {1, {32001, 4096}}},
                                       {"text_linear.weight", {1, {32000, 4096}}},
                                       {"transformer.layers.#.self_attn.in_proj_weight", {32, {12288, 4096}}},
                                       {"transformer.layers.#.self_attn.out_proj.weight", {32, {4096, 4096}}},
                                       {"transformer.layers.#.gating.linear_in.weight", {32, {22528, 4096}}},
                                       {"transformer.layers.#.gating.linear_out.weight", {32, {4096, 11264}}},
                                       {"transformer.layers.#.norm1.alpha", {32, {4096}}},
                                       {"transformer.layers.#.norm2.alpha", {32, {4096}}},
                                       {"out_norm.alpha", {1, {4096}}},
                                       {"depformer_in.#.weight", {16, {1024, 4096}}},
                                       {"depformer_emb.#.weight", {15, {2049, 1024}}},
                                       {"depformer_text_emb.weight", {1, {32001, 1024}}},
                                       {"depformer.layers.#.self_attn.in_proj_weight", {6, {49152, 1024}}},
                                       {"depformer.layers.#.self_attn.out_proj.weight", {6, {16384, 1024}}},
                                       {"depformer.layers.#.gating.#.linear_in.weight", {96, {5632, 1024}}},
                                       {"depformer.layers.#.gating.#.linear_out.weight", {96, {1024, 2816}}},
                                       {"depformer.layers.#.norm1.alpha", {6, {1024}}},
                                       {"depformer.layers.#.norm2.alpha", {6, {1024}}},
                                       {"linears.#.weight", {16, {2048, 1024}}}});
  CHECK(source.asked.count("depformer.layers.5.gating.15.linear_out.weight") == 1);
  CHECK(source.asked.count("depformer_emb.14.weight") == 1);
}

TEST_CASE("names: half of the steps ask for what half of them need, of the file's shapes") {
  const CountingSource half = language_model(16, 8);
  CHECK(half.asked.at("depformer.layers.0.self_attn.in_proj_weight") == Shape{49152, 1024});
  CHECK(half.asked.count("depformer_in.7.weight") == 1);
  CHECK(half.asked.count("depformer_in.8.weight") == 0);
  CHECK(half.asked.count("depformer_emb.6.weight") == 1);
  CHECK(half.asked.count("depformer_emb.7.weight") == 0);
  // 8 steps fewer of depformer_in, depformer_emb and linears, and of both gating matrices in 6 layers.
  CHECK(half.asked.size() == 475 - 3 * 8 - 2 * 6 * 8);
  CHECK(language_model(8, 8).asked.at("depformer.layers.0.self_attn.in_proj_weight") == Shape{24576, 1024});
}

TEST_CASE("names: Mimi is Kyutai's tokenizer file, key by key") {
  Config config;
  config.n_q = 64;  // all 32 codebooks of the file
  CountingSource source;
  mimi_weights(source, config);
  CHECK(source.asked.size() == 318 - 32);  // each codebook also has a flag, _initialized, that is not read
  CHECK((source.parameters() + 32) * 4 == 384'605'572);

  Config eight;
  CountingSource loaded;
  mimi_weights(loaded, eight);
  CHECK(loaded.asked.size() == 318 - 32 - 24 * 2);
  for (const auto& [name, shape] : loaded.asked) CHECK_MESSAGE(source.asked[name] == shape, name);

  std::map<std::string, Shape> encoder, decoder;
  const auto residual = [](std::map<std::string, Shape>& tensors, const std::string& name, std::int64_t channels) {
    add_conv(tensors, name + ".block.1.conv.conv", {channels / 2, channels, 3}, channels / 2);
    add_conv(tensors, name + ".block.3.conv.conv", {channels, channels / 2, 1}, channels);
  };
  add_conv(encoder, "encoder.model.0.conv.conv", {64, 1, 7}, 64);
  residual(encoder, "encoder.model.1", 64);
  add_conv(encoder, "encoder.model.3.conv.conv", {128, 64, 8}, 128);
  residual(encoder, "encoder.model.4", 128);
  add_conv(encoder, "encoder.model.6.conv.conv", {256, 128, 10}, 256);
  residual(encoder, "encoder.model.7", 256);
  add_conv(encoder, "encoder.model.9.conv.conv", {512, 256, 12}, 512);
  residual(encoder, "encoder.model.10", 512);
  add_conv(encoder, "encoder.model.12.conv.conv", {1024, 512, 16}, 1024);
  add_conv(encoder, "encoder.model.14.conv.conv", {512, 1024, 3}, 512);
  CHECK((take(source.asked, "encoder.model.") == encoder));

  add_conv(decoder, "decoder.model.0.conv.conv", {1024, 512, 7}, 1024);
  add_conv(decoder, "decoder.model.2.convtr.convtr", {1024, 512, 16}, 512);
  residual(decoder, "decoder.model.3", 512);
  add_conv(decoder, "decoder.model.5.convtr.convtr", {512, 256, 12}, 256);
  residual(decoder, "decoder.model.6", 256);
  add_conv(decoder, "decoder.model.8.convtr.convtr", {256, 128, 10}, 128);
  residual(decoder, "decoder.model.9", 128);
  add_conv(decoder, "decoder.model.11.convtr.convtr", {128, 64, 8}, 64);
  residual(decoder, "decoder.model.12", 64);
  add_conv(decoder, "decoder.model.14.conv.conv", {1, 64, 3}, 1);
  CHECK((take(source.asked, "decoder.model.") == decoder));

  Groups rest = {{"downsample.conv.conv.conv.weight", {1, {512, 512, 4}}},
                 {"upsample.convtr.convtr.convtr.weight", {1, {512, 1, 4}}}};
  for (const std::string side : {"encoder", "decoder"}) {
    const std::string layer = side + "_transformer.transformer.layers.#.";
    rest[layer + "self_attn.in_proj_weight"] = {8, {1536, 512}};
    rest[layer + "self_attn.out_proj.weight"] = {8, {512, 512}};
    rest[layer + "linear1.weight"] = {8, {2048, 512}};
    rest[layer + "linear2.weight"] = {8, {512, 2048}};
    for (const char* vector :
         {"norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "layer_scale_1.scale", "layer_scale_2.scale"}) {
      rest[layer + vector] = {8, {512}};
    }
  }
  for (const std::string part : {"rvq_first", "rvq_rest"}) {
    const std::string quantizer = "quantizer." + part + ".";
    const int levels = part == "rvq_first" ? 1 : 31;
    rest[quantizer + "input_proj.weight"] = {1, {256, 512, 1}};
    rest[quantizer + "output_proj.weight"] = {1, {512, 256, 1}};
    rest[quantizer + "vq.layers.#._codebook.embedding_sum"] = {levels, {2048, 256}};
    rest[quantizer + "vq.layers.#._codebook.cluster_usage"] = {levels, {2048}};
  }
  check_groups(grouped(source.asked), rest);
}

TEST_CASE("names: the walk over matrices visits what the file has, by component") {
  TemporaryDirectory dir;
  const Config config = small_config();
  const auto tensors = language_model_tensors(config, 4);
  write_nvidia_checkpoint(dir.path, tensors);
  LoadOptions options;
  options.depformer_steps = 4;
  Weights weights = load_checkpoint(dir.path, options);

  std::map<Component, std::int64_t> stored, walked;
  for (const NamedTensor& t : tensors) {
    if (t.tensor.shape.size() == 2) stored[component_of(t.name)] += t.tensor.size();
  }
  for_each_matrix(std::as_const(weights), [&](Component component, const Matrix& matrix) {
    CHECK(matrix.weight.shape == Shape{matrix.n, matrix.k});
    walked[component] += matrix.n * matrix.k;
  });
  CHECK((walked == stored));
  CHECK(walked.size() == 4);
  CHECK(walked[Component::kHeads] == 40 * 64 + 4 * 32 * 32);                         // text_linear, four linears
  CHECK(walked[Component::kEmbeddings] == (41 + 4 * 33) * 64 + (41 + 3 * 33) * 32);  // text and codes, both models

  std::map<std::string, std::int64_t> rows_of;
  for_each_matrix(weights, [&](const std::string& name, Matrix& matrix) { rows_of[name] += matrix.n; });
  for (const NamedTensor& t : tensors) {
    if (t.tensor.shape.size() == 2) CHECK_MESSAGE(rows_of[t.name] == t.tensor.dim(0), t.name);
  }
}
