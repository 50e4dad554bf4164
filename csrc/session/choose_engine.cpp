// csrc/session/choose_engine.cpp: fused where it can, graph elsewhere, and never silently another than asked for.
#include "session/choose_engine.h"

#include "core/error.h"
#include "cpu/isa.h"
#include "cpu/pool.h"
#include "graph/graph_engine.h"
#include "model/fused_engine.h"

namespace personaplex {

namespace {

namespace mx = mlx::core;

// Why these options rule the fused engine out, and how to have it; empty: they do not.
std::string options_against_fused(const ModelOptions& options, bool on_cpu) {
  if (!on_cpu) return "the fused engine runs on a CPU: take device='cpu' for it";
  if (options.dtype != "auto") {
    return "dtype='" + options.dtype + "' is the graph engine's: leave dtype at 'auto' for the fused one";
  }
  if (options.load.dequantize) return "dequantize=True is for the graph engine";
  return "";
}

// Options that only the fused engine has, and that must not be lost without a word.
void check_nothing_is_lost(const ModelOptions& options, const std::string& reason) {
  const auto refuse = [&](const std::string& option) {
    bad_argument("load", option + " is an option of the fused engine, and the graph engine runs here: " + reason + ".");
  };
  if (options.kv_bits != 0) refuse("kv_bits=" + std::to_string(options.kv_bits));
  if (options.threads != 0) refuse("threads=" + std::to_string(options.threads));
}

}  // namespace

void check_engine_options(const ModelOptions& options, bool on_cpu) {
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
    return;
  }
  const std::string reason = options_against_fused(options, on_cpu);
  if (reason.empty()) return;
  if (options.engine == "fused") bad_argument("load", "engine='fused' does not fit: " + reason + ".");
  check_nothing_is_lost(options, reason);
}

std::unique_ptr<Engine> choose_engine(const Weights& weights, const ModelOptions& options, bool on_cpu,
                                      ModelInfo& info) {
  if (options.engine != "graph") {
    info.engine_note = options_against_fused(options, on_cpu);
    if (info.engine_note.empty()) info.engine_note = fused_obstacle(weights);
    if (info.engine_note.empty()) {
      const int kv_bits = options.kv_bits == 0 ? 16 : options.kv_bits;
      auto engine = make_fused_cpu_engine(weights, {.kv_bits = kv_bits, .threads = options.threads});
      info.engine = "fused";
      info.dtype = "float32";
      info.kv_dtype = kv_bits == 8 ? "int8" : "bfloat16";
      info.threads = options.threads > 0 ? options.threads : cpu::usable_cores();
      info.instruction_set = cpu::name_of(cpu::chosen_isa());
      info.frame_bytes = frame_bytes(weights, kv_bits, 16);
      if (options.compile) info.compile_note = "the fused engine has nothing to compile; engine='graph' has.";
      return engine;
    }
    if (options.engine == "fused") {
      throw WeightsError("[load] the fused engine cannot run this model: " + info.engine_note +
                         ". Take engine='graph', which can.");
    }
    check_nothing_is_lost(options, info.engine_note);
  }
  const bool wide = options.dtype == "float32" || (options.dtype == "auto" && on_cpu);
  auto engine = std::make_unique<graph::GraphEngine>(
      weights, graph::GraphOptions{on_cpu ? mx::Device::cpu : mx::Device::gpu, wide ? mx::float32 : mx::bfloat16,
                                   options.compile});
  info.engine = "graph";
  info.dtype = info.kv_dtype = wide ? "float32" : "bfloat16";
  info.frame_bytes = frame_bytes(weights, wide ? 32 : 16, 32);
  info.compiled = engine->compiled();
  info.compile_note = engine->compile_note();
  return engine;
}

}  // namespace personaplex
