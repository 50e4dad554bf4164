// csrc/model/codec_transformer.h: Mimi's transformer at 25 Hz, two positions a frame.
#pragma once

#include <vector>

#include "model/kv_rings.h"

namespace personaplex {

class CodecTransformer {
 public:
  static constexpr int kColumns = 2;  // positions a frame

  CodecTransformer(ops::Ops& ops, const std::vector<CodecLayer>& layers, const MimiConfig& config);

  /// x [2, D], changed in place; the columns are described at `at`.
  void forward(ops::Place x, const KvRings& rings, ops::Place at) const;
  RingShape ring_shape() const;

 private:
  struct Layer {
    ops::WeightPtr norm1_weight, norm1_bias, norm2_weight, norm2_bias;
    ops::WeightPtr in_proj, out_proj, linear1, linear2;
    ops::WeightPtr scale1, scale2;
  };
  ops::Ops& ops_;
  std::vector<Layer> layers_;
  int heads_, head_dim_, context_;
  float max_period_;
  Buffer<float> q_, seen_, inner_;
};

}  // namespace personaplex
