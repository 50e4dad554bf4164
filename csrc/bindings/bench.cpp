// csrc/bindings/bench.cpp: functions for the benchmarks: the memory's speed, and single operations.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bindings/bindings.h"
#include "core/stopwatch.h"
#include "cpu/cpu_ops.h"
#include "cpu/read_bandwidth.h"
#include "gpu/autotune.h"
#include "gpu/cuda_queue.h"
#include "gpu/kernel_source.h"
#include "gpu/read_bandwidth.h"
#include "ops/case_run.h"
#include "session/device.h"

namespace personaplex::bindings {

namespace {

// Weights that a case takes turns with, so that none is in a cache; the smallest cases stay in one, as in a frame.
constexpr std::size_t kWorkingSet = std::size_t{256} << 20;
constexpr std::size_t kMostCopies = 64;
constexpr int kMaxMegabytes = 1 << 20;
constexpr int kMostGpuMegabytes = 1 << 14;

std::map<std::string, std::vector<double>> read_bandwidth(int threads, int megabytes, int passes) {
  if (threads < 0 || threads > cpu::kMaxThreads || megabytes < 1 || megabytes > kMaxMegabytes || passes < 1) {
    bad_argument("read_bandwidth", "expected threads from 0 to " + std::to_string(cpu::kMaxThreads) +
                                       ", megabytes from 1 to " + std::to_string(kMaxMegabytes) +
                                       " and passes of 1 or more, got " + std::to_string(threads) + ", " +
                                       std::to_string(megabytes) + " and " + std::to_string(passes) + ".");
  }
  const Unlocked unlocked;
  const auto pool = cpu::process_pool(threads);
  return cpu::read_bandwidth(*pool, static_cast<std::size_t>(megabytes) * 1'000'000, passes);
}

std::map<std::string, std::vector<double>> read_gpu_bandwidth(int megabytes, int passes, const std::string& nvrtc,
                                                              const std::string& kernel_cache) {
  if (megabytes < 1 || megabytes > kMostGpuMegabytes || passes < 1) {
    bad_argument("read_gpu_bandwidth", "expected megabytes from 1 to " + std::to_string(kMostGpuMegabytes) +
                                           " and passes of 1 or more, got " + std::to_string(megabytes) + " and " +
                                           std::to_string(passes) + ".");
  }
  const Unlocked unlocked;
  const auto queue = gpu::make_cuda_queue({.nvrtc = nvrtc, .cache = kernel_cache, .sources = gpu::cuda_sources()});
  return gpu::read_bandwidth(*queue, static_cast<std::size_t>(megabytes) * 1'000'000, passes);
}

cpu::Isa named_isa(const std::string& name) {
  if (name.empty()) return cpu::chosen_isa();
  if (const auto isa = cpu::find_isa(name)) return *isa;
  bad_argument("time_case",
               "expected an instruction set of this machine (" + cpu::supported_names() + "), got '" + name + "'.");
}

void check_cases(const char* where, int bits, int kv_bits, int context, int columns) {
  const bool known = (bits == 4 || bits == 8 || bits == 16) && (kv_bits == 8 || kv_bits == 16);
  if (!known || context < 1 || context > kMaxContext || columns < 1 || columns > kMaxColumns) {
    bad_argument(where, "expected bits 4, 8 or 16, kv_bits 8 or 16, a context of 1 or more and 1 to " +
                            std::to_string(kMaxColumns) + " columns, got " + std::to_string(bits) + ", " +
                            std::to_string(kv_bits) + ", " + std::to_string(context) + " and " +
                            std::to_string(columns) + ".");
  }
}

std::vector<ops::Case> frame_cases(int bits, int kv_bits, int context, int columns) {
  check_cases("frame_cases", bits, kv_bits, context, columns);
  return ops::frame_cases(bits, kv_bits, context, columns);
}

std::vector<ops::Case> tuning_cases(int bits, int kv_bits, int context, int columns) {
  check_cases("tuning_cases", bits, kv_bits, context, columns);
  return ops::tuning_cases(bits, kv_bits, context, columns);
}

/// A GPU under the benchmarks.
class GpuBench {
 public:
  GpuBench(const std::string& device, const std::string& nvrtc, const std::string& kernel_cache) {
    ModelOptions options;
    options.device = device;
    options.engine = "fused";
    options.cuda.nvrtc = nvrtc;
    options.cuda.cache = kernel_cache;
    check_device_name(device);
    Device found = open_device(options);
    if (found.queue == nullptr) {
      throw DeviceError("[GpuBench] expected a GPU, got only a CPU" + (found.note.empty() ? "" : ": " + found.note) +
                        ".");
    }
    kind_ = found.kind;
    queue_ = std::move(found.queue);
  }

  gpu::Queue& queue() { return *queue_; }
  const std::string& kind() const { return kind_; }
  std::string device_name() const { return queue_->device_name(); }
  std::string family() const { return gpu::family_of(queue_->device_name()); }
  std::map<std::string, std::vector<double>> read_bandwidth(int megabytes, int passes) {
    if (megabytes < 1 || megabytes > kMostGpuMegabytes || passes < 1) {
      bad_argument("GpuBench.read_bandwidth",
                   "expected megabytes from 1 to " + std::to_string(kMostGpuMegabytes) + " and passes of 1 or more.");
    }
    const Unlocked unlocked;
    return gpu::read_bandwidth(*queue_, static_cast<std::size_t>(megabytes) * 1'000'000, passes);
  }
  void prepare(const std::vector<int>& bits) {
    const Unlocked unlocked;
    gpu::prepare_candidates(*queue_, bits);
  }

 private:
  std::string kind_;
  std::unique_ptr<gpu::Queue> queue_;
};

std::unique_ptr<gpu::CaseTuner> make_tuner(GpuBench& bench, const ops::Case& what) {
  const Unlocked unlocked;
  return std::make_unique<gpu::CaseTuner>(bench.queue(), what);
}

std::vector<double> time_tile(gpu::CaseTuner& tuner, const std::optional<gpu::Tile>& tile, int repeats) {
  if (repeats < 1) bad_argument("CaseTuner.time", "expected repeats of 1 or more.");
  const Unlocked unlocked;
  return tuner.time(tile, repeats);
}

double distance_of_tile(gpu::CaseTuner& tuner, const gpu::Tile& tile) {
  const Unlocked unlocked;
  return tuner.distance(tile);
}

nb::object job_of(const gpu::CaseTuner& tuner) {
  if (!tuner.job()) return nb::none();
  const gpu::Job& job = *tuner.job();
  nb::dict out;
  out["op"] = ops::name_of(job.op);
  out["bits"] = job.bits;
  out["n"] = job.n;
  out["k"] = job.k;
  out["columns"] = job.columns;
  if (job.whole != 1) out["whole"] = job.whole;
  return out;
}

// Microseconds of each of `repeats` calls.
std::vector<double> time_case(const ops::Case& what, const std::string& instruction_set, int threads, int repeats) {
  if (threads < 0 || threads > cpu::kMaxThreads || repeats < 1) {
    bad_argument("time_case",
                 "expected threads from 0 to " + std::to_string(cpu::kMaxThreads) + " and repeats of 1 or more.");
  }
  const cpu::Isa isa = named_isa(instruction_set);
  const Unlocked unlocked;
  cpu::CpuOps ops(isa, threads);
  const std::size_t bytes = ops::CaseRun::bytes(what);
  const auto copies = static_cast<int>(std::clamp<std::size_t>(kWorkingSet / bytes, 1, kMostCopies));
  ops::CaseRun run(ops, what, 1, copies);
  std::vector<double> out;
  run.run();
  for (int i = 0; i < repeats; ++i) {
    const Stopwatch stopwatch;
    run.run((i + 1) % copies);
    out.push_back(1e3 * stopwatch.ms());
  }
  return out;
}

std::string shape_of(const ops::Case& c) {
  const auto text = [](int n) { return std::to_string(n); };
  switch (c.op) {
    case ops::Op::kAttend:
      return text(c.heads) + " x " + text(c.head_dim) + ", " + text(c.positions) + " positions";
    case ops::Op::kProjectQkv:
      return text(c.n) + " x " + text(c.k) + (c.kv_bits == 8 ? ", int8 ring" : "");
    case ops::Op::kConv:
    case ops::Op::kConvTranspose:
      return text(c.in) + " -> " + text(c.out) + ", kernel " + text(c.kernel) + ", stride " + text(c.stride);
    case ops::Op::kQuantize:
      return text(c.n) + " levels of " + text(c.k);
    case ops::Op::kSample:
      return text(c.n) + ", top " + text(c.k);
    case ops::Op::kSelect:
      return text(c.n) + " of " + text(c.k);
    default:
      return text(c.n) + " x " + text(c.k);
  }
}

}  // namespace

void register_bench(nb::module_& m) {
  m.def("read_bandwidth", &read_bandwidth, nb::arg("threads") = 0, nb::arg("megabytes") = 512, nb::arg("passes") = 5);
  m.def("read_gpu_bandwidth", &read_gpu_bandwidth, nb::arg("megabytes") = 1024, nb::arg("passes") = 5,
        nb::arg("nvrtc") = "", nb::arg("kernel_cache") = "");
  nb::class_<ops::Case>(m, "KernelCase")
      .def_prop_ro("op", [](const ops::Case& c) { return ops::name_of(c.op); })
      .def_ro("name", &ops::Case::name)
      .def_ro("per_frame", &ops::Case::per_frame)
      .def_ro("columns", &ops::Case::columns)
      .def_ro("bits", &ops::Case::bits)
      .def_prop_ro("shape", &shape_of)
      .def_prop_ro("bytes", &ops::CaseRun::bytes);
  m.def("frame_cases", &frame_cases, nb::arg("bits") = 4, nb::arg("kv_bits") = 16, nb::arg("context") = 250,
        nb::arg("columns") = 1);
  m.def("tuning_cases", &tuning_cases, nb::arg("bits") = 4, nb::arg("kv_bits") = 16, nb::arg("context") = 250,
        nb::arg("columns") = 1);
  m.def("ragged_cases", &ops::ragged_cases);
  m.def("time_case", &time_case, nb::arg("case"), nb::arg("instruction_set") = "", nb::arg("threads") = 0,
        nb::arg("repeats") = 50);
  m.def(
      "check_tuning",
      [](const std::string& text, const std::string& where) { return gpu::parse_tuning(text, where).size(); },
      nb::arg("text"), nb::arg("where"));
  nb::class_<gpu::Tile>(m, "Tile")
      .def_prop_ro("tile", &gpu::Tile::name)
      .def_ro("simdgroups", &gpu::Tile::simdgroups)
      .def_ro("split", &gpu::Tile::split)
      .def_ro("passes", &gpu::Tile::passes)
      .def("__eq__", [](const gpu::Tile& a, const gpu::Tile& b) { return a == b; });
  nb::class_<gpu::CaseTuner>(m, "CaseTuner")
      .def_prop_ro("job", &job_of)
      .def_prop_ro("tiles", &gpu::CaseTuner::tiles)
      .def_prop_ro("chosen", &gpu::CaseTuner::chosen)
      .def_prop_ro("copies", &gpu::CaseTuner::copies)
      .def("time", &time_tile, nb::arg("tile") = nb::none(), nb::arg("repeats") = 5)
      .def("distance", &distance_of_tile, nb::arg("tile"));
  nb::class_<GpuBench>(m, "GpuBench")
      .def(nb::init<const std::string&, const std::string&, const std::string&>(), nb::arg("device") = "auto",
           nb::arg("nvrtc") = "", nb::arg("kernel_cache") = "")
      .def_prop_ro("kind", &GpuBench::kind)
      .def_prop_ro("device_name", &GpuBench::device_name)
      .def_prop_ro("family", &GpuBench::family)
      .def("read_bandwidth", &GpuBench::read_bandwidth, nb::arg("megabytes") = 1024, nb::arg("passes") = 5)
      .def("prepare", &GpuBench::prepare, nb::arg("bits"))
      .def("tuner", &make_tuner, nb::arg("case"), nb::keep_alive<0, 1>());
}

}  // namespace personaplex::bindings
