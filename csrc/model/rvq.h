// csrc/model/rvq.h: split residual vector quantizer: level 0 and levels 1.. each quantize the same latent.
#pragma once

#include <vector>

#include "model/buffer.h"

namespace personaplex {

class Rvq {
 public:
  Rvq(ops::Ops& ops, const RvqPart& first, const RvqPart& rest);
  void encode(ops::Place latent, ops::Place codes) const;  // [D] -> [Q] int32
  void decode(ops::Codes codes, ops::Place latent) const;  // [Q] -> [D]

 private:
  struct Part {
    Part(ops::Ops& ops, const RvqPart& weights);
    ops::WeightPtr input_proj, output_proj;
    std::vector<ops::WeightPtr> codebooks;
    std::vector<const ops::Weight*> levels;
  };
  ops::Ops& ops_;
  Part first_, rest_;
  Buffer<float> residual_;  // [d]
};

}  // namespace personaplex
