// csrc/model/fused_state.h: one conversation's device memory in the fused engine.
#pragma once

#include "model/mimi.h"

namespace personaplex {

/// Where a conversation has what, the same for all of a model.
struct StateLayout {
  BlockLayout block;
  RingShape temporal;
  Field<std::byte*> temporal_pages;
  const CodecLayout* encoder = nullptr;
  const CodecLayout* decoder = nullptr;
};

struct FusedState : EngineState {
  FusedState(ops::Ops& ops, const StateLayout& layout);

  /// Copies the block and the pages that are being filled, and shares the other pages.
  std::unique_ptr<EngineState> clone() const override;
  std::vector<NamedTensor> save() const override;
  void load(const std::map<std::string, TensorView>& tensors) override;
  std::int64_t position() const override { return temporal.position(); }
  std::size_t nbytes() const override;

  const std::unique_ptr<ops::Memory> block;
  KvRings temporal;
  CodecState encoder, decoder;

 private:
  ops::Ops& ops_;
  const StateLayout& layout_;
};

}  // namespace personaplex
