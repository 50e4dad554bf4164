// tests/cpp/test_checkpoint_files.h: a directory that removes itself, and small checkpoints in the layouts that are
// read.
#pragma once

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/source.h"
#include "core/error.h"

namespace personaplex::testing {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "personaplex-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = pattern;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string operator/(const std::string& name) const { return path + "/" + name; }

  std::string path;
};

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

/// The message of what `call` throws as Error; fails when it throws something else, empty when nothing.
template <typename Error, typename Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Every tensor of the model under its first name; element i of a tensor depends on the name and i alone.
class RecordingSource : public Source {
 public:
  bool has(const std::string&) const override { return false; }
  Matrix matrix(const Names& names, std::int64_t n, std::int64_t k) override {
    Matrix m;
    m.n = n;
    m.k = k;
    m.weight = add(names.front(), DType::kBF16, {n, k});
    return m;
  }
  TensorView norm(const Names& names, std::int64_t d) override {
    TensorView flat = add(names.front(), DType::kBF16, {1, 1, d});
    flat.shape = {d};
    return flat;
  }
  TensorView tensor(const Names& names, const std::vector<std::int64_t>& shape) override {
    return add(names.front(), DType::kF32, shape);
  }

  std::vector<NamedTensor> tensors;

 private:
  TensorView add(const std::string& name, DType dtype, const std::vector<std::int64_t>& shape) {
    OwnedTensor t = allocate_tensor(dtype, shape);
    unsigned state = 1;
    for (const char c : name) state = state * 31U + static_cast<unsigned char>(c);
    for (std::size_t i = 0; i < t.view.nbytes(); i += 2) {
      state = state * 1664525U + 1013904223U;
      const auto bits = static_cast<std::uint16_t>(0x3D00U | ((state >> 16) & 0x80FFU));  // +-0.03 .. +-0.12
      std::memcpy(t.mutable_data + i, &bits, 2);
    }
    tensors.push_back({name, t.view});
    return t.view;
  }
};

inline std::vector<NamedTensor> language_model_tensors(const Config& config, int steps) {
  RecordingSource source;
  temporal_weights(source, config);
  depformer_weights(source, config, steps, steps);
  return source.tensors;
}

inline std::vector<NamedTensor> mimi_tensors(const Config& config) {
  RecordingSource source;
  mimi_weights(source, config);
  return source.tensors;
}

/// Two layers of everything, 2 + 2 streams: loads in milliseconds.
inline const char* small_config_text() {
  return R"({"dim": 64, "num_heads": 2, "num_layers": 2, "hidden_scale": 1.5, "n_q": 4, "dep_q": 4, "card": 32,
    "text_card": 40, "context": 20, "depformer_dim": 32, "depformer_num_heads": 2, "depformer_num_layers": 2,
    "depformer_dim_feedforward": 48, "unknown_key": {"a": [1]},
    "mimi": {"seanet": {"dimension": 16, "n_filters": 2}, "quantizer": {"dimension": 8, "n_q": 2, "bins": 32},
             "transformer": {"num_heads": 2, "num_layers": 1, "dim_feedforward": 16, "context": 8, "layer_scale": 0.01}}})";
}

inline Config small_config() { return parse_config(small_config_text(), "small"); }

inline void write_nvidia_checkpoint(const std::string& directory, const std::vector<NamedTensor>& language_model) {
  write_text(directory + "/config.json", small_config_text());
  write_safetensors(directory + "/model.safetensors", language_model, {});
  write_safetensors(directory + "/tokenizer-e351c8d8-checkpoint125.safetensors", mimi_tensors(small_config()), {});
}

inline bool same_bytes(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::memcmp(a.data, b.data, a.nbytes()) == 0;
}

}  // namespace personaplex::testing
