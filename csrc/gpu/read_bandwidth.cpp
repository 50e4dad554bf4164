// csrc/gpu/read_bandwidth.cpp: lists of kernels/read_memory.metal, timed by the host.
#include "gpu/read_bandwidth.h"

#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>

#include "core/stopwatch.h"

namespace personaplex::gpu {

namespace {

constexpr std::uint32_t kGroups = 2048, kThreads = 256;
constexpr int kReadings = 8;  // in a list
constexpr std::size_t kUnit = 16;
constexpr const char* kKernels[] = {"read_memory_u1", "read_memory_u4", "read_memory_u8"};

}  // namespace

std::map<std::string, std::vector<double>> read_bandwidth(Queue& queue, std::size_t bytes, int passes) {
  bytes = bytes / kUnit * kUnit;
  const auto data = queue.allocate(bytes, ops::Use::kScratch);
  const auto sums = queue.allocate(sizeof(std::uint32_t) * kGroups * kThreads, ops::Use::kScratch);
  const auto count = static_cast<std::uint32_t>(bytes / kUnit);
  queue.prepare({std::begin(kKernels), std::end(kKernels)});
  std::map<std::string, std::unique_ptr<List>> lists;
  for (const char* name : kKernels) {
    Dispatch d;
    d.kernel = &queue.kernel(name);
    d.arguments = {{data.get(), 0, bytes, false}, {sums.get(), 0, sums->bytes, true}};
    d.params.resize(sizeof count);
    std::memcpy(d.params.data(), &count, sizeof count);
    d.groups[0] = kGroups;
    d.threads = kThreads;
    d.barrier = true;
    lists[name] = queue.record(std::vector<Dispatch>(kReadings, d));
    queue.run(*lists[name], nullptr);
  }
  std::map<std::string, std::vector<double>> out;
  for (int pass = 0; pass < passes; ++pass) {
    for (const auto& [name, list] : lists) {
      const Stopwatch watch;
      queue.run(*list, nullptr);
      out[name].push_back(static_cast<double>(bytes) * kReadings / watch.ms() / 1e6);
    }
  }
  return out;
}

}  // namespace personaplex::gpu
