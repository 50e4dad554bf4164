// csrc/graph/rvq.h: split residual vector quantizer: level 0 and levels 1.. each quantize the same latent.
#pragma once

#include <vector>

#include "checkpoint/weights.h"
#include "graph/op.h"

namespace personaplex::graph {

class Rvq {
 public:
  Rvq(const RvqPart& first, const RvqPart& rest);
  array encode(const array& latent) const;  // [1, D] -> [Q] int32
  array decode(const array& codes) const;   // [Q] int32 -> [1, D]

 private:
  struct Part {
    explicit Part(const RvqPart& weights);
    array input_proj, output_proj;  // [D, d], [d, D]
    std::vector<array> codewords;   // levels x [bins, d]
    void encode(const array& latent, std::vector<array>& codes) const;
    array decode(const array& codes, int begin) const;
  };
  Part first_, rest_;
};

}  // namespace personaplex::graph
