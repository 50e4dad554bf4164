// csrc/session/model.h: a loaded model: its engine, the thread it lives on, and what must go when it is unloaded.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "checkpoint/weights.h"
#include "core/worker.h"
#include "engine/engine.h"
#include "session/frame_bytes.h"

namespace personaplex {

/// What an NVIDIA GPU needs that is not part of this library.
struct CudaPlaces {
  std::string nvrtc;                    // the library or its folder; empty: where the system looks
  std::string cache;                    // folder for compiled kernels; empty: none is kept
  std::string driver = "libcuda.so.1";  // tests have another
};

struct ModelOptions {
  std::string source;           // a checkpoint directory, or "random:7b", "random:tiny"
  std::string device = "auto";  // auto, cpu, gpu, metal, cuda
  std::string engine = "auto";  // auto (fused where it can), fused, graph
  std::string dtype = "auto";   // of the graph engine: auto (float32 on a CPU, bfloat16 on a GPU), float32, bfloat16
  LoadOptions load;
  int context = 0;                 // temporal positions kept; 0 = the checkpoint's
  int kv_bits = 0;                 // of the fused engine's temporal ring: 16, 8; 0 = 16
  int threads = 0;                 // of the fused engine on a CPU; 0 = all usable cores
  bool compile = false;            // graph engine only
  std::uint64_t weights_seed = 0;  // random models only
  CudaPlaces cuda;
};

/// What was loaded, for people.
struct ModelInfo {
  std::string source, device, device_name, mlx_version;
  std::string engine, dtype, kv_dtype;  // dtype: of the activations
  std::string device_note;              // why "auto" did not take an NVIDIA GPU that is there
  std::string engine_note;              // why "auto" did not take the fused engine
  std::string compile_note;             // why frames are not compiled although that was asked for
  std::string instruction_set;          // of the fused engine on a CPU
  int threads = 0;                      // of the fused engine; 0: MLX's own
  FrameBytes frame_bytes;
  std::map<std::string, int> bits;  // temporal, depformer, heads, embeddings: the fewest bits of any of its matrices
  int group_size = 0;
  std::size_t weight_bytes = 0;    // of the language model's matrices, as held
  std::uint64_t weights_seed = 0;  // random models
  std::vector<std::string> kept_16bit;
  bool compiled = false;
};

/// Something that holds device memory of a model and must drop it when the model is unloaded. drop() runs on the
/// model's thread.
struct Resident {
  virtual ~Resident() = default;
  virtual void drop() = 0;
};

class Model {
 public:
  explicit Model(const ModelOptions& options);
  /// A model around an engine of the caller's, made by `make` on the model's thread.
  explicit Model(const std::function<std::unique_ptr<Engine>()>& make);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const Config& config() const { return config_; }
  const ModelInfo& info() const { return info_; }
  int depformer_steps() const { return depformer_steps_; }
  Worker& worker() { return *worker_; }

  /// Throws DeviceError, naming `where`, after unload() and in a forked child.
  void check(const char* where) const;
  bool loaded() const { return loaded_.load(); }

  /// The engine; only on the worker's thread, after check(). Throws DeviceError when unloaded meanwhile.
  Engine& engine();
  void adopt(const std::shared_ptr<Resident>& resident);

  /// Frees the weights and every resident's memory. Waits for work in progress. Again: nothing.
  void unload();

 private:
  void adopt_engine(std::unique_ptr<Engine> engine);

  std::unique_ptr<Worker> worker_;
  std::unique_ptr<Engine> engine_;  // touched on the worker's thread only
  Config config_;
  ModelInfo info_;
  int depformer_steps_ = 0;
  std::atomic<bool> loaded_{false};
  std::mutex residents_mutex_;
  std::vector<std::weak_ptr<Resident>> residents_;
};

}  // namespace personaplex
