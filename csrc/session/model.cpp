// csrc/session/model.cpp: loading, unloading.
#include "session/model.h"

#include <mlx/mlx.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>

#include "core/error.h"
#include "graph/arrays.h"
#include "session/choose_engine.h"
#include "session/device.h"

namespace personaplex {

namespace {

namespace mx = mlx::core;

void check_dtype(const std::string& name) {
  if (name == "auto" || name == "float32" || name == "bfloat16") return;
  bad_argument("load", "expected dtype auto, float32 or bfloat16, got '" + name + "'.");
}

void describe(const Weights& weights, ModelInfo& info) {
  const std::map<Component, std::string> names = {{Component::kTemporal, "temporal"},
                                                  {Component::kDepformer, "depformer"},
                                                  {Component::kHeads, "heads"},
                                                  {Component::kEmbeddings, "embeddings"}};
  for_each_matrix(weights, [&](Component component, const Matrix& m) {
    const auto [it, first] = info.bits.try_emplace(names.at(component), m.bits);
    if (!first) it->second = std::min(it->second, m.bits);
    if (m.quantized()) info.group_size = std::max(info.group_size, m.group_size);
    info.weight_bytes += m.nbytes();
  });
  info.kept_16bit = weights.kept_16bit;
}

Weights load_source(const ModelOptions& options) {
  const std::string prefix = "random:";
  if (options.source.compare(0, prefix.size(), prefix) == 0) {
    return random_weights(random_config(options.source.substr(prefix.size())), options.weights_seed, options.load);
  }
  return load_checkpoint(options.source, options.load);
}

void give_memory_back() {
  mx::clear_cache();
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

std::unique_ptr<Worker> make_worker() {
  return std::make_unique<Worker>([] { give_memory_back(); });
}

}  // namespace

Model::Model(const ModelOptions& options) {
  if (options.context != 0 && options.context < 2) {
    bad_argument("load", "expected a context of at least 2 positions, got " + std::to_string(options.context) + ".");
  }
  if (options.context > kMaxContext) {
    bad_argument("load", "expected a context of at most " + std::to_string(kMaxContext) + " positions, got " +
                             std::to_string(options.context) + ".");
  }
  check_device_name(options.device);
  check_dtype(options.dtype);
  check_engine_options(options);
  worker_ = make_worker();
  worker_->run([&] {
    Device device = open_device(options);
    check_device_fits(options, device);
    graph::use_device(device.mlx_gpu ? mx::Device::gpu : mx::Device::cpu);
    info_.device_name = device.name();  // while it has its queue
    Weights weights = load_source(options);
    if (options.context != 0) weights.config.context = options.context;
    describe(weights, info_);
    adopt_engine(choose_engine(weights, options, device, info_));
    if (device.kind == "cpu") info_.device_name = device.name();
    info_.device = device.kind;
    info_.device_note = device.note;
    give_memory_back();  // what loading needed in between
  });
  info_.source = options.source;
  info_.weights_seed = options.weights_seed;
  info_.mlx_version = mx::version();
}

Model::Model(const std::function<std::unique_ptr<Engine>()>& make) : worker_(make_worker()) {
  worker_->run([&] { adopt_engine(make()); });
}

void Model::adopt_engine(std::unique_ptr<Engine> engine) {
  config_ = engine->config();
  depformer_steps_ = engine->depformer_steps();
  engine_ = std::move(engine);
  loaded_ = true;
}

Model::~Model() {
  if (worker_ == nullptr) return;
  if (!worker_->here()) {
    (void)engine_.release();  // a forked child must not touch MLX, not even to free
    return;
  }
  unload();
}

void Model::check(const char* where) const {
  worker_->check(where);
  if (!loaded_) {
    throw DeviceError("[" + std::string(where) + "] the model was unloaded. Load it again with personaplex.load(...).");
  }
}

Engine& Model::engine() {
  if (engine_ == nullptr) throw DeviceError("[Model] the model was unloaded while it was in use.");
  return *engine_;
}

void Model::adopt(const std::shared_ptr<Resident>& resident) {
  const std::lock_guard lock(residents_mutex_);
  std::erase_if(residents_, [](const auto& r) { return r.expired(); });
  residents_.push_back(resident);
}

void Model::unload() {
  worker_->check("Model.unload");
  if (!loaded_.exchange(false)) return;
  worker_->run([this] {
    std::vector<std::weak_ptr<Resident>> residents;
    {
      const std::lock_guard lock(residents_mutex_);
      residents.swap(residents_);
    }
    for (const auto& weak : residents) {
      if (const auto resident = weak.lock()) resident->drop();
    }
    engine_.reset();
    give_memory_back();
  });
}

}  // namespace personaplex
