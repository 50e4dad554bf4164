// csrc/graph/mimi.h: Mimi, the codec: 1920 samples <-> one code per codebook, streaming, encoder and decoder apart.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph/codec_transformer.h"
#include "graph/rvq.h"
#include "graph/seanet.h"

namespace personaplex::graph {

/// Named intermediate arrays, for the tests.
using Stages = std::map<std::string, array>;

/// What one half of the codec, encoder or decoder, keeps between frames.
struct CodecState {
  Carries carries;  // of SEANet
  Carry resample;   // between 25 Hz and 12.5 Hz
  KvRing ring;
};

class MimiEncoder {
 public:
  MimiEncoder(const MimiWeights& weights, const MimiConfig& config);
  CodecState new_state() const;
  /// pcm [1920] float32 -> codes [Q] int32. `stages`: enc_seanet [2, D], enc_transformer [2, D], latent [1, D].
  array step(const array& pcm, CodecState& state, Stages* stages = nullptr) const;

 private:
  SeanetEncoder seanet_;
  CodecTransformer transformer_;
  Conv1d downsample_;
  Rvq rvq_;
};

class MimiDecoder {
 public:
  MimiDecoder(const MimiWeights& weights, const MimiConfig& config);
  CodecState new_state() const;
  /// codes [Q] int32 -> pcm [1920]. `stages`: dec_quantized [1, D], dec_upsampled [2, D], dec_transformer [2, D].
  array step(const array& codes, CodecState& state, Stages* stages = nullptr) const;

 private:
  Rvq rvq_;
  ConvTranspose1d upsample_;
  CodecTransformer transformer_;
  SeanetDecoder seanet_;
};

/// Every array that the state consists of, so that it can be evaluated with the output.
void collect(const CodecState& state, std::vector<array>& out);

}  // namespace personaplex::graph
