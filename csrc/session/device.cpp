// csrc/session/device.cpp: MLX's devices, and NVIDIA GPUs without MLX.
#include "session/device.h"

#include <mlx/backend/cuda/cuda.h>
#include <mlx/backend/metal/metal.h>
#include <mlx/mlx.h>

#include <algorithm>
#include <variant>

#include "core/error.h"
#include "gpu/cuda_queue.h"
#include "gpu/kernel_source.h"

namespace personaplex {

namespace {

namespace mx = mlx::core;

constexpr const char* kNotOnMetal = "the fused engine runs on CPUs and on NVIDIA GPUs: take device='cpu' for it";

Device mlx_gpu(const std::string& kind, const std::string& against_fused) {
  Device device;
  device.kind = kind;
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

bool has_cuda(const ModelOptions& options) {
  return mx::cu::is_available() || gpu::cuda_device_count(options.cuda.driver) > 0;
}

/// An NVIDIA GPU, for whichever engine can use it. DeviceError when none can.
Device open_cuda(const ModelOptions& options) {
  const bool mlx = mx::cu::is_available();
  if (graph_only(options)) {
    if (mlx) return mlx_gpu("cuda", "");
    throw DeviceError(
        "[load] device 'cuda' is not available: the graph engine was asked for, and this MLX offers cpu. Leave engine "
        "and dtype at 'auto', which needs no MLX for CUDA, or install mlx[cuda13].");
  }
  Device device;
  device.kind = "cuda";
  try {
    device.queue = gpu::make_cuda_queue({.nvrtc = options.cuda.nvrtc,
                                         .cache = options.cuda.cache,
                                         .sources = gpu::cuda_sources(),
                                         .driver = options.cuda.driver});
  } catch (const DeviceError& error) {
    if (mlx && options.engine == "auto") return mlx_gpu("cuda", reason_of(error));
    throw DeviceError("[load] device 'cuda' is not available: " + reason_of(error) + ".");
  }
  return device;
}

Device open_any(const ModelOptions& options) {
  if (mx::metal::is_available()) return mlx_gpu("metal", kNotOnMetal);
  if (options.threads != 0 || !has_cuda(options)) return {};
  if (graph_only(options)) return mx::cu::is_available() ? mlx_gpu("cuda", "") : Device{};
  try {
    return open_cuda(options);
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
  if (options.device == "cpu") return {};
  if (options.device == "auto") return open_any(options);
  const bool metal = mx::metal::is_available();
  if (metal && options.device != "cuda") return mlx_gpu("metal", kNotOnMetal);
  const bool cuda = has_cuda(options);
  if (options.device == "metal" || (options.device == "gpu" && !cuda)) {
    throw DeviceError("[load] device '" + options.device + "' is not available: this machine offers cpu" +
                      (cuda ? ", cuda" : "") + ".");
  }
  return open_cuda(options);
}

std::map<std::string, bool> available_devices() {
  return {{"cpu", true}, {"metal", mx::metal::is_available()}, {"cuda", has_cuda({})}};
}

}  // namespace personaplex
