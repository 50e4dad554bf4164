// csrc/model/probes.h: a run in stages, whose results a test may look at.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "ops/ops.h"

namespace personaplex {

/// A copy of float32 values in device memory, between runs.
inline TensorView copy_floats(ops::Place at, std::vector<std::int64_t> shape) {
  OwnedTensor t = allocate_tensor(DType::kF32, std::move(shape));
  at.memory->read(at.offset, t.view.nbytes(), t.mutable_data);
  return t.view;
}

/// Operations, and what of their results a probe keeps (`name` null: nothing).
struct Stage {
  std::function<void()> calls;
  const char* name = nullptr;
  ops::Place result = {};
  std::vector<std::int64_t> shape = {};
};

/// All stages, within a run.
inline void call_all(const std::vector<Stage>& stages) {
  for (const Stage& stage : stages) stage.calls();
}

/// All stages in one run; with a probe, each in a run of its own, and its result kept.
inline void run_stages(ops::Ops& ops, const ops::Program& program, const ops::Memory& block, Probe* probe,
                       const std::vector<Stage>& stages) {
  if (probe == nullptr) {
    ops.run(program, &block, [&] { call_all(stages); });
    return;
  }
  for (const Stage& stage : stages) {
    ops.run({}, &block, stage.calls);
    if (stage.name != nullptr) (*probe)[stage.name] = copy_floats(stage.result, stage.shape);
  }
}

}  // namespace personaplex
