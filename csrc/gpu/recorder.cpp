// csrc/gpu/recorder.cpp: operands to arguments, and where a barrier is needed.
#include "gpu/recorder.h"

#include <algorithm>

namespace personaplex::gpu {

void Recorder::begin(const ops::Memory* state) {
  state_ = state;
  dispatches_.clear();
  kernels_.clear();
  touched_.clear();
}

std::vector<Dispatch> Recorder::take(Queue& queue) {
  queue.prepare(kernels_);
  for (std::size_t i = 0; i < dispatches_.size(); ++i) dispatches_[i].kernel = &queue.kernel(kernels_[i]);
  return std::move(dispatches_);
}

bool Recorder::conflicts(const Operand& operand, bool through_address) const {
  return std::any_of(touched_.begin(), touched_.end(), [&](const Touch& t) {
    const Operand& o = t.operand;
    return (o.written || operand.written) && t.through_address == through_address && o.at.memory == operand.at.memory &&
           o.at.offset < operand.at.offset + operand.bytes && operand.at.offset < o.at.offset + o.bytes;
  });
}

void Recorder::place(Dispatch& d, std::initializer_list<Operand> operands, std::initializer_list<Operand> reached) {
  for (const Operand& o : operands) {
    if (!o.at) {  // a buffer that the kernel does not touch: something must be bound
      const Operand& first = *operands.begin();
      d.arguments.push_back({first.at.memory == state_ ? nullptr : first.at.memory, first.at.offset, 0, false});
      continue;
    }
    d.barrier = d.barrier || conflicts(o, false);
    d.arguments.push_back({o.at.memory == state_ ? nullptr : o.at.memory, o.at.offset, o.bytes, o.written});
  }
  for (const Operand& o : reached) d.barrier = d.barrier || conflicts(o, true);
  if (d.barrier) touched_.clear();
  for (const Operand& o : operands) {
    if (o.at && o.bytes > 0) touched_.push_back({o, false});
  }
  for (const Operand& o : reached) touched_.push_back({o, true});
}

}  // namespace personaplex::gpu
