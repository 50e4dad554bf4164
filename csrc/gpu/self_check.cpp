// csrc/gpu/self_check.cpp: the cases of ops/cases.h on both.
#include "gpu/self_check.h"

#include <cstdio>
#include <vector>

#include "core/error.h"
#include "cpu/cpu_ops.h"
#include "gpu/borrowed_queue.h"
#include "gpu/gpu_ops.h"
#include "ops/case_run.h"

namespace personaplex::gpu {

namespace {

std::vector<float> results(ops::Ops& ops, const ops::Case& what) {
  constexpr std::uint64_t kSeed = 7;
  ops::CaseRun run(ops, what, kSeed);
  run.run();
  return run.results();
}

}  // namespace

std::string self_check(Queue& queue) {
  GpuOps gpu(std::make_unique<BorrowedQueue>(queue));
  cpu::CpuOps cpu(cpu::chosen_isa(), 1);
  for (const ops::Case& c : ops::ragged_cases()) {
    if (c.op == ops::Op::kProject && c.epilogue == static_cast<int>(ops::Epilogue::kGelu)) continue;  // the codec's
    try {
      const double off = ops::distance(results(gpu, c), results(cpu, c));
      if (off <= ops::tolerance(c)) continue;
      char number[32];
      std::snprintf(number, sizeof number, "%.1e", off);
      return std::string("its result of ") + ops::name_of(c.op) + " is " + number + " away from the CPU's";
    } catch (const DeviceError& error) {
      return std::string("it failed at ") + ops::name_of(c.op) + ": " + error.what();
    }
  }
  return "";
}

}  // namespace personaplex::gpu
