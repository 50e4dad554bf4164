// tools/cudasim/runtime.cpp: blocks as system threads that take turns, their threads as fibers, and faults.
#include "runtime.h"

#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../metalsim/runtime/fiber_switch.h"

namespace cudasim {

thread_local Own own;

namespace {

constexpr std::size_t kStack = 128 << 10;
constexpr int kAddressBits = 24;  // of shared memory in a block's thread-local memory, below the rank
constexpr int kNobody = -1, kOver = -2;

using Kernel = void (*)(void** arguments);

struct Warp {
  Lanes lanes[2];  // of this meeting and the one before, which slower lanes may still read
  unsigned arrived = 0;
  unsigned generation = 0;
  const char* what = nullptr;
};

struct Cluster;

struct Worker : Block {
  Cluster* cluster = nullptr;
  int rank = 0;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<int> order;  // of the fibers
  std::size_t at_barrier = 0;
  void* main = nullptr;  // stack of the system thread
  char* shared = nullptr;

  bool any(Fiber::State state) const {
    return std::any_of(fibers.begin(), fibers.end(), [&](const Fiber& f) { return f.state == state; });
  }
  void wake(Fiber::State state) {
    for (Fiber& f : fibers) {
      if (f.state == state) f.state = Fiber::State::kReady;
    }
  }
};

/// Blocks that run together; a launch without clusters has them of one block.
struct Cluster {
  Kernel kernel = nullptr;
  void** arguments = nullptr;
  unsigned order = 0;
  std::mt19937 random;
  std::vector<std::unique_ptr<Worker>> workers;
  std::mutex mutex;
  std::condition_variable changed;
  int turn = kNobody;       // the rank of the block that runs
  std::size_t arrived = 0;  // threads at the cluster's barrier
  std::string fault;
};

Worker& worker() { return static_cast<Worker&>(*own.block); }

/// The calling thread's thread-local memory of this module.
struct Tls {
  const void* inside = nullptr;
  char* base = nullptr;
  std::size_t bytes = 0;
};

Tls own_tls() {
  Tls tls{reinterpret_cast<const void*>(&own_tls)};
  own.fiber = nullptr;  // a write, so that it is there
  asm volatile("" ::"r"(&own) : "memory");
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& out = *static_cast<Tls*>(data);
        bool here = false;
        std::size_t bytes = 0;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& h = info->dlpi_phdr[i];
          const auto begin = info->dlpi_addr + h.p_vaddr, at = reinterpret_cast<std::uintptr_t>(out.inside);
          if (h.p_type == PT_LOAD && at >= begin && at < begin + h.p_memsz) here = true;
          if (h.p_type == PT_TLS) bytes = h.p_memsz;
        }
        if (!here) return 0;
        out.base = static_cast<char*>(info->dlpi_tls_data);
        out.bytes = bytes;
        return 1;
      },
      &tls);
  return tls;
}

void leave() {
  void* unused;
  fiber_switch(&unused, worker().main);
  __builtin_unreachable();
}

void wait_as(Fiber::State state, const char* what) {
  own.fiber->state = state;
  own.fiber->waits = what;
  fiber_switch(&own.fiber->stack_pointer, worker().main);
}

void begin_fiber() {
  const Cluster& cluster = *worker().cluster;
  cluster.kernel(cluster.arguments);
  own.fiber->state = Fiber::State::kExited;
  own.fiber->waits = "have exited";
  leave();
}

void on_signal(int number, siginfo_t* info, void* context) {
  if (own.block == nullptr) {
    std::signal(number, SIG_DFL);
    raise(number);
    return;
  }
  if (number == SIGILL || number == SIGTRAP) fail("misaligned access, or a trap, at %p", info->si_addr);
  const bool write = (static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
  fail("%s at address %p", write ? "wrote to what is not there or is fixed," : "read memory that is not there,",
       info->si_addr);
}

/// Runs the block's threads until all of them wait: a warp as far as it gets, and then the next one, or, shuffled, all
/// of them by turns, some warps not at all in this turn.
void run_turn(Worker& w) {
  const bool shuffled = w.cluster->order > 1;
  const std::size_t span = shuffled ? w.order.size() : 32;
  std::vector<bool> asleep(w.warps.size());
  for (std::size_t i = 0; i < asleep.size() && shuffled; ++i) asleep[i] = w.cluster->random() % 4 == 0;
  for (bool any = true; any;) {
    any = false;
    for (std::size_t first = 0; first < w.order.size(); first += span) {
      for (bool more = true; more;) {
        more = false;
        for (std::size_t i = first; i < first + span; ++i) {
          Fiber& f = w.fibers[static_cast<std::size_t>(w.order[i])];
          if (f.state != Fiber::State::kReady || asleep[static_cast<std::size_t>(f.linear / 32)]) continue;
          any = more = true;
          own.fiber = &f;
          fiber_switch(&w.main, f.stack_pointer);
          if (!w.cluster->fault.empty()) return;
        }
      }
    }
  }
}

/// A block's system thread.
void run_block(Worker& w) {
  const Tls tls = own_tls();
  const auto start_over = [&] {  // with NaNs in shared memory
    std::memset(tls.base, 0xFF, tls.bytes);
    own = {nullptr, &w};
  };
  start_over();
  Cluster& cluster = *w.cluster;
  std::vector<char> signal_stack(64 << 10);
  stack_t stack{};
  stack.ss_sp = signal_stack.data();
  stack.ss_size = signal_stack.size();
  sigaltstack(&stack, nullptr);
  std::unique_lock lock(cluster.mutex);
  w.shared = tls.base;
  for (;;) {
    cluster.changed.notify_all();
    cluster.changed.wait(lock, [&] { return cluster.turn == w.rank || cluster.turn == kOver; });
    if (cluster.turn == kOver) break;
    run_turn(w);
    // Its shared memory is gone, whoever still reads it.
    if (cluster.fault.empty() && std::all_of(w.fibers.begin(), w.fibers.end(),
                                             [](const Fiber& f) { return f.state == Fiber::State::kExited; })) {
      start_over();
    }
    cluster.turn = kNobody;
  }
  own = {nullptr, nullptr};
  stack.ss_flags = SS_DISABLE;
  sigaltstack(&stack, nullptr);
}

/// Nobody can go on: who waits for what.
std::string standstill(const Cluster& cluster) {
  std::string out = "nobody can go on";
  for (const auto& w : cluster.workers) {
    std::map<std::string, int> doing;
    for (const Fiber& f : w->fibers) doing[f.waits]++;
    out += "\n  block " + std::to_string(w->block.x) + ":";
    for (const auto& [what, threads] : doing) out += " " + std::to_string(threads) + " threads " + what + ";";
  }
  return out;
}

/// Gives turns to blocks that can go on: to the first, in reverse the last, shuffled any.
void run_cluster(Cluster& cluster) {
  std::vector<std::thread> blocks;
  for (const auto& w : cluster.workers) blocks.emplace_back([&w] { run_block(*w); });
  std::unique_lock lock(cluster.mutex);
  cluster.changed.wait(lock, [&] {
    return std::all_of(cluster.workers.begin(), cluster.workers.end(), [](const auto& w) { return w->shared; });
  });
  while (cluster.fault.empty()) {
    std::vector<int> ready;
    for (const auto& w : cluster.workers) {
      if (w->any(Fiber::State::kReady)) ready.push_back(w->rank);
    }
    if (ready.empty()) break;
    cluster.turn = cluster.order == 0   ? ready.front()
                   : cluster.order == 1 ? ready.back()
                                        : ready[cluster.random() % ready.size()];
    cluster.changed.notify_all();
    cluster.changed.wait(lock, [&] { return cluster.turn == kNobody; });
  }
  const bool all_exited = std::all_of(cluster.workers.begin(), cluster.workers.end(), [](const auto& w) {
    return std::all_of(w->fibers.begin(), w->fibers.end(),
                       [](const Fiber& f) { return f.state == Fiber::State::kExited; });
  });
  if (cluster.fault.empty() && !all_exited) cluster.fault = standstill(cluster);
  cluster.turn = kOver;
  cluster.changed.notify_all();
  lock.unlock();
  for (std::thread& block : blocks) block.join();
}

/// A block whose threads have stacks from `stacks` on, and have not begun.
std::unique_ptr<Worker> make_block(Cluster& cluster, Index block, int rank, unsigned threads, char* stacks) {
  auto w = std::make_unique<Worker>();
  w->cluster = &cluster;
  w->rank = rank;
  w->block = block;
  w->threads = {threads, 1, 1};
  w->fibers.resize(threads);
  w->warps.resize(threads / 32);
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& f = w->fibers[t];
    f.thread = {t, 0, 0};
    f.linear = static_cast<int>(t);
    char* const top = stacks + (t + 1) * kStack - 72;  // as after a call
    auto* const at = reinterpret_cast<void**>(top) - 7;
    std::fill(at, at + 6, nullptr);
    at[6] = reinterpret_cast<void*>(&begin_fiber);
    at[7] = nullptr;
    f.stack_pointer = at;
    w->order.push_back(static_cast<int>(t));
  }
  if (cluster.order == 1) std::reverse(w->order.begin(), w->order.end());
  if (cluster.order > 1) std::shuffle(w->order.begin(), w->order.end(), cluster.random);
  return w;
}

}  // namespace

void fail(const char* format, ...) {
  char text[400];
  va_list list;
  va_start(list, format);
  std::vsnprintf(text, sizeof text, format, list);
  va_end(list);
  const Index b = worker().block;
  char where[120];
  std::snprintf(where, sizeof where, " (block %u %u %u, thread %d)", b.x, b.y, b.z, own.fiber->linear);
  worker().cluster->fault = std::string(text) + where;
  leave();
  __builtin_unreachable();
}

const Lanes& meet(const char* what, const void* value, std::size_t bytes) {
  Worker& w = worker();
  Fiber* const f = own.fiber;
  Warp& warp = w.warps[static_cast<std::size_t>(f->linear / 32)];
  if (warp.arrived != 0 && std::strcmp(warp.what, what) != 0) {
    fail("a lane is at %s while others of its warp are at %s", what, warp.what);
  }
  Lanes& lanes = warp.lanes[warp.generation & 1];
  std::memcpy(lanes.slot[f->linear % 32], value, bytes);
  warp.what = what;
  if (++warp.arrived < 32) {
    wait_as(Fiber::State::kMeeting, what);
    return lanes;
  }
  warp.arrived = 0;
  warp.generation++;
  for (int i = 0; i < 32; ++i) {
    Fiber& other = w.fibers[static_cast<std::size_t>(f->linear / 32 * 32 + i)];
    if (other.state == Fiber::State::kMeeting) other.state = Fiber::State::kReady;
  }
  return lanes;
}

void barrier() {
  Worker& w = worker();
  if (++w.at_barrier < w.fibers.size()) return wait_as(Fiber::State::kAtBarrier, "wait at __syncthreads");
  w.at_barrier = 0;
  w.wake(Fiber::State::kAtBarrier);
}

void cluster_barrier() {
  Cluster& cluster = *worker().cluster;
  if (++cluster.arrived < cluster.workers.size() * worker().fibers.size()) {
    return wait_as(Fiber::State::kInCluster, "wait for their cluster");
  }
  cluster.arrived = 0;
  for (const auto& w : cluster.workers) w->wake(Fiber::State::kInCluster);
}

std::uint32_t shared_address(const void* p) {
  return shared_of_rank(static_cast<std::uint32_t>(static_cast<const char*>(p) - worker().shared), worker().rank);
}
void* shared_pointer(std::uint32_t address) {
  const auto rank = static_cast<std::size_t>(address >> kAddressBits);
  const auto& workers = worker().cluster->workers;
  if (rank >= workers.size()) fail("shared memory of rank %d in a cluster of %d", int(rank), int(workers.size()));
  return workers[rank]->shared + (address & ((1U << kAddressBits) - 1));
}
std::uint32_t shared_of_rank(std::uint32_t address, int rank) {
  return (address & ((1U << kAddressBits) - 1)) | static_cast<std::uint32_t>(rank) << kAddressBits;
}

}  // namespace cudasim

/// Runs `kernel`, cluster after cluster; an empty text, or what went wrong. order: 0 forward, 1 reverse, other numbers
/// shuffle.
extern "C" const char* cudasim_run(void (*kernel)(void**), void** arguments, const unsigned* grid, unsigned threads,
                                   unsigned size, unsigned order) {
  using namespace cudasim;
  static std::string answer;
  struct sigaction action{}, old[4];
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
  for (int i = 0; i < 4; ++i) sigaction(signals[i], &action, &old[i]);
  answer.clear();
  const std::size_t stacks = std::size_t{size} * threads * kStack;
  char* const memory = static_cast<char*>(
      mmap(nullptr, stacks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  const unsigned along = grid[0] / size;
  for (unsigned i = 0; i < along * grid[1] * grid[2] && answer.empty(); ++i) {
    Cluster cluster;
    cluster.kernel = kernel;
    cluster.arguments = arguments;
    cluster.order = order;
    cluster.random.seed(order + i);
    for (unsigned rank = 0; rank < size; ++rank) {
      const Index block = {i % along * size + rank, i / along % grid[1], i / along / grid[1]};
      cluster.workers.push_back(
          make_block(cluster, block, static_cast<int>(rank), threads, memory + std::size_t{rank} * threads * kStack));
    }
    run_cluster(cluster);
    answer = cluster.fault;
  }
  munmap(memory, stacks);
  for (int i = 0; i < 4; ++i) sigaction(signals[i], &old[i], nullptr);
  return answer.c_str();
}
