// csrc/session/choose_engine.h: which engine runs a model: what was asked for, what fits, and why not.
#pragma once

#include <memory>
#include <string>

#include "checkpoint/weights.h"
#include "engine/engine.h"
#include "session/model.h"

namespace personaplex {

/// Throws std::invalid_argument for options that contradict each other, before anything is loaded.
void check_engine_options(const ModelOptions& options, bool on_cpu);

/// The engine that `options` ask for; "auto" is the fused one where it can run these weights. Fills in what `info` says
/// of the engine. WeightsError when the fused one is asked for and cannot. On the model's thread.
std::unique_ptr<Engine> choose_engine(const Weights& weights, const ModelOptions& options, bool on_cpu,
                                      ModelInfo& info);

}  // namespace personaplex
