// csrc/model/fused_state.h: one conversation's device memory in the fused engine.
#pragma once

#include <functional>

#include "model/mimi.h"

namespace personaplex {

struct FusedState : EngineState {
  /// Makes an empty state of the same model.
  using Make = std::function<std::unique_ptr<FusedState>()>;

  FusedState(KvRings rings, CodecState enc, CodecState dec, Make make)
      : temporal(std::move(rings)), encoder(std::move(enc)), decoder(std::move(dec)), make_(std::move(make)) {}

  /// Copies filled positions and carried columns.
  std::unique_ptr<EngineState> clone() const override;
  std::vector<NamedTensor> save() const override;
  void load(const std::map<std::string, TensorView>& tensors) override;
  std::int64_t position() const override { return temporal.position(); }
  std::size_t nbytes() const override;

  KvRings temporal;
  CodecState encoder, decoder;

 private:
  Make make_;
};

}  // namespace personaplex
