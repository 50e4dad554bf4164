// csrc/gpu/cuda_queue.h: a Queue on an NVIDIA GPU: lists are CUDA graphs, kernels are compiled at first use.
//
// Inputs and outputs are device memory with a page-locked twin on the host. A list copies in what its kernels read of
// the inputs, and out what they write of the outputs, as part of its graph.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gpu/cuda_compiler.h"
#include "gpu/queue.h"

namespace personaplex::gpu {

struct CudaOptions {
  int device = 0;               // ordinal, as CUDA counts
  std::string nvrtc;            // CudaCompiler's
  std::filesystem::path cache;  // CudaCompiler's
  std::vector<CudaSource> sources;
  std::string driver = "libcuda.so.1";
  /// Kernels start while the one before them ends, on GPUs of compute capability 9.0 and higher, where their source
  /// waits by itself. PERSONAPLEX_CUDA_OVERLAP=0 in the environment turns it off.
  bool overlap = true;
};

/// The queue of one GPU: for one thread at a time; its memory may be freed on any. Memory, kernels and lists may
/// outlive it, and a list needs its memory for as long as it is run. After a fault on the GPU every call throws
/// DeviceError. DeviceError: no driver, too old a driver, no such GPU, one below compute capability 7.0, no NVRTC for
/// it.
std::unique_ptr<Queue> make_cuda_queue(CudaOptions options);

/// How many NVIDIA GPUs there are; 0 where there is no usable driver.
int cuda_device_count(const std::string& driver = "libcuda.so.1");
/// Whether there is an NVIDIA GPU, or a driver that says something else than that there is none: make_cuda_queue()
/// knows what is wrong with it.
bool cuda_is_here(const std::string& driver = "libcuda.so.1");

}  // namespace personaplex::gpu
