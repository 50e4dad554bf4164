// csrc/checkpoint/weights.h: the weights of a model as plain structs of views, in the checkpoint's own orientation.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/tensor.h"

namespace personaplex {

/// A matrix [N, K], y = W x. Either 16/32-bit float, or MLX affine: w = scale * q + bias per group along K.
struct Matrix {
  TensorView weight;          // [N, K] float, or [N, K * bits / 32] uint32 (lowest bits first)
  TensorView scales, biases;  // [N, K / group_size] float; empty when not quantized
  int bits = 16;              // 4, 8, or 16 for any float
  int group_size = 0;
  std::int64_t n = 0, k = 0;

  bool quantized() const { return bits < 16; }
  std::size_t nbytes() const { return weight.nbytes() + scales.nbytes() + biases.nbytes(); }
};

/// Rows [begin, end) of a matrix, quantized or not; shares the owner.
Matrix rows(const Matrix& m, std::int64_t begin, std::int64_t end);

struct TemporalLayer {
  TensorView norm1, norm2;  // [D]
  Matrix in_proj;           // [3D, D]: q, k, v, each heads x head_dim
  Matrix out_proj;          // [D, D]
  Matrix linear_in;         // [2F, D]: gate, then value
  Matrix linear_out;        // [D, F]
};

struct TemporalWeights {
  std::vector<Matrix> audio_emb;  // n_q x [card + 1, D]
  Matrix text_emb;                // [text_card + 1, D]
  std::vector<TemporalLayer> layers;
  TensorView out_norm;  // [D]
  Matrix text_linear;   // [text_card, D]
};

/// One step's slice of one depformer layer.
struct DepformerSlice {
  Matrix in_proj;     // [3d, d]
  Matrix out_proj;    // [d, d]
  Matrix linear_in;   // [2f, d]
  Matrix linear_out;  // [d, f]
};

struct DepformerLayer {
  TensorView norm1, norm2;            // [d]
  std::vector<DepformerSlice> steps;  // one per depformer step
};

struct DepformerWeights {
  Matrix text_emb;                // [text_card + 1, d], input of step 0
  std::vector<Matrix> audio_emb;  // (steps - 1) x [card + 1, d], input of step k + 1
  std::vector<Matrix> in;         // steps x [d, D]: depformer_in
  std::vector<DepformerLayer> layers;
  std::vector<Matrix> linears;  // steps x [card, d]
};

/// A SEANet convolution; weight in torch's orientation: conv [out, in, kernel], transposed conv [in, out, kernel].
struct Conv {
  TensorView weight;
  TensorView bias;  // [out]; empty when the convolution has none
};

struct SeanetResidual {
  Conv conv1;  // kernel residual_kernel_size, to channels / compress
  Conv conv2;  // kernel 1, back
};

struct SeanetStage {  // encoder: residuals, then the strided conv; decoder: transposed conv, then residuals
  std::vector<SeanetResidual> residuals;
  Conv resample;
};

struct Seanet {
  Conv first;
  std::vector<SeanetStage> stages;  // in the order of the data
  Conv last;
};

struct CodecLayer {
  TensorView norm1_weight, norm1_bias, norm2_weight, norm2_bias;  // [D]
  TensorView in_proj, out_proj;                                   // [3D, D], [D, D]
  TensorView linear1, linear2;                                    // [F, D], [D, F]
  TensorView layer_scale1, layer_scale2;                          // [D]
};

struct RvqLevel {
  TensorView embedding_sum;  // [bins, d]; the codeword is embedding_sum / max(cluster_usage, 1e-5)
  TensorView cluster_usage;  // [bins]
};

struct RvqPart {
  TensorView input_proj;         // [d, D, 1]
  TensorView output_proj;        // [D, d, 1]
  std::vector<RvqLevel> levels;  // first: 1, rest: codebooks - 1 (later levels of the file are not loaded)
};

struct MimiWeights {
  Seanet encoder, decoder;
  std::vector<CodecLayer> encoder_transformer, decoder_transformer;
  Conv downsample;  // [D, D, 4], stride 2, no bias
  Conv upsample;    // [D, 1, 4], depthwise transposed, stride 2, no bias
  RvqPart rvq_first, rvq_rest;
};

struct Weights {
  Config config;  // dep_q = number of depformer steps actually loaded
  TemporalWeights temporal;
  DepformerWeights depformer;
  MimiWeights mimi;
  std::vector<std::string> kept_16bit;  // tensors that were to be quantized but whose K no group size divides
};

/// The parts of the language model whose bits are chosen apart.
enum class Component : std::uint8_t { kTemporal, kDepformer, kHeads, kEmbeddings };

/// Visits every matrix of the language model (the depformer's once a step; no norms, nothing of Mimi).
void for_each_matrix(const Weights& weights, const std::function<void(Component, const Matrix&)>& visit);

/// What to load and how. 0 / unset means: as the file has it.
struct LoadOptions {
  int temporal_bits = 0;    // 4, 8, 16; 0 = as stored
  int depformer_bits = 0;   // depformer layers and depformer_in
  int head_bits = 0;        // text_linear and linears
  int embedding_bits = 0;   // all embedding tables
  int group_size = 0;       // 64 or 32; 0 = the larger of them that divides K
  int depformer_steps = 0;  // codebooks() or n_q; 0 = codebooks()
  bool dequantize = false;  // after quantizing, expand to exact float32: the reference of the quantized engines
};

/// Reads a checkpoint directory, in NVIDIA's layout or the MLX layout; files stay mapped for as long as a view lives.
/// Throws WeightsError; all missing keys, wrong shapes and wrong dtypes are listed in one error.
/// Float LM tensors wider than 16 bits are rounded to bfloat16, as the reference loader does.
Weights load_checkpoint(const std::string& directory, const LoadOptions& options);

/// Random weights of the given shape, a pure function of (config, seed, options); see docs. Speaks noise.
Weights random_weights(const Config& config, std::uint64_t seed, const LoadOptions& options);

/// Quantizes, keeps or dequantizes the components as `options` asks (needs a thread that may use MLX).
void apply_bits(Weights& weights, const LoadOptions& options);

}  // namespace personaplex
