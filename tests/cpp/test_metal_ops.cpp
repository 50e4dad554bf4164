// tests/cpp/test_metal_ops.cpp: the language model's operations through the Metal queue, on a simulated Mac with all
// checks, against portable C++: the kernels' arguments, and a barrier wherever one is needed.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/cpu_ops.h"
#include "gpu/gpu_ops.h"
#include "gpu/kernel_source.h"
#include "metalsim_objc.h"
#include "ops/case_run.h"

using namespace personaplex;

namespace {

struct LanguageModelOps final : gpu::GpuOps {
  using GpuOps::GpuOps;
  [[noreturn]] static void of_the_codec() { throw std::logic_error("an operation of the codec"); }
  ops::WeightPtr linear(const TensorView&) override { of_the_codec(); }
  ops::WeightPtr conv(const Conv&, int, int) override { of_the_codec(); }
  ops::WeightPtr conv_transpose(const Conv&, int) override { of_the_codec(); }
  ops::WeightPtr upsample(const Conv&, int) override { of_the_codec(); }
  ops::WeightPtr codebook(const RvqLevel&) override { of_the_codec(); }
  void conv(const ops::Weight&, ops::Place, int, const ops::ConvOutput&) override { of_the_codec(); }
  void upsample(const ops::Weight&, ops::Place, int, ops::Place) override { of_the_codec(); }
  void replicate(const ops::Weight&, ops::Place, ops::Place) override { of_the_codec(); }
  void quantize(std::span<const ops::Weight* const>, ops::Place, ops::Place) override { of_the_codec(); }
  void dequantize(std::span<const ops::Weight* const>, ops::Place, ops::Place) override { of_the_codec(); }
};

/// Without what the kernels do not take: GELU, which only the codec has, and a K that is no multiple of 8.
bool of_the_language_model(const ops::Case& c) {
  return (c.op == ops::Op::kProject && c.epilogue != static_cast<int>(ops::Epilogue::kGelu) && c.k % 8 == 0) ||
         c.op == ops::Op::kProjectQkv || c.op == ops::Op::kAttend || c.op == ops::Op::kSample;
}

std::vector<float> results(ops::Ops& ops, const ops::Case& what) {
  ops::CaseRun run(ops, what, 7);
  run.run();
  run.run();
  return run.results();
}

/// ||a - b|| / ||b||
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace

TEST_CASE("metal: the language model's operations of ragged sizes") {
  setenv("METALSIM_CHECK", "1", 1);
  {
    LanguageModelOps metal(gpu::make_metal_queue({gpu::metal_sources(), {}}));
    cpu::CpuOps portable(cpu::Isa::kPortable, 1);
    int count = 0;
    for (const ops::Case& c : ops::ragged_cases()) {
      if (!of_the_language_model(c)) continue;
      CAPTURE(std::string(ops::name_of(c.op)));
      CAPTURE(c.columns);
      CAPTURE(c.n);
      CAPTURE(c.k);
      CAPTURE(c.bits);
      CAPTURE(c.epilogue);
      const auto found = results(metal, c), expected = results(portable, c);
      if (c.op == ops::Op::kSample) {
        CHECK(found == expected);
      } else {
        CHECK(distance(found, expected) < 8e-3);
      }
      ++count;
    }
    CHECK(count > 10);
  }
  CHECK(metalsim::objc::alive_classes() == "");
}
