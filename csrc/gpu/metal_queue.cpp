// csrc/gpu/metal_queue.cpp: kernels from their sources, and lists as command buffers with one concurrent encoder.
#include "gpu/metal_queue.h"

#include <algorithm>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "core/error.h"
#include "gpu/at_once.h"
#include "gpu/metal_gpu.h"
#include "gpu/metal_keep_warm.h"

namespace personaplex::gpu {

namespace {

using namespace metal;

constexpr std::size_t kMaxBuffers = 31;    // that a kernel can have, params included
constexpr std::size_t kMaxParams = 4096;   // bytes that setBytes takes
constexpr std::size_t kArgumentAlign = 4;  // and that of what the kernel reads there, which it knows

struct MetalKernel final : Kernel {
  std::shared_ptr<Gpu> gpu;
  Ref<MTL::ComputePipelineState> pipeline;
  std::size_t max_threads = 0;
};

/// A dispatch with all that encoding it takes.
struct Launch {
  struct Buffer {
    MTL::Buffer* buffer = nullptr;  // null: the conversation's block
    std::size_t offset = 0;
  };
  Ref<MTL::ComputePipelineState> pipeline;
  std::vector<Buffer> buffers;
  std::vector<std::byte> params;
  MTL::Size groups, threads;
  bool barrier = false;
};

struct MetalList final : List {
  std::shared_ptr<Gpu> gpu;
  std::uint64_t id = 0;  // among its queue's
  std::vector<Launch> launches;
  bool stateful = false;        // whether launches get the conversation's block
  std::size_t state_bytes = 0;  // that they touch of it
};

/// Throws std::invalid_argument for what Metal would abort the process for.
void check_dispatch(const Dispatch& d, const MetalKernel& kernel) {
  const auto wrong = [&](const std::string& what) { bad_argument("MetalQueue.record", kernel.name + ": " + what); };
  if (d.threads == 0 || d.threads % 32 != 0 || d.threads > kernel.max_threads) {
    wrong("expected a multiple of 32 up to " + std::to_string(kernel.max_threads) + " threads in a threadgroup, got " +
          std::to_string(d.threads) + ".");
  }
  if (d.groups[0] == 0 || d.groups[1] == 0 || d.groups[2] == 0) wrong("expected at least one threadgroup.");
  if (d.arguments.size() >= kMaxBuffers || d.params.size() > kMaxParams) {
    wrong("expected at most 30 arguments and 4096 bytes of params, got " + std::to_string(d.arguments.size()) +
          " and " + std::to_string(d.params.size()) + ".");
  }
  for (std::size_t i = 0; i < d.arguments.size(); ++i) {
    const Argument& a = d.arguments[i];
    const std::string which = "argument " + std::to_string(i);
    if (a.offset % kArgumentAlign != 0) wrong(which + ": expected an offset that is a multiple of 4.");
    if (a.memory == nullptr) continue;
    const auto* memory = dynamic_cast<const MetalMemory*>(a.memory);
    if (memory == nullptr || memory->gpu != kernel.gpu) wrong(which + ": expected memory of this queue.");
    if (a.offset >= memory->bytes || a.bytes > memory->bytes - a.offset) {
      wrong(which + ": expected a range within its memory of " + std::to_string(memory->bytes) + " bytes, got " +
            std::to_string(a.bytes) + " from " + std::to_string(a.offset) + ".");
    }
    if (memory->use == ops::Use::kInput && a.written) {
      wrong(which + ": expected no kernel to write an input, which the host writes.");
    }
  }
}

class MetalQueue final : public Queue {
 public:
  explicit MetalQueue(MetalOptions options) : gpu_(std::make_shared<Gpu>()), sources_(std::move(options.sources)) {
    for (const MetalSource& source : sources_) {
      for (const std::string& name : source.kernels) texts_[name] = &source;
    }
    if (options.keep_warm.count() > 0) {
      warm_ = std::make_unique<KeepWarm>(gpu_, options.keep_warm, options.rest_after);
    }
  }

  std::unique_ptr<ops::Memory> allocate(std::size_t bytes, ops::Use use) override {
    gpu_->use("allocate");
    return std::make_unique<MetalMemory>(gpu_, std::max<std::size_t>(bytes, 1), use);
  }

  const Kernel& kernel(const std::string& name) override;
  bool has(const std::string& name) const override { return texts_.contains(name); }
  void prepare(const std::vector<std::string>& names) override;
  std::unique_ptr<List> record(std::vector<Dispatch> dispatches) override;
  void prepare_next(List& list, const ops::Memory* state) override;
  void run(List& list, const ops::Memory* state, bool again) override;

  std::string device_name() const override {
    const Pool pool;
    return gpu_->device()->name()->utf8String();
  }
  std::size_t free_bytes() const override {
    gpu_->use("free_bytes");
    return gpu_->free_bytes();
  }

 private:
  /// A list in a command buffer that is not committed yet.
  struct Encoded {
    Ref<MTL::CommandBuffer> commands;
    std::uint64_t list = 0;  // its id
    const MTL::Buffer* state = nullptr;
    std::uint64_t generation = 0;  // of the memory
  };

  Ref<MTL::Library> compile(const MetalSource& source) const;
  void make_pipeline(MetalKernel& kernel) const;
  Encoded encode(List& list, const ops::Memory* state, const char* where);

  std::shared_ptr<Gpu> gpu_;
  std::vector<MetalSource> sources_;
  std::map<std::string, const MetalSource*> texts_;  // by host_name, as kernels_
  std::map<const MetalSource*, Ref<MTL::Library>> libraries_;
  std::map<std::string, std::unique_ptr<MetalKernel>> kernels_;
  std::uint64_t lists_ = 0;
  Encoded next_;
  std::unique_ptr<KeepWarm> warm_;
};

void MetalQueue::prepare(const std::vector<std::string>& names) {
  gpu_->use("kernel");
  std::set<std::string> missing(names.begin(), names.end());
  std::erase_if(missing, [this](const std::string& name) { return kernels_.contains(name); });
  std::set<const MetalSource*> unread;
  for (const std::string& name : missing) {
    const auto text = texts_.find(name);
    if (text == texts_.end()) throw DeviceError("[MetalQueue.kernel] expected a kernel's host_name, got " + name + ".");
    if (!libraries_.contains(text->second)) unread.insert(text->second);
  }
  const std::vector<const MetalSource*> sources(unread.begin(), unread.end());
  std::vector<Ref<MTL::Library>> libraries(sources.size());
  at_once(sources.size(), [&](std::size_t i) {
    const Pool pool;
    libraries[i] = compile(*sources[i]);
  });
  for (std::size_t i = 0; i < sources.size(); ++i) libraries_[sources[i]] = libraries[i];

  std::vector<std::unique_ptr<MetalKernel>> kernels;
  for (const std::string& name : missing) {
    kernels.push_back(std::make_unique<MetalKernel>());
    kernels.back()->name = name;
    kernels.back()->gpu = gpu_;
  }
  at_once(kernels.size(), [&](std::size_t i) {
    const Pool pool;
    make_pipeline(*kernels[i]);
  });
  for (auto& kernel : kernels) kernels_[kernel->name] = std::move(kernel);
}

Ref<MTL::Library> MetalQueue::compile(const MetalSource& source) const {
  const auto how = owned(MTL::CompileOptions::alloc()->init());
  how->setLanguageVersion(MTL::LanguageVersion3_1);  // macOS 14's: the first with bfloat
  how->setFastMathEnabled(false);                    // kernels ask for fast:: where they want it
  NS::Error* error = nullptr;
  auto library = owned(gpu_->device()->newLibrary(string(source.text), how.get(), &error));
  if (!library) throw DeviceError("[MetalQueue.kernel] " + source.file + " does not compile: " + words(error));
  return library;
}

void MetalQueue::make_pipeline(MetalKernel& kernel) const {
  const MetalSource& source = *texts_.at(kernel.name);
  const auto function = owned(libraries_.at(&source)->newFunction(string(kernel.name)));
  if (!function) {
    throw DeviceError("[MetalQueue.kernel] expected a kernel " + kernel.name + " in " + source.file + ", got none.");
  }
  NS::Error* error = nullptr;
  kernel.pipeline = owned(gpu_->device()->newComputePipelineState(function.get(), &error));
  if (!kernel.pipeline) throw DeviceError("[MetalQueue.kernel] " + kernel.name + " does not compile: " + words(error));
  kernel.max_threads = kernel.pipeline->maxTotalThreadsPerThreadgroup();
}

const Kernel& MetalQueue::kernel(const std::string& name) {
  gpu_->use("kernel");
  if (const auto found = kernels_.find(name); found != kernels_.end()) return *found->second;
  prepare({name});
  return *kernels_.at(name);
}

std::unique_ptr<List> MetalQueue::record(std::vector<Dispatch> dispatches) {
  gpu_->use("record");
  auto list = std::make_unique<MetalList>();
  list->gpu = gpu_;
  list->id = ++lists_;
  for (Dispatch& d : dispatches) {
    const auto* kernel = dynamic_cast<const MetalKernel*>(d.kernel);
    if (kernel == nullptr || kernel->gpu != gpu_) {
      bad_argument("MetalQueue.record", "expected a kernel of this queue in every dispatch.");
    }
    check_dispatch(d, *kernel);
    Launch& launch = list->launches.emplace_back();
    launch.pipeline = kernel->pipeline;
    for (const Argument& a : d.arguments) {
      const auto* memory = static_cast<const MetalMemory*>(a.memory);
      launch.buffers.push_back({memory == nullptr ? nullptr : memory->buffer.get(), a.offset});
      if (memory != nullptr) continue;
      list->stateful = true;
      list->state_bytes = std::max(list->state_bytes, a.offset + a.bytes);
    }
    launch.params = std::move(d.params);
    launch.groups = MTL::Size(d.groups[0], d.groups[1], d.groups[2]);
    launch.threads = MTL::Size(d.threads, 1, 1);
    launch.barrier = d.barrier;
  }
  return list;
}

MetalQueue::Encoded MetalQueue::encode(List& list, const ops::Memory* state, const char* where) {
  const auto* metal_list = dynamic_cast<const MetalList*>(&list);
  if (metal_list == nullptr || metal_list->gpu != gpu_) {
    bad_argument(std::string("MetalQueue.") + where, "expected a list of this queue.");
  }
  const auto* block = dynamic_cast<const MetalMemory*>(state);
  if (metal_list->stateful && (block == nullptr || block->gpu != gpu_ || block->bytes < metal_list->state_bytes)) {
    bad_argument(std::string("MetalQueue.") + where,
                 "expected a conversation's block of at least " + std::to_string(metal_list->state_bytes) +
                     " bytes, got " + (block == nullptr ? "none" : std::to_string(block->bytes)) + ".");
  }
  gpu_->use(where);
  MTL::Buffer* const state_buffer = metal_list->stateful ? block->buffer.get() : nullptr;
  const std::uint64_t generation = gpu_->generation();
  if (next_.commands && next_.list == metal_list->id && next_.state == state_buffer && next_.generation == generation) {
    return std::exchange(next_, {});
  }

  Encoded out{gpu_->commands(), metal_list->id, state_buffer, generation};
  MTL::ComputeCommandEncoder* const encoder = out.commands->computeCommandEncoder(MTL::DispatchTypeConcurrent);
  gpu_->make_reachable(encoder);
  const MTL::ComputePipelineState* bound = nullptr;
  for (const Launch& launch : metal_list->launches) {
    if (launch.barrier) encoder->memoryBarrier(MTL::BarrierScopeBuffers);
    if (launch.pipeline.get() != bound) encoder->setComputePipelineState(launch.pipeline.get());
    bound = launch.pipeline.get();
    NS::UInteger index = 0;
    for (const Launch::Buffer& b : launch.buffers) {
      encoder->setBuffer(b.buffer == nullptr ? state_buffer : b.buffer, b.offset, index++);
    }
    if (!launch.params.empty()) encoder->setBytes(launch.params.data(), launch.params.size(), index);
    encoder->dispatchThreadgroups(launch.groups, launch.threads);
  }
  encoder->endEncoding();
  return out;
}

void MetalQueue::prepare_next(List& list, const ops::Memory* state) {
  const Pool pool;
  next_ = encode(list, state, "prepare_next");
}

void MetalQueue::run(List& list, const ops::Memory* state, bool again) {
  const Pool pool;
  const Encoded encoded = encode(list, state, "run");
  gpu_->start(encoded.commands.get());
  try {
    if (again) next_ = encode(list, state, "run");
  } catch (const DeviceError&) {  // the next run says so: this one's memory must stay until it has ended
  }
  gpu_->finish(encoded.commands.get());
  if (warm_ != nullptr) warm_->again();
}

}  // namespace

std::unique_ptr<Queue> make_metal_queue(MetalOptions options) {
  return std::make_unique<MetalQueue>(std::move(options));
}

bool metal_is_available() {
  const Pool pool;
  const auto device = owned(MTL::CreateSystemDefaultDevice());
  return device && device->supportsFamily(MTL::GPUFamilyApple7);
}

}  // namespace personaplex::gpu
