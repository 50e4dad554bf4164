// csrc/gpu/recorder.cpp: operands to arguments, and where a barrier is needed.
#include "gpu/recorder.h"

#include <algorithm>
#include <stdexcept>

namespace personaplex::gpu {

void Recorder::begin(const ops::Memory* state) {
  state_ = state;
  dispatches_.clear();
  kernels_.clear();
  touched_.clear();
  lane_ = 0;
  lane_begins_ = false;
}

void Recorder::begin_lane(int lane) {
  lane_ = lane;
  lane_begins_ = true;
  if (lane == 1) {
    for (auto& touched : of_lanes_) touched.clear();
  }
  if (lane != 0) return;
  for (const Touch& t : of_lanes_[0]) {
    if (conflicts(of_lanes_[1], t.operand, t.through_address)) {
      throw std::logic_error("[GpuOps.together] expected calls that have nothing to do with each other.");
    }
  }
}

std::vector<Dispatch> Recorder::take(Queue& queue) {
  queue.prepare(kernels_);
  for (std::size_t i = 0; i < dispatches_.size(); ++i) dispatches_[i].kernel = &queue.kernel(kernels_[i]);
  return std::move(dispatches_);
}

bool Recorder::conflicts(const std::vector<Touch>& touched, const Operand& operand, bool through_address) {
  const auto overlap = [&](const Operand& o) {
    if (through_address) {
      return o.at == operand.at && o.within < operand.within + operand.bytes && operand.within < o.within + o.bytes;
    }
    return o.at.memory == operand.at.memory && o.at.offset < operand.at.offset + operand.bytes &&
           operand.at.offset < o.at.offset + o.bytes;
  };
  return std::any_of(touched.begin(), touched.end(), [&](const Touch& t) {
    return (t.operand.written || operand.written) && t.through_address == through_address && overlap(t.operand);
  });
}

void Recorder::place(Dispatch& d, std::initializer_list<Operand> operands, std::initializer_list<Operand> reached) {
  d.lane = lane_;
  d.barrier = lane_begins_ && dispatches_.size() > 1;
  lane_begins_ = false;
  for (const Operand& o : operands) {
    if (!o.at) {  // a buffer that the kernel does not touch: something must be bound
      const Operand& first = *operands.begin();
      d.arguments.push_back({first.at.memory == state_ ? nullptr : first.at.memory, first.at.offset, 0, false});
      continue;
    }
    d.barrier = d.barrier || conflicts(touched_, o, false);
    d.arguments.push_back({o.at.memory == state_ ? nullptr : o.at.memory, o.at.offset, o.bytes, o.written});
  }
  for (const Operand& o : reached) d.barrier = d.barrier || conflicts(touched_, o, true);
  if (d.barrier) touched_.clear();
  const auto touch = [&](const Operand& o, bool through_address) {
    touched_.push_back({o, through_address});
    if (lane_ > 0) of_lanes_[lane_ - 1].push_back({o, through_address});
  };
  for (const Operand& o : operands) {
    if (o.at && o.bytes > 0) touch(o, false);
  }
  for (const Operand& o : reached) touch(o, true);
}

}  // namespace personaplex::gpu
