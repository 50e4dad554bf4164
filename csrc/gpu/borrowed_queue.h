// csrc/gpu/borrowed_queue.h: a queue that somebody else owns, for operations that want one of their own.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpu/queue.h"

namespace personaplex::gpu {

/// The queue must outlive it.
class BorrowedQueue : public Queue {
 public:
  explicit BorrowedQueue(Queue& queue) : queue_(queue) {}
  std::unique_ptr<ops::Memory> allocate(std::size_t bytes, ops::Use use) override {
    return queue_.allocate(bytes, use);
  }
  const Kernel& kernel(const std::string& name) override { return queue_.kernel(name); }
  bool has(const std::string& name) const override { return queue_.has(name); }
  void prepare(const std::vector<std::string>& names) override { queue_.prepare(names); }
  std::unique_ptr<List> record(std::vector<Dispatch> dispatches) override {
    return queue_.record(std::move(dispatches));
  }
  void prepare_next(List& list, const ops::Memory* state) override { queue_.prepare_next(list, state); }
  void run(List& list, const ops::Memory* state, bool again) override { queue_.run(list, state, again); }
  std::string device_name() const override { return queue_.device_name(); }
  std::size_t free_bytes() const override { return queue_.free_bytes(); }
  std::size_t cache_bytes() const override { return queue_.cache_bytes(); }
  int cores() const override { return queue_.cores(); }

 private:
  Queue& queue_;
};

}  // namespace personaplex::gpu
