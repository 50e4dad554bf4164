// csrc/gpu/metal_queue.h: a Queue on the GPU of a Mac with Apple silicon: lists are encoded anew for every run, kernels
// are compiled at first use.
//
// All memory is shared: what the host writes is where the kernels read it, and nothing is copied. Metal's own headers
// stay out of this one.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "gpu/queue.h"

namespace personaplex::gpu {

/// One file of kernels/*.metal.
struct MetalSource {
  std::string file;                  // for messages
  std::string text;                  // complete: it includes <metal_stdlib> only
  std::vector<std::string> kernels;  // its host_names
};

struct MetalOptions {
  std::vector<MetalSource> sources;
  /// How often the GPU gets a little work between runs, so that macOS neither lowers its clock nor unwires the memory
  /// between frames. Costs power; 0: never.
  std::chrono::milliseconds keep_warm{0};
  /// How long after the last run that goes on.
  std::chrono::milliseconds rest_after{3000};
};

/// The queue of the default GPU: for one thread at a time; its memory may be freed on any. Memory, kernels and lists
/// may outlive it, and a list needs its memory for as long as it is run. After a fault on the GPU every call throws
/// DeviceError. DeviceError: no Metal, or a GPU older than the M1's.
std::unique_ptr<Queue> make_metal_queue(MetalOptions options);

/// Whether make_metal_queue() finds a GPU.
bool metal_is_available();

}  // namespace personaplex::gpu
