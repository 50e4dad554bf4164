// csrc/bindings/bench.cpp: functions for the benchmarks: the memory's speed.
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "cpu/read_bandwidth.h"

namespace personaplex::bindings {

namespace {

std::map<std::string, std::vector<double>> read_bandwidth(int threads, int megabytes, int passes) {
  if (threads < 0 || megabytes < 1 || passes < 1) {
    bad_argument("read_bandwidth", "expected threads of 0 or more, megabytes and passes of 1 or more, got " +
                                       std::to_string(threads) + ", " + std::to_string(megabytes) + " and " +
                                       std::to_string(passes) + ".");
  }
  const Unlocked unlocked;
  const auto pool = cpu::process_pool(threads);
  return cpu::read_bandwidth(*pool, static_cast<std::size_t>(megabytes) * 1'000'000, passes);
}

}  // namespace

void register_bench(nb::module_& m) {
  m.def("read_bandwidth", &read_bandwidth, nb::arg("threads") = 0, nb::arg("megabytes") = 512, nb::arg("passes") = 5);
}

}  // namespace personaplex::bindings
