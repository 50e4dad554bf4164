// csrc/checkpoint/key_reader.cpp: shape and dtype checks of each tensor, quantized or not.
#include "checkpoint/key_reader.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/bf16.h"
#include "checkpoint/matrices.h"

namespace personaplex {

namespace {

constexpr const char* kFloat = "F32, F16 or BF16";

bool is_float(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }

std::string describe(const TensorView& t) { return shape_string(t.shape) + " " + name_of(t.dtype); }

/// "a.in_proj_weight" -> "a.in_proj_scales", "a.out_proj.weight" -> "a.out_proj.scales".
std::string sibling(const std::string& name, const char* part) {
  return name.substr(0, name.size() - std::strlen("weight")) + part;
}

/// The name that the list quantized_components of config.json has for a tensor.
const char* listed_as(const std::string& name) {
  switch (component_of(name)) {
    case Component::kTemporal:
      return "temporal";
    case Component::kDepformer:
      return "depformer";
    default:
      return "embeddings";  // the file of that name holds the heads too
  }
}

}  // namespace

TensorView to_bf16(const TensorView& t) {
  if (t.dtype == DType::kBF16) return t;
  OwnedTensor rounded = allocate_tensor(DType::kBF16, t.shape);
  auto* out = reinterpret_cast<std::uint16_t*>(rounded.mutable_data);
  const auto count = static_cast<std::size_t>(t.size());
  if (t.dtype == DType::kF32) {
    const auto* in = reinterpret_cast<const float*>(t.data);
    std::transform(in, in + count, out, to_bf16_bits);
  } else if (t.dtype == DType::kF16) {
    const auto* in = reinterpret_cast<const std::uint16_t*>(t.data);
    std::transform(in, in + count, out, [](std::uint16_t bits) { return to_bf16_bits(from_f16_bits(bits)); });
  } else {
    bad_argument("to_bf16", "expected " + std::string(kFloat) + ", got " + name_of(t.dtype) + ".");
  }
  return rounded.view;
}

const std::string* KeyReader::first_present(const Names& names, const std::string& expected) {
  for (const std::string& name : names) {
    if (has(name)) return &name;
  }
  problems_.add(table_.show(names.front()) + ": expected " + expected + ", got nothing (the key is missing)");
  return nullptr;
}

void KeyReader::mismatch(const std::string& name, const std::string& expected) {
  const auto found = table_.tensors.find(name);
  problems_.add(table_.show(name) + ": expected " + expected + ", got " +
                (found == table_.tensors.end() ? "nothing (the key is missing)" : describe(found->second)));
}

Matrix KeyReader::matrix(const Names& names, std::int64_t n, std::int64_t k) {
  Matrix result;
  result.n = n;
  result.k = k;
  const std::string expected = shape_string({n, k}) + " " + kFloat;
  const std::string* name = first_present(names, expected);
  if (name == nullptr) return result;
  const TensorView& stored = table_.tensors.at(*name);
  if (stored.dtype == DType::kU32 || has(sibling(*name, "scales"))) return quantized(*name, n, k);
  if (stored.shape != std::vector<std::int64_t>{n, k} || !is_float(stored.dtype)) {
    mismatch(*name, expected);
    return result;
  }
  result.weight = to_bf16(stored);
  return result;
}

Matrix KeyReader::quantized(const std::string& name, std::int64_t n, std::int64_t k) {
  Matrix result;
  result.n = n;
  result.k = k;
  const auto find = [&](const std::string& key) {
    const auto found = table_.tensors.find(key);
    return found == table_.tensors.end() ? TensorView{} : found->second;
  };
  const std::string scales_name = sibling(name, "scales");
  const std::string biases_name = sibling(name, "biases");
  const TensorView words = find(name);
  const TensorView scales = find(scales_name);
  const TensorView biases = find(biases_name);

  bool fits = true;
  const auto reject = [&](const std::string& key, const std::string& expected) {
    mismatch(key, expected);
    fits = false;
  };
  int bits = 0;
  for (const int candidate : {4, 8}) {
    if (words.dtype == DType::kU32 && words.shape == std::vector<std::int64_t>{n, k * candidate / 32} &&
        k * candidate % 32 == 0) {
      bits = candidate;
    }
  }
  if (bits == 0) {
    reject(name, shape_string({n, k * 4 / 32}) + " or " + shape_string({n, k * 8 / 32}) + " U32 (4 or 8 bits of [" +
                     std::to_string(n) + ", " + std::to_string(k) + "])");
  }

  int group = 0;
  for (const int candidate : {64, 32}) {
    if (k % candidate == 0 && scales.shape == std::vector<std::int64_t>{n, k / candidate}) group = candidate;
  }
  if (scales.empty() || group == 0 || !is_float(scales.dtype)) {
    reject(scales_name, shape_string({n, k / 64}) + " or " + shape_string({n, k / 32}) + " " + kFloat);
  }
  if (biases.empty() || biases.shape != scales.shape || biases.dtype != scales.dtype) {
    reject(biases_name, "the shape and dtype of its scales");
  }

  const auto& listed = config_.quantized_components;
  const bool announced = config_.file_bits < 16 &&
                         (listed.empty() || std::find(listed.begin(), listed.end(), listed_as(name)) != listed.end());
  if (announced && bits != 0 && group != 0 && (bits != config_.file_bits || group != config_.file_group_size)) {
    reject(name, std::to_string(config_.file_bits) + " bits in groups of " + std::to_string(config_.file_group_size) +
                     " (quantization of config.json), which is not " + std::to_string(bits) + " bits in groups of " +
                     std::to_string(group));
  }
  if (!fits) return result;
  result.weight = words;
  result.scales = scales;
  result.biases = biases;
  result.bits = bits;
  result.group_size = group;
  return result;
}

TensorView KeyReader::norm(const Names& names, std::int64_t d) {
  const std::string expected = "[1, 1, " + std::to_string(d) + "] or [" + std::to_string(d) + "] " + kFloat;
  const std::string* name = first_present(names, expected);
  if (name == nullptr) return {};
  TensorView stored = table_.tensors.at(*name);
  const std::vector<std::int64_t> flat{d}, padded{1, 1, d};
  if ((stored.shape != flat && stored.shape != padded) || !is_float(stored.dtype)) {
    mismatch(*name, expected);
    return {};
  }
  stored.shape = flat;
  return to_bf16(stored);
}

TensorView KeyReader::tensor(const Names& names, const std::vector<std::int64_t>& shape) {
  const std::string expected = shape_string(shape) + " " + kFloat;
  const std::string* name = first_present(names, expected);
  if (name == nullptr) return {};
  const TensorView& stored = table_.tensors.at(*name);
  if (stored.shape != shape || !is_float(stored.dtype)) {
    mismatch(*name, expected);
    return {};
  }
  return stored;
}

}  // namespace personaplex
