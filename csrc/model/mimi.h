// csrc/model/mimi.h: Mimi, the codec: 1920 samples <-> one code per codebook, streaming, encoder and decoder apart.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "engine/engine.h"
#include "model/codec_transformer.h"
#include "model/probes.h"
#include "model/rvq.h"
#include "model/seanet.h"

namespace personaplex {

/// Where one half of the codec keeps what outlives a frame, in a conversation's block.
struct CodecLayout {
  Windows windows;  // of SEANet
  Window resample;  // between 25 Hz and 12.5 Hz
  RingShape ring_shape;
  Field<std::byte*> pages;
};

/// One half of the codec in one conversation.
struct CodecState {
  CodecState(ops::Ops& ops, const CodecLayout& where, ops::Memory& memory)
      : layout(&where), block(&memory), rings(ops, where.ring_shape, memory, where.pages) {}
  const CodecLayout* layout;
  ops::Memory* block;
  KvRings rings;

  std::int64_t position() const { return rings.position(); }
  std::size_t nbytes() const;
  void reset();
  void save(const std::string& prefix, std::vector<NamedTensor>& out) const;
  void load(const std::string& prefix, std::map<std::string, TensorView>& in);
};

/// What the host tells one half of the codec before a frame.
struct CodecInputs {
  explicit CodecInputs(ops::Ops& ops);
  /// Where the frame's two positions go; moves on.
  void advance(CodecState& state);
  Buffer<ops::Column> columns;    // [2]
  Buffer<std::int32_t> is_first;  // [1]: nothing has come before
};

class MimiEncoder {
 public:
  MimiEncoder(ops::Ops& ops, const MimiWeights& weights, const MimiConfig& config, const Rvq& rvq, BlockLayout& layout);
  const CodecLayout& layout() const { return layout_; }
  /// The host's part of a frame: what is heard, pcm [1920] float32; the position moves on.
  void put(CodecState& state, std::span<const float> pcm);
  /// The device's: codes [Q] int32 of it.
  std::vector<Stage> stages(const CodecState& state, ops::Place codes) const;

 private:
  ops::Ops& ops_;
  const Rvq& rvq_;
  SeanetHalf seanet_;
  CodecTransformer transformer_;
  StreamConv downsample_;
  int dimension_;
  CodecLayout layout_;
  CodecInputs inputs_;
  Buffer<float> pcm_;     // [1920], from the host
  Buffer<float> latent_;  // [D]
};

class MimiDecoder {
 public:
  MimiDecoder(ops::Ops& ops, const MimiWeights& weights, const MimiConfig& config, const Rvq& rvq, BlockLayout& layout);
  const CodecLayout& layout() const { return layout_; }
  /// The host's part of a frame: the position moves on.
  void put(CodecState& state) { inputs_.advance(state); }
  /// The device's: codes [Q] -> pcm [1920].
  std::vector<Stage> stages(const CodecState& state, const ops::Codes& codes, ops::Place pcm) const;

 private:
  ops::Ops& ops_;
  const Rvq& rvq_;
  ops::WeightPtr upsample_;
  CodecTransformer transformer_;
  SeanetHalf seanet_;
  int dimension_;
  CodecLayout layout_;
  CodecInputs inputs_;
};

}  // namespace personaplex
