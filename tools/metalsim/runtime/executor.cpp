// tools/metalsim/runtime/executor.cpp: runs a kernel: binds its buffers, then takes up one threadgroup after the other.
#include <sys/mman.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <new>
#include <numeric>

#include "worker.h"

namespace metalsim {
namespace {

void entry() {
  running->thunk(running->current->context);
  running->exit_fiber();
  __builtin_trap();
}

}  // namespace

Worker::Worker()
    : fibers_(new Fiber[kMaxThreads]), simdgroups_(new Simdgroup[kMaxThreads / 32]), signal_stack_(new char[64 << 10]) {
  static const bool once = (install_handlers(), true);
  (void)once;
  const auto map = [](std::size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return static_cast<char*>(p);
  };
  stacks_ = map(kStack * kMaxThreads);
  for (unsigned i = 0; i < kMaxThreads; i++) mprotect(stacks_ + i * kStack, kGuard, PROT_NONE);
  arena_ = map(kArena);
  stack_t stack{};
  stack.ss_sp = signal_stack_.get();
  stack.ss_size = 64 << 10;
  sigaltstack(&stack, nullptr);
}

Worker::~Worker() {
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
  munmap(stacks_, kStack * kMaxThreads);
  munmap(arena_, kArena);
}

void Worker::order(std::vector<unsigned>& items, const Launch& how, unsigned salt) const {
  std::iota(items.begin(), items.end(), 0u);
  if (how.order == Launch::Order::kReverse) std::reverse(items.begin(), items.end());
  if (how.order != Launch::Order::kShuffle) return;
  std::uint32_t state = how.seed * 2654435761u + salt * 40503u + 1;
  for (std::size_t i = items.size(); i > 1; i--) {
    state = state * 1664525u + 1013904223u;
    std::swap(items[i - 1], items[(state >> 8) % i]);
  }
}

void Worker::run_group(const Launch& how, unsigned group) {
  const unsigned* g = how.groups;
  const unsigned* t = how.threads;
  const msl::Triple at{group % g[0], group / g[0] % g[1], group / g[0] / g[1]};
  group_ = group;
  alive_ = threads_ = t[0] * t[1] * t[2];
  at_barrier_ = 0;
  threadgroup_epoch_ = device_epoch_ = 1;
  head_ = nullptr;
  std::memset(arena_, 0xff, arena_used_);
  if (cells_) std::fill_n(cells_.get(), arena_used_, Cell());
  const unsigned simdgroups = (threads_ + 31) / 32;
  for (unsigned i = 0; i < simdgroups; i++) {
    Simdgroup& s = simdgroups_[i];
    const unsigned lanes = threads_ - i * 32;
    s.alive = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    s.arrived = s.at_barrier = s.generation = 0;
    s.threadgroup_epoch = s.device_epoch = 1;
  }
  std::vector<unsigned> threads(threads_);
  order(threads, how, group + 1);
  for (const unsigned i : threads) {
    Fiber& f = fibers_[i];
    const msl::Triple p{i % t[0], i / t[0] % t[1], i / t[0] / t[1]};
    f.thread = static_cast<std::uint16_t>(i);
    f.state = State::kRunning;
    f.stack = stacks_ + i * kStack;
    f.context = {{at.x * t[0] + p.x, at.y * t[1] + p.y, at.z * t[2] + p.z},
                 p,
                 at,
                 {t[0], t[1], t[2]},
                 {g[0] * t[0], g[1] * t[1], g[2] * t[2]},
                 {g[0], g[1], g[2]},
                 i,
                 i & 31,
                 i >> 5,
                 simdgroups,
                 32,
                 i >> 2,
                 i & 3,
                 buffers_,
                 threadgroup_buffers_};
    auto** stack = reinterpret_cast<void**>(f.stack + kStack - 64);
    *--stack = nullptr;
    *--stack = reinterpret_cast<void*>(entry);
    for (int r = 0; r < 6; r++) *--stack = nullptr;
    f.stack_pointer = stack;
    insert(&f);
  }
  go_to(head_, &main_);
  current = nullptr;
}

std::string Worker::run(const Kernel& kernel, const Launch& how, Record* record) {
  const std::string name = kernel.entry.name;
  kernel_ = &kernel;
  thunk = kernel.entry.thunk;
  fault_.clear();
  variables_.clear();
  arena_used_ = threadgroup_bytes_ = 0;
  current = nullptr;
  std::fill(std::begin(buffers_), std::end(buffers_), nullptr);
  std::fill(std::begin(threadgroup_buffers_), std::end(threadgroup_buffers_), nullptr);

  const std::size_t threads = std::size_t{how.threads[0]} * how.threads[1] * how.threads[2];
  const std::size_t groups = std::size_t{how.groups[0]} * how.groups[1] * how.groups[2];
  if (!threads || threads > kMaxThreads)
    return name + ": a threadgroup has 1 to 1024 threads, not " + std::to_string(threads);
  if (!groups || groups > 0x7fffffff)
    return name + ": a grid has 1 to 2^31 - 1 threadgroups, not " + std::to_string(groups);

  std::vector<DeviceChecker::Span> spans;
  for (int i = 0; i < kernel.entry.parameter_count; i++) {
    const msl::Parameter& p = kernel.entry.parameters[i];
    const std::string what =
        name + ": " + (p.threadgroup ? "threadgroup(" : "buffer(") + std::to_string(p.index) + ") `" + p.name + "`";
    if (p.threadgroup) {
      const std::size_t n =
          p.index < static_cast<int>(how.threadgroup_bytes.size()) ? how.threadgroup_bytes[p.index] : 0;
      if (!n || p.index >= 8) return what + " has no length";
      threadgroup_buffers_[p.index] = variable(&p, n, p.name);
      if (!fault_.empty()) return fault_;
      continue;
    }
    if (p.index >= 31) return what + ": Metal has buffers 0 to 30";
    const Buffer* b = p.index < static_cast<int>(how.buffers.size()) ? &how.buffers[p.index] : nullptr;
    if (!b || !b->base) return what + " is not bound";
    const std::size_t bytes = b->bytes ? b->bytes : bytes_to_end_of_region(b->base);
    if (!bytes) return what + " lies in no registered region, and its size is not given";
    if (bytes < p.bytes) return what + " needs " + std::to_string(p.bytes) + " bytes, got " + std::to_string(bytes);
    buffers_[p.index] = b->base;
    const auto begin = reinterpret_cast<std::uintptr_t>(b->base);
    spans.push_back({begin, begin + bytes, p.index, p.name, !p.read_only && !b->read_only});
  }

  std::unique_ptr<DeviceChecker> device;
  if (how.checks && kernel.checked) {
    device = std::make_unique<DeviceChecker>(spans, record);
    if (!cells_) cells_ = std::make_unique<Cell[]>(kArena);
  } else {
    cells_.reset();
  }
  device_ = device.get();
  if (record) *record = {};

  std::vector<unsigned> group_order(groups);
  order(group_order, how, 0);
  Worker* outer = running;
  running = this;
  for (const unsigned group : group_order) {
    run_group(how, group);
    if (!fault_.empty()) break;
  }
  running = outer;
  device_ = nullptr;
  if (device && fault_.empty()) device->finish();
  return fault_;
}

extern const msl::Host kHost;
const msl::Host kHost = {
    [](int kind, const void* value, std::size_t bytes, void (*finish)(LaneBuffer*), Site site) {
      return running->collective(kind, value, bytes, finish, site);
    },
    [](int flags, Site site) { running->barrier(flags, site); },
    [](int flags, Site site) { running->simd_barrier(flags, site); },
    [](unsigned lane, Site site) { running->fail(nullptr, site, "shuffle reads inactive lane %u", lane); },
    [] { return static_cast<unsigned>(running->current->lane()); },
    []() -> const msl::ThreadContext* { return &running->current->context; },
    [](const void* identity, std::size_t bytes, const char* name) { return running->variable(identity, bytes, name); },
    [](const void* address, std::size_t bytes, Access access, const void* pc) {
      if (running) running->access(reinterpret_cast<std::uintptr_t>(address), bytes, access, pc);
    },
    [](const char* what, long value, Site site) {
      if (running && running->current) running->fail(nullptr, site, "%s (value %ld)", what, value);
    },
};

std::string launch(const Kernel& kernel, const Launch& how, Record* record) {
  thread_local std::unique_ptr<Worker> worker;
  if (!worker) worker = std::make_unique<Worker>();
  return worker->run(kernel, how, record);
}

}  // namespace metalsim
