// csrc/checkpoint/nvidia_layout.cpp: the language model's tensors by the names of NVIDIA's model.safetensors.
#include <algorithm>

#include "checkpoint/source.h"

namespace personaplex {

namespace {

std::string indexed(const std::string& name, int index) { return name + "." + std::to_string(index); }

Matrix linear(Source& source, const std::string& name, std::int64_t n, std::int64_t k) {
  return source.matrix({name + ".weight"}, n, k);
}

TensorView norm(Source& source, const std::string& name, std::int64_t d) {
  return source.norm({name + ".alpha", name + ".weight"}, d);
}

/// One matrix a step, however the file groups them: all steps below each other under one of `names`, or
/// `<per_step>.{k}.weight`.
class StepMatrices {
 public:
  StepMatrices(Source& source, Names names, std::string per_step, int stored_steps, std::int64_t n, std::int64_t k)
      : source_(source), per_step_(std::move(per_step)), n_(n), k_(k) {
    if (!source.has(indexed(per_step_, 0) + ".weight")) all_ = source.matrix(names, stored_steps * n, k);
  }

  Matrix at(int step) {
    if (all_.n == 0) return linear(source_, indexed(per_step_, step), n_, k_);
    if (all_.weight.empty()) return {};  // missing, and noted by the source
    return rows(all_, step * n_, (step + 1) * n_);
  }

 private:
  Source& source_;
  std::string per_step_;
  std::int64_t n_, k_;
  Matrix all_;
};

DepformerLayer depformer_layer(Source& source, const Config& config, const std::string& prefix, int stored_steps,
                               int steps) {
  const std::int64_t d = config.depformer_dim;
  const std::int64_t f = config.depformer_ffn_hidden();
  DepformerLayer layer;
  layer.norm1 = norm(source, prefix + "norm1", d);
  layer.norm2 = norm(source, prefix + "norm2", d);

  const std::string attention = prefix + "self_attn.";
  StepMatrices in_proj(source, {attention + "in_proj_weight"}, attention + "in_projs", stored_steps, 3 * d, d);
  StepMatrices out_proj(source, {attention + "out_proj.weight", attention + "out_proj_weight"}, attention + "out_projs",
                        stored_steps, d, d);

  // Gating is stored by step; some files of the MLX layout put all steps below each other.
  const std::string gating = prefix + "gating.";
  const bool joined = source.has(gating + "linear_in.weight");
  Matrix all_in, all_out;
  if (joined) {
    all_in = linear(source, gating + "linear_in", stored_steps * 2 * f, d);
    all_out = linear(source, gating + "linear_out", stored_steps * d, f);
  }
  for (int step = 0; step < steps; ++step) {
    const int stored = step % stored_steps;
    DepformerSlice slice;
    slice.in_proj = in_proj.at(stored);
    slice.out_proj = out_proj.at(stored);
    if (!joined) {
      const std::string own = source.has(indexed(prefix + "gating", step) + ".linear_in.weight")
                                  ? indexed(prefix + "gating", step)
                                  : indexed(prefix + "gating", stored);
      slice.linear_in = linear(source, own + ".linear_in", 2 * f, d);
      slice.linear_out = linear(source, own + ".linear_out", d, f);
    } else if (!all_in.weight.empty() && !all_out.weight.empty()) {
      slice.linear_in = rows(all_in, stored * 2 * f, (stored + 1) * 2 * f);
      slice.linear_out = rows(all_out, stored * d, (stored + 1) * d);
    }
    layer.steps.push_back(std::move(slice));
  }
  return layer;
}

/// Which of a file's tensors `name.{0, 1, ...}` stands for `index`: its own, else that of the step it repeats.
int stored_index(const Source& source, const std::string& name, int index, int stored_steps) {
  if (index < stored_steps || source.has(indexed(name, index) + ".weight")) return index;
  return index % stored_steps;
}

}  // namespace

TemporalWeights temporal_weights(Source& source, const Config& config) {
  const std::int64_t d = config.dim;
  const std::int64_t f = config.ffn_hidden();
  TemporalWeights temporal;
  for (int k = 0; k < config.n_q; ++k)
    temporal.audio_emb.push_back(linear(source, indexed("emb", k), config.card + 1, d));
  temporal.text_emb = linear(source, "text_emb", config.text_card + 1, d);
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string prefix = indexed("transformer.layers", i) + ".";
    const std::string attention = prefix + "self_attn.";
    TemporalLayer layer;
    layer.norm1 = norm(source, prefix + "norm1", d);
    layer.norm2 = norm(source, prefix + "norm2", d);
    layer.in_proj = source.matrix({attention + "in_proj_weight", attention + "in_projs.0.weight"}, 3 * d, d);
    layer.out_proj = source.matrix(
        {attention + "out_proj.weight", attention + "out_proj_weight", attention + "out_projs.0.weight"}, d, d);
    layer.linear_in = linear(source, prefix + "gating.linear_in", 2 * f, d);
    layer.linear_out = linear(source, prefix + "gating.linear_out", d, f);
    temporal.layers.push_back(std::move(layer));
  }
  temporal.out_norm = norm(source, "out_norm", d);
  temporal.text_linear = linear(source, "text_linear", config.text_card, d);
  return temporal;
}

DepformerWeights depformer_weights(Source& source, const Config& config, int stored_steps, int steps) {
  const std::int64_t d = config.depformer_dim;
  DepformerWeights depformer;
  depformer.text_emb = linear(source, "depformer_text_emb", config.text_card + 1, d);
  for (int k = 0; k + 1 < steps; ++k) {
    int index = stored_index(source, "depformer_emb", k, stored_steps);
    // A file of S steps has embeddings 0..S-2. Number S-1 feeds step S, a repeat of step 0, which has none to lend (it
    // takes text); NVIDIA's loader leaves it unset. Its neighbour stands in: the user's steps never change what is
    // generated.
    if (index == stored_steps - 1 && !source.has(indexed("depformer_emb", index) + ".weight")) index -= 1;
    depformer.audio_emb.push_back(linear(source, indexed("depformer_emb", std::max(index, 0)), config.card + 1, d));
  }
  for (int k = 0; k < steps; ++k) {
    const int in = stored_index(source, "depformer_in", k, stored_steps);
    const int head = stored_index(source, "linears", k, stored_steps);
    depformer.in.push_back(linear(source, indexed("depformer_in", in), d, config.dim));
    depformer.linears.push_back(linear(source, indexed("linears", head), config.card, d));
  }
  for (int i = 0; i < config.depformer_num_layers; ++i) {
    const std::string prefix = indexed("depformer.layers", i) + ".";
    depformer.layers.push_back(depformer_layer(source, config, prefix, stored_steps, steps));
  }
  return depformer;
}

}  // namespace personaplex
