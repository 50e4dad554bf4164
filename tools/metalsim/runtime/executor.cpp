// tools/metalsim/runtime/executor.cpp: runs a kernel. Every thread of a threadgroup is a fiber; barriers and simd
// operations are real rendezvous of all that must take part, so that divergence shows. One system thread per launch.
#include <sys/mman.h>

#include <ucontext.h>
#include <algorithm>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "checker.h"
#include "library.h"

#if !defined(__x86_64__) || !defined(__linux__)
#error "metalsim's fibers are written for Linux on x86-64"
#endif

asm(R"(
.text
.globl metalsim_switch
.hidden metalsim_switch
.type metalsim_switch,@function
metalsim_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp,(%rdi)
  mov %rsi,%rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
.size metalsim_switch,.-metalsim_switch
)");
extern "C" void metalsim_switch(void** save, void* load);

namespace metalsim {
namespace {

using msl::Access;
using msl::LaneBuffer;
using msl::Site;

constexpr std::size_t kStack = 128 << 10, kGuard = 4096, kArena = 64 << 10, kRedZone = 64;
constexpr unsigned kMaxThreads = 1024;
constexpr std::size_t kMaxThreadgroupBytes = 32 << 10;
constexpr int kThreadgroupMemory = 2, kDeviceMemory = 1;  // mem_flags

enum class State : std::uint8_t { kRunning, kInSimdOperation, kAtBarrier, kAtSimdBarrier, kExited };

struct Fiber {
  void* stack_pointer;
  char* stack;
  Fiber *next, *previous;  // the ring of those that can run
  std::uint16_t thread;
  State state;
  Site site;  // where it waits
  msl::ThreadContext context;
  int lane() const { return thread & 31; }
  int simdgroup() const { return thread >> 5; }
};

struct Simdgroup {
  LaneBuffer buffer[2];  // of this rendezvous and the one before, which slower lanes may still read
  std::uint32_t alive, arrived, at_barrier;
  unsigned generation;
  int kind;  // of the operation that the arrived lanes wait in
  Site site;
  std::uint16_t threadgroup_epoch, device_epoch;
};

struct Variable {
  const void* identity;
  std::size_t offset, bytes;
  const char* name;
};

/// The system thread's own fibers and threadgroup memory, kept from launch to launch.
class Worker {
 public:
  Worker();
  ~Worker();
  std::string run(const Kernel& kernel, const Launch& how, Record* record);

  // What the kernel calls, on a fiber.
  const LaneBuffer* collective(int kind, const void* value, std::size_t bytes, void (*finish)(LaneBuffer*), Site site);
  void barrier(int flags, Site site);
  void simd_barrier(int flags, Site site);
  void* variable(const void* identity, std::size_t bytes, const char* name);
  void access(std::uintptr_t address, std::size_t bytes, Access access, const void* pc);
  void exit_fiber();
  [[noreturn]] void fail(const void* pc, Site site, const char* format, ...) __attribute__((format(printf, 4, 5)));
  [[noreturn]] void fail_from_signal();

  Fiber* current = nullptr;
  msl::Thunk thunk = nullptr;
  const void* signal_address = nullptr;
  const void* signal_pc = nullptr;
  int signal_number = 0;
  char* stack_top() const { return current->stack + kStack; }

 private:
  void run_group(const Launch& how, unsigned group);
  void order(std::vector<unsigned>& items, const Launch& how, unsigned salt) const;
  void block(State state, Site site);
  void wake(int simdgroup, State state);
  void insert(Fiber* fiber);
  void remove(Fiber* fiber);
  void go_to(Fiber* fiber, void** save);
  void release_barrier(int flags);
  [[noreturn]] void deadlock();
  [[noreturn]] void leave();
  Accessor accessor(bool device) const;
  void access_threadgroup(std::size_t offset, std::size_t bytes, Access access, const void* pc);

  std::unique_ptr<Fiber[]> fibers_;
  std::unique_ptr<Simdgroup[]> simdgroups_;
  char* stacks_;
  char* arena_;
  std::unique_ptr<Cell[]> cells_;  // of the arena
  std::unique_ptr<char[]> signal_stack_;
  void* main_ = nullptr;
  Fiber* head_ = nullptr;

  const Kernel* kernel_ = nullptr;
  DeviceChecker* device_ = nullptr;  // null: unchecked
  std::string fault_;
  std::vector<Variable> variables_;
  std::size_t arena_used_ = 0, threadgroup_bytes_ = 0;
  void* buffers_[32];
  void* threadgroup_buffers_[8];

  unsigned group_ = 0, threads_ = 0, alive_ = 0, at_barrier_ = 0;
  int barrier_flags_ = 0;
  Site barrier_site_{};
  std::uint32_t threadgroup_epoch_ = 0, device_epoch_ = 0;
};

thread_local Worker* running;  // null outside of a launch

const char* file_name(Site site) {
  const char* slash = site.file ? std::strrchr(site.file, '/') : nullptr;
  return slash ? slash + 1 : site.file ? site.file : "?";
}
int line(Site site) { return site.line >> 9; }
bool same(Site a, Site b) { return a.line == b.line && a.file == b.file; }

void entry() {
  running->thunk(running->current->context);
  running->exit_fiber();
  __builtin_trap();
}

struct sigaction before_segv, before_bus, before_fpe;

void on_signal(int number, siginfo_t* info, void* context) {
  Worker* w = running;
  if (!w || !w->current) {  // not ours
    const auto& before = number == SIGSEGV ? before_segv : number == SIGBUS ? before_bus : before_fpe;
    if (before.sa_flags & SA_SIGINFO) {
      before.sa_sigaction(number, info, context);
    } else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
      std::signal(number, SIG_DFL);  // and fault again
    } else {
      before.sa_handler(number);
    }
    return;
  }
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  w->signal_number = number;
  w->signal_address = info->si_addr;
  w->signal_pc = reinterpret_cast<const void*>(registers[REG_RIP] + 1);
  // Goes on at the top of the fiber's own stack, whose contents nobody needs any more.
  registers[REG_RIP] = reinterpret_cast<greg_t>(static_cast<void (*)()>([] { running->fail_from_signal(); }));
  registers[REG_RSP] = static_cast<greg_t>(((reinterpret_cast<std::uintptr_t>(w->stack_top()) - 1024) & ~15ull) - 8);
}

void install_handlers() {
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, &before_segv);
  sigaction(SIGBUS, &action, &before_bus);
  sigaction(SIGFPE, &action, &before_fpe);
}

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

void Worker::leave() {
  void* unused;
  metalsim_switch(&unused, main_);
  __builtin_unreachable();
}

void Worker::fail(const void* pc, Site site, const char* format, ...) {
  char text[4096];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::string place;
  if (site.file) {
    place = std::string(file_name(site)) + ":" + std::to_string(line(site));
  } else if (pc) {
    place = source_of(*kernel_, pc);
  }
  const auto& c = current->context;
  const auto &g = c.threadgroup_position_in_grid, &t = c.thread_position_in_threadgroup;
  char who[200];
  std::snprintf(who, sizeof who, "\n    threadgroup (%u, %u, %u), thread (%u, %u, %u) = simdgroup %d, lane %d", g.x,
                g.y, g.z, t.x, t.y, t.z, current->simdgroup(), current->lane());
  fault_ = std::string(kernel_->entry.name) + ": " + (place.empty() ? "" : place + ": ") + text + who;
  leave();
}

void Worker::fail_from_signal() {
  const auto address = reinterpret_cast<std::uintptr_t>(signal_address);
  const auto stack = reinterpret_cast<std::uintptr_t>(current->stack);
  if (signal_number == SIGFPE) fail(signal_pc, {}, "integer division by zero or overflow");
  if (address - stack < kGuard) fail(signal_pc, {}, "more private memory than the simulator's %zu KiB", kStack >> 10);
  fail(signal_pc, {}, "access to memory that does not exist, at address %p", signal_address);
}

// ---- fibers

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
  metalsim_switch(save, fiber->stack_pointer);
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
    metalsim_switch(&unused, main_);
  }
  go_to(head_, &unused);
}

// ---- rendezvous

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

// ---- memory

void* Worker::variable(const void* identity, std::size_t bytes, const char* name) {
  for (const Variable& v : variables_) {
    if (v.identity == identity) return arena_ + v.offset;
  }
  threadgroup_bytes_ += (bytes + 15) / 16 * 16;
  if (threadgroup_bytes_ > kMaxThreadgroupBytes) {
    const auto total = threadgroup_bytes_;
    if (current) fail(nullptr, {}, "more than 32 KiB of threadgroup memory: %zu bytes with `%s`", total, name);
    fault_ = std::string(kernel_->entry.name) + ": more than 32 KiB of threadgroup memory";
    return nullptr;
  }
  const std::size_t offset = arena_used_, taken = (bytes + 15) / 16 * 16 + kRedZone;
  if (offset + taken > kArena) fail(nullptr, {}, "too many threadgroup variables for the simulator");
  std::memset(arena_ + offset, 0xff, taken);  // NaN
  if (cells_) std::fill_n(cells_.get() + offset, taken, Cell());
  arena_used_ += taken;
  variables_.push_back({identity, offset, bytes, name});
  return arena_ + offset;
}

Accessor Worker::accessor(bool device) const {
  const Simdgroup& s = simdgroups_[current->simdgroup()];
  return {group_, current->thread, device ? device_epoch_ : threadgroup_epoch_,
          device ? s.device_epoch : s.threadgroup_epoch};
}

void Worker::access_threadgroup(std::size_t offset, std::size_t bytes, Access access, const void* pc) {
  const bool write = access == Access::write || access == Access::atomic_write;
  const bool atomic = access == Access::atomic_read || access == Access::atomic_write;
  const Variable* in = nullptr;
  for (const Variable& v : variables_) {
    if (offset >= v.offset && offset + bytes <= v.offset + v.bytes) in = &v;
  }
  const char* what = write ? "write" : "read";
  if (!in) {
    const Variable* near = &variables_[0];
    for (const Variable& v : variables_) {
      if (v.offset <= offset) near = &v;
    }
    fail(pc, {}, "out-of-bounds %s of %zu bytes: byte offset %ld of threadgroup memory `%s`, which has %zu", what,
         bytes, static_cast<long>(offset) - static_cast<long>(near->offset), near->name, near->bytes);
  }
  const Accessor by = accessor(false);
  for (std::size_t i = 0; i < bytes; i++) {
    Cell& cell = cells_[offset + i];
    if (!write && !cell.written()) {
      fail(pc, {}, "read of uninitialised threadgroup memory `%s` byte %zu", in->name, offset + i - in->offset);
    }
    if (const char* wrong = cell.touch(by, write, atomic)) {
      fail(pc, {}, "data race on threadgroup memory: %s of `%s` byte %zu: %s", what, in->name, offset + i - in->offset,
           wrong);
    }
  }
}

void Worker::access(std::uintptr_t address, std::size_t bytes, Access access, const void* pc) {
  if (!device_ || !current) return;
  const auto within = [&](const void* base, std::size_t size) {
    const std::size_t offset = address - reinterpret_cast<std::uintptr_t>(base);
    return offset < size && offset + bytes <= size;
  };
  if (within(current->stack, kStack)) return;
  if (within(arena_, kArena))
    return access_threadgroup(address - reinterpret_cast<std::uintptr_t>(arena_), bytes, access, pc);
  if (within(simdgroups_.get(), sizeof(Simdgroup) * (kMaxThreads / 32)) ||
      within(fibers_.get(), sizeof(Fiber) * kMaxThreads) || within(this, sizeof *this)) {
    return;
  }
  const bool write = access == Access::write || access == Access::atomic_write;
  if (address >= kernel_->code && address + bytes <= kernel_->code_end) {
    if (write) fail(pc, {}, "write to a constant of the program");
    return;
  }
  if (within(stacks_, kStack * kMaxThreads))
    fail(pc, {}, "%s of another thread's private memory", write ? "write" : "read");
  const std::string wrong = device_->touch(address, bytes, access, accessor(true));
  if (!wrong.empty()) fail(pc, {}, "%s", wrong.c_str());
}

// ---- launches

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
    spans.push_back({begin, begin + bytes, p.index, p.name, !p.read_only && !b->read_only, b->read_only});
  }

  std::unique_ptr<DeviceChecker> device;
  if (how.checks && kernel.checked) {
    device = std::make_unique<DeviceChecker>(std::move(spans), record);
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

}  // namespace

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
