// csrc/gpu/cuda_queue.cpp: kernels from their sources, and lists as CUDA graphs.
#include "gpu/cuda_queue.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "core/error.h"
#include "gpu/at_once.h"
#include "gpu/cuda_memory.h"

namespace personaplex::gpu {

namespace {

using namespace cuda;

constexpr std::size_t kTwinBytes = std::size_t{1} << 20;  // of one stretch of inputs or outputs
constexpr std::size_t kAlign = 256;
constexpr unsigned kMaxGroupsYZ = 65535;

/// Machine code on the GPU. Its kernel and lists hold it.
struct LoadedModule {
  LoadedModule(std::shared_ptr<Gpu> on, const std::string& program, const std::string& kernel) : gpu(std::move(on)) {
    const Result result = gpu->driver.module_load(&module, program.data());
    if (result == kNoBinaryForGpu) {
      throw DeviceError("[CudaQueue.kernel] expected machine code that the driver can load for " + kernel + ", but " +
                        gpu->driver.words(result) + ". Update the NVIDIA driver, or install an older NVRTC.");
    }
    gpu->driver.check(result, "kernel");
  }
  ~LoadedModule() {
    if (gpu->usable()) gpu->driver.module_unload(module);
  }
  LoadedModule(const LoadedModule&) = delete;
  LoadedModule& operator=(const LoadedModule&) = delete;

  std::shared_ptr<Gpu> gpu;
  Module module = nullptr;
};

struct CudaKernel final : Kernel {
  std::shared_ptr<LoadedModule> module;
  Function function = nullptr;
  bool waits = false;  // for the kernels before it, by itself
  int max_threads = 0;
  std::vector<std::size_t> param_bytes;  // empty where the driver cannot tell
};

/// A kernel's launch with what its parameters point to.
struct Launch {
  KernelNode node;
  std::vector<Address> buffers;
  std::vector<std::byte> params;
  std::vector<std::pair<std::size_t, std::size_t>>
      of_state;  // which buffers: index, offset in the conversation's block
  std::vector<void*> pointers;
  GraphNode in_graph = nullptr;

  /// Points at its own members: call it where the launch is going to stay.
  const KernelNode* prepared() {
    pointers.clear();
    for (Address& buffer : buffers) pointers.push_back(&buffer);
    if (!params.empty()) pointers.push_back(params.data());
    node.params = pointers.data();
    return &node;
  }
};

struct CudaList final : List {
  explicit CudaList(std::shared_ptr<Gpu> on) : gpu(std::move(on)) {}
  ~CudaList() override {
    if (!gpu->usable()) return;
    if (exec != nullptr) gpu->driver.graph_exec_destroy(exec);
    if (graph != nullptr) gpu->driver.graph_destroy(graph);
  }

  std::shared_ptr<Gpu> gpu;
  std::vector<std::shared_ptr<Twin>> twins;
  std::vector<std::shared_ptr<LoadedModule>> modules;
  Graph graph = nullptr;  // the nodes of `stateful` are its
  GraphExec exec = nullptr;
  std::vector<Launch> stateful;      // launches that get the conversation's block
  std::size_t state_bytes = 0;       // that they touch of it
  const std::byte* state = nullptr;  // the block that they have now
};

/// The stretch of a twin that a list copies.
struct Stretch {
  std::size_t begin = 0, end = 0;

  void add(std::size_t from, std::size_t to) {
    begin = end == 0 ? from : std::min(begin, from);
    end = std::max(end, to);
  }
};

/// A queue's graph as it grows: nodes without a barrier between them depend on all before the last barrier of their
/// lane.
///
/// From one kernel to the next alone the edge may be programmatic. A kernel that waits does so before it touches
/// memory, so it ends after the kernel before it has ended, and that one likewise: whoever waits for it waits for all
/// before. Where lists branch or join, and at copies, edges are plain.
class GraphBuilder {
 public:
  GraphBuilder(Gpu& gpu, Graph graph, bool overlap) : gpu_(gpu), graph_(graph), overlap_(overlap) {}

  void barrier() { lanes_[lane_].barrier(); }
  void go_to_lane(int lane) {
    if (lane_ > lane && lane != 0) go_to_lane(0);  // another pair of lanes, which comes after both
    const int from = std::exchange(lane_, lane);
    if (from == lane) return;
    Lane& main = lanes_[0];
    if (from == 0) {
      main.barrier();
      lanes_[1] = lanes_[2] = {.before = main.before};
    } else if (lane == 0) {
      std::vector<GraphNode> ends;
      for (Lane* side : {&lanes_[1], &lanes_[2]}) {
        side->barrier();
        if (side->before != main.before) ends.insert(ends.end(), side->before.begin(), side->before.end());
      }
      main = {.before = std::move(ends)};
    }
  }
  /// `waits`: the kernel does so by itself; `alone`: nothing else comes before the next barrier of the lane.
  GraphNode add(const KernelNode& node, bool waits, bool alone) {
    Lane& lane = lanes_[lane_];
    const bool early = overlap_ && waits && alone && lane.now.empty() && lane.after_kernel && lane.before.size() == 1;
    GraphNode out = nullptr;
    gpu_.driver.check(
        gpu_.driver.graph_add_kernel(&out, graph_, lane.before.data(), early ? 0 : lane.before.size(), &node),
        "record");
    if (early) {
      gpu_.driver.check(gpu_.driver.graph_add_edges(graph_, lane.before.data(), &out, &kProgrammaticEdge, 1), "record");
    }
    lane.kernel_now = true;
    return lane.now.emplace_back(out);
  }
  void add(const Copy& copy) {
    Lane& lane = lanes_[lane_];
    GraphNode out = nullptr;
    gpu_.driver.check(
        gpu_.driver.graph_add_copy(&out, graph_, lane.before.data(), lane.before.size(), &copy, gpu_.context),
        "record");
    lane.now.push_back(out);
  }

 private:
  struct Lane {
    std::vector<GraphNode> before = {}, now = {};
    bool after_kernel = false;  // `before` are kernels of this lane, `now` are kernels
    bool kernel_now = false;

    void barrier() {
      if (now.empty()) return;
      before = std::exchange(now, {});
      after_kernel = std::exchange(kernel_now, false);
    }
  };

  Gpu& gpu_;
  Graph graph_;
  bool overlap_;
  Lane lanes_[3];
  int lane_ = 0;
};

Copy copy_in(const Twin& twin, Stretch part) {
  Copy copy;
  copy.from.type = MemoryType::kHost;
  copy.from.host = twin.host + part.begin;
  copy.to.device = twin.device + part.begin;
  copy.width_bytes = part.end - part.begin;
  return copy;
}

Copy copy_out(const Twin& twin, Stretch part) {
  Copy copy;
  copy.from.device = twin.device + part.begin;
  copy.to.type = MemoryType::kHost;
  copy.to.host = twin.host + part.begin;
  copy.width_bytes = part.end - part.begin;
  return copy;
}

/// Whether kernels of this text begin by waiting for those before them: who writes the instruction promises that.
bool has_wait(const std::string& text) { return text.find("griddepcontrol.wait") != std::string::npos; }

bool may_overlap(const Gpu& gpu) {
  const char* const chosen = std::getenv("PERSONAPLEX_CUDA_OVERLAP");
  return gpu.capability >= 90 && gpu.driver.graph_add_edges != nullptr &&
         (chosen == nullptr || std::strcmp(chosen, "0") != 0);
}

/// Throws std::invalid_argument for what the driver would refuse, or read out of bounds.
void check_dispatch(const Dispatch& d, const CudaKernel& kernel) {
  const auto wrong = [&](const std::string& what) { bad_argument("CudaQueue.record", kernel.name + ": " + what); };
  if (d.threads == 0 || d.threads % 32 != 0 || d.threads > static_cast<unsigned>(kernel.max_threads)) {
    wrong("expected a multiple of 32 up to " + std::to_string(kernel.max_threads) + " threads in a threadgroup, got " +
          std::to_string(d.threads) + ".");
  }
  if (d.groups[0] == 0 || d.groups[1] == 0 || d.groups[2] == 0 || d.groups[1] > kMaxGroupsYZ ||
      d.groups[2] > kMaxGroupsYZ) {
    wrong("expected 1 to 65535 threadgroups in y and z and at least 1 in x.");
  }
  const std::size_t count = d.arguments.size() + (d.params.empty() ? 0 : 1);
  if (!kernel.param_bytes.empty()) {
    if (count != kernel.param_bytes.size()) {
      wrong("expected " + std::to_string(kernel.param_bytes.size()) + " arguments, params included, got " +
            std::to_string(count) + ".");
    }
    if (!d.params.empty() && d.params.size() != kernel.param_bytes.back()) {
      wrong("expected params of " + std::to_string(kernel.param_bytes.back()) + " bytes, got " +
            std::to_string(d.params.size()) + ".");
    }
  }
  for (std::size_t i = 0; i < d.arguments.size(); ++i) {
    const Argument& a = d.arguments[i];
    const std::string which = "argument " + std::to_string(i);
    if (a.offset % 4 != 0) wrong(which + ": expected an offset that is a multiple of 4.");
    if (a.memory == nullptr) continue;
    if (a.offset > a.memory->bytes || a.bytes > a.memory->bytes - a.offset) {
      wrong(which + ": expected a range within its memory of " + std::to_string(a.memory->bytes) + " bytes, got " +
            std::to_string(a.bytes) + " from " + std::to_string(a.offset) + ".");
    }
    const auto* twin = dynamic_cast<const TwinMemory*>(a.memory);
    if (twin != nullptr && twin->use == ops::Use::kInput && a.written) {
      wrong(which + ": expected no kernel to write an input, which the host writes.");
    }
  }
}

class CudaQueue final : public Queue {
 public:
  explicit CudaQueue(CudaOptions options)
      : gpu_(std::make_shared<Gpu>(Driver::open(options.driver), options.device)),
        compiler_(options.nvrtc, std::move(options.cache), gpu_->capability, driver_version()),
        sources_(std::move(options.sources)),
        overlap_(options.overlap && may_overlap(*gpu_)) {
    for (const CudaSource& source : sources_) {
      if (source.capability > gpu_->capability) continue;
      for (std::size_t i = 0; i < source.kernels.size(); ++i) texts_[source.kernels[i].first] = {&source, i};
    }
  }

  std::unique_ptr<ops::Memory> allocate(std::size_t bytes, ops::Use use) override {
    gpu_->use("allocate");
    bytes = std::max<std::size_t>(bytes, 1);
    if (use == ops::Use::kScratch || use == ops::Use::kState) return std::make_unique<DeviceMemory>(gpu_, bytes);
    std::weak_ptr<Twin>& open = use == ops::Use::kInput ? inputs_ : outputs_;
    std::shared_ptr<Twin> twin = open.lock();
    if (twin == nullptr || twin->bytes - twin->used < bytes) {
      twin = std::make_shared<Twin>(gpu_, std::max(bytes, kTwinBytes));
      open = twin;
    }
    const std::size_t at = twin->used;
    twin->used = std::min(twin->bytes, (at + bytes + kAlign - 1) / kAlign * kAlign);
    return std::make_unique<TwinMemory>(std::move(twin), use, at, bytes);
  }

  const Kernel& kernel(const std::string& name) override {
    gpu_->use("kernel");
    if (const auto found = kernels_.find(name); found != kernels_.end()) return *found->second;
    prepare({name});
    return *kernels_.at(name);
  }
  bool has(const std::string& name) const override { return texts_.contains(name); }
  int cores() const override { return gpu_->cores; }
  void prepare(const std::vector<std::string>& names) override;

  std::unique_ptr<List> record(std::vector<Dispatch> dispatches) override;
  void run(List& list, const ops::Memory* state, bool again) override;

  std::string device_name() const override {
    char name[256] = {};
    gpu_->driver.check(gpu_->driver.device_name(name, sizeof name - 1, gpu_->device), "device_name");
    return name;
  }
  std::size_t free_bytes() const override {
    gpu_->use("free_bytes");
    return gpu_->free_bytes();
  }
  std::size_t cache_bytes() const override {
    int bytes = 0;
    gpu_->driver.check(gpu_->driver.device_attribute(&bytes, kCacheAttribute, gpu_->device), "cache_bytes");
    return static_cast<std::size_t>(bytes);
  }

 private:
  int driver_version() const {
    int version = 0;
    gpu_->driver.check(gpu_->driver.version(&version), "open");
    return version;
  }
  void load(const std::string& name, const std::string& program);

  std::shared_ptr<Gpu> gpu_;
  CudaCompiler compiler_;
  std::vector<CudaSource> sources_;
  bool overlap_;
  struct Text {
    const CudaSource* source = nullptr;
    std::size_t kernel = 0;
  };
  std::map<std::string, Text> texts_;  // by host_name, as kernels_
  std::map<std::string, std::unique_ptr<CudaKernel>> kernels_;
  std::weak_ptr<Twin> inputs_, outputs_;  // that still have room
};

void CudaQueue::prepare(const std::vector<std::string>& names) {
  gpu_->use("kernel");
  struct Job {
    std::string name;
    const Text* text;
    std::string program;
  };
  std::vector<Job> jobs;
  for (const std::string& name : std::set<std::string>(names.begin(), names.end())) {
    if (kernels_.contains(name)) continue;
    const auto text = texts_.find(name);
    if (text == texts_.end()) throw DeviceError("[CudaQueue.kernel] expected a kernel's host_name, got " + name + ".");
    jobs.push_back({name, &text->second, {}});
  }
  at_once(jobs.size(),
          [&](std::size_t i) { jobs[i].program = compiler_.compile(*jobs[i].text->source, jobs[i].text->kernel); });
  for (const Job& job : jobs) load(job.name, job.program);
}

void CudaQueue::load(const std::string& name, const std::string& program) {
  const Driver& driver = gpu_->driver;
  auto kernel = std::make_unique<CudaKernel>();
  kernel->name = name;
  kernel->module = std::make_shared<LoadedModule>(gpu_, program, name);
  const Text& text = texts_.at(name);
  kernel->waits = has_wait(text.source->text) || has_wait(text.source->kernels[text.kernel].second);
  driver.check(driver.module_function(&kernel->function, kernel->module->module, name.c_str()), "kernel");
  driver.check(driver.function_attribute(&kernel->max_threads, kMaxThreadsAttribute, kernel->function), "kernel");
  std::size_t offset = 0, bytes = 0;
  while (driver.function_param != nullptr &&
         driver.function_param(kernel->function, kernel->param_bytes.size(), &offset, &bytes) == kSuccess) {
    kernel->param_bytes.push_back(bytes);
  }
  kernels_[name] = std::move(kernel);
}

std::unique_ptr<List> CudaQueue::record(std::vector<Dispatch> dispatches) {
  gpu_->use("record");
  const Driver& driver = gpu_->driver;
  auto list = std::make_unique<CudaList>(gpu_);

  std::map<std::shared_ptr<Twin>, Stretch> in, out;
  for (const Dispatch& d : dispatches) {
    const auto* kernel = dynamic_cast<const CudaKernel*>(d.kernel);
    if (kernel == nullptr) bad_argument("CudaQueue.record", "expected a kernel of this queue in every dispatch.");
    check_dispatch(d, *kernel);
    for (const Argument& a : d.arguments) {
      if (a.memory == nullptr) list->state_bytes = std::max(list->state_bytes, a.offset + a.bytes);
      const auto* memory = dynamic_cast<const TwinMemory*>(a.memory);
      if (memory == nullptr || a.bytes == 0 || (memory->use == ops::Use::kOutput && !a.written)) continue;
      const std::size_t begin = memory->at + a.offset;
      (memory->use == ops::Use::kInput ? in : out)[memory->twin].add(begin, begin + a.bytes);
    }
  }
  for (const auto* twins : {&in, &out}) {
    for (const auto& entry : *twins) list->twins.push_back(entry.first);
  }

  driver.check(driver.graph_create(&list->graph, 0), "record");
  GraphBuilder builder(*gpu_, list->graph, overlap_);
  for (const auto& [twin, part] : in) builder.add(copy_in(*twin, part));
  builder.barrier();
  for (std::size_t i = 0; i < dispatches.size(); ++i) {
    Dispatch& d = dispatches[i];
    const auto& kernel = static_cast<const CudaKernel&>(*d.kernel);
    if (std::find(list->modules.begin(), list->modules.end(), kernel.module) == list->modules.end()) {
      list->modules.push_back(kernel.module);
    }
    Launch launch;
    launch.node.function = kernel.function;
    std::copy(std::begin(d.groups), std::end(d.groups), std::begin(launch.node.grid));
    launch.node.block[0] = d.threads;
    launch.params = std::move(d.params);
    for (const Argument& a : d.arguments) {
      if (a.memory == nullptr) launch.of_state.emplace_back(launch.buffers.size(), a.offset);
      launch.buffers.push_back(a.memory == nullptr ? 0 : address(a.memory->base + a.offset));
    }
    builder.go_to_lane(d.lane);
    if (d.barrier) builder.barrier();
    const bool alone =
        i + 1 == dispatches.size() || dispatches[i + 1].barrier || dispatches[i + 1].lane != dispatches[i].lane;
    launch.in_graph = builder.add(*launch.prepared(), kernel.waits, alone);
    if (!launch.of_state.empty()) list->stateful.push_back(std::move(launch));
  }
  builder.go_to_lane(0);
  builder.barrier();
  for (const auto& [twin, part] : out) builder.add(copy_out(*twin, part));

  driver.check(driver.graph_instantiate(&list->exec, list->graph, 0), "record");
  driver.check(driver.graph_upload(list->exec, gpu_->stream), "record");
  gpu_->wait("record");
  return list;
}

void CudaQueue::run(List& list, const ops::Memory* state, bool /*again*/) {
  auto* const cuda_list = dynamic_cast<CudaList*>(&list);
  if (cuda_list == nullptr || cuda_list->gpu != gpu_) bad_argument("CudaQueue.run", "expected a list of this queue.");
  if (!cuda_list->stateful.empty() && (state == nullptr || state->bytes < cuda_list->state_bytes)) {
    bad_argument("CudaQueue.run", "expected a conversation's block of at least " +
                                      std::to_string(cuda_list->state_bytes) + " bytes, got " +
                                      (state == nullptr ? "none" : std::to_string(state->bytes)) + ".");
  }
  gpu_->use("run");
  const Driver& driver = gpu_->driver;
  if (!cuda_list->stateful.empty() && cuda_list->state != state->base) {
    cuda_list->state = nullptr;  // until all launches have the new one
    for (Launch& launch : cuda_list->stateful) {
      for (const auto& [index, offset] : launch.of_state) launch.buffers[index] = address(state->base + offset);
      driver.check(driver.graph_set_kernel(cuda_list->exec, launch.in_graph, launch.prepared()), "run");
    }
    cuda_list->state = state->base;
  }
  driver.check(driver.graph_launch(cuda_list->exec, gpu_->stream), "run");
  gpu_->wait_for_list("run");
}

}  // namespace

std::unique_ptr<Queue> make_cuda_queue(CudaOptions options) { return std::make_unique<CudaQueue>(std::move(options)); }

int cuda_device_count(const std::string& path) {
  try {
    const Driver& driver = Driver::open(path);
    int count = 0;
    return driver.init(0) == kSuccess && driver.device_count(&count) == kSuccess ? count : 0;
  } catch (const DeviceError&) {
    return 0;
  }
}

bool cuda_is_here(const std::string& path) {
  constexpr Result kStubLibrary = 34;
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  dlclose(library);
  try {
    const Result found = Driver::open(path).init(0);
    return found != kNoDevice && found != kStubLibrary && (found != kSuccess || cuda_device_count(path) > 0);
  } catch (const DeviceError&) {
    return true;
  }
}

}  // namespace personaplex::gpu
