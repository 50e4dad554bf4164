// csrc/checkpoint/checkpoint.cpp: finds out which layout a directory has and reads it.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "checkpoint/key_reader.h"
#include "checkpoint/mapped_file.h"
#include "checkpoint/mlx_layout.h"
#include "checkpoint/quantize.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/source.h"

namespace personaplex {

namespace {

namespace fs = std::filesystem;

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kMlxFiles[] = {"temporal.safetensors", "depformer.safetensors", "embeddings.safetensors"};
constexpr const char* kMimiFiles[] = {"tokenizer-e351c8d8-checkpoint125.safetensors", "mimi.safetensors"};

bool exists(const std::string& directory, const char* file) {
  std::error_code ignored;
  return fs::exists(directory + "/" + file, ignored);
}

std::string listing(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  if (error) return "cannot be listed (" + error.message() + ")";
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (names.empty()) return "is empty";
  std::sort(names.begin(), names.end());
  constexpr std::size_t kMost = 20;
  std::string text = "holds ";
  for (std::size_t i = 0; i < std::min(names.size(), kMost); ++i) text += (i > 0 ? ", " : "") + names[i];
  return names.size() > kMost ? text + " and " + std::to_string(names.size() - kMost) + " more" : text;
}

[[noreturn]] void missing(const std::string& directory, const std::string& looked_for) {
  throw WeightsError("[load_checkpoint] " + directory + ": expected " + looked_for + "; the directory " +
                     listing(directory) + ".");
}

Config read_config(const std::string& directory) {
  const std::string path = directory + "/config.json";
  if (!exists(directory, "config.json")) return Config{};
  const MappedFile file = map_file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.data), file.size);
  return parse_config(std::string(text), path);
}

TensorTable single_file(const std::string& directory, const std::string& file) {
  TensorTable table;
  table.tensors = read_safetensors(directory + "/" + file).tensors;
  table.show = [file](const std::string& name) { return file + ": " + name; };
  return table;
}

TensorTable read_language_model(const std::string& directory) {
  if (exists(directory, kModelFile)) return single_file(directory, kModelFile);
  if (!exists(directory, kMlxFiles[0])) {
    missing(directory, std::string(kModelFile) + " (NVIDIA's layout) or " + kMlxFiles[0] + " (the MLX layout)");
  }
  for (const char* file : kMlxFiles) {
    if (!exists(directory, file)) missing(directory, std::string(file) + " beside " + kMlxFiles[0]);
  }
  return read_mlx_layout(directory);
}

TensorTable read_mimi(const std::string& directory) {
  for (const char* file : kMimiFiles) {
    if (exists(directory, file)) return single_file(directory, file);
  }
  missing(directory, std::string("Mimi's weights as ") + kMimiFiles[0] + " or " + kMimiFiles[1]);
}

/// Depformer steps in the file: from the first axis of in_proj, whatever config.json says.
int stored_steps(const TensorTable& table, const Config& config, Problems& problems) {
  const std::string prefix = "depformer.layers.0.self_attn.";
  int steps = 0;
  const auto joined = table.tensors.find(prefix + "in_proj_weight");
  if (joined == table.tensors.end()) {
    while (table.tensors.count(prefix + "in_projs." + std::to_string(steps) + ".weight") != 0) ++steps;
    if (steps == 0) return config.dep_q;  // the reader reports the missing key
  }
  const std::int64_t step_rows = 3 * std::int64_t{config.depformer_dim};
  std::string found = std::to_string(steps) + " steps";
  if (joined != table.tensors.end()) {
    const TensorView& stored = joined->second;
    found = shape_string(stored.shape) + " " + name_of(stored.dtype);
    if (stored.shape.size() == 2 && stored.dim(0) % step_rows == 0) {
      steps = static_cast<int>(std::min<std::int64_t>(stored.dim(0) / step_rows, 2 * config.n_q));
    }
  }
  if (steps == config.codebooks() || steps == config.n_q) return steps;
  problems.add(table.show(prefix + "in_proj_weight") + ": expected " + std::to_string(config.codebooks()) + " or " +
               std::to_string(config.n_q) + " depformer steps of " + std::to_string(step_rows) + " rows, got " + found);
  return config.dep_q;
}

/// A file with tensors `prefix{i}.*` of i >= count is of a larger model than config.json says; reading the first few
/// layers of it would give noise without a word.
void check_surplus(const TensorTable& table, const std::string& prefix, int count, const std::string& what,
                   Problems& problems) {
  int most = count - 1;
  for (auto it = table.tensors.lower_bound(prefix); it != table.tensors.end(); ++it) {
    const std::string& name = it->first;
    if (name.compare(0, prefix.size(), prefix) != 0) break;
    int index = 0;
    const char* begin = name.data() + prefix.size();
    const auto [end, failed] = std::from_chars(begin, name.data() + name.size(), index);
    if (failed == std::errc() && *end == '.') most = std::max(most, index);
  }
  if (most >= count) {
    problems.add(table.show(prefix + std::to_string(most)) + ": config.json says " + what + " = " +
                 std::to_string(count) + ", numbered from 0");
  }
}

}  // namespace

Weights load_checkpoint(const std::string& directory, const LoadOptions& options) {
  check_path("load_checkpoint", directory);
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    throw WeightsError("[load_checkpoint] expected a checkpoint directory, got " + directory +
                       (error ? " (" + error.message() + ")." : "."));
  }
  Weights weights;
  weights.config = read_config(directory);
  check_options(weights.config, options);
  const TensorTable language_model = read_language_model(directory);
  const TensorTable mimi = read_mimi(directory);

  Problems problems;
  KeyReader reader(language_model, weights.config, problems);
  KeyReader mimi_reader(mimi, weights.config, problems);
  const int steps = depformer_steps(weights.config, options);
  weights.temporal = temporal_weights(reader, weights.config);
  weights.depformer =
      depformer_weights(reader, weights.config, stored_steps(language_model, weights.config, problems), steps);
  weights.mimi = mimi_weights(mimi_reader, weights.config);
  check_surplus(language_model, "transformer.layers.", weights.config.num_layers, "num_layers", problems);
  check_surplus(language_model, "depformer.layers.", weights.config.depformer_num_layers, "depformer_num_layers",
                problems);
  check_surplus(language_model, "emb.", weights.config.n_q, "n_q", problems);
  problems.raise("[load_checkpoint] " + directory + ": the files do not fit the model that config.json describes:",
                 "(Without config.json, or with a key absent from it, PersonaPlex-7B's sizes are expected.)");
  weights.config.dep_q = steps;
  apply_bits(weights, options);
  return weights;
}

}  // namespace personaplex
