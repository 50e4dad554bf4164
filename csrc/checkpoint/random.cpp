// csrc/checkpoint/random.cpp: weights of any shape as a pure function of (seed, name, element), scaled so that signals
// live.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>

#include "checkpoint/bf16.h"
#include "checkpoint/quantize.h"
#include "checkpoint/source.h"

namespace personaplex {

namespace {

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }
bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// SplitMix64's finalizer: random access, so that any element can be made alone and by any thread.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

/// The stream of one tensor: word i is mix(start + i * golden ratio).
class Stream {
 public:
  Stream(std::uint64_t seed, const std::string& name) {
    std::uint64_t hash = 0xCBF29CE484222325U;  // FNV-1a
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
    start_ = mix(hash ^ mix(seed + 0x9E3779B97F4A7C15U));
  }
  std::uint64_t word(std::uint64_t i) const { return mix(start_ + i * 0x9E3779B97F4A7C15U); }

 private:
  std::uint64_t start_;
};

/// The normal distribution's quantile function, by bisection on erfc: slow, exact, and only used for a table.
double normal_quantile(double p) {
  double low = -10.0, high = 10.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

constexpr std::size_t kTable = 4096;  // 12 bits a draw; reaches 3.7 standard deviations, fits the first-level cache

const std::vector<float>& normal_table() {
  static const std::vector<float> table = [] {
    std::vector<float> values(kTable);
    for (std::size_t i = 0; i < kTable; ++i) {
      values[i] = static_cast<float>(normal_quantile((static_cast<double>(i) + 0.5) / kTable));
    }
    return values;
  }();
  return table;
}

/// Elements [begin, end) of mean + std * normal; four elements share one 64-bit word.
template <typename Element, typename Convert>
void fill_normal(Element* out, std::int64_t begin, std::int64_t end, const Stream& stream, float mean, float std,
                 Convert convert) {
  std::vector<Element> table(kTable);
  for (std::size_t i = 0; i < kTable; ++i) table[i] = convert(mean + std * normal_table()[i]);
  for (std::int64_t i = begin; i < end; i += 4) {
    std::uint64_t word = stream.word(static_cast<std::uint64_t>(i) / 4);
    for (std::int64_t j = i; j < std::min(i + 4, end); ++j, word >>= 16) out[j] = table[word & (kTable - 1)];
  }
}

/// Packed words uniform over all codes.
void fill_words(std::uint32_t* out, std::int64_t begin, std::int64_t end, const Stream& stream) {
  for (std::int64_t i = begin; i < end; i += 2) {
    const std::uint64_t word = stream.word(static_cast<std::uint64_t>(i) / 2);
    out[i] = static_cast<std::uint32_t>(word);
    if (i + 1 < end) out[i + 1] = static_cast<std::uint32_t>(word >> 32);
  }
}

/// Scales within 10 % of `scale` and biases that centre the codes, -half * scale. They vary so that the rounding of the
/// biases, the same in every group otherwise, does not add up along a row.
void fill_affine(std::uint16_t* scales, std::uint16_t* biases, std::int64_t begin, std::int64_t end,
                 const Stream& stream, float scale, float half) {
  std::vector<std::uint16_t> scale_table(256), bias_table(256);
  for (std::size_t i = 0; i < 256; ++i) {
    scale_table[i] = to_bf16_bits(scale * (0.9F + 0.2F * static_cast<float>(i) / 255.0F));
    bias_table[i] = to_bf16_bits(-half * from_bf16_bits(scale_table[i]));
  }
  for (std::int64_t i = begin; i < end; ++i) {
    const std::size_t pick = stream.word(static_cast<std::uint64_t>(i)) >> 56;
    scales[i] = scale_table[pick];
    biases[i] = bias_table[pick];
  }
}

struct Normal {
  double mean = 0.0, std = 1.0;
};

/// Language model: as wide as a trained one is after its norms; heads wide enough that the text is not uniform.
double matrix_std(const std::string& name, std::int64_t k) {
  const double unit = 1.0 / std::sqrt(static_cast<double>(k));
  if (starts_with(name, "emb.") || starts_with(name, "text_emb.")) return 0.5;
  if (starts_with(name, "depformer_emb.") || starts_with(name, "depformer_text_emb.")) return 1.0;
  if (starts_with(name, "linears.") || starts_with(name, "text_linear.")) return 3.0 * unit;
  return unit;
}

/// Mimi: gains that keep the level through SEANet, and codebooks near the latents that speech gives, so that codes
/// follow the input.
Normal mimi_normal(const std::string& name, const std::vector<std::int64_t>& shape) {
  if (ends_with(name, "cluster_usage")) return {1.0, 0.1};
  if (ends_with(name, "embedding_sum")) return {0.0, 0.4};
  if (contains(name, ".layer_scale_")) return {0.3, 0.05};
  if (contains(name, ".norm") && ends_with(name, ".weight")) return {1.0, 0.1};
  if (ends_with(name, ".bias")) return {0.0, 0.02};
  if (contains(name, "convtr")) return {0.0, 1.2 / std::sqrt(2.0 * static_cast<double>(shape[1] > 1 ? shape[0] : 1))};
  double fan_in = 1.0;
  for (std::size_t i = 1; i < shape.size(); ++i) fan_in *= static_cast<double>(shape[i]);
  const bool pcm = starts_with(name, "decoder.model.") && shape[0] == 1;  // the last convolution: keep |pcm| below 1
  return {0.0, (pcm ? 0.05 : 1.1) / std::sqrt(fan_in)};
}

/// Allocates at once, fills in run(): jobs are ranges of tensors, and which thread takes which changes nothing.
class RandomSource : public Source {
 public:
  RandomSource(std::uint64_t seed, const LoadOptions& options) : seed_(seed), options_(options) { normal_table(); }

  // Every tensor has its first name only.
  bool has(const std::string&) const override { return false; }

  Matrix matrix(const Names& names, std::int64_t n, std::int64_t k) override {
    const std::string& name = names.front();
    Matrix result;
    result.n = n;
    result.k = k;
    const double std = matrix_std(name, k);
    const int bits = bits_for(name, options_);
    const int group = group_size_for(k, options_);
    if ((bits != 4 && bits != 8) || group == 0) {
      result.weight = normal_bf16(name, {n, k}, {0.0, std});
      return result;
    }
    result.bits = bits;
    result.group_size = group;
    OwnedTensor words = allocate_tensor(DType::kU32, {n, k * bits / 32});
    OwnedTensor scales = allocate_tensor(DType::kBF16, {n, k / group});
    OwnedTensor biases = allocate_tensor(DType::kBF16, {n, k / group});
    auto* word = reinterpret_cast<std::uint32_t*>(words.mutable_data);
    auto* scale = reinterpret_cast<std::uint16_t*>(scales.mutable_data);
    auto* bias = reinterpret_cast<std::uint16_t*>(biases.mutable_data);
    const double codes = bits == 4 ? 16.0 : 256.0;
    const auto half = static_cast<float>((codes - 1.0) / 2.0);
    // A uniform code has standard deviation sqrt((codes^2 - 1) / 12).
    const auto step = static_cast<float>(std / std::sqrt((codes * codes - 1.0) / 12.0));
    const Stream word_stream(seed_, name), scale_stream(seed_, name + ".scales");
    enqueue(words.view.size(),
            [=](std::int64_t begin, std::int64_t end) { fill_words(word, begin, end, word_stream); });
    enqueue(scales.view.size(), [=](std::int64_t begin, std::int64_t end) {
      fill_affine(scale, bias, begin, end, scale_stream, step, half);
    });
    result.weight = words.view;
    result.scales = scales.view;
    result.biases = biases.view;
    return result;
  }

  TensorView norm(const Names& names, std::int64_t d) override { return normal_bf16(names.front(), {d}, {1.0, 0.1}); }

  TensorView tensor(const Names& names, const std::vector<std::int64_t>& shape) override {
    const Normal normal = mimi_normal(names.front(), shape);
    OwnedTensor values = allocate_tensor(DType::kF32, shape);
    auto* out = reinterpret_cast<float*>(values.mutable_data);
    const Stream stream(seed_, names.front());
    enqueue(values.view.size(), [=](std::int64_t begin, std::int64_t end) {
      fill_normal(out, begin, end, stream, static_cast<float>(normal.mean), static_cast<float>(normal.std),
                  [](float x) { return x; });
    });
    return values.view;
  }

  /// Fills everything that was asked for.
  void run() {
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
      for (std::size_t i = next++; i < jobs_.size(); i = next++) jobs_[i]();
    };
    std::vector<std::thread> threads;
    const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1U, 4U);
    for (unsigned i = 1; i < count; ++i) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
    jobs_.clear();
  }

 private:
  TensorView normal_bf16(const std::string& name, const std::vector<std::int64_t>& shape, Normal normal) {
    OwnedTensor values = allocate_tensor(DType::kBF16, shape);
    auto* out = reinterpret_cast<std::uint16_t*>(values.mutable_data);
    const Stream stream(seed_, name);
    enqueue(values.view.size(), [=](std::int64_t begin, std::int64_t end) {
      fill_normal(out, begin, end, stream, static_cast<float>(normal.mean), static_cast<float>(normal.std),
                  to_bf16_bits);
    });
    return values.view;
  }

  template <typename Fill>
  void enqueue(std::int64_t size, Fill fill) {
    constexpr std::int64_t kRange = 1 << 22;  // a multiple of the elements that share one word
    for (std::int64_t begin = 0; begin < size; begin += kRange) {
      jobs_.push_back([=] { fill(begin, std::min(begin + kRange, size)); });
    }
  }

  std::uint64_t seed_;
  LoadOptions options_;
  std::vector<std::function<void()>> jobs_;
};

}  // namespace

Weights random_weights(const Config& config, std::uint64_t seed, const LoadOptions& options) {
  validate_config(config, "the config of random_weights");
  check_options(config, options);
  Weights weights;
  weights.config = config;
  weights.config.dep_q = depformer_steps(config, options);
  RandomSource source(seed, options);
  weights.temporal = temporal_weights(source, config);
  weights.depformer = depformer_weights(source, config, weights.config.dep_q, weights.config.dep_q);
  weights.mimi = mimi_weights(source, config);
  source.run();
  apply_bits(weights, options);
  return weights;
}

}  // namespace personaplex
