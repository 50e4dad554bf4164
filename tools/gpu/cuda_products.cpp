// tools/gpu/cuda_products.cpp: the language model's products on a real GPU: kernels/cuda against those translated from
// kernels/lm_product.metal, how near each comes to the speed of memory, and which shares of the work are fast.
//
//   cuda_products CACHE_FOLDER NVRTC_FOLDER [COLUMNS ...]      COLUMNS: 1 unless given
//
// Each time is of a list of products with different weights, 300 MB or more in all, so that none is in a cache; each
// waits for the one before it.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "gpu/cuda_queue.h"
#include "gpu/kernel_source.h"

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

/// A kernel and how its work is shared out.
struct Choice {
  std::string tile;
  int rows, simdgroups, split, passes;

  std::string text() const {
    return tile + " " + std::to_string(simdgroups) + "/" + std::to_string(split) + " x" + std::to_string(passes);
  }
  bool tuned() const { return tile.starts_with("mma"); }
};

constexpr Format kFormats[] = {{"b4_bf16", 4}, {"b8_bf16", 8}, {"bf16", 16}};
constexpr int kGroup = 64;
/// N, K: temporal q k v, output, gate and value, down; depformer q k v, output, gate and value, down, input; logits of
/// text and audio.
constexpr int kShapes[][2] = {{12288, 4096}, {4096, 4096}, {22528, 4096}, {4096, 11264}, {3072, 1024}, {1024, 1024},
                              {5632, 1024},  {1024, 2816}, {1024, 4096},  {32000, 4096}, {2048, 1024}};
constexpr std::size_t kTotal = std::size_t{300} << 20;  // of weights in a list

std::vector<Choice> choices(const Queue& queue, int n, int columns) {
  std::vector<Choice> out;
  const int cores = std::max(1, queue.cores());
  if (columns > 1) {
    out.push_back({"c8", 4, 8, 1, 1});
    out.push_back({"c8", 4, 8, 4, 1});
    for (const int split : {1, 2, 4, 8}) {
      for (int tiles = 1; tiles * split <= 16; ++tiles) {
        const int groups = (n + 16 * tiles - 1) / (16 * tiles);
        if (groups > 2 * cores + 8 || groups < cores / 3) continue;
        out.push_back({columns <= 8 ? "mma_c8" : "mma_c32", 16, tiles * split, split, 1});
      }
    }
    return out;
  }
  for (const Choice& c : {Choice{"r2_c1", 2, 8, 1, 1}, Choice{"r2_c1", 2, 8, 4, 1}, Choice{"r2_c1", 2, 8, 1, 2},
                          Choice{"r2_c1", 2, 8, 1, 3}, Choice{"r4_c1", 4, 4, 1, 3}, Choice{"r4_c1", 4, 8, 2, 1},
                          Choice{"r4_c1", 4, 8, 4, 1}, Choice{"r4_c1", 4, 16, 4, 1}}) {
    out.push_back(c);
  }
  for (const int split : {2, 4, 8, 11, 16}) {
    for (const int a_pass : {1, 2, 4}) {
      if (a_pass * split > 16 || a_pass * split < 4) continue;
      const int tiles = (n + 15) / 16;
      int before = 0;
      for (const int groups : {cores, 2 * cores, 4 * cores}) {
        const int passes = (tiles + groups * a_pass - 1) / (groups * a_pass);
        if (passes != before) out.push_back({"mma_c1", 16, a_pass * split, split, passes});
        before = passes;
      }
    }
  }
  return out;
}

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

Dispatch product(const Kernel& kernel, const Choice& how, const Weights& w, const std::unique_ptr<ops::Memory>& x,
                 const std::unique_ptr<ops::Memory>& y, int n, int k, int columns) {
  const Params p{n, k, columns, 6, how.split, how.passes, 0, 0};
  Dispatch d;
  d.kernel = &kernel;
  d.arguments = {all(x), all(x), all(w.words), all(w.scales), all(w.biases), all(y, true)};
  d.params.resize(sizeof p);
  std::memcpy(d.params.data(), &p, sizeof p);
  const int rows = how.simdgroups / how.split * how.rows * how.passes;
  const std::string& tile = how.tile;
  const int at_once = std::atoi(tile.c_str() + tile.find('c') + 1);
  d.groups[0] = static_cast<std::uint32_t>((n + rows - 1) / rows);
  d.groups[1] = static_cast<std::uint32_t>((columns + at_once - 1) / at_once);
  d.threads = static_cast<std::uint32_t>(32 * how.simdgroups);
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

int measure(Queue& queue, const Format& format, int n, int k, int columns, std::mt19937& random) {
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
  const auto x = queue.allocate(static_cast<std::size_t>(columns * k) * 4, ops::Use::kInput);
  const auto y = queue.allocate(static_cast<std::size_t>(columns * n) * 4, ops::Use::kOutput);
  std::normal_distribution<float> normal;
  for (int i = 0; i < columns * k; ++i) reinterpret_cast<float*>(x->host)[i] = normal(random);

  struct Result {
    double seconds;
    Choice how;
  };
  std::vector<Result> results;
  double worst[2] = {0, 0};
  for (const Choice& how : choices(queue, n, columns)) {
    const Kernel& kernel = queue.kernel("qmv_" + std::string(format.name) + "_" + how.tile);
    std::memset(y->host, 0xFF, y->bytes);
    const auto one = queue.record({product(kernel, how, weights.back(), x, y, n, k, columns)});
    queue.run(*one, nullptr);
    for (const int c : {0, columns - 1}) {
      const double off = error(host, format.bits, n, k, reinterpret_cast<float*>(x->host) + c * k,
                               reinterpret_cast<float*>(y->host) + c * n);
      double& most = worst[how.tuned() ? 1 : 0];
      most = off <= most ? most : off;  // NaN too
    }
    std::vector<Dispatch> list;
    const std::size_t count = std::max<std::size_t>(weights.size(), 64);  // what a run costs besides is shared out
    for (std::size_t i = 0; i < count; ++i) {
      list.push_back(product(kernel, how, weights[i % weights.size()], x, y, n, k, columns));
    }
    const auto many = queue.record(std::move(list));
    results.push_back({median_seconds(queue, *many) / static_cast<double>(count), how});
  }
  std::sort(results.begin(), results.end(), [](const Result& a, const Result& b) { return a.seconds < b.seconds; });
  const auto best = [&](bool tuned) {
    return std::find_if(results.begin(), results.end(), [&](const Result& r) { return r.how.tuned() == tuned; });
  };
  const auto translated = best(false), ours = best(true);
  std::printf("%-7s %5dx%5d c%-2d errors %.0e %.0e | %6.1f us %4.0f GB/s %s", format.name, n, k, columns, worst[0],
              worst[1], translated->seconds * 1e6, static_cast<double>(bytes) / 1e9 / translated->seconds,
              translated->how.text().c_str());
  if (ours != results.end()) std::printf(" | x%.2f", translated->seconds / ours->seconds);
  int shown = 0;
  for (const Result& r : results) {
    if (!r.how.tuned() || ++shown > 4) continue;
    std::printf(" | %6.1f us %4.0f GB/s %s", r.seconds * 1e6, static_cast<double>(bytes) / 1e9 / r.seconds,
                r.how.text().c_str());
  }
  std::printf("\n");
  std::fflush(stdout);
  const double limit = columns == 1 ? 1e-3 : 8e-3;
  return worst[0] < 1e-3 && worst[1] < limit ? 0 : 1;  // NaN too
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "cuda_products CACHE_FOLDER NVRTC_FOLDER [COLUMNS ...]\n"), 2;
  try {
    const auto queue = make_cuda_queue({.nvrtc = argv[2], .cache = argv[1], .sources = cuda_sources()});
    std::vector<int> columns;
    for (int i = 3; i < argc; ++i) columns.push_back(std::atoi(argv[i]));
    if (columns.empty()) columns = {1};
    std::vector<std::string> names;
    for (const Format& format : kFormats) {
      for (const int c : columns) {
        for (const Choice& how : choices(*queue, 1024, c)) {
          names.push_back("qmv_" + std::string(format.name) + "_" + how.tile);
        }
      }
    }
    const auto start = std::chrono::steady_clock::now();
    queue->prepare(names);
    std::printf("kernels ready in %.2f s\n",
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    std::mt19937 random(7);
    int wrong = 0;
    for (const int c : columns) {
      for (const Format& format : kFormats) {
        for (const auto& shape : kShapes) {
          if (c > 1 && shape[1] < 4096) continue;  // a prefill is the temporal transformer's
          if (c > 1 && shape[0] > 22528) continue;
          wrong += measure(*queue, format, shape[0], shape[1], c, random);
        }
      }
    }
    std::printf("%s\n", wrong == 0 ? "all right" : "FAILED: an error that is too large");
    return wrong == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    std::printf("FAILED: %s\n", e.what());
    return 1;
  }
}
