// csrc/gpu/cuda_compiler.h: kernels in CUDA C++ to machine code for one GPU architecture, by NVRTC, which is opened at
// run time. What was compiled once is kept in a folder.
//
// Every kernel is compiled alone: a model uses a part of a file's instantiations, and all of them take NVRTC minutes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace personaplex::gpu {

/// One file of kernels/*.metal, translated to CUDA C++, or of kernels/cuda/*.cu.
struct CudaSource {
  std::string file;  // for messages and the cache's file names
  std::string text;  // what its kernels share; complete: there is nothing to include
  /// Of each kernel: its host_name, and the `extern "C" __global__` function of that name, which follows the text.
  std::vector<std::pair<std::string, std::string>> kernels;
  int capability = 0;  // that a GPU must have for these
};

class CudaCompiler {
 public:
  /// `nvrtc`: the library, or the folder of the nvidia-cuda-nvrtc package that holds it (itself or in lib/), or
  /// several with colons in between: the first one that the driver is new enough for; empty: where the system looks.
  /// The environment variable PERSONAPLEX_NVRTC goes before it. `cache`: a folder, made when needed; empty: nothing is
  /// kept. `capability`: 90 for 9.0. `driver`: what cuDriverGetVersion says. DeviceError: no NVRTC, one that is too new
  /// for the driver, or one that does not know the GPU.
  CudaCompiler(const std::string& nvrtc, std::filesystem::path cache, int capability, int driver);
  ~CudaCompiler();
  CudaCompiler(const CudaCompiler&) = delete;
  CudaCompiler& operator=(const CudaCompiler&) = delete;

  /// A program (a CUBIN) with one of the source's kernels, from the cache unless it has no sound copy. DeviceError,
  /// with the compiler's words, when it does not compile. Several threads may compile at once.
  std::string compile(const CudaSource& source, std::size_t kernel) const;

  /// "sm_90"
  std::string target() const;

 private:
  struct Nvrtc;
  std::unique_ptr<const Nvrtc> nvrtc_;
  std::filesystem::path cache_;
  int target_ = 0;
};

}  // namespace personaplex::gpu
