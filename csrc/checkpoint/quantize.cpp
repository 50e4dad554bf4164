// csrc/checkpoint/quantize.cpp: MLX's affine quantization of loaded weights, one matrix at a time, and its inverse.
#include "checkpoint/quantize.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "checkpoint/key_reader.h"
#include "checkpoint/matrices.h"
#include "checkpoint/mlx_arrays.h"
#include "core/error.h"

namespace personaplex {

namespace {

namespace mx = mlx::core;

/// An evaluated, row-contiguous array as a view that keeps MLX's buffer.
TensorView unwrap(const mx::array& a) {
  auto owner = std::make_shared<mx::array>(a);
  TensorView view;
  view.dtype = from_mlx(a.dtype());
  for (const auto d : a.shape()) view.shape.push_back(d);
  view.data = reinterpret_cast<const std::byte*>(owner->data<char>());
  view.owner = std::move(owner);
  return view;
}

// MLX may write to an input that nobody else holds; none of the operations below does, so they may take wrapped
// temporaries.

void quantize(Matrix& matrix, int bits, int group_size) {
  const mx::Device cpu(mx::Device::cpu);
  std::vector<mx::array> parts = mx::quantize(wrap(matrix.weight), group_size, bits, "affine", std::nullopt, cpu);
  for (mx::array& part : parts) part = mx::contiguous(part, false, cpu);
  mx::eval(parts);
  matrix.weight = unwrap(parts[0]);
  matrix.scales = unwrap(parts[1]);
  matrix.biases = unwrap(parts[2]);
  matrix.bits = bits;
  matrix.group_size = group_size;
}

/// Exact: scale * q has at most 19 significant bits in float32, so only the sum with the bias rounds.
void dequantize(Matrix& matrix) {
  const mx::Device cpu(mx::Device::cpu);
  const mx::array scales = mx::astype(wrap(matrix.scales), mx::float32, cpu);
  const mx::array biases = mx::astype(wrap(matrix.biases), mx::float32, cpu);
  mx::array weight = mx::contiguous(mx::dequantize(wrap(matrix.weight), scales, biases, matrix.group_size, matrix.bits,
                                                   "affine", std::nullopt, std::nullopt, cpu),
                                    false, cpu);
  mx::eval(weight);
  matrix.weight = unwrap(weight);
  matrix.scales = matrix.biases = TensorView{};
  matrix.bits = 16;
  matrix.group_size = 0;
}

/// A stored quantization may be widened, but cannot become a narrower one, or one of other groups, without losing more.
void check_stored(const std::string& name, const Matrix& matrix, const LoadOptions& options) {
  const int bits = bits_for(name, options);
  if (!matrix.quantized() || bits == 0) return;
  const bool same_group = options.group_size == 0 || options.group_size == matrix.group_size;
  if (bits == 16 || (bits >= matrix.bits && same_group)) return;
  bad_argument("apply_bits", name + " is stored in " + std::to_string(matrix.bits) + " bits, groups of " +
                                 std::to_string(matrix.group_size) + "; expected as many bits or more, got " +
                                 std::to_string(bits) +
                                 (same_group ? "" : ", groups of " + std::to_string(options.group_size)) +
                                 ". Leave the bits out, or load an unquantized checkpoint.");
}

/// The same 4-bit codes in bytes, with the same scales and biases: not a value changes.
void spread_codes(Matrix& matrix) {
  OwnedTensor bytes = allocate_tensor(DType::kU32, {matrix.n, matrix.k * 8 / 32});
  const auto* from = reinterpret_cast<const std::uint32_t*>(matrix.weight.data);
  auto* to = reinterpret_cast<std::uint32_t*>(bytes.mutable_data);
  const std::int64_t words = matrix.weight.size();
  for (std::int64_t i = 0; i < 2 * words; ++i) {
    const std::uint32_t codes = from[i / 2] >> (i % 2 * 16);
    to[i] = (codes & 0xFU) | (codes & 0xF0U) << 4 | (codes & 0xF00U) << 8 | (codes & 0xF000U) << 12;
  }
  matrix.weight = bytes.view;
  matrix.bits = 8;
}

/// A stored quantization in wider weights: exactly in 8 bits, rounded to bfloat16 in 16.
void widen(Matrix& matrix, int bits) {
  if (bits == 8) {
    spread_codes(matrix);
  } else {
    dequantize(matrix);
    matrix.weight = to_bf16(matrix.weight);
  }
}

}  // namespace

void check_options(const Config& config, const LoadOptions& options) {
  const std::pair<const char*, int> all_bits[] = {{"temporal_bits", options.temporal_bits},
                                                  {"depformer_bits", options.depformer_bits},
                                                  {"head_bits", options.head_bits},
                                                  {"embedding_bits", options.embedding_bits}};
  for (const auto& [name, bits] : all_bits) {
    if (bits != 0 && bits != 4 && bits != 8 && bits != 16) {
      bad_argument("LoadOptions", std::string("expected ") + name + " of 4, 8 or 16 (0: as stored), got " +
                                      std::to_string(bits) + ".");
    }
  }
  if (options.group_size != 0 && options.group_size != 32 && options.group_size != 64) {
    bad_argument("LoadOptions", "expected group_size 32 or 64 (0: the larger that fits), got " +
                                    std::to_string(options.group_size) + ".");
  }
  if (options.depformer_steps != 0 && options.depformer_steps != config.codebooks() &&
      options.depformer_steps != config.n_q) {
    bad_argument("LoadOptions", "expected depformer_steps " + std::to_string(config.codebooks()) + " or " +
                                    std::to_string(config.n_q) + ", got " + std::to_string(options.depformer_steps) +
                                    ".");
  }
}

int depformer_steps(const Config& config, const LoadOptions& options) {
  return options.depformer_steps == 0 ? config.codebooks() : options.depformer_steps;
}

int bits_for(const std::string& name, const LoadOptions& options) {
  switch (component_of(name)) {
    case Component::kTemporal:
      return options.temporal_bits;
    case Component::kDepformer:
      return options.depformer_bits;
    case Component::kHeads:
      return options.head_bits;
    case Component::kEmbeddings:
      return options.embedding_bits;
  }
  bad_argument("bits_for", "unknown component.");
}

int group_size_for(std::int64_t k, const LoadOptions& options) {
  for (const int group : {64, 32}) {
    if (k % group == 0 && (options.group_size == 0 || options.group_size == group)) return group;
  }
  return 0;
}

void apply_bits(Weights& weights, const LoadOptions& options) {
  check_options(weights.config, options);
  for_each_matrix(weights, [&](const std::string& name, Matrix& matrix) { check_stored(name, matrix, options); });
  std::vector<std::string>& kept = weights.kept_16bit;
  for_each_matrix(weights, [&](const std::string& name, Matrix& matrix) {
    const int bits = bits_for(name, options);
    if (matrix.quantized() && bits > matrix.bits) widen(matrix, bits);
    if (!matrix.quantized() && (bits == 4 || bits == 8)) {
      const int group_size = group_size_for(matrix.k, options);
      if (group_size > 0) {
        quantize(matrix, bits, group_size);
      } else if (std::find(kept.begin(), kept.end(), name) == kept.end()) {
        kept.push_back(name);  // the steps of one stored in_proj share its name
      }
    }
    if (options.dequantize && matrix.quantized()) dequantize(matrix);
  });
}

}  // namespace personaplex
