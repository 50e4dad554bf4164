// tests/cpp/test_ops_cases.cpp: every case that is timed, on every instruction set, against portable C++ within the
// contract of ops.h; and the same with one thread and with several.
#include <doctest/doctest.h>

#include "cpu/cpu_ops.h"
#include "ops/case_run.h"

using namespace personaplex;

namespace {

std::vector<float> results(const ops::Case& what, cpu::Isa isa, int threads) {
  cpu::CpuOps ops(isa, threads);
  ops::CaseRun run(ops, what, 7);
  run.run();
  return run.results();
}

void check(const ops::Case& c) {
  CAPTURE(ops::name_of(c.op));
  CAPTURE(c.name);
  CAPTURE(c.columns);
  CAPTURE(c.n);
  CAPTURE(c.k);
  CAPTURE(c.bits);
  const auto expected = results(c, cpu::Isa::kPortable, 2);
  for (const cpu::Isa isa : cpu::supported_isas()) {
    CAPTURE(cpu::name_of(isa));
    const auto found = results(c, isa, 3);
    CHECK(ops::distance(found, expected) <= ops::tolerance(c));
    CHECK(found == results(c, isa, 1));
  }
}

}  // namespace

TEST_CASE("select takes what was made where it is told to, and copies where it is not") {
  cpu::CpuOps ops(cpu::Isa::kPortable, 1);
  const auto put = [&](std::vector<std::int32_t> values) {
    auto memory = ops.allocate(values.size() * 4, ops::Use::kInput);
    memory->write(0, values.size() * 4, values.data());
    return memory;
  };
  const auto given = put({5, 6, 7, 8}), which = put({-1, 1, 0, -2}), made = put({-9, 40});
  const auto out = ops.allocate(16, ops::Use::kOutput);
  const auto words = [&] {
    const auto* first = reinterpret_cast<const std::int32_t*>(out->host);
    return std::vector<std::int32_t>(first, first + 4);
  };
  ops.run({}, nullptr, [&] { ops.select(4, {given.get()}, {which.get()}, {made.get()}, 2, {out.get()}); });
  CHECK(words() == std::vector<std::int32_t>{5, 40, -9, 8});
  ops.run({}, nullptr, [&] { ops.select(4, {given.get()}, {}, {}, 0, {out.get()}); });
  CHECK(words() == std::vector<std::int32_t>{5, 6, 7, 8});
}

TEST_CASE("operations of ragged sizes") {
  for (const ops::Case& c : ops::ragged_cases()) check(c);
}

TEST_CASE("the operations of a 7B frame and of a prefill") {
  for (const int bits : {4, 8, 16}) {
    for (const ops::Case& c : ops::frame_cases(bits, bits == 8 ? 8 : 16, 250, 1)) {
      if (bits == 4 || c.name == "temporal linear_in" || c.op == ops::Op::kAttend) check(c);
    }
  }
  for (const ops::Case& c : ops::frame_cases(4, 16, 100, kMaxColumns)) check(c);
}
