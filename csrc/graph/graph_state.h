// csrc/graph/graph_state.h: one conversation's buffers in the graph engine.
#pragma once

#include "engine/engine.h"
#include "graph/mimi.h"

namespace personaplex::graph {

struct GraphState : EngineState {
  GraphState(KvRing ring, CodecState enc, CodecState dec)
      : temporal(std::move(ring)), encoder(std::move(enc)), decoder(std::move(dec)) {}

  /// Shares the buffers; MLX copies the one that is written first.
  std::unique_ptr<EngineState> clone() const override { return std::make_unique<GraphState>(*this); }
  std::vector<NamedTensor> save() const override;
  void load(const std::map<std::string, TensorView>& tensors) override;
  std::int64_t position() const override { return temporal.position(); }
  std::size_t nbytes() const override;

  KvRing temporal;
  CodecState encoder;
  CodecState decoder;
};

}  // namespace personaplex::graph
