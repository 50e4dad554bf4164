// csrc/core/worker.cpp: a queue, its thread, and what is left of them after a fork.
#include "core/worker.h"

#include <unistd.h>

#include <atomic>
#include <string>

#include "core/error.h"

namespace personaplex {

namespace {

// The process that first started a worker; MLX's own threads live there only.
std::atomic<pid_t> first_owner{0};

}  // namespace

struct Worker::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  bool closing = false;

  void loop() {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return closing || !queue.empty(); });
        if (queue.empty()) return;
        task = std::move(queue.front());
        queue.pop_front();
      }
      task();
    }
  }
};

Worker::Worker(std::function<void()> at_end) : shared_(std::make_shared<Shared>()), owner_(getpid()) {
  pid_t expected = 0;
  if (!first_owner.compare_exchange_strong(expected, owner_) && expected != owner_) {
    throw DeviceError("[load] this process was forked from process " + std::to_string(expected) +
                      ", which had already used MLX; its threads do not survive a fork. Start the child "
                      "with the 'spawn' method instead.");
  }
  thread_ = std::thread([shared = shared_, at_end = std::move(at_end)] {
    shared->loop();
    at_end();
  });
}

Worker::~Worker() {
  if (!here()) {
    // The mutex may be held by a thread that no longer exists, and joining would wait forever.
    new std::shared_ptr<Shared>(std::move(shared_));
    new std::thread(std::move(thread_));
    return;
  }
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->closing = true;
  }
  shared_->changed.notify_all();
  if (thread_.get_id() == std::this_thread::get_id()) {
    thread_.detach();  // the last owner let go on the thread itself
  } else {
    thread_.join();
  }
}

bool Worker::here() const { return owner_ == getpid(); }

void Worker::check(const char* where) const {
  if (here()) return;
  throw DeviceError(
      "[" + std::string(where) + "] this model was loaded in process " + std::to_string(owner_) +
      " and cannot be used in a forked child. Load a model in a process started with the 'spawn' method.");
}

void Worker::post(std::function<void()> task) {
  if (!here()) return;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->queue.push_back(std::move(task));
  }
  shared_->changed.notify_one();
}

}  // namespace personaplex
