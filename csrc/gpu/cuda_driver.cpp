// csrc/gpu/cuda_driver.cpp: finds the driver's functions and words its errors.
#include "gpu/cuda_driver.h"

#include <dlfcn.h>

#include <map>
#include <mutex>

#include "core/error.h"
#include "gpu/cuda_library.h"

namespace personaplex::gpu::cuda {

namespace {

constexpr int kOldestVersion = 12000;  // cuGraphAddKernelNode_v2 and its struct

Driver find_all(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw DeviceError("[CudaQueue] expected NVIDIA's driver library " + path + ", which could not be opened (" +
                      dlerror() + "). Install an NVIDIA driver, or choose another device.");
  }
  Driver d{};
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    if (!find_function(library, name, function) && missing.empty()) missing = name;
  };
  find(d.init, "cuInit");
  find(d.version, "cuDriverGetVersion");
  if (missing.empty()) {
    int version = 0;
    if (d.version(&version) == kSuccess && version < kOldestVersion) {
      throw DeviceError("[CudaQueue] expected a driver for CUDA 12.0 or newer (525.60), got one for CUDA " +
                        version_text(version) + ". Update the NVIDIA driver.");
    }
  }
  find(d.error_name, "cuGetErrorName");
  find(d.error_string, "cuGetErrorString");
  find(d.device_count, "cuDeviceGetCount");
  find(d.device, "cuDeviceGet");
  find(d.device_name, "cuDeviceGetName");
  find(d.device_attribute, "cuDeviceGetAttribute");
  find(d.context_retain, "cuDevicePrimaryCtxRetain");
  find(d.context_release, "cuDevicePrimaryCtxRelease_v2");
  find(d.context_use, "cuCtxSetCurrent");
  find(d.memory_info, "cuMemGetInfo_v2");
  find(d.allocate, "cuMemAlloc_v2");
  find(d.release, "cuMemFree_v2");
  find(d.allocate_host, "cuMemHostAlloc");
  find(d.release_host, "cuMemFreeHost");
  find(d.fill, "cuMemsetD8Async");
  find(d.copy_to_device, "cuMemcpyHtoDAsync_v2");
  find(d.copy_to_host, "cuMemcpyDtoHAsync_v2");
  find(d.copy_on_device, "cuMemcpyDtoDAsync_v2");
  find(d.stream_create, "cuStreamCreate");
  find(d.stream_destroy, "cuStreamDestroy_v2");
  find(d.stream_synchronize, "cuStreamSynchronize");
  find(d.event_create, "cuEventCreate");
  find(d.event_destroy, "cuEventDestroy_v2");
  find(d.event_record, "cuEventRecord");
  find(d.event_query, "cuEventQuery");
  find(d.event_synchronize, "cuEventSynchronize");
  find(d.module_load, "cuModuleLoadData");
  find(d.module_unload, "cuModuleUnload");
  find(d.module_function, "cuModuleGetFunction");
  find(d.function_attribute, "cuFuncGetAttribute");
  find(d.graph_create, "cuGraphCreate");
  find(d.graph_destroy, "cuGraphDestroy");
  find(d.graph_add_kernel, "cuGraphAddKernelNode_v2");
  find(d.graph_add_copy, "cuGraphAddMemcpyNode");
  find(d.graph_instantiate, "cuGraphInstantiateWithFlags");
  find(d.graph_exec_destroy, "cuGraphExecDestroy");
  find(d.graph_upload, "cuGraphUpload");
  find(d.graph_launch, "cuGraphLaunch");
  find(d.graph_set_kernel, "cuGraphExecKernelNodeSetParams_v2");
  if (!missing.empty()) {
    throw DeviceError("[CudaQueue] expected a driver for CUDA 12.0 or newer (525.60): " + path + " has no " + missing +
                      ". Update the NVIDIA driver.");
  }
  find_function(library, "cuFuncGetParamInfo", d.function_param);
  find_function(library, "cuGraphAddDependencies_v2", d.graph_add_edges);
  return d;
}

}  // namespace

const Driver& Driver::open(const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, Driver> opened;  // never closed: a driver cannot be unloaded
  const std::lock_guard lock(mutex);
  const auto found = opened.find(path);
  return found != opened.end() ? found->second : opened.emplace(path, find_all(path)).first->second;
}

std::string Driver::words(Result result) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (error_name(result, &name) != kSuccess || name == nullptr) return "CUDA error " + std::to_string(result);
  if (error_string(result, &text) != kSuccess || text == nullptr) return name;
  return std::string(name) + ": " + text;
}

void Driver::check(Result result, const std::string& where) const {
  if (result != kSuccess)
    throw DeviceError("[CudaQueue." + where + "] the GPU's driver refused: " + words(result) + ".");
}

}  // namespace personaplex::gpu::cuda
