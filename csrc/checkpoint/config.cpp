// csrc/checkpoint/config.cpp: config.json in Kyutai's key names -> Config; what cannot be honoured is an error.
#include "checkpoint/config.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "checkpoint/config_check.h"
#include "checkpoint/json.h"
#include "checkpoint/problems.h"

namespace personaplex {

namespace {

constexpr int kMaxCount = 1024;  // layers, streams, levels

/// The gated feed-forward's hidden size, with the special case of Kyutai's ActivationGating.
int gated_hidden(int dim, int dim_feedforward) {
  if (dim_feedforward == 4 * dim) return static_cast<int>(std::int64_t{21} * dim / 8);
  return static_cast<int>(std::int64_t{2} * dim_feedforward / 3);
}

std::string describe(const Json& value) {
  if (value.is_null()) return "null";
  if (const bool* b = value.boolean()) return *b ? "true" : "false";
  if (const std::int64_t* i = value.integer()) return std::to_string(*i);
  if (const double* d = value.real()) return std::to_string(*d);
  if (const std::string* s = value.string()) return json_quote(*s);
  return value.array() != nullptr ? "a list" : "an object";
}

std::optional<double> as_double(const Json& value) {
  if (const std::int64_t* i = value.integer()) return static_cast<double>(*i);
  if (const double* d = value.real()) return *d;
  return std::nullopt;
}

std::optional<int> as_int(const Json& value, int least, int most) {
  const auto number = as_double(value);
  if (!number || *number != std::floor(*number) || *number < least || *number > most) return std::nullopt;
  return static_cast<int>(*number);
}

/// One object of the file. Every reader leaves its target alone when the key is absent.
class Section {
 public:
  Section(const Json* object, std::string prefix, Problems& problems)
      : object_(object), prefix_(std::move(prefix)), problems_(problems) {
    if (object_ != nullptr && object_->object() == nullptr) {
      expected(prefix_.empty() ? "the file" : prefix_.substr(0, prefix_.size() - 1), "an object", *object_);
      object_ = nullptr;
    }
  }

  Section section(const char* key) const { return {find(key), prefix_ + key + ".", problems_}; }
  bool has(const char* key) const { return find(key) != nullptr; }
  bool is_null(const char* key) const { return has(key) && find(key)->is_null(); }

  void size(const char* key, int& target, int least = 1, int most = kMaxConfigSize) const {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (const auto number = as_int(*value, least, most)) {
      target = *number;
    } else {
      expected(prefix_ + key, "a whole number from " + std::to_string(least) + " to " + std::to_string(most), *value);
    }
  }

  template <typename Real>
  void positive(const char* key, Real& target) const {
    const Json* value = find(key);
    if (value == nullptr) return;
    const auto number = as_double(*value);
    if (number && *number > 0.0 && *number <= 1e9) {
      target = static_cast<Real>(*number);
    } else {
      expected(prefix_ + key, "a number above 0", *value);
    }
  }

  void sizes(const char* key, std::vector<int>& target, int least) const {
    const Json* value = find(key);
    if (value == nullptr) return;
    std::vector<int> numbers;
    const std::string what = "a list of whole numbers from " + std::to_string(least);
    if (value->array() == nullptr) return expected(prefix_ + key, what, *value);
    for (const Json& item : *value->array()) {
      const auto number = as_int(item, least, kMaxConfigSize);
      if (!number) return expected(prefix_ + key, what, item);
      numbers.push_back(*number);
    }
    target = std::move(numbers);
  }

  void texts(const char* key, std::vector<std::string>& target) const {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (value->array() == nullptr) return expected(prefix_ + key, "a list of texts", *value);
    target.clear();
    for (const Json& item : *value->array()) {
      if (item.string() == nullptr) return expected(prefix_ + key, "a list of texts", item);
      target.push_back(*item.string());
    }
  }

  // A setting of which this implementation knows one value only.
  void only(const char* key, const char* text) const {
    const Json* value = find(key);
    if (value != nullptr && (value->string() == nullptr || *value->string() != text)) {
      expected(prefix_ + key, json_quote(text) + " (nothing else is implemented)", *value);
    }
  }
  void only(const char* key, bool flag) const {
    const Json* value = find(key);
    if (value != nullptr && (value->boolean() == nullptr || *value->boolean() != flag)) {
      expected(prefix_ + key, std::string(flag ? "true" : "false") + " (nothing else is implemented)", *value);
    }
  }
  void only_null(const char* key) const {
    if (has(key) && !is_null(key)) expected(prefix_ + key, "null (nothing else is implemented)", *find(key));
  }
  void only_number(const char* key, double number) const {
    const Json* value = find(key);
    if (value != nullptr && as_double(*value) != number) {
      std::string text = std::to_string(number);
      text.erase(text.find_last_not_of('0') + 1);
      if (text.back() == '.') text.pop_back();
      expected(prefix_ + key, text, *value);
    }
  }
  void not_null(const char* key) const {
    if (is_null(key)) expected(prefix_ + key, "a number", *find(key));
  }

  void expected(const std::string& key, const std::string& what, const Json& got) const {
    problems_.add(key + ": expected " + what + ", got " + describe(got));
  }

 private:
  const Json* find(const char* key) const { return object_ == nullptr ? nullptr : object_->find(key); }

  const Json* object_;
  std::string prefix_;
  Problems& problems_;
};

void read_temporal(const Section& file, Config& config) {
  file.size("dim", config.dim);
  file.size("num_heads", config.num_heads);
  file.size("num_layers", config.num_layers, 1, kMaxCount);
  file.positive("hidden_scale", config.hidden_scale);
  file.size("n_q", config.n_q, 2, kMaxCount);
  file.size("dep_q", config.dep_q, 1, kMaxCount);
  file.size("card", config.card);
  file.size("text_card", config.text_card);
  file.size("context", config.context);
  file.positive("max_period", config.max_period);
  file.size("existing_text_padding_id", config.text_padding_id, 0);
  file.only("causal", true);
  file.only("norm", "rms_norm_f32");
  file.only("gating", "silu");
  file.only("positional_embedding", "rope");
  file.only("norm_emb", false);
  file.only("bias_proj", false);
  file.only("cross_attention", false);
  file.only("demux_second_stream", false);
  file.only_null("layer_scale");
  file.only_null("text_card_out");
  file.only_number("sample_rate", 24000);
  file.only_number("frame_rate", 12.5);
}

void read_depformer(const Section& file, Config& config) {
  file.size("depformer_dim", config.depformer_dim);
  file.size("depformer_num_heads", config.depformer_num_heads);
  file.size("depformer_num_layers", config.depformer_num_layers, 1, kMaxCount);
  if (file.is_null("depformer_dim_feedforward")) {
    config.depformer_dim_feedforward =
        static_cast<int>(std::min<double>(config.hidden_scale * config.depformer_dim, kMaxConfigSize));
  } else {
    file.size("depformer_dim_feedforward", config.depformer_dim_feedforward);
  }
  file.only("depformer_gating", "silu");
  file.only("depformer_pos_emb", "none");
  file.only("depformer_norm", "rms_norm_f32");
  file.only("depformer_multi_linear", true);
  file.only("depformer_weights_per_step", true);
  file.only_null("depformer_layer_scale");
  file.only_null("depformer_weights_per_step_schedule");
  file.only_null("depformer_low_rank_embeddings");
}

/// What the lists are when the file does not give them: PersonaPlex-7B's, cut or repeated to the sizes of this model.
void default_lists(const Section& file, Config& config) {
  const auto q = static_cast<std::size_t>(config.codebooks());
  if (!file.has("delays") && config.n_q != Config{}.n_q) {
    config.delays.assign(2 * q + 1, 1);
    config.delays[0] = config.delays[1] = config.delays[1 + q] = 0;
  }
  auto fit = [&](std::vector<int>& codes) {
    const std::vector<int> original = codes;
    codes.resize(q);
    for (std::size_t i = 0; i < q; ++i) codes[i] = original[i % original.size()] % config.card;
  };
  if (!file.has("silence_codes")) fit(config.silence_codes);
  if (!file.has("sine_codes")) fit(config.sine_codes);
}

void read_mimi(const Section& mimi, MimiConfig& config) {
  const Section seanet = mimi.section("seanet");
  seanet.size("dimension", config.dimension);
  seanet.size("n_filters", config.n_filters);
  seanet.size("n_residual_layers", config.n_residual_layers, 0, 16);
  seanet.size("compress", config.compress);
  seanet.size("dilation_base", config.dilation_base, 1, 64);
  seanet.size("kernel_size", config.kernel_size, 1, kMaxCount);
  seanet.size("residual_kernel_size", config.residual_kernel_size, 1, kMaxCount);
  seanet.size("last_kernel_size", config.last_kernel_size, 1, kMaxCount);
  seanet.sizes("ratios", config.ratios, 1);
  seanet.only("causal", true);
  seanet.only("activation", "ELU");
  seanet.only("norm", "none");
  seanet.only("pad_mode", "constant");
  seanet.only("true_skip", true);
  seanet.only_number("channels", 1);
  seanet.only_number("trim_right_ratio", 1);
  seanet.only_null("final_activation");

  const Section quantizer = mimi.section("quantizer");
  quantizer.size("dimension", config.quantizer_dimension);
  quantizer.size("n_q", config.quantizer_n_q, 1, kMaxCount);
  quantizer.size("bins", config.bins);
  quantizer.only_number("input_dimension", config.dimension);
  quantizer.only_number("output_dimension", config.dimension);

  const Section transformer = mimi.section("transformer");
  transformer.size("num_heads", config.num_heads);
  transformer.size("num_layers", config.num_layers, 0, kMaxCount);
  transformer.size("dim_feedforward", config.dim_feedforward);
  transformer.size("context", config.context);
  transformer.positive("max_period", config.max_period);
  transformer.only("causal", true);
  transformer.only("gating", "none");
  transformer.only("norm", "layer_norm");
  transformer.only("positional_embedding", "rope");
  transformer.not_null("layer_scale");
  transformer.only_number("d_model", config.dimension);
  transformer.only_number("input_dimension", config.dimension);
}

void read_quantization(const Section& quantization, Config& config) {
  quantization.size("bits", config.file_bits);
  quantization.size("group_size", config.file_group_size);
  quantization.texts("quantized_components", config.quantized_components);
}

}  // namespace

int MimiConfig::hop_length() const {
  int hop = 1;
  for (const int ratio : ratios) hop *= ratio;
  return hop;
}

int Config::ffn_hidden() const { return gated_hidden(dim, static_cast<int>(hidden_scale * dim)); }

int Config::depformer_ffn_hidden() const { return gated_hidden(depformer_dim, depformer_dim_feedforward); }

int Config::max_delay() const { return delays.empty() ? 0 : *std::max_element(delays.begin(), delays.end()); }

Config parse_config(const std::string& json_text, const std::string& where) {
  const Json json = parse_json(json_text, "[parse_config] " + where);
  Problems problems;
  const Section file(&json, "", problems);
  Config config;
  read_temporal(file, config);
  read_depformer(file, config);
  file.sizes("delays", config.delays, 0);
  file.sizes("silence_codes", config.silence_codes, 0);
  file.sizes("sine_codes", config.sine_codes, 0);
  file.size("spacer_frames", config.spacer_frames, 0, kMaxCount);
  read_mimi(file.section("mimi"), config.mimi);
  if (!file.is_null("quantization")) read_quantization(file.section("quantization"), config);
  default_lists(file, config);
  problems.raise("[parse_config] " + where + ":");
  validate_config(config, where);
  return config;
}

Config random_config(const std::string& preset) {
  if (preset == "7b") return Config{};
  if (preset != "tiny") bad_argument("random_config", "expected \"7b\" or \"tiny\", got " + json_quote(preset) + ".");
  // Small enough for a few milliseconds a frame on one slow core; every K is a multiple of 32, so that it can be
  // quantized.
  Config config;
  config.dim = 256;
  config.num_heads = 4;
  config.num_layers = 3;
  config.card = 256;
  config.text_card = 512;
  config.context = 400;
  config.depformer_dim = 64;
  config.depformer_num_heads = 2;
  config.depformer_num_layers = 2;
  config.depformer_dim_feedforward = 288;
  for (int& code : config.silence_codes) code %= config.card;
  for (int& code : config.sine_codes) code %= config.card;
  config.mimi.dimension = 64;
  config.mimi.n_filters = 8;
  config.mimi.quantizer_dimension = 16;
  config.mimi.quantizer_n_q = 8;
  config.mimi.bins = 256;
  config.mimi.num_heads = 4;
  config.mimi.num_layers = 2;
  config.mimi.dim_feedforward = 256;
  config.mimi.context = 50;
  return config;
}

}  // namespace personaplex
