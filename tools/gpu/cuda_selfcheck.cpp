// tools/gpu/cuda_selfcheck.cpp: csrc/gpu/cuda_queue.cpp on a real GPU: right results, times, and how it fails.
//
//   cuda_selfcheck KERNELS.cu CACHE_FOLDER [NVRTC_FOLDER [memcheck]]
//
// memcheck: for compute-sanitizer: leaves out the planted fault, and most repetitions.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "gpu/cuda_queue.h"

using namespace personaplex;
using namespace personaplex::gpu;

namespace {

using Clock = std::chrono::steady_clock;

struct AxpyParams {
  std::int32_t n;
  float a, b;
};

constexpr int kCount = 4096;      // floats of a vector
constexpr int kDispatches = 400;  // of a list
constexpr std::size_t kBytes = kCount * sizeof(float);

int failures = 0;
int repetitions = 1000;

void expect(bool right, const std::string& what) {
  std::printf("%-6s %s\n", right ? "ok" : "WRONG", what.c_str());
  failures += right ? 0 : 1;
}

double seconds(const std::function<void()>& f) {
  const auto start = Clock::now();
  f();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <typename Params>
Dispatch dispatch(Queue& queue, const char* kernel, Argument x, Argument y, Params params) {
  Dispatch d;
  d.kernel = &queue.kernel(kernel);
  y.written = true;
  d.arguments = {x, y};
  d.params.resize(sizeof params);
  std::memcpy(d.params.data(), &params, sizeof params);
  d.barrier = true;
  return d;
}

Dispatch axpy(Queue& queue, Argument x, Argument y, float a, float b) {
  Dispatch d = dispatch(queue, "axpy", x, y, AxpyParams{kCount, a, b});
  d.groups[0] = kCount / 256;
  d.threads = 256;
  return d;
}

Argument all(const std::unique_ptr<ops::Memory>& m) { return {m.get(), 0, m->bytes, false}; }
Argument block(std::size_t bytes) { return {nullptr, 0, bytes, true}; }

void report_times(const char* what, const std::function<void(int)>& run) {
  std::vector<double> times;
  for (int i = 0; i < repetitions + 20; ++i) {
    const double time = seconds([&] { run(i); });
    if (i >= 20) times.push_back(time);
  }
  std::sort(times.begin(), times.end());
  const auto part = [&](std::size_t percent) { return times[times.size() * percent / 100] * 1e6; };
  std::printf("time   %-58s p50 %7.1f us  p99 %7.1f us\n", what, part(50), part(99));
}

/// y = sum over k of a_k x, block += y, out = block, total = sum of block: small whole numbers, exact in any order.
void check_results(Queue& queue) {
  const auto x = queue.allocate(kBytes, ops::Use::kInput);
  const auto y = queue.allocate(kBytes, ops::Use::kScratch);
  const auto out = queue.allocate(kBytes, ops::Use::kOutput);
  const auto total = queue.allocate(sizeof(float), ops::Use::kOutput);
  const std::unique_ptr<ops::Memory> blocks[] = {queue.allocate(kBytes, ops::Use::kState),
                                                 queue.allocate(kBytes, ops::Use::kState)};
  std::vector<Dispatch> list;
  float factor = 0;
  for (int k = 0; k < kDispatches - 3; ++k) {
    const auto a = static_cast<float>(k % 7 - 2);
    factor += a;
    list.push_back(axpy(queue, all(x), all(y), a, k == 0 ? 0 : 1));
  }
  list.push_back(axpy(queue, all(y), block(kBytes), 1, 1));
  list.push_back(axpy(queue, block(kBytes), all(out), 1, 0));
  Dispatch sum = dispatch(queue, "sum_f32", block(kBytes), all(total), std::int32_t{kCount});
  sum.threads = 1024;
  list.push_back(sum);
  std::unique_ptr<List> recorded;
  const double record = seconds([&] { recorded = queue.record(list); });
  std::printf("time   record %d dispatches %.1f ms\n", kDispatches, record * 1e3);

  std::vector<float> expected[2] = {std::vector<float>(kCount, 0), std::vector<float>(kCount, 0)};
  for (int round = 0; round < 6; ++round) {
    const int which = round % 3 == 1;
    auto* const in = reinterpret_cast<float*>(x->host);
    double sum_of_all = 0;
    for (int i = 0; i < kCount; ++i) {
      in[i] = static_cast<float>((i * 7 + round * 13) % 5 - 1);
      sum_of_all += expected[which][static_cast<std::size_t>(i)] += factor * in[i];
    }
    queue.run(*recorded, blocks[which].get());
    const bool same = std::memcmp(out->host, expected[which].data(), kBytes) == 0;
    expect(same && *reinterpret_cast<float*>(total->host) == static_cast<float>(sum_of_all),
           "run " + std::to_string(round) + " of 400 dispatches, conversation " + std::to_string(which));
  }
  std::vector<float> read(kCount);
  for (int which = 0; which < 2; ++which) {
    blocks[which]->read(0, kBytes, read.data());
    expect(read == expected[which], "block of conversation " + std::to_string(which));
  }

  report_times("400 dispatches in a row", [&](int) { queue.run(*recorded, blocks[0].get()); });
  report_times("the same, another conversation each time (3 launches change)",
               [&](int i) { queue.run(*recorded, blocks[i % 2].get()); });

  std::vector<Dispatch> stateful, pairs;
  std::unique_ptr<ops::Memory> other = queue.allocate(kBytes, ops::Use::kScratch);
  for (int k = 0; k < kDispatches; ++k) {
    stateful.push_back(axpy(queue, all(x), block(kBytes), 1, 1));
    pairs.push_back(axpy(queue, all(x), all(k % 2 == 0 ? y : other), 1, 1));
    pairs.back().barrier = k % 2 == 0;
  }
  const auto stateful_list = queue.record(stateful), pairs_list = queue.record(pairs);
  report_times("400 dispatches, one conversation, all with its block",
               [&](int) { queue.run(*stateful_list, blocks[0].get()); });
  report_times("the same, another conversation each time (400 change)",
               [&](int i) { queue.run(*stateful_list, blocks[i % 2].get()); });
  report_times("400 dispatches as 200 pairs without a barrier", [&](int) { queue.run(*pairs_list, nullptr); });
  const auto one = queue.record({axpy(queue, all(x), all(out), 1, 0)});
  report_times("1 dispatch", [&](int) { queue.run(*one, nullptr); });
}

void check_memory(Queue& queue) {
  constexpr std::size_t bytes = std::size_t{256} << 20;
  std::unique_ptr<ops::Memory> a, b;
  const double allocate = seconds([&] { a = queue.allocate(bytes, ops::Use::kScratch); });
  b = queue.allocate(bytes, ops::Use::kState);
  std::vector<std::uint32_t> put(bytes / 4), got(bytes / 4, 1);
  b->read(0, bytes, got.data());
  expect(std::all_of(got.begin(), got.end(), [](auto v) { return v == 0; }), "memory is zero at first");
  for (std::size_t i = 0; i < put.size(); ++i) put[i] = static_cast<std::uint32_t>(i * 2654435761U);
  const double write = seconds([&] { a->write(0, bytes, put.data()); });
  const double copy = seconds([&] { b->copy_from(*a, 0, bytes); });
  const double read = seconds([&] { b->read(0, bytes, got.data()); });
  expect(got == put, "256 MiB written, copied and read");
  const double gb = static_cast<double>(bytes) / 1e9;
  std::printf("time   allocate %.2f ms, write %.1f GB/s, copy on the GPU %.0f GB/s, read %.1f GB/s\n", allocate * 1e3,
              gb / write, gb / copy, gb / read);

  constexpr std::size_t large = std::size_t{4} << 30;
  constexpr std::uint32_t blocks = 4096;
  const auto all_of_it = queue.allocate(large, ops::Use::kScratch);
  const auto sums = queue.allocate(blocks * 4, ops::Use::kScratch);
  Dispatch d = dispatch(queue, "read_all", all(all_of_it), all(sums), static_cast<std::int32_t>(large / 16 / blocks));
  d.groups[0] = blocks;
  d.threads = 512;
  const auto list = queue.record({d});
  double best = 1;
  for (int i = 0; i < 10; ++i) best = std::min(best, seconds([&] { queue.run(*list, nullptr); }));
  std::printf("time   4 GiB read by one kernel: %.0f GB/s\n", static_cast<double>(large) / 1e9 / best);
}

void expect_error(const std::string& part, const std::function<void()>& f) {
  std::string words = "nothing thrown";
  try {
    f();
  } catch (const DeviceError& e) {
    words = e.what();
  }
  expect(words.find(part) != std::string::npos, "error: " + words);
}

/// Last: afterwards the process has no GPU.
void check_fault(Queue& queue) {
  const auto table = queue.allocate(16, ops::Use::kInput);
  const std::uint64_t nowhere = 0x10;
  table->write(0, sizeof nowhere, &nowhere);
  Dispatch d;
  d.kernel = &queue.kernel("fault");
  d.arguments = {all(table)};
  const auto list = queue.record({d});
  expect_error("[CudaQueue.run] the GPU failed", [&] { queue.run(*list, nullptr); });
  expect_error("failed earlier", [&] { queue.run(*list, nullptr); });
  expect_error("failed earlier", [&] { queue.allocate(16, ops::Use::kScratch); });
}

std::string kernel(const std::string& function) { return "extern \"C\" __global__ void " + function; }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "cuda_selfcheck KERNELS.cu CACHE_FOLDER [NVRTC_FOLDER [memcheck]]\n"), 2;
  const bool memcheck = argc > 4;
  if (memcheck) repetitions = 2;
  std::ifstream in(argv[1]);
  CudaOptions options;
  options.cache = argv[2];
  if (argc > 3) options.nvrtc = argv[3];
  options.sources = {
      {"selfcheck.cu",
       {std::istreambuf_iterator<char>(in), {}},
       {{"axpy", kernel("axpy(const float* x, float* y, const AxpyParams p) { axpy_body(x, y, p); }")},
        {"sum_f32", kernel("sum_f32(const float* x, float* out, const SumParams p) { sum<float>(x, out, p); }")},
        {"read_all",
         kernel("read_all(const uint4* x, unsigned* out, const ReadParams p) { read_all_body(x, out, p); }")},
        {"fault", kernel("fault(float* const* table) { fault_body(table); }")}}},
      {"broken.cu", "", {{"broken", kernel("broken() { mistake(); }")}}}};
  try {
    std::unique_ptr<Queue> queue;
    for (int i = 0; i < 2; ++i) {
      queue.reset();
      const double open = seconds([&] { queue = make_cuda_queue(options); });
      const double load = seconds([&] { queue->prepare({"axpy", "sum_f32", "read_all", "fault"}); });
      std::printf("time   open %.1f ms, kernels %.1f ms\n", open * 1e3, load * 1e3);
    }
    std::printf("       %s, %.1f GiB free, %d GPU(s)\n", queue->device_name().c_str(),
                static_cast<double>(queue->free_bytes()) / (1U << 30), cuda_device_count());
    check_results(*queue);
    check_memory(*queue);
    expect_error("broken.cu(2): error", [&] { queue->kernel("broken"); });
    expect_error("of free memory on the GPU", [&] { queue->allocate(std::size_t{1} << 42, ops::Use::kScratch); });
    if (!memcheck) check_fault(*queue);
  } catch (const std::exception& e) {
    expect(false, e.what());
  }
  std::printf("%s\n", failures == 0 ? "all right" : "FAILED");
  return failures == 0 ? 0 : 1;
}
