// csrc/gpu/cuda_compiler.cpp: finds NVRTC, chooses the architecture to compile for, compiles.
#include "gpu/cuda_compiler.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <sstream>
#include <system_error>

#include "core/error.h"
#include "gpu/cuda_cache.h"
#include "gpu/cuda_library.h"

namespace personaplex::gpu {

namespace fs = std::filesystem;

namespace {

using Program = struct ProgramHandle*;  // nvrtcProgram
using Result = int;                     // nvrtcResult
constexpr Result kCompilation = 6;      // NVRTC_ERROR_COMPILATION

/// NVRTC's libraries under a folder, newest first: libnvrtc.so.13, libnvrtc.so.12, ...
std::vector<std::string> libraries_in(const fs::path& folder, const std::string& prefix) {
  std::vector<std::string> found;
  std::error_code error;
  for (auto at = fs::directory_iterator(folder, error); !error && at != fs::directory_iterator(); at.increment(error)) {
    if (at->path().filename().string().starts_with(prefix)) found.push_back(at->path().string());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

/// What to try for `place`: a library, or a folder that has one or whose lib/ has one.
std::vector<std::string> candidates(const std::string& place) {
  std::error_code error;
  if (!fs::is_directory(place, error)) return {place};
  std::vector<std::string> out = libraries_in(place, "libnvrtc.so");
  for (const std::string& path : libraries_in(fs::path(place) / "lib", "libnvrtc.so")) out.push_back(path);
  return out;
}

}  // namespace

struct CudaCompiler::Nvrtc {
  Result (*version)(int* major, int* minor);
  const char* (*error_string)(Result);
  Result (*arch_count)(int*);
  Result (*archs)(int*);
  Result (*create)(Program*, const char* text, const char* name, int headers, const char* const* header_texts,
                   const char* const* header_names);
  Result (*destroy)(Program*);
  Result (*compile)(Program, int options, const char* const* option);
  Result (*cubin_size)(Program, std::size_t*);
  Result (*cubin)(Program, char*);
  Result (*log_size)(Program, std::size_t*);
  Result (*log)(Program, char*);
  int major = 0, minor = 0;

  explicit Nvrtc(const std::string& place);

  std::string name() const { return "NVRTC " + std::to_string(major) + "." + std::to_string(minor); }
  /// DeviceError unless the call succeeded.
  void check(Result result, const std::string& what) const {
    if (result != 0)
      throw DeviceError("[CudaQueue.kernel] " + name() + " failed on " + what + ": " + error_string(result));
  }
  std::string log_of(Program program) const {
    std::size_t size = 0;
    if (log_size(program, &size) != 0 || size <= 1) return "(it says nothing)";
    std::string text(size, '\0');
    if (log(program, text.data()) != 0) return "(it says nothing)";
    text.resize(size - 1);
    return text;
  }
};

CudaCompiler::Nvrtc::Nvrtc(const std::string& place) {
  std::vector<std::string> tried;
  void* library = nullptr;
  const auto try_all = [&](const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
      if (library != nullptr) return;
      // NVRTC 12 opens its second library by name alone: it is found when it is there already.
      const fs::path folder = fs::path(path).parent_path();
      if (!folder.empty()) {
        for (const std::string& more : libraries_in(folder, "libnvrtc-builtins.so")) dlopen(more.c_str(), RTLD_LAZY);
      }
      library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
      if (library == nullptr) tried.push_back(dlerror());
    }
  };
  const char* const chosen = std::getenv("PERSONAPLEX_NVRTC");
  if (chosen != nullptr && *chosen != '\0') {
    try_all(candidates(chosen));
  } else {
    if (!place.empty()) try_all(candidates(place));
    try_all({"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"});
  }
  if (library == nullptr) {
    std::string words =
        "[CudaQueue] expected NVRTC, CUDA's compiler, which the GPU's kernels need. Install it: pip install "
        "'personaplex[cuda]', or name its folder in PERSONAPLEX_NVRTC. Tried:";
    for (const std::string& line : tried) words += "\n  " + line;
    if (tried.empty()) words += " " + std::string(chosen != nullptr ? chosen : place) + ", which has no libnvrtc.so.";
    throw DeviceError(words);
  }
  bool complete = true;
  const auto find = [&](const char* name, auto& function) {
    complete = cuda::find_function(library, name, function) && complete;
  };
  find("nvrtcVersion", version);
  find("nvrtcGetErrorString", error_string);
  find("nvrtcGetNumSupportedArchs", arch_count);
  find("nvrtcGetSupportedArchs", archs);
  find("nvrtcCreateProgram", create);
  find("nvrtcDestroyProgram", destroy);
  find("nvrtcCompileProgram", compile);
  find("nvrtcGetCUBINSize", cubin_size);
  find("nvrtcGetCUBIN", cubin);
  find("nvrtcGetProgramLogSize", log_size);
  find("nvrtcGetProgramLog", log);
  if (!complete || version(&major, &minor) != 0) {
    throw DeviceError("[CudaQueue] expected NVRTC of CUDA 12 or newer. Install it: pip install 'personaplex[cuda]'.");
  }
}

CudaCompiler::CudaCompiler(const std::string& nvrtc, fs::path cache, int capability, int driver)
    : cache_(std::move(cache)) {
  std::istringstream places(nvrtc);
  std::string place;
  do {
    std::getline(places, place, ':');
    auto one = std::make_unique<const Nvrtc>(place);
    if (nvrtc_ == nullptr || one->major <= driver / 1000) nvrtc_ = std::move(one);
  } while (nvrtc_->major > driver / 1000 && !places.eof());
  if (nvrtc_->major > driver / 1000) {
    throw DeviceError("[CudaQueue] " + nvrtc_->name() + " makes programs for drivers of CUDA " +
                      std::to_string(nvrtc_->major) + " or newer, and this driver is for CUDA " +
                      cuda::version_text(driver) +
                      ". Update the NVIDIA driver, or install an older NVRTC: pip install "
                      "nvidia-cuda-nvrtc-cu" +
                      std::to_string(driver / 1000) + ".");
  }
  int count = 0;
  nvrtc_->check(nvrtc_->arch_count(&count), "its list of GPUs");
  std::vector<int> known(static_cast<std::size_t>(count));
  nvrtc_->check(nvrtc_->archs(known.data()), "its list of GPUs");
  // Machine code runs on GPUs of the same major and a higher minor number.
  for (const int arch : known) {
    if (arch / 10 == capability / 10 && arch <= capability) target_ = std::max(target_, arch);
  }
  if (target_ == 0) {
    const auto [oldest, newest] = std::minmax_element(known.begin(), known.end());
    throw DeviceError("[CudaQueue] " + nvrtc_->name() + " cannot compile for this GPU, compute capability " +
                      std::to_string(capability / 10) + "." + std::to_string(capability % 10) + "; it knows " +
                      (known.empty() ? "none" : std::to_string(*oldest) + " to " + std::to_string(*newest)) +
                      ". Install another: nvidia-cuda-nvrtc is the newest, nvidia-cuda-nvrtc-cu12 knows older GPUs.");
  }
}

CudaCompiler::~CudaCompiler() = default;

std::string CudaCompiler::target() const { return "sm_" + std::to_string(target_); }

std::string CudaCompiler::compile(const CudaSource& source, std::size_t kernel) const {
  const auto& [name, function] = source.kernels[kernel];
  const std::vector<std::string> options = {"--gpu-architecture=" + target(), "--std=c++17",
                                            "--device-as-default-execution-space", "--generate-line-info"};
  const std::string text = source.text + "\n" + function + "\n";
  std::string key = nvrtc_->name();
  for (const std::string& option : options) key += " " + option;
  key += "\n" + source.file + "\n" + text;
  const fs::path path = cache_.empty() ? fs::path() : cached_path(cache_, name, key);
  if (!path.empty()) {
    if (auto cached = read_cached(path, key)) return *std::move(cached);
  }

  Program program = nullptr;
  nvrtc_->check(nvrtc_->create(&program, text.c_str(), source.file.c_str(), 0, nullptr, nullptr), name);
  const auto destroy = [this](Program p) { nvrtc_->destroy(&p); };
  const std::unique_ptr<ProgramHandle, decltype(destroy)> owner(program, destroy);
  std::vector<const char*> pointers;
  for (const std::string& option : options) pointers.push_back(option.c_str());
  const Result result = nvrtc_->compile(program, static_cast<int>(pointers.size()), pointers.data());
  if (result != 0) {
    throw DeviceError("[CudaQueue.kernel] expected " + name + " of " + source.file + " to compile for " + target() +
                      ", but " + nvrtc_->name() + " says " +
                      (result == kCompilation ? "" : nvrtc_->error_string(result)) + "\n" + nvrtc_->log_of(program));
  }
  std::size_t size = 0;
  nvrtc_->check(nvrtc_->cubin_size(program, &size), name);
  std::string cubin(size, '\0');
  nvrtc_->check(nvrtc_->cubin(program, cubin.data()), name);
  if (!path.empty()) write_cached(path, key, cubin);
  return cubin;
}

}  // namespace personaplex::gpu
