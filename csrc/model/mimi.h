// csrc/model/mimi.h: Mimi, the codec: 1920 samples <-> one code per codebook, streaming, encoder and decoder apart.
#pragma once

#include "engine/engine.h"
#include "model/codec_transformer.h"
#include "model/rvq.h"
#include "model/seanet.h"

namespace personaplex {

/// What one half of the codec keeps between frames.
struct CodecState {
  Windows windows;  // of SEANet
  Window resample;  // between 25 Hz and 12.5 Hz
  KvRings rings;
  Buffer<ops::Column> columns;    // [2]
  Buffer<std::int32_t> is_first;  // [1]: nothing has come before

  std::int64_t position() const { return rings.position(); }
  std::size_t nbytes() const;
  void reset();
  void copy_from(const CodecState& other);
  void save(const std::string& prefix, std::vector<NamedTensor>& out) const;
  void load(const std::string& prefix, std::map<std::string, TensorView>& in);
  /// The host's part of a frame: where its two positions go.
  void advance();
};

class MimiEncoder {
 public:
  MimiEncoder(ops::Ops& ops, const MimiWeights& weights, const MimiConfig& config, const Rvq& rvq);
  CodecState new_state() const;
  /// pcm [1920] is in pcm(state) -> codes [Q] int32. After it: seanet() [2, D], transformed(state) [2, D], latent()
  /// [D].
  void step(CodecState& state, ops::Place codes, Probe* probe);
  static ops::Place pcm(const CodecState& state) { return state.windows.front().fresh(); }

 private:
  ops::Ops& ops_;
  const Rvq& rvq_;
  SeanetHalf seanet_;
  CodecTransformer transformer_;
  StreamConv downsample_;
  int dimension_;
  Buffer<float> latent_;  // [D]
};

class MimiDecoder {
 public:
  MimiDecoder(ops::Ops& ops, const MimiWeights& weights, const MimiConfig& config, const Rvq& rvq);
  CodecState new_state() const;
  /// codes [Q] int32 -> pcm [1920].
  void step(CodecState& state, ops::Place codes, ops::Place pcm, Probe* probe);

 private:
  ops::Ops& ops_;
  const Rvq& rvq_;
  ops::WeightPtr upsample_;
  CodecTransformer transformer_;
  SeanetHalf seanet_;
  int dimension_;
};

}  // namespace personaplex
