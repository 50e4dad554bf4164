// csrc/model/fused_engine.h: the Engine made of fused operations: our own kernels, nothing allocated inside a step.
#pragma once

#include <memory>
#include <string>

#include "checkpoint/weights.h"
#include "engine/engine.h"
#include "ops/ops.h"

namespace personaplex {

struct FusedOptions {
  int kv_bits = 16;  // of the temporal transformer's ring: 16 (bfloat16) or 8 (int8, a scale per position and head)
  int threads = 0;   // of the process's pool, on a CPU; 0: all cores that this process may use
};

/// Why the fused engine cannot run these weights, as a sentence; empty when it can.
std::string fused_obstacle(const Weights& weights);

/// The fused engine on an implementation of Ops. `weights` may go afterwards: what is needed is kept alive.
std::unique_ptr<Engine> make_fused_engine(const Weights& weights, std::unique_ptr<ops::Ops> ops, int kv_bits);

/// The same on this machine's processor.
std::unique_ptr<Engine> make_fused_cpu_engine(const Weights& weights, const FusedOptions& options);

}  // namespace personaplex
