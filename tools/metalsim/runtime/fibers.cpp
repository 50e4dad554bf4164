// tools/metalsim/runtime/fibers.cpp: threads that give way to each other, and what it means when none can go on.
#include <algorithm>
#include <cstdio>
#include <map>

#include "fiber_switch.h"
#include "worker.h"

namespace metalsim {

constinit thread_local Worker* running = nullptr;

void Worker::leave() {
  void* unused;
  fiber_switch(&unused, main_);
  __builtin_unreachable();
}

void Worker::remove(Fiber* f) {
  if (f->next == f) {
    head_ = nullptr;
    return;
  }
  f->previous->next = f->next;
  f->next->previous = f->previous;
  head_ = f->next;
}

void Worker::insert(Fiber* f) {
  if (!head_) {
    f->next = f->previous = head_ = f;
    return;
  }
  f->next = head_;
  f->previous = head_->previous;
  head_->previous->next = f;
  head_->previous = f;
}

void Worker::go_to(Fiber* fiber, void** save) {
  current = fiber;
  fiber_switch(save, fiber->stack_pointer);
}

void Worker::block(State state, Site site) {
  Fiber* f = current;
  f->state = state;
  f->site = site;
  remove(f);
  if (!head_) deadlock();
  go_to(head_, &f->stack_pointer);
}

void Worker::wake(int simdgroup, State state) {
  const unsigned end = std::min(threads_, simdgroup * 32u + 32);
  for (unsigned i = simdgroup * 32; i < end; i++) {
    if (fibers_[i].state != state) continue;
    fibers_[i].state = State::kRunning;
    insert(&fibers_[i]);
  }
}

void Worker::deadlock() {
  std::string text = "divergence: no thread can go on";
  for (unsigned g = 0; g * 32 < threads_ && g < 8; g++) {
    std::map<std::string, std::uint32_t> lanes;
    for (unsigned l = 0; l < 32 && g * 32 + l < threads_; l++) {
      const Fiber& f = fibers_[g * 32 + l];
      std::string doing = "have exited";
      if (f.state != State::kExited) {
        doing = f.state == State::kInSimdOperation ? "wait in a simd operation"
                : f.state == State::kAtBarrier     ? "wait at a threadgroup_barrier"
                                                   : "wait at a simdgroup_barrier";
        doing += std::string(" at ") + file_name(f.site) + ":" + std::to_string(line(f.site));
      }
      lanes[doing] |= 1u << l;
    }
    for (const auto& [doing, mask] : lanes) {
      char start[60];
      std::snprintf(start, sizeof start, "\n    simdgroup %u lanes %08x ", g, mask);
      text += start + doing;
    }
  }
  fail(nullptr, current->site, "%s", text.c_str());
}

void Worker::exit_fiber() {
  Fiber* f = current;
  Simdgroup& s = simdgroups_[f->simdgroup()];
  s.alive &= ~(1u << f->lane());
  alive_--;
  f->state = State::kExited;
  if (s.arrived && s.arrived == s.alive) {
    fail(nullptr, s.site, "simd operation by lanes %08x only: the others exited the kernel", s.arrived);
  }
  if (s.at_barrier && s.at_barrier == s.alive) {
    fail(nullptr, s.site, "simdgroup_barrier reached by lanes %08x only: the others exited the kernel", s.at_barrier);
  }
  if (at_barrier_ && at_barrier_ == alive_) {
    fail(nullptr, barrier_site_, "threadgroup_barrier not reached by %u threads, which exited", threads_ - alive_);
  }
  remove(f);
  void* unused;
  if (!head_) {
    if (alive_) deadlock();
    fiber_switch(&unused, main_);
  }
  go_to(head_, &unused);
}

}  // namespace metalsim
