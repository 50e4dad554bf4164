// csrc/session/device.cpp: MLX's devices, and GPUs without MLX.
#include "session/device.h"

#include <mlx/backend/cuda/cuda.h>
#include <mlx/backend/metal/metal.h>
#include <mlx/mlx.h>

#include <algorithm>
#include <chrono>
#include <variant>

#include "core/error.h"
#include "gpu/cuda_queue.h"
#include "gpu/kernel_source.h"
#include "gpu/metal_queue.h"
#include "gpu/self_check.h"

namespace personaplex {

namespace {

namespace mx = mlx::core;

#ifdef PERSONAPLEX_METAL
constexpr std::chrono::milliseconds kKeepWarm{20};  // a quarter of a frame
constexpr std::chrono::seconds kRestAfter{3};
#endif

/// A kind of GPU: MLX's is for the graph engine, our queue for the fused one.
struct Kind {
  const char* name;
  bool (*in_mlx)();
  bool (*is_here)(const ModelOptions&);  // a GPU that our queue may be able to use
  std::unique_ptr<gpu::Queue> (*open)(const ModelOptions&);
  const char* for_mlx;  // what to install, for the graph engine
  bool unproven;        // engine "auto" takes our queue only after a look at what it computes
};

bool metal_is_here(const ModelOptions&) {
#ifdef PERSONAPLEX_METAL
  return gpu::metal_is_available();
#else
  return false;
#endif
}

std::unique_ptr<gpu::Queue> open_metal(const ModelOptions&) {
#ifdef PERSONAPLEX_METAL
  return gpu::make_metal_queue({.sources = gpu::metal_sources(), .keep_warm = kKeepWarm, .rest_after = kRestAfter});
#else
  throw DeviceError("[MetalQueue] expected a Mac with Apple silicon.");
#endif
}

bool cuda_is_here(const ModelOptions& options) { return gpu::cuda_is_here(options.cuda.driver); }

std::unique_ptr<gpu::Queue> open_cuda(const ModelOptions& options) {
  return gpu::make_cuda_queue({.nvrtc = options.cuda.nvrtc,
                               .cache = options.cuda.cache,
                               .sources = gpu::cuda_sources(),
                               .driver = options.cuda.driver});
}

constexpr Kind kMetal{"metal", mx::metal::is_available, metal_is_here, open_metal, "a Mac's own mlx", true};
constexpr Kind kCuda{"cuda", mx::cu::is_available, cuda_is_here, open_cuda, "mlx[cuda13]", false};

bool has(const Kind& kind, const ModelOptions& options) { return kind.in_mlx() || kind.is_here(options); }

Device mlx_gpu(const Kind& kind, const std::string& against_fused) {
  Device device;
  device.kind = kind.name;
  device.mlx_gpu = true;
  device.against_fused = against_fused;
  return device;
}

/// "what was expected ..." of "[Where] what was expected ... Tried: ...", to be part of another sentence.
std::string reason_of(const DeviceError& error) {
  std::string words = error.what();
  if (words.starts_with('[')) words.erase(0, words.find("] ") + 2);
  words.erase(std::min(words.find(" Tried:"), words.size()));
  while (words.ends_with('.')) words.pop_back();
  return words;
}

/// A GPU of this kind, for whichever engine can use it. DeviceError when none can.
Device open(const Kind& kind, const ModelOptions& options) {
  const bool mlx = kind.in_mlx();
  const std::string missing = std::string("[load] device '") + kind.name + "' is not available: ";
  if (graph_only(options)) {
    if (mlx) return mlx_gpu(kind, "");
    throw DeviceError(
        missing +
        "the graph engine was asked for, and this MLX offers cpu. Leave engine and dtype at 'auto', which "
        "needs no MLX for the GPU, or install " +
        kind.for_mlx + ".");
  }
  Device device;
  device.kind = kind.name;
  try {
    device.queue = kind.open(options);
    if (mlx && kind.unproven && options.engine == "auto") {
      if (const std::string reason = gpu::self_check(*device.queue); !reason.empty()) return mlx_gpu(kind, reason);
    }
  } catch (const DeviceError& error) {
    if (mlx && options.engine == "auto") return mlx_gpu(kind, reason_of(error));
    throw DeviceError(missing + reason_of(error) + ".");
  }
  return device;
}

/// The CPU, where this GPU cannot be used.
Device open_if_possible(const Kind& kind, const ModelOptions& options) {
  if (graph_only(options)) return kind.in_mlx() ? mlx_gpu(kind, "") : Device{};
  try {
    return open(kind, options);
  } catch (const DeviceError& error) {
    Device cpu;
    cpu.note = reason_of(error);
    return cpu;
  }
}

}  // namespace

std::string Device::name() const {
  if (queue != nullptr) return queue->device_name();
  const auto& info = mx::device_info(mlx_gpu ? mx::Device::gpu : mx::Device::cpu);
  const auto it = info.find("device_name");
  if (it == info.end() || !std::holds_alternative<std::string>(it->second)) return kind;
  return std::get<std::string>(it->second);
}

void check_device_name(const std::string& name) {
  for (const char* known : {"auto", "cpu", "gpu", "metal", "cuda"}) {
    if (name == known) return;
  }
  bad_argument("load", "expected device auto, cpu, gpu, metal or cuda, got '" + name + "'.");
}

bool graph_only(const ModelOptions& options) {
  return options.engine == "graph" ||
         (options.engine == "auto" && (options.dtype != "auto" || options.load.dequantize));
}

Device open_device(const ModelOptions& options) {
  if (options.device == "cpu" || (options.device == "auto" && options.threads != 0)) return {};
  const bool metal = has(kMetal, options);
  const bool cuda = !metal && has(kCuda, options);  // no machine has both
  if (options.device == "auto") {
    if (!metal && !cuda) return {};
    return open_if_possible(metal ? kMetal : kCuda, options);
  }
  if ((options.device == "metal" && !metal) || (options.device == "gpu" && !metal && !cuda)) {
    throw DeviceError("[load] device '" + options.device + "' is not available: this machine offers cpu" +
                      (cuda ? ", cuda" : "") + ".");
  }
  return open(options.device == "cuda" || cuda ? kCuda : kMetal, options);
}

bool mlx_has(const std::string& kind) { return kind == "metal" ? kMetal.in_mlx() : kCuda.in_mlx(); }

std::map<std::string, bool> available_devices() {
  return {{"cpu", true}, {"metal", has(kMetal, {})}, {"cuda", kCuda.in_mlx() || gpu::cuda_device_count() > 0}};
}

}  // namespace personaplex
