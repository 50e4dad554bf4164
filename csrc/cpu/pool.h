// csrc/cpu/pool.h: fork-join over chunks on one pool of threads per process.
//
// run() returns when all chunks are done, not when all workers have arrived: a worker that the system has descheduled
// while it holds no chunk never delays anybody. (A plain spin barrier becomes 5 times slower when another thread wants
// a core.)
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "cpu/cores.h"

namespace personaplex::cpu {

class Pool {
 public:
  /// `threads` workers in all, the caller of run() included; 0 means usable_cores().
  explicit Pool(int threads = 0);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  /// Another number of workers, from the next step on.
  void resize(int threads);

  /// Calls body(chunk) for every chunk in [0, chunks), in any order, on any thread, and returns when all are done.
  /// chunks < 2^20. One caller at a time (hold a Step); `body` must not throw and must not call run().
  template <typename F>
  void run(int chunks, F&& body) {
    using Body = std::remove_reference_t<F>;
    run_chunks(
        chunks, [](void* context, int chunk) { (*static_cast<Body*>(context))(chunk); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

  /// The right to call run(): held for a whole step, so that steps of several sessions take turns in the order they
  /// came.
  class Step {
   public:
    explicit Step(Pool& pool);
    ~Step();
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    Pool& pool_;
    unsigned flush_state_;
  };

 private:
  using Function = void (*)(void*, int);
  void run_chunks(int chunks, Function function, void* context);
  /// Begins the next epoch, with so many chunks.
  std::uint32_t open(int chunks);
  void work(std::uint32_t epoch);
  void loop();
  void start(int threads);
  void stop();

  // Epoch, number of chunks, next chunk: one word, so that a late worker cannot take a chunk of another epoch, nor
  // compare its chunk with another epoch's number.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<int> done_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<Function> function_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
  // FIFO of steps.
  std::mutex turn_mutex_;
  std::condition_variable turn_changed_;
  std::uint64_t next_turn_ = 0, turn_ = 0;
};

/// The pool of this process: one for all models, alive while one of them is. The latest caller decides how many threads
/// it has (0: usable_cores()). A forked child gets a pool of its own.
std::shared_ptr<Pool> process_pool(int threads);

}  // namespace personaplex::cpu
