// csrc/checkpoint/mlx_layout.cpp: the MLX layout names tensors as NVIDIA does, less the prefix that its file's name
// replaces.
#include "checkpoint/mlx_layout.h"

#include "checkpoint/safetensors.h"

namespace personaplex {

namespace {

constexpr const char* kTemporalFile = "temporal.safetensors";
constexpr const char* kDepformerFile = "depformer.safetensors";
constexpr const char* kEmbeddingsFile = "embeddings.safetensors";

bool starts_with(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

/// Adds a file's tensors; keys that begin with "layers." get `prefix`, all others are NVIDIA's names already.
void join(TensorTable& table, const std::string& path, const std::string& prefix) {
  for (auto& [key, tensor] : read_safetensors(path).tensors) {
    const std::string name = starts_with(key, "layers.") ? prefix + key : key;
    if (!table.tensors.emplace(name, tensor).second) {
      throw WeightsError("[load_checkpoint] " + path + ": " + key + " is in another file of the checkpoint already.");
    }
  }
}

std::string show(const std::string& name) {
  if (starts_with(name, "transformer.")) return std::string(kTemporalFile) + ": " + name.substr(name.find('.') + 1);
  if (starts_with(name, "out_norm.")) return std::string(kTemporalFile) + ": " + name;
  if (starts_with(name, "depformer.")) return std::string(kDepformerFile) + ": " + name.substr(name.find('.') + 1);
  if (starts_with(name, "depformer_in.")) return std::string(kDepformerFile) + ": " + name;
  return std::string(kEmbeddingsFile) + ": " + name;
}

}  // namespace

TensorTable read_mlx_layout(const std::string& directory) {
  TensorTable table;
  join(table, directory + "/" + kTemporalFile, "transformer.");
  join(table, directory + "/" + kDepformerFile, "depformer.");
  join(table, directory + "/" + kEmbeddingsFile, "");
  table.show = show;
  return table;
}

}  // namespace personaplex
