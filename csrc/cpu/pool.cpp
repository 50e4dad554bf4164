// csrc/cpu/pool.cpp: tickets, spinning with yields, and sleep.
#include "cpu/pool.h"

#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace personaplex::cpu {

namespace {

// Spins before a worker goes to sleep: about a millisecond, longer than any gap inside a step.
constexpr int kSpins = 20000;

// A ticket: 24 bits of epoch, 20 of how many chunks it has, 20 of which is next.
constexpr int kChunkBits = 20;
constexpr std::uint64_t kChunkMask = (std::uint64_t{1} << kChunkBits) - 1;

std::uint64_t make_ticket(std::uint32_t epoch, int chunks) {
  return std::uint64_t{epoch} << (2 * kChunkBits) | static_cast<std::uint64_t>(chunks) << kChunkBits;
}

std::uint32_t epoch_of(std::uint64_t ticket) { return static_cast<std::uint32_t>(ticket >> (2 * kChunkBits)); }

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Denormals are flushed while a step runs: they cost a hundred cycles each and carry nothing. Returns the control
/// register as it was.
unsigned flush_denormals() {
#if defined(__x86_64__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040U);  // of results and of operands
  return before;
#elif defined(__aarch64__)
  std::uint64_t before = 0;
  asm volatile("mrs %0, fpcr" : "=r"(before));
  asm volatile("msr fpcr, %0" : : "r"(before | std::uint64_t{1} << 24));  // FZ: both
  return static_cast<unsigned>(before);                                   // the upper half is reserved
#else
  return 0;
#endif
}

void restore_denormals([[maybe_unused]] unsigned before) {
#if defined(__x86_64__)
  _mm_setcsr(before);
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" : : "r"(std::uint64_t{before}));
#endif
}

}  // namespace

Pool::Pool(int threads) { start(threads); }

Pool::~Pool() { stop(); }

void Pool::start(int threads) {
  const int count = threads > 0 ? threads : usable_cores();
  stop_ = false;
  try {
    for (int i = 1; i < count; ++i) workers_.emplace_back([this] { loop(); });
  } catch (...) {  // the system has no more threads: those that there are must end before their vector does
    stop();
    throw;
  }
}

void Pool::stop() {
  stop_ = true;
  open(0);
  ticket_.notify_all();
  for (auto& worker : workers_) worker.join();
  workers_.clear();
}

std::uint32_t Pool::open(int chunks) {
  const std::uint64_t ticket = make_ticket(epoch_of(ticket_.load(std::memory_order_relaxed)) + 1, chunks);
  ticket_.store(ticket);
  return epoch_of(ticket);
}

void Pool::resize(int threads) {
  const Step step(*this);
  if ((threads > 0 ? threads : usable_cores()) == this->threads()) return;
  stop();
  start(threads);
}

std::shared_ptr<Pool> process_pool(int threads) {
  static std::mutex mutex;
  static std::weak_ptr<Pool> current;
  static pid_t owner = 0;
  const std::lock_guard lock(mutex);
  std::shared_ptr<Pool> pool = owner == getpid() ? current.lock() : nullptr;
  if (pool == nullptr) {
    pool = std::make_shared<Pool>(threads);
    current = pool;
    owner = getpid();
  } else {
    pool->resize(threads);
  }
  return pool;
}

void Pool::work(std::uint32_t epoch) {
  for (;;) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    const std::uint64_t chunk = ticket & kChunkMask;
    if (epoch_of(ticket) != epoch || chunk >= (ticket >> kChunkBits & kChunkMask)) return;
    // Taking a chunk proves that this epoch is open: run() cannot return, nor its context die, before done_ counts it.
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
    function_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), static_cast<int>(chunk));
    done_.fetch_add(1, std::memory_order_release);
  }
}

void Pool::loop() {
  flush_denormals();
  std::uint32_t epoch = 0;
  for (;;) {
    std::uint64_t ticket = 0;
    for (int spins = 0; epoch_of(ticket = ticket_.load(std::memory_order_acquire)) == epoch && !stop_;) {
      if (++spins < kSpins) {
        pause_briefly();
        if (spins % 1024 == 0) std::this_thread::yield();
      } else {
        sleeping_.fetch_add(1);
        ticket_.wait(ticket);
        sleeping_.fetch_sub(1);
      }
    }
    epoch = epoch_of(ticket);
    if (stop_) return;
    work(epoch);
  }
}

void Pool::run_chunks(int chunks, Function function, void* context) {
  if (workers_.empty() || chunks <= 1) {
    for (int i = 0; i < chunks; ++i) function(context, i);
    return;
  }
  function_.store(function, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const std::uint32_t epoch = open(chunks);
  if (sleeping_.load() > 0) ticket_.notify_all();
  work(epoch);
  for (int spins = 1; done_.load(std::memory_order_acquire) < chunks; ++spins) {
    pause_briefly();
    if (spins % 256 == 0) std::this_thread::yield();
  }
}

Pool::Step::Step(Pool& pool) : pool_(pool) {
  {
    std::unique_lock lock(pool_.turn_mutex_);
    const std::uint64_t mine = pool_.next_turn_++;
    pool_.turn_changed_.wait(lock, [&] { return pool_.turn_ == mine; });
  }
  flush_state_ = flush_denormals();
}

Pool::Step::~Step() {
  restore_denormals(flush_state_);
  {
    const std::lock_guard lock(pool_.turn_mutex_);
    ++pool_.turn_;
  }
  pool_.turn_changed_.notify_all();
}

}  // namespace personaplex::cpu
