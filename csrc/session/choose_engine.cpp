// csrc/session/choose_engine.cpp: fused where it can, graph elsewhere, and never silently another than asked for.
#include "session/choose_engine.h"

#include <cstdio>
#include <utility>

#include "core/error.h"
#include "cpu/isa.h"
#include "cpu/pool.h"
#include "gpu/gpu_ops.h"
#include "gpu/obstacle.h"
#include "graph/graph_engine.h"
#include "graph/op.h"
#include "model/fused_engine.h"

namespace personaplex {

namespace {

constexpr std::size_t kWorkspace = std::size_t{256} << 20;  // on a GPU: activations, programs, the driver's own

namespace mx = mlx::core;

// Why these options rule the fused engine out, and how to have it; empty: they do not.
std::string against_fused(const ModelOptions& options) {
  if (options.dtype != "auto") {
    return "dtype='" + options.dtype + "' is the graph engine's: leave dtype at 'auto' for the fused one";
  }
  if (options.load.dequantize) return "dequantize=True is for the graph engine";
  return "";
}

std::string against_fused(const ModelOptions& options, const Device& device) {
  const std::string reason = against_fused(options);
  return reason.empty() ? device.against_fused : reason;
}

// Options that only the fused engine has, and that must not be lost without a word.
void check_nothing_is_lost(const ModelOptions& options, const std::string& reason) {
  const auto refuse = [&](const std::string& option) {
    bad_argument("load", option + " is an option of the fused engine, and the graph engine runs here: " + reason + ".");
  };
  if (options.kv_bits != 0) refuse("kv_bits=" + std::to_string(options.kv_bits));
  if (options.threads != 0) refuse("threads=" + std::to_string(options.threads));
}

void check_fused_fits(const ModelOptions& options, const std::string& reason) {
  if (reason.empty()) return;
  if (options.engine == "fused") bad_argument("load", "engine='fused' does not fit: " + reason + ".");
  check_nothing_is_lost(options, reason);
}

std::string gigabytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GB", static_cast<double>(bytes) / 1e9);
  return text;
}

// Before anything is copied there: otherwise the end of the upload says it.
void check_memory(const Weights& weights, int kv_bits, const gpu::Queue& queue) {
  const ResidentBytes bytes = resident_bytes(weights, kv_bits);
  const std::size_t needed = bytes.weights + bytes.conversation + kWorkspace;
  const std::size_t free = queue.free_bytes();
  if (needed <= free) return;
  throw DeviceError("[load] expected " + gigabytes(needed) + " of free memory on " + queue.device_name() +
                    " (weights " + gigabytes(bytes.weights) + ", a conversation of " +
                    std::to_string(weights.config.context) + " positions " + gigabytes(bytes.conversation) +
                    ", the rest for the work), got " + gigabytes(free) +
                    ". Close other programs on it, or take bits=4, kv_bits=8, a smaller context or device='cpu'.");
}

std::unique_ptr<Engine> make_fused(const Weights& weights, const ModelOptions& options, Device& device,
                                   ModelInfo& info) {
  const int kv_bits = options.kv_bits == 0 ? 16 : options.kv_bits;
  info.engine = "fused";
  info.dtype = "float32";
  info.kv_dtype = kv_bits == 8 ? "int8" : "bfloat16";
  info.frame_bytes = frame_bytes(weights, kv_bits, 16);
  if (options.compile) info.compile_note = "the fused engine has nothing to compile; engine='graph' has.";
  if (device.queue != nullptr) {
    check_memory(weights, kv_bits, *device.queue);
    return make_fused_engine(weights, gpu::make_gpu_ops(std::move(device.queue)), kv_bits);
  }
  info.threads = options.threads > 0 ? options.threads : cpu::usable_cores();
  info.instruction_set = cpu::name_of(cpu::chosen_isa());
  return make_fused_cpu_engine(weights, {.kv_bits = kv_bits, .threads = options.threads});
}

// The graph engine instead of the fused one: MLX's device of this kind.
void leave_queue(Device& device, const ModelOptions& options, const std::string& reason) {
  if (device.queue == nullptr) return;
  device.queue.reset();
  device.mlx_gpu = mlx_has(device.kind);
  if (device.mlx_gpu) return graph::use_device(mx::Device::gpu);
  if (options.device != "auto") {
    throw WeightsError("[load] the fused engine cannot run this model: " + reason +
                       ". The graph engine can, on device='cpu'" +
                       (device.kind == "cuda" ? ", or with mlx[cuda13]." : "."));
  }
  device.kind = "cpu";
  device.note = reason;
}

}  // namespace

void check_engine_options(const ModelOptions& options) {
  if (options.engine != "auto" && options.engine != "fused" && options.engine != "graph") {
    bad_argument("load", "expected engine auto, fused or graph, got '" + options.engine + "'.");
  }
  if (options.kv_bits != 0 && options.kv_bits != 8 && options.kv_bits != 16) {
    bad_argument("load", "expected kv_bits 8 or 16, got " + std::to_string(options.kv_bits) + ".");
  }
  if (options.threads < 0 || options.threads > cpu::kMaxThreads) {
    bad_argument("load", "expected threads from 1 to " + std::to_string(cpu::kMaxThreads) +
                             ", or 0 for all usable cores, got " + std::to_string(options.threads) + ".");
  }
  if (options.engine == "graph") {
    check_nothing_is_lost(options, "engine='graph' was asked for");
  } else {
    check_fused_fits(options, against_fused(options));
  }
}

void check_device_fits(const ModelOptions& options, const Device& device) {
  if (options.engine != "graph") check_fused_fits(options, against_fused(options, device));
  if (options.threads != 0 && device.kind != "cpu") {
    bad_argument("load", "threads=" + std::to_string(options.threads) + " is of the CPU, and the model runs on '" +
                             device.kind + "': take device='cpu' for it.");
  }
}

std::unique_ptr<Engine> choose_engine(const Weights& weights, const ModelOptions& options, Device& device,
                                      ModelInfo& info) {
  if (options.engine != "graph") {
    info.engine_note = against_fused(options, device);
    if (info.engine_note.empty()) info.engine_note = fused_obstacle(weights);
    if (info.engine_note.empty() && device.queue != nullptr) {
      info.engine_note = gpu::obstacle(weights.config, options.kv_bits);
    }
    if (info.engine_note.empty()) return make_fused(weights, options, device, info);
    if (options.engine == "fused") {
      throw WeightsError("[load] the fused engine cannot run this model: " + info.engine_note +
                         ". Take engine='graph', which can.");
    }
    check_nothing_is_lost(options, info.engine_note);
    leave_queue(device, options, info.engine_note);
  }
  const bool wide = options.dtype == "float32" || (options.dtype == "auto" && !device.mlx_gpu);
  auto engine = std::make_unique<graph::GraphEngine>(
      weights, graph::GraphOptions{device.mlx_gpu ? mx::Device::gpu : mx::Device::cpu,
                                   wide ? mx::float32 : mx::bfloat16, options.compile});
  info.engine = "graph";
  info.dtype = info.kv_dtype = wide ? "float32" : "bfloat16";
  info.frame_bytes = frame_bytes(weights, wide ? 32 : 16, 32);
  info.compiled = engine->compiled();
  info.compile_note = engine->compile_note();
  return engine;
}

}  // namespace personaplex
