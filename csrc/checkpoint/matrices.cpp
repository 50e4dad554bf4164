// csrc/checkpoint/matrices.cpp: every matrix of the language model, its name and its component.
#include "checkpoint/matrices.h"

#include <string_view>

namespace personaplex {

namespace {

/// `LanguageModel` is Weights, const or not.
template <typename LanguageModel, typename Visit>
void walk(LanguageModel& weights, const Visit& visit) {
  const auto each = [&](const std::string& prefix, auto& matrices) {
    for (std::size_t i = 0; i < matrices.size(); ++i) visit(prefix + "." + std::to_string(i) + ".weight", matrices[i]);
  };
  auto& temporal = weights.temporal;
  each("emb", temporal.audio_emb);
  visit("text_emb.weight", temporal.text_emb);
  for (std::size_t i = 0; i < temporal.layers.size(); ++i) {
    const std::string prefix = "transformer.layers." + std::to_string(i) + ".";
    visit(prefix + "self_attn.in_proj_weight", temporal.layers[i].in_proj);
    visit(prefix + "self_attn.out_proj.weight", temporal.layers[i].out_proj);
    visit(prefix + "gating.linear_in.weight", temporal.layers[i].linear_in);
    visit(prefix + "gating.linear_out.weight", temporal.layers[i].linear_out);
  }
  visit("text_linear.weight", temporal.text_linear);
  auto& depformer = weights.depformer;
  visit("depformer_text_emb.weight", depformer.text_emb);
  each("depformer_emb", depformer.audio_emb);
  each("depformer_in", depformer.in);
  for (std::size_t i = 0; i < depformer.layers.size(); ++i) {
    const std::string prefix = "depformer.layers." + std::to_string(i) + ".";
    for (std::size_t k = 0; k < depformer.layers[i].steps.size(); ++k) {
      auto& slice = depformer.layers[i].steps[k];
      const std::string gating = prefix + "gating." + std::to_string(k) + ".";
      visit(prefix + "self_attn.in_proj_weight", slice.in_proj);
      visit(prefix + "self_attn.out_proj.weight", slice.out_proj);
      visit(gating + "linear_in.weight", slice.linear_in);
      visit(gating + "linear_out.weight", slice.linear_out);
    }
  }
  each("linears", depformer.linears);
}

}  // namespace

Component component_of(const std::string& name) {
  const std::string_view stem = std::string_view(name).substr(0, name.find('.'));
  if (stem == "transformer") return Component::kTemporal;
  if (stem == "depformer" || stem == "depformer_in") return Component::kDepformer;
  if (stem == "text_linear" || stem == "linears") return Component::kHeads;
  return Component::kEmbeddings;
}

void for_each_matrix(const Weights& weights, const std::function<void(Component, const Matrix&)>& visit) {
  walk(weights, [&](const std::string& name, const Matrix& matrix) { visit(component_of(name), matrix); });
}

void for_each_matrix(Weights& weights, const VisitNamed& visit) { walk(weights, visit); }

}  // namespace personaplex
