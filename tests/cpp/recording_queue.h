// tests/cpp/recording_queue.h: a GPU that runs nothing: what is recorded for it is checked and kept.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "gpu/kernel_source.h"
#include "gpu/queue.h"

namespace personaplex::gpu {

/// Memory of the host; pages that nobody touches cost nothing. Knows which bytes somebody has written.
struct TrackedMemory final : ops::Memory {
  TrackedMemory(std::size_t size, ops::Use how) : use(how), block(std::calloc(size, 1), &std::free) {
    if (block == nullptr) throw std::bad_alloc();
    base = static_cast<std::byte*>(block.get());
    bytes = size;
    if (use == ops::Use::kInput || use == ops::Use::kOutput) host = base;
  }
  void read(std::size_t offset, std::size_t count, void* to) const override {
    REQUIRE(offset + count <= bytes);
    std::memcpy(to, base + offset, count);
  }
  void write(std::size_t offset, std::size_t count, const void* from) override {
    REQUIRE(offset + count <= bytes);
    std::memcpy(base + offset, from, count);
    by_host = true;
  }
  void copy_from(const ops::Memory& other) override { write(0, bytes, other.base); }

  /// Whether kernels have written all of this.
  bool has_written(std::size_t offset, std::size_t count) const {
    const std::size_t end = offset + count;
    for (bool more = true; more && offset < end;) {
      more = false;
      for (const auto& [from, to] : written) {
        if (from <= offset && offset < to) {
          offset = to;
          more = true;
        }
      }
    }
    return offset >= end;
  }

  ops::Use use;
  bool by_host = false;                                              // the host has written some of it
  mutable std::vector<std::pair<std::size_t, std::size_t>> written;  // by kernels, from and to
  std::unique_ptr<void, decltype(&std::free)> block;
};

/// Every list is checked as it is recorded: kernels exist and take these arguments, which lie within their memories;
/// barriers are where data flows; what is read of scratch memory was written by a kernel before.
class RecordingQueue final : public Queue {
 public:
  /// The kernels of what is recorded go to `lists`, which outlives the queue.
  explicit RecordingQueue(std::vector<std::vector<std::string>>& lists) : lists_(lists) {
    for (const CudaSource& source : cuda_sources()) {
      for (const auto& [name, text] : source.kernels) declarations_[name] = text.substr(0, text.find('{'));
    }
  }

  std::unique_ptr<ops::Memory> allocate(std::size_t bytes, ops::Use use) override {
    return std::make_unique<TrackedMemory>(bytes, use);
  }
  const Kernel& kernel(const std::string& name) override {
    CAPTURE(name);
    REQUIRE(declarations_.count(name) == 1);
    std::unique_ptr<Kernel>& kernel = kernels_[name];
    if (kernel == nullptr) {
      kernel = std::make_unique<Kernel>();
      kernel->name = name;
    }
    return *kernel;
  }
  bool has(const std::string& name) const override { return declarations_.count(name) == 1; }
  std::unique_ptr<List> record(std::vector<Dispatch> dispatches) override {
    for (const Dispatch& d : dispatches) check(d);
    check_barriers(dispatches);
    check_lanes(dispatches);
    check_scratch(dispatches);
    std::vector<std::string>& names = lists_.emplace_back();
    for (const Dispatch& d : dispatches) names.push_back(d.kernel->name);
    return std::make_unique<List>();
  }
  void run(List&, const ops::Memory*, bool) override {}
  std::string device_name() const override { return "none"; }
  std::size_t free_bytes() const override { return 0; }

 private:
  static bool overlap(const Argument& a, const Argument& b) {
    return a.memory == b.memory && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  }

  void check(const Dispatch& d) const {
    const std::string& name = d.kernel->name;
    CAPTURE(name);
    const std::string& declaration = declarations_.at(name);
    std::size_t parameters = 0;
    for (auto at = declaration.find("::passed<"); at != std::string::npos; at = declaration.find("::passed<", at + 1)) {
      ++parameters;
    }
    if (parameters > 0) CHECK(d.arguments.size() + 1 == parameters);  // kernels/cuda have no such declarations
    CHECK(d.params.size() % 4 == 0);
    std::size_t most = 1024;
    const std::string bounds = "__launch_bounds__(";
    if (const auto at = declaration.find(bounds); at != std::string::npos) {
      most = std::stoul(declaration.substr(at + bounds.size()));
    }
    CHECK(d.threads % 32 == 0);
    CHECK(d.threads > 0);
    CHECK(d.threads <= most);
    for (const std::uint32_t groups : d.groups) CHECK(groups > 0);
    for (const Argument& a : d.arguments) {
      CHECK(a.offset % 4 == 0);
      if (a.memory == nullptr) continue;
      CHECK(a.offset + a.bytes <= a.memory->bytes);
      const bool is_input = static_cast<const TrackedMemory*>(a.memory)->use == ops::Use::kInput;
      CHECK_FALSE((is_input && a.written));
    }
  }

  static void check_barriers(const std::vector<Dispatch>& dispatches) {
    std::vector<Argument> touched;
    for (const Dispatch& d : dispatches) {
      CAPTURE(d.kernel->name);
      if (d.barrier) touched.clear();
      for (const Argument& a : d.arguments) {
        for (const Argument& before : touched) {
          const bool flows = overlap(a, before) && (a.written || before.written);
          CHECK_FALSE(flows);
        }
      }
      touched.insert(touched.end(), d.arguments.begin(), d.arguments.end());
    }
  }

  /// Lanes 1 and 2 come once at most, begin with barriers, and have nothing to do with each other. (The recorder itself
  /// looks at what is reached through addresses.)
  static void check_lanes(const std::vector<Dispatch>& dispatches) {
    for (std::size_t i = 1; i < dispatches.size(); ++i) {
      if (dispatches[i].lane != dispatches[i - 1].lane) CHECK(dispatches[i].barrier);
    }
    for (const Dispatch& one : dispatches) {
      for (const Dispatch& other : dispatches) {
        if (one.lane != 1 || other.lane != 2) continue;
        for (const Argument& a : one.arguments) {
          for (const Argument& b : other.arguments) {
            const bool flows = overlap(a, b) && (a.written || b.written);
            if (flows) FAIL_CHECK(one.kernel->name << " and " << other.kernel->name << " share memory");
          }
        }
      }
    }
  }

  static void check_scratch(const std::vector<Dispatch>& dispatches) {
    for (const Dispatch& d : dispatches) {
      CAPTURE(d.kernel->name);
      for (const Argument& a : d.arguments) {
        if (a.memory == nullptr || a.written) continue;
        const auto& memory = static_cast<const TrackedMemory&>(*a.memory);
        if (memory.use == ops::Use::kScratch && !memory.by_host) CHECK(memory.has_written(a.offset, a.bytes));
      }
      for (const Argument& a : d.arguments) {
        if (a.memory == nullptr || !a.written) continue;
        static_cast<const TrackedMemory&>(*a.memory).written.emplace_back(a.offset, a.offset + a.bytes);
      }
    }
  }

  std::vector<std::vector<std::string>>& lists_;
  std::map<std::string, std::string> declarations_;
  std::map<std::string, std::unique_ptr<Kernel>> kernels_;
};

}  // namespace personaplex::gpu
