// tools/gpu/gpu_cases.cpp: every operation on a real GPU against the CPU's, and its time: the cases of
// csrc/ops/cases.cpp.
//
//   gpu_cases CACHE_FOLDER NVRTC_FOLDER [ragged|4|8|16] [TEXT]     TEXT: cases with this in their operation or place
//
// Prints a line a case: the distance ||gpu - cpu|| / ||cpu||, microseconds, GB/s. Exits with 1 when one is too far off.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/cpu_ops.h"
#include "gpu/cuda_queue.h"
#include "gpu/gpu_ops.h"
#include "gpu/kernel_source.h"
#include "ops/case_run.h"

using namespace personaplex;

namespace {

std::unique_ptr<ops::Ops> make_gpu(char** arguments) {
  return std::make_unique<gpu::GpuOps>(
      gpu::make_cuda_queue({.nvrtc = arguments[2], .cache = arguments[1], .sources = gpu::cuda_sources()}));
}

/// Microseconds of one call, the median of runs of a recorded program.
double time_of(ops::CaseRun& run) {
  std::vector<double> times;
  for (int i = 0; i < 30; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run.run(0);
    times.push_back(1e6 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + 15, times.end());
  return times[15];
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: gpu_cases CACHE_FOLDER NVRTC_FOLDER [ragged|4|8|16] [TEXT]\n");
    return 2;
  }
  const std::string which = count > 3 ? arguments[3] : "ragged";
  const std::string text = count > 4 ? arguments[4] : "";
  std::vector<ops::Case> cases;
  if (which == "ragged") {
    cases = ops::ragged_cases();
  } else {
    for (const int columns : {1, 32}) {
      for (const ops::Case& c : ops::frame_cases(std::atoi(which.c_str()), 16, 250, columns)) cases.push_back(c);
    }
  }
  int wrong = 0;
  const auto gpu = make_gpu(arguments);
  cpu::CpuOps cpu(cpu::Isa::kPortable, 0);
  for (const ops::Case& c : cases) {
    if ((std::string(ops::name_of(c.op)) + " " + c.name).find(text) == std::string::npos) continue;
    ops::CaseRun here(cpu, c, 7);
    here.run();
    ops::CaseRun there(*gpu, c, 7);
    try {
      there.run();
    } catch (const std::invalid_argument& e) {
      std::printf("not on a GPU: %s %s: %s\n", ops::name_of(c.op), c.name.c_str(), e.what());
      continue;
    }
    const double off = ops::distance(there.results(), here.results());
    const bool good = off <= ops::tolerance(c);
    wrong += good ? 0 : 1;
    const double us = time_of(there);
    std::printf("%-6s %-16s %-24s n %6d k %6d columns %4d bits %2d  off %.1e  %8.1f us %8.1f GB/s\n",
                good ? "ok" : "WRONG", ops::name_of(c.op), c.name.c_str(), c.n, c.k, c.columns, c.bits, off, us,
                static_cast<double>(ops::CaseRun::bytes(c)) / us / 1e3);
    std::fflush(stdout);
  }
  std::printf("%d of the cases are wrong\n", wrong);
  return wrong == 0 ? 0 : 1;
}
