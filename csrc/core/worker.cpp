// csrc/core/worker.cpp: queues with threads that are reused, and what is left of them after a fork.
#include "core/worker.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"

namespace personaplex {

namespace {

// The process that first started a worker; MLX's own threads live there only.
std::atomic<pid_t> first_owner{0};

}  // namespace

struct Worker::Thread {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  std::thread::id id;

  void post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex);
      queue.push_back(std::move(task));
    }
    changed.notify_one();
  }

  void loop() {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return !queue.empty(); });
        task = std::move(queue.front());
        queue.pop_front();
      }
      task();
    }
  }

  /// A thread that waits for a worker, or a new one. Threads live as long as the process.
  static std::shared_ptr<Thread> take() {
    {
      const std::lock_guard lock(idle_mutex());
      if (!idle().empty()) {
        auto thread = std::move(idle().back());
        idle().pop_back();
        return thread;
      }
    }
    auto thread = std::make_shared<Thread>();
    std::thread running([thread] { thread->loop(); });
    thread->id = running.get_id();
    running.detach();
    return thread;
  }

  static void give_back(std::shared_ptr<Thread> thread) {
    const std::lock_guard lock(idle_mutex());
    idle().push_back(std::move(thread));
  }

 private:
  // Never destroyed: threads outlive static objects.
  static std::mutex& idle_mutex() {
    static auto* mutex = new std::mutex;
    return *mutex;
  }
  static std::vector<std::shared_ptr<Thread>>& idle() {
    static auto* list = new std::vector<std::shared_ptr<Thread>>;
    return *list;
  }
};

Worker::Worker(std::function<void()> at_end) : at_end_(std::move(at_end)), owner_(getpid()) {
  pid_t expected = 0;
  if (!first_owner.compare_exchange_strong(expected, owner_) && expected != owner_) {
    throw DeviceError("[load] this process was forked from process " + std::to_string(expected) +
                      ", which had already used MLX; its threads do not survive a fork. Start the child "
                      "with the 'spawn' method instead.");
  }
  thread_ = Thread::take();
}

Worker::~Worker() {
  if (!here()) {
    // The mutex may be held by a thread that no longer exists, and nothing of MLX may be freed.
    (void)new std::shared_ptr<Thread>(std::move(thread_));
    (void)new std::function<void()>(std::move(at_end_));
    return;
  }
  if (thread_->id == std::this_thread::get_id()) {  // the last owner let go on the thread itself
    at_end_();
    Thread::give_back(std::move(thread_));
    return;
  }
  run([this] { at_end_(); });
  Thread::give_back(std::move(thread_));
}

bool Worker::here() const { return owner_ == getpid(); }

void Worker::check(const char* where) const {
  if (here()) return;
  throw DeviceError(
      "[" + std::string(where) + "] this model was loaded in process " + std::to_string(owner_) +
      " and cannot be used in a forked child. Load a model in a process started with the 'spawn' method.");
}

void Worker::post(std::function<void()> task) {
  if (here()) thread_->post(std::move(task));
}

}  // namespace personaplex
