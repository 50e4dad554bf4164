// csrc/core/worker.h: the one thread that a model's MLX work runs on.
//
// MLX evaluates per thread: lazy arrays may only be touched by the thread that made them, short-lived threads leak
// their streams, and a forked child has no MLX threads at all. So every call into MLX goes through run() or post().
#pragma once

#include <sys/types.h>

#include <functional>
#include <future>
#include <memory>
#include <type_traits>

namespace personaplex {

class Worker {
 public:
  /// Throws DeviceError in a process that was forked from one with a worker: MLX's threads did not survive the fork.
  /// `at_end` runs on the thread when the worker is destroyed.
  explicit Worker(std::function<void()> at_end);
  /// Waits for the queued work; the thread is kept for the next worker, because MLX never frees what it made for a
  /// thread. In a forked child the thread is not there: nothing is waited for, memory is left.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// True when this process owns the thread.
  bool here() const;
  /// Throws DeviceError, naming `where`, when the thread was left behind by a fork.
  void check(const char* where) const;

  /// Queues `task` and returns at once. Does nothing in a forked child.
  void post(std::function<void()> task);

  /// Queues `f`; the future gives its result or rethrows its exception.
  template <typename F>
  auto submit(F f) -> std::future<std::invoke_result_t<F&>> {
    using Result = std::invoke_result_t<F&>;
    auto task = std::make_shared<std::packaged_task<Result()>>(std::move(f));
    auto future = task->get_future();
    post([task] { (*task)(); });
    return future;
  }

  /// Runs `f` on the thread and waits for it.
  template <typename F>
  auto run(F f) -> std::invoke_result_t<F&> {
    return submit(std::move(f)).get();
  }

 private:
  struct Thread;
  std::shared_ptr<Thread> thread_;
  std::function<void()> at_end_;
  pid_t owner_;
};

}  // namespace personaplex
