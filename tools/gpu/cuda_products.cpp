// tools/gpu/cuda_products.cpp: the language model's products (qmv_* of kernels/lm_product.metal) on a real GPU: right,
// and how near to the speed of memory, for every tile, threadgroup size and split.
//
//   cuda_products KERNEL_FOLDER CACHE_FOLDER [NVRTC_FOLDER]     KERNEL_FOLDER: compile_kernels.py --write
//
// Each time is of a list of products with different weights, 1 GB or more in all, so that none is in a cache.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "gpu/cuda_queue.h"

using namespace personaplex;
using namespace personaplex::gpu;

namespace {

struct Params {
  std::int32_t n, k, columns, group_shift, split, passes, epilogue, norm;
};

struct Format {
  const char* name;
  int bits;
};

struct Tile {
  const char* name;
  int rows;
  unsigned most_threads;
};

constexpr Format kFormats[] = {{"b4_bf16", 4}, {"b8_bf16", 8}, {"bf16", 16}};
constexpr Tile kTiles[] = {{"r1_c1", 1, 1024}, {"r2_c1", 2, 1024}, {"r4_c1", 4, 512}};
constexpr int kGroup = 64;
/// N, K: temporal q k v, output, gate and value, down; depformer q k v, gate and value, down; text logits.
constexpr int kShapes[][2] = {{12288, 4096}, {4096, 4096}, {22528, 4096}, {4096, 11264},
                              {3072, 1024},  {5632, 1024}, {1024, 2816},  {32000, 4096}};
constexpr std::size_t kTotal = std::size_t{1} << 30;  // of weights in a list

struct Weights {
  std::unique_ptr<ops::Memory> words, scales, biases;
};

float from_bf16(std::uint16_t bits) {
  const std::uint32_t word = std::uint32_t{bits} << 16;
  float out = 0;
  std::memcpy(&out, &word, sizeof out);
  return out;
}

std::uint16_t to_bf16(float value) {
  std::uint32_t word = 0;
  std::memcpy(&word, &value, sizeof word);
  return static_cast<std::uint16_t>(word >> 16);
}

/// Random weights of one matrix on the host, as the checkpoint has them.
struct Host {
  std::vector<std::uint32_t> words;
  std::vector<std::uint16_t> scales, biases;

  Host(int bits, std::size_t n, std::size_t k, std::mt19937& random)
      : words(n * k * static_cast<std::size_t>(bits) / 32), scales(bits == 16 ? 8 : n * k / kGroup), biases(scales) {
    std::normal_distribution<float> normal(0, 0.05F);
    for (std::uint32_t& word : words) {
      word = static_cast<std::uint32_t>(random());
      if (bits == 16) word = (word & 0x80FF80FFU) | 0x3D003D00U;  // +-[0.03, 0.12)
    }
    for (std::uint16_t& scale : scales)
      scale = to_bf16(std::abs(normal(random)) / static_cast<float>(1 << (bits % 16)));
    for (std::uint16_t& bias : biases) bias = to_bf16(normal(random));
  }

  double value(int bits, std::size_t row, std::size_t k, std::size_t i) const {
    const std::size_t per_word = 32 / static_cast<std::size_t>(bits);
    const std::size_t at = row * k + i;
    const std::uint32_t word = words[at / per_word] >> (at % per_word * static_cast<std::size_t>(bits));
    if (bits == 16) return from_bf16(static_cast<std::uint16_t>(word));
    return double{from_bf16(scales[at / kGroup])} * (word & ((1U << bits) - 1)) + from_bf16(biases[at / kGroup]);
  }
};

Weights upload(Queue& queue, const Host& host) {
  const auto put = [&](const auto& values) {
    auto memory = queue.allocate(values.size() * sizeof values[0], ops::Use::kScratch);
    memory->write(0, memory->bytes, values.data());
    return memory;
  };
  return {put(host.words), put(host.scales), put(host.biases)};
}

Argument all(const std::unique_ptr<ops::Memory>& m, bool written = false) { return {m.get(), 0, m->bytes, written}; }

Dispatch product(const Kernel& kernel, const Tile& tile, const Weights& w, const std::unique_ptr<ops::Memory>& x,
                 const std::unique_ptr<ops::Memory>& y, Params p, unsigned threads) {
  Dispatch d;
  d.kernel = &kernel;
  d.arguments = {all(x), all(x), all(w.words), all(w.scales), all(w.biases), all(y, true)};
  d.params.resize(sizeof p);
  std::memcpy(d.params.data(), &p, sizeof p);
  const std::uint32_t rows = threads / 32 / static_cast<std::uint32_t>(p.split) * static_cast<std::uint32_t>(tile.rows);
  d.groups[0] = (static_cast<std::uint32_t>(p.n) + rows - 1) / rows;
  d.threads = threads;
  d.barrier = true;
  return d;
}

/// ||y - W x|| / ||W x|| over some rows.
double error(const Host& host, int bits, int n, int k, const float* x, const float* y) {
  double wrong = 0, norm = 0;
  for (int row = 0; row < n; row += 37) {
    double sum = 0;
    for (int i = 0; i < k; ++i) {
      sum += x[i] *
             host.value(bits, static_cast<std::size_t>(row), static_cast<std::size_t>(k), static_cast<std::size_t>(i));
    }
    wrong += (y[row] - sum) * (y[row] - sum);
    norm += sum * sum;
  }
  return std::sqrt(wrong / norm);
}

double median_seconds(Queue& queue, List& list) {
  std::vector<double> times;
  for (int i = 0; i < 8; ++i) {
    const auto start = std::chrono::steady_clock::now();
    queue.run(list, nullptr);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin() + 1, times.end());  // not the first
  return times[4];
}

int measure(Queue& queue, const Format& format, int n, int k, std::mt19937& random) {
  const Host host(format.bits, static_cast<std::size_t>(n), static_cast<std::size_t>(k), random);
  const std::size_t bytes = host.words.size() * 4 + (format.bits == 16 ? 0 : 4 * host.scales.size());
  std::vector<Weights> weights;
  weights.push_back(upload(queue, host));
  while (weights.size() * bytes < kTotal) {
    Weights& first = weights.front();
    Weights copy = {queue.allocate(first.words->bytes, ops::Use::kScratch),
                    queue.allocate(first.scales->bytes, ops::Use::kScratch),
                    queue.allocate(first.biases->bytes, ops::Use::kScratch)};
    copy.words->copy_from(*first.words);
    copy.scales->copy_from(*first.scales);
    copy.biases->copy_from(*first.biases);
    weights.push_back(std::move(copy));
  }
  const auto x = queue.allocate(static_cast<std::size_t>(k) * 4, ops::Use::kInput);
  const auto y = queue.allocate(static_cast<std::size_t>(n) * 4, ops::Use::kOutput);
  std::normal_distribution<float> normal;
  for (int i = 0; i < k; ++i) reinterpret_cast<float*>(x->host)[i] = normal(random);

  struct Result {
    double seconds;
    std::string how;
  };
  std::vector<Result> results;
  double worst = 0;
  for (const Tile& tile : kTiles) {
    const Kernel& kernel = queue.kernel("qmv_" + std::string(format.name) + "_" + tile.name);
    for (const unsigned threads : {64U, 128U, 256U, 512U, 1024U}) {
      for (const int split : {1, 2, 4, 8}) {
        if (threads > tile.most_threads || static_cast<unsigned>(split) > threads / 32) continue;
        const Params p{n, k, 1, 6, split, 1, 0, 0};
        std::memset(y->host, 0xFF, y->bytes);
        const auto one = queue.record({product(kernel, tile, weights.back(), x, y, p, threads)});
        queue.run(*one, nullptr);
        worst = std::max(worst, error(host, format.bits, n, k, reinterpret_cast<float*>(x->host),
                                      reinterpret_cast<float*>(y->host)));
        std::vector<Dispatch> list;
        for (const Weights& w : weights) list.push_back(product(kernel, tile, w, x, y, p, threads));
        const auto many = queue.record(std::move(list));
        results.push_back(
            {median_seconds(queue, *many) / static_cast<double>(weights.size()),
             std::string(tile.name) + " threads " + std::to_string(threads) + " split " + std::to_string(split)});
      }
    }
  }
  std::sort(results.begin(), results.end(), [](const Result& a, const Result& b) { return a.seconds < b.seconds; });
  std::printf("%-8s %5d x %5d  error %.1e ", format.name, n, k, worst);
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}, std::size_t{2}, results.size() - 1}) {
    std::printf(" | %6.1f us %4.0f GB/s %s", results[i].seconds * 1e6,
                static_cast<double>(bytes) / 1e9 / results[i].seconds, results[i].how.c_str());
  }
  std::printf("\n");
  std::fflush(stdout);
  return worst < 1e-3 ? 0 : 1;  // NaN too
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "cuda_products KERNEL_FOLDER CACHE_FOLDER [NVRTC_FOLDER]\n"), 2;
  try {
    CudaOptions options;
    options.cache = argv[2];
    if (argc > 3) options.nvrtc = argv[3];
    std::vector<std::string> names;
    for (const Format& format : kFormats) {
      for (const Tile& tile : kTiles) {
        names.push_back("qmv_" + std::string(format.name) + "_" + tile.name);
        std::ifstream in(std::string(argv[1]) + "/" + names.back() + ".cu");
        options.sources.push_back({names.back(), {std::istreambuf_iterator<char>(in), {}}, {{names.back(), ""}}});
      }
    }
    const auto queue = make_cuda_queue(std::move(options));
    const auto start = std::chrono::steady_clock::now();
    queue->prepare(names);
    std::printf("%zu kernels ready in %.2f s\n", names.size(),
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    std::mt19937 random(7);
    int wrong = 0;
    for (const Format& format : kFormats) {
      for (const auto& shape : kShapes) wrong += measure(*queue, format, shape[0], shape[1], random);
    }
    std::printf("%s\n", wrong == 0 ? "all right" : "FAILED: an error of 1e-3 or more");
    return wrong == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    std::printf("FAILED: %s\n", e.what());
    return 1;
  }
}
