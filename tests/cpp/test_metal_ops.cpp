// tests/cpp/test_metal_ops.cpp: every operation case through the Metal queue, on a simulated Mac with all checks,
// against portable C++: the kernels' arguments, and a barrier wherever one is needed.
#include <doctest/doctest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "cpu/cpu_ops.h"
#include "gpu/gpu_ops.h"
#include "gpu/kernel_source.h"
#include "metalsim_objc.h"
#include "ops/case_run.h"

using namespace personaplex;

namespace {

/// What no model asks of a matrix of the language model: GELU, which only the codec has.
bool refused(const ops::Case& c) {
  return c.op == ops::Op::kProject && c.epilogue == static_cast<int>(ops::Epilogue::kGelu);
}

std::vector<float> results(ops::Ops& ops, const ops::Case& what) {
  ops::CaseRun run(ops, what, 7);
  run.run();
  if (what.op != ops::Op::kQuantize) run.run();  // which may change its input
  return run.results();
}

}  // namespace

TEST_CASE("metal: operations of ragged sizes") {
  setenv("METALSIM_CHECK", "1", 1);
  {
    const auto metal = gpu::make_gpu_ops(gpu::make_metal_queue({gpu::metal_sources(), {}}));
    cpu::CpuOps portable(cpu::Isa::kPortable, 1);
    std::set<ops::Op> all, tried;
    for (const ops::Case& c : ops::ragged_cases()) {
      all.insert(c.op);
      if (refused(c)) continue;
      CAPTURE(std::string(ops::name_of(c.op)));
      CAPTURE(c.columns);
      CAPTURE(c.n);
      CAPTURE(c.k);
      CAPTURE(c.in);
      CAPTURE(c.out);
      CAPTURE(c.head_dim);
      CAPTURE(c.bits);
      CAPTURE(c.epilogue);
      const auto found = results(*metal, c), expected = results(portable, c);
      CHECK(ops::distance(found, expected) <= ops::tolerance(c));
      tried.insert(c.op);
    }
    CHECK(tried == all);
  }
  CHECK(metalsim::objc::alive_classes() == "");
}
