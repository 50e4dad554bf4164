// csrc/gpu/cuda_driver.h: the part of CUDA's driver library that cuda_queue.cpp calls, found at run time, so that the
// build needs no CUDA and the same binary runs where there is none.
//
// The declarations are the driver interface of CUDA 12 and 13: names, numbers and layouts are NVIDIA's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace personaplex::gpu::cuda {

using Result = int;  // CUresult
inline constexpr Result kSuccess = 0;
inline constexpr Result kOutOfMemory = 2;
inline constexpr Result kNoDevice = 100;
inline constexpr Result kNoBinaryForGpu = 209;
inline constexpr Result kNotReady = 600;

using Device = int;
using Address = unsigned long long;  // CUdeviceptr
using Context = struct ContextHandle*;
using Module = struct ModuleHandle*;
using Function = struct FunctionHandle*;
using Stream = struct StreamHandle*;
using Event = struct EventHandle*;
using Graph = struct GraphHandle*;
using GraphNode = struct GraphNodeHandle*;
using GraphExec = struct GraphExecHandle*;

inline constexpr int kCoresAttribute = 16;             // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
inline constexpr int kCacheAttribute = 38;             // CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
inline constexpr int kMajorAttribute = 75;             // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
inline constexpr int kMinorAttribute = 76;             // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
inline constexpr int kMaxThreadsAttribute = 0;         // CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK
inline constexpr unsigned kStreamNonBlocking = 1;      // CU_STREAM_NON_BLOCKING
inline constexpr unsigned kEventBlockingNoTiming = 3;  // CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING

enum class MemoryType : int { kHost = 1, kDevice = 2 };

/// CUDA_KERNEL_NODE_PARAMS_v2. `params` holds one pointer per parameter of the kernel; CUDA copies what they point to.
struct KernelNode {
  Function function = nullptr;
  unsigned grid[3] = {1, 1, 1};
  unsigned block[3] = {1, 1, 1};
  unsigned shared_bytes = 0;
  void** params = nullptr;
  void** extra = nullptr;
  void* kernel = nullptr;
  Context context = nullptr;
};

/// CUgraphEdgeData. Unlike a plain edge, a programmatic one, which is between kernels, lets the later kernel start as
/// soon as all thread blocks of the earlier one have said `griddepcontrol.launch_dependents`, or ended; it waits for
/// the earlier kernel's end, and sees its writes, by `griddepcontrol.wait`.
struct Edge {
  unsigned char from_port = 0;
  unsigned char to_port = 0;
  unsigned char type = 0;
  unsigned char reserved[5] = {};
};
/// CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC, CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC
inline constexpr Edge kProgrammaticEdge = {1, 0, 1, {}};

/// One side of CUDA_MEMCPY3D_v2.
struct CopyEnd {
  std::size_t x_bytes = 0, y = 0, z = 0, lod = 0;
  MemoryType type = MemoryType::kDevice;
  void* host = nullptr;
  Address device = 0;
  void* array = nullptr;
  void* reserved = nullptr;
  std::size_t pitch = 0, height = 0;
};

/// CUDA_MEMCPY3D_v2. A plain copy has height and depth 1.
struct Copy {
  CopyEnd from, to;
  std::size_t width_bytes = 0, height = 1, depth = 1;
};

/// The functions of libcuda, without their version suffixes.
struct Driver {
  Result (*init)(unsigned flags);
  Result (*version)(int* version);  // 1000 * major + 10 * minor of the newest CUDA that it supports
  Result (*error_name)(Result, const char** text);
  Result (*error_string)(Result, const char** text);
  Result (*device_count)(int* count);
  Result (*device)(Device*, int ordinal);
  Result (*device_name)(char* name, int size, Device);
  Result (*device_attribute)(int* value, int attribute, Device);
  Result (*context_retain)(Context*, Device);
  Result (*context_release)(Device);
  Result (*context_use)(Context);

  Result (*memory_info)(std::size_t* free, std::size_t* total);
  Result (*allocate)(Address*, std::size_t bytes);
  Result (*release)(Address);
  Result (*allocate_host)(void**, std::size_t bytes, unsigned flags);  // page-locked
  Result (*release_host)(void*);
  Result (*fill)(Address, unsigned char value, std::size_t bytes, Stream);
  Result (*copy_to_device)(Address, const void* from, std::size_t bytes, Stream);
  Result (*copy_to_host)(void* to, Address, std::size_t bytes, Stream);
  Result (*copy_on_device)(Address to, Address from, std::size_t bytes, Stream);

  Result (*stream_create)(Stream*, unsigned flags);
  Result (*stream_destroy)(Stream);
  Result (*stream_synchronize)(Stream);
  Result (*event_create)(Event*, unsigned flags);
  Result (*event_destroy)(Event);
  Result (*event_record)(Event, Stream);
  Result (*event_query)(Event);
  Result (*event_synchronize)(Event);

  Result (*module_load)(Module*, const void* image);
  Result (*module_unload)(Module);
  Result (*module_function)(Function*, Module, const char* name);
  Result (*function_attribute)(int* value, int attribute, Function);
  /// Bytes of a kernel's parameter. From CUDA 12.4 on; null before.
  Result (*function_param)(Function, std::size_t index, std::size_t* offset, std::size_t* bytes);

  Result (*graph_create)(Graph*, unsigned flags);
  Result (*graph_destroy)(Graph);
  Result (*graph_add_kernel)(GraphNode*, Graph, const GraphNode* after, std::size_t count, const KernelNode*);
  Result (*graph_add_copy)(GraphNode*, Graph, const GraphNode* after, std::size_t count, const Copy*, Context);
  /// From CUDA 12.3 on; null before.
  Result (*graph_add_edges)(Graph, const GraphNode* from, const GraphNode* to, const Edge*, std::size_t count);
  Result (*graph_instantiate)(GraphExec*, Graph, unsigned long long flags);
  Result (*graph_exec_destroy)(GraphExec);
  Result (*graph_upload)(GraphExec, Stream);
  Result (*graph_launch)(GraphExec, Stream);
  Result (*graph_set_kernel)(GraphExec, GraphNode, const KernelNode*);

  /// Opens the library, once per process and path. DeviceError when it is not there or older than CUDA 12.
  static const Driver& open(const std::string& path);

  /// "CUDA_ERROR_X: what it means".
  std::string words(Result) const;
  /// DeviceError `[CudaQueue.<where>] the GPU's driver refused: <words>` unless the call succeeded.
  void check(Result, const std::string& where) const;
};

}  // namespace personaplex::gpu::cuda
