// tests/cpp/fake_cuda.cpp: a library with the names of libcuda and NVRTC, for tests on machines without a GPU.
#include "fake_cuda.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "gpu/cuda_driver.h"

using namespace personaplex::gpu::cuda;

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

FakeCuda* now = new FakeCuda;

struct Node {
  KernelNode kernel;
  std::vector<std::string> values;  // of the kernel's parameters
  Copy copy;
};

struct FakeFunction {
  const FakeCuda::Kernel* kernel;
  std::string name;
};

struct Program {
  std::string text, log;
};

std::map<void*, std::vector<std::unique_ptr<Node>>> graphs;
std::vector<std::unique_ptr<FakeFunction>> functions;

void set(Node& node, const KernelNode* with) {
  node.kernel = *with;
  node.values.clear();
  const auto* function = reinterpret_cast<const FakeFunction*>(with->function);
  for (std::size_t i = 0; i < function->kernel->param_bytes.size(); ++i) {
    node.values.emplace_back(static_cast<const char*>(with->params[i]), function->kernel->param_bytes[i]);
  }
}

Result add(GraphNode* out, Graph graph, const GraphNode* after, std::size_t count, std::unique_ptr<Node> node,
           std::string words) {
  auto& nodes = graphs.at(graph);
  words += " after";
  for (std::size_t i = 0; i < count; ++i) {
    const auto same = [&](const auto& n) { return reinterpret_cast<GraphNode>(n.get()) == after[i]; };
    words += " " + std::to_string(std::find_if(nodes.begin(), nodes.end(), same) - nodes.begin());
  }
  now->nodes.push_back(words);
  *out = reinterpret_cast<GraphNode>(node.get());
  nodes.push_back(std::move(node));
  return kSuccess;
}

template <typename Handle>
Result create(Handle* out) {
  static std::uintptr_t next = 16;
  *out = reinterpret_cast<Handle>(next += 16);
  ++now->alive;
  return kSuccess;
}

Result destroy() {
  --now->alive;
  return kSuccess;
}

}  // namespace

EXPORT FakeCuda* fake_cuda() { return now; }

EXPORT Result cuInit(unsigned) { return now->devices > 0 ? kSuccess : kNoDevice; }
EXPORT Result cuDriverGetVersion(int* version) { return *version = now->driver_version, kSuccess; }
EXPORT Result cuGetErrorName(Result result, const char** text) {
  *text = result == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_FAKE";
  return kSuccess;
}
EXPORT Result cuGetErrorString(Result, const char** text) { return *text = "as the test wished", kSuccess; }
EXPORT Result cuDeviceGetCount(int* count) { return *count = now->devices, kSuccess; }
EXPORT Result cuDeviceGet(Device* device, int ordinal) { return *device = ordinal, kSuccess; }
EXPORT Result cuDeviceGetName(char* name, int size, Device) {
  return std::strncpy(name, "Fake GPU", static_cast<std::size_t>(size)), kSuccess;
}
EXPORT Result cuDeviceGetAttribute(int* value, int attribute, Device) {
  const std::map<int, int> values = {{kMajorAttribute, now->major},
                                     {kMinorAttribute, now->minor},
                                     {kCacheAttribute, now->cache_bytes},
                                     {kCoresAttribute, 4}};
  *value = values.at(attribute);
  return kSuccess;
}
EXPORT Result cuDevicePrimaryCtxRetain(Context* context, Device) { return create(context); }
EXPORT Result cuDevicePrimaryCtxRelease_v2(Device) { return destroy(); }
EXPORT Result cuCtxSetCurrent(Context) { return kSuccess; }

EXPORT Result cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  *free = *total = now->free_bytes;
  return kSuccess;
}
EXPORT Result cuMemAlloc_v2(Address* address, std::size_t bytes) {
  if (bytes > now->free_bytes) return kOutOfMemory;
  void* memory = std::malloc(bytes);
  std::memset(memory, 0xAB, bytes);
  *address = reinterpret_cast<Address>(memory);
  ++now->alive;
  return kSuccess;
}
EXPORT Result cuMemFree_v2(Address address) {
  std::free(reinterpret_cast<void*>(address));
  return destroy();
}
EXPORT Result cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
  *memory = std::malloc(bytes);
  ++now->alive;
  return kSuccess;
}
EXPORT Result cuMemFreeHost(void* memory) {
  std::free(memory);
  return destroy();
}
EXPORT Result cuMemsetD8Async(Address to, unsigned char value, std::size_t bytes, Stream) {
  std::memset(reinterpret_cast<void*>(to), value, bytes);
  return kSuccess;
}
EXPORT Result cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, Stream) {
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return kSuccess;
}
EXPORT Result cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, Stream) {
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return kSuccess;
}
EXPORT Result cuMemcpyDtoDAsync_v2(Address to, Address from, std::size_t bytes, Stream) {
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  return kSuccess;
}

EXPORT Result cuStreamCreate(Stream* stream, unsigned) { return create(stream); }
EXPORT Result cuStreamDestroy_v2(Stream) { return destroy(); }
EXPORT Result cuStreamSynchronize(Stream) { return kSuccess; }
EXPORT Result cuEventCreate(Event* event, unsigned) { return create(event); }
EXPORT Result cuEventDestroy_v2(Event) { return destroy(); }
EXPORT Result cuEventRecord(Event, Stream) { return kSuccess; }
EXPORT Result cuEventQuery(Event) {
  if (now->not_ready > 0) return --now->not_ready, kNotReady;
  return now->launch_fault;
}
EXPORT Result cuEventSynchronize(Event) {
  ++now->blocked;
  now->not_ready = 0;
  return now->launch_fault;
}

EXPORT Result cuModuleLoadData(Module* module, const void* image) {
  return std::strncmp(static_cast<const char*>(image), "cubin", 5) == 0 ? create(module) : 200;
}
EXPORT Result cuModuleUnload(Module) { return destroy(); }
EXPORT Result cuModuleGetFunction(Function* function, Module, const char* name) {
  const auto found = now->kernels.find(name);
  if (found == now->kernels.end()) return 500;
  functions.push_back(std::make_unique<FakeFunction>(FakeFunction{&found->second, name}));
  *function = reinterpret_cast<Function>(functions.back().get());
  return kSuccess;
}
EXPORT Result cuFuncGetAttribute(int* value, int, Function) { return *value = now->max_threads, kSuccess; }
EXPORT Result cuFuncGetParamInfo(Function function, std::size_t index, std::size_t* offset, std::size_t* bytes) {
  const auto& params = reinterpret_cast<const FakeFunction*>(function)->kernel->param_bytes;
  if (index >= params.size()) return 1;
  *offset = 0;
  *bytes = params[index];
  return kSuccess;
}

EXPORT Result cuGraphCreate(Graph* graph, unsigned) {
  const Result result = create(graph);
  graphs[*graph];
  now->nodes.clear();
  return result;
}
EXPORT Result cuGraphDestroy(Graph graph) {
  graphs.erase(graph);
  return destroy();
}
EXPORT Result cuGraphAddKernelNode_v2(GraphNode* out, Graph graph, const GraphNode* after, std::size_t count,
                                      const KernelNode* kernel) {
  auto node = std::make_unique<Node>();
  set(*node, kernel);
  return add(out, graph, after, count, std::move(node),
             "kernel " + reinterpret_cast<const FakeFunction*>(kernel->function)->name);
}
EXPORT Result cuGraphAddMemcpyNode(GraphNode* out, Graph graph, const GraphNode* after, std::size_t count,
                                   const Copy* copy, Context) {
  auto node = std::make_unique<Node>();
  node->copy = *copy;
  const bool in = copy->from.type == MemoryType::kHost && copy->to.type == MemoryType::kDevice;
  return add(out, graph, after, count, std::move(node),
             std::string(in ? "in " : "out ") + std::to_string(copy->width_bytes * copy->height * copy->depth));
}
EXPORT Result cuGraphAddDependencies_v2(Graph graph, const GraphNode* from, const GraphNode* to, const Edge* edges,
                                        std::size_t count) {
  const auto& nodes = graphs.at(graph);
  const auto index = [&](GraphNode node) {
    const auto same = [&](const auto& n) { return reinterpret_cast<GraphNode>(n.get()) == node; };
    return static_cast<std::size_t>(std::find_if(nodes.begin(), nodes.end(), same) - nodes.begin());
  };
  for (std::size_t i = 0; i < count; ++i) {
    if (nodes[index(from[i])]->kernel.function == nullptr || nodes[index(to[i])]->kernel.function == nullptr) return 1;
    const bool early = edges[i].type == 1 && edges[i].from_port == 1 && edges[i].to_port == 0;
    now->nodes[index(to[i])] += (early ? " early " : " ") + std::to_string(index(from[i]));
  }
  return kSuccess;
}
EXPORT Result cuGraphInstantiateWithFlags(GraphExec* exec, Graph graph, unsigned long long) {
  ++now->alive;
  *exec = reinterpret_cast<GraphExec>(graph);
  return kSuccess;
}
EXPORT Result cuGraphExecDestroy(GraphExec) { return destroy(); }
EXPORT Result cuGraphUpload(GraphExec, Stream) { return kSuccess; }
EXPORT Result cuGraphExecKernelNodeSetParams_v2(GraphExec, GraphNode node, const KernelNode* kernel) {
  ++now->set_kernels;
  set(*reinterpret_cast<Node*>(node), kernel);
  return kSuccess;
}
EXPORT Result cuGraphLaunch(GraphExec exec, Stream) {
  for (const auto& node : graphs.at(reinterpret_cast<void*>(exec))) {
    if (node->kernel.function != nullptr) {
      std::vector<void*> params;
      for (std::string& value : node->values) params.push_back(value.data());
      const auto* function = reinterpret_cast<const FakeFunction*>(node->kernel.function);
      function->kernel->body(params.data(), node->kernel.grid, node->kernel.block[0]);
      continue;
    }
    const auto end = [](const CopyEnd& e) {
      return e.type == MemoryType::kHost ? e.host : reinterpret_cast<void*>(e.device);
    };
    std::memcpy(end(node->copy.to), end(node->copy.from), node->copy.width_bytes);
  }
  return kSuccess;
}

EXPORT int nvrtcVersion(int* major, int* minor) {
  *major = now->nvrtc_major;
  *minor = 0;
  return 0;
}
EXPORT const char* nvrtcGetErrorString(int) { return "NVRTC_ERROR_FAKE"; }
EXPORT int nvrtcGetNumSupportedArchs(int* count) { return *count = static_cast<int>(now->archs.size()), 0; }
EXPORT int nvrtcGetSupportedArchs(int* archs) { return std::copy(now->archs.begin(), now->archs.end(), archs), 0; }
EXPORT int nvrtcCreateProgram(Program** program, const char* text, const char*, int, const char* const*,
                              const char* const*) {
  *program = new Program{text, ""};
  return 0;
}
EXPORT int nvrtcDestroyProgram(Program** program) {
  delete *program;
  return 0;
}
EXPORT int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  ++now->compiles;
  now->options.assign(options, options + count);
  if (program->text.find("mistake") == std::string::npos) return 0;
  program->log = "one.metal(7): error: identifier \"mistake\" is undefined";
  return 6;
}
EXPORT int nvrtcGetCUBINSize(Program* program, std::size_t* bytes) { return *bytes = 6 + program->text.size(), 0; }
EXPORT int nvrtcGetCUBIN(Program* program, char* cubin) {
  return std::memcpy(cubin, ("cubin:" + program->text).data(), 6 + program->text.size()), 0;
}
EXPORT int nvrtcGetProgramLogSize(Program* program, std::size_t* bytes) { return *bytes = program->log.size() + 1, 0; }
EXPORT int nvrtcGetProgramLog(Program* program, char* log) {
  return std::memcpy(log, program->log.c_str(), program->log.size() + 1), 0;
}
