// csrc/model/rvq.cpp: project, then nearest codeword, subtract, next level; and back.
#include "model/rvq.h"

namespace personaplex {

Rvq::Part::Part(ops::Ops& ops, const RvqPart& weights)
    : input_proj(ops.linear(weights.input_proj)), output_proj(ops.linear(weights.output_proj)) {
  for (const RvqLevel& level : weights.levels) {
    codebooks.push_back(ops.codebook(level));
    levels.push_back(codebooks.back().get());
  }
}

Rvq::Rvq(ops::Ops& ops, const RvqPart& first, const RvqPart& rest)
    : ops_(ops),
      first_(ops, first),
      rest_(ops, rest),
      residual_(ops, static_cast<std::size_t>(first.input_proj.dim(0))) {}

void Rvq::encode(ops::Place latent, ops::Place codes) const {
  for (const Part* part : {&first_, &rest_}) {
    if (part->levels.empty()) continue;
    ops_.project(*part->input_proj, latent, 1, {}, residual_.at());
    ops_.quantize(part->levels, residual_.at(), codes);
    codes = codes + part->levels.size() * sizeof(std::int32_t);
  }
}

void Rvq::decode(ops::Codes codes, ops::Place latent) const {
  for (const Part* part : {&first_, &rest_}) {
    if (part->levels.empty()) continue;
    ops_.dequantize(part->levels, codes, residual_.at());
    const auto epilogue = part == &first_ ? ops::Epilogue::kStore : ops::Epilogue::kAdd;
    ops_.project(*part->output_proj, residual_.at(), 1, {.epilogue = epilogue}, latent);
    codes.at = codes.at + part->levels.size() * sizeof(std::int32_t);
  }
}

}  // namespace personaplex
