// csrc/model/probes.h: reads what lies in device memory for the tests, between the frames of Ops.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "ops/ops.h"

namespace personaplex {

/// A copy of float32 values in device memory. Only while no frame of Ops is open.
inline TensorView copy_floats(ops::Place at, std::vector<std::int64_t> shape) {
  OwnedTensor t = allocate_tensor(DType::kF32, std::move(shape));
  std::memcpy(t.mutable_data, at.as<float>(), t.view.nbytes());
  return t.view;
}

/// A frame of Ops that a probe may interrupt.
class ProbedFrame {
 public:
  ProbedFrame(ops::Ops& ops, Probe* probe) : ops_(ops), probe_(probe), frame_(ops.begin()) {}

  /// Keeps a tensor where a probe is there: the frame ends and another begins.
  void note(const char* name, ops::Place at, std::vector<std::int64_t> shape) {
    if (probe_ == nullptr) return;
    frame_.reset();
    (*probe_)[name] = copy_floats(at, std::move(shape));
    frame_ = ops_.begin();
  }

 private:
  ops::Ops& ops_;
  Probe* probe_;
  std::unique_ptr<ops::Ops::Frame> frame_;
};

}  // namespace personaplex
