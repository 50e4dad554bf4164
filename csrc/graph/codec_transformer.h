// csrc/graph/codec_transformer.h: Mimi's transformer at 25 Hz, two positions a frame.
#pragma once

#include <vector>

#include "graph/kv_ring.h"
#include "graph/layers.h"

namespace personaplex::graph {

class CodecTransformer {
 public:
  CodecTransformer(const std::vector<CodecLayer>& layers, const MimiConfig& config);
  array operator()(array x, KvRing& ring) const;  // [2, D] -> [2, D]
  KvRing make_ring() const;

 private:
  struct Layer {
    array norm1_weight, norm1_bias, norm2_weight, norm2_bias;
    array in_proj, out_proj, linear1, linear2;  // transposed: [K, N]
    array layer_scale1, layer_scale2;
  };
  std::vector<Layer> layers_;
  int heads_, head_dim_, context_;
  float max_period_;
};

}  // namespace personaplex::graph
