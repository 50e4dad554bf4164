// csrc/session/device.h: where a model runs: what was asked for, what this machine has, and which of the engines can
// use it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "gpu/queue.h"
#include "session/model.h"

namespace personaplex {

/// A processor or GPU, opened. MLX's is for the graph engine; the fused one uses a CPU or, through `queue`, a GPU, and
/// needs no MLX for that.
struct Device {
  std::string kind = "cpu";           // cpu, metal, cuda
  std::unique_ptr<gpu::Queue> queue;  // of the fused engine; null: it runs on the CPU, or not at all
  bool mlx_gpu = false;               // MLX computes on its GPU
  std::string against_fused;          // why the fused engine cannot use this device, as a sentence; empty: it can
  std::string note;                   // why "auto" did not take a GPU that is there

  std::string name() const;
};

/// Throws std::invalid_argument for a name of no device.
void check_device_name(const std::string& name);

/// Whether these options leave the graph engine alone, whatever the device.
bool graph_only(const ModelOptions& options);

/// The device that `options` ask for. "auto" is a GPU that the fused engine can use; else MLX's GPU; else, or where
/// threads are given, the CPU. DeviceError, saying what is missing, for one that is asked for and not to be had. On the
/// model's thread.
Device open_device(const ModelOptions& options);

/// Whether MLX has a GPU of this kind, for the graph engine.
bool mlx_has(const std::string& kind);

/// Which devices a model can ask for here: cpu, metal, cuda.
std::map<std::string, bool> available_devices();

}  // namespace personaplex
