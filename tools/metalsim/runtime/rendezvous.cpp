// tools/metalsim/runtime/rendezvous.cpp: barriers and simd operations. All that must take part have to come, to the
// same place in the source; whoever comes last does the work and wakes the others.
#include <algorithm>
#include <cstring>

#include "worker.h"

namespace metalsim {

namespace {
bool same(Site a, Site b) { return a.line == b.line && a.file == b.file; }
}  // namespace

const LaneBuffer* Worker::collective(int kind, const void* value, std::size_t bytes, void (*finish)(LaneBuffer*),
                                     Site site) {
  Fiber* f = current;
  Simdgroup& s = simdgroups_[f->simdgroup()];
  LaneBuffer& b = s.buffer[s.generation & 1];
  if (!s.arrived) {
    s.kind = kind;
    s.site = site;
  } else if (s.kind != kind || !same(s.site, site)) {
    fail(nullptr, site, "divergent simd operation: lanes %08x wait in another one at %s:%d", s.arrived,
         file_name(s.site), line(s.site));
  }
  std::memcpy(b.slot[f->lane()], value, bytes);
  s.arrived |= 1u << f->lane();
  if (s.arrived != s.alive) {
    block(State::kInSimdOperation, site);
    return &b;
  }
  const unsigned lanes = threads_ - f->simdgroup() * 32u;
  if (s.arrived != (lanes >= 32 ? ~0u : (1u << lanes) - 1)) {
    fail(nullptr, site, "simd operation by lanes %08x only: the others exited the kernel", s.arrived);
  }
  b.mask = s.arrived;
  s.arrived = 0;
  s.generation++;
  if (finish) finish(&b);
  wake(f->simdgroup(), State::kInSimdOperation);
  return &b;
}

void Worker::release_barrier(int flags) {
  at_barrier_ = 0;
  if (flags & kThreadgroupMemory) threadgroup_epoch_++;
  if (flags & kDeviceMemory) device_epoch_++;
  for (unsigned g = 0; g * 32 < threads_; g++) wake(g, State::kAtBarrier);
}

void Worker::barrier(int flags, Site site) {
  if (!at_barrier_) {
    barrier_site_ = site;
    barrier_flags_ = flags;
  } else if (!same(barrier_site_, site)) {
    fail(nullptr, site, "threads meet at different barriers: others wait at %s:%d", file_name(barrier_site_),
         line(barrier_site_));
  } else if (barrier_flags_ != flags) {
    fail(nullptr, site, "threads meet at a barrier with different mem_flags");
  }
  if (++at_barrier_ == threads_) {
    release_barrier(flags);
  } else if (at_barrier_ == alive_) {
    fail(nullptr, site, "threadgroup_barrier not reached by %u threads, which exited", threads_ - alive_);
  } else {
    block(State::kAtBarrier, site);
  }
}

void Worker::simd_barrier(int flags, Site site) {
  Fiber* f = current;
  Simdgroup& s = simdgroups_[f->simdgroup()];
  if (s.arrived) fail(nullptr, site, "simdgroup_barrier while lanes %08x wait in a simd operation", s.arrived);
  s.at_barrier |= 1u << f->lane();
  s.site = site;
  if (s.at_barrier != s.alive) return block(State::kAtSimdBarrier, site);
  s.at_barrier = 0;
  if (flags & kThreadgroupMemory) s.threadgroup_epoch++;
  if (flags & kDeviceMemory) s.device_epoch++;
  wake(f->simdgroup(), State::kAtSimdBarrier);
}

}  // namespace metalsim
