// csrc/gpu/gpu_ops.h: Ops on a GPU: operations become dispatches, recorded at a program's first run and repeated.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpu/gpu_weights.h"
#include "gpu/queue.h"
#include "gpu/recorder.h"
#include "gpu/tuning.h"
#include "ops/ops.h"

namespace personaplex::gpu {

class GpuCodec;

/// The operations on a GPU: what the fused engine needs of it. WeightsError: see choose_for().
std::unique_ptr<ops::Ops> make_gpu_ops(std::unique_ptr<Queue> queue);

class GpuOps : public ops::Ops {
 public:
  /// Without `choose` the table of the GPU's family chooses.
  explicit GpuOps(std::unique_ptr<Queue> queue, ChooseTile choose = {});
  ~GpuOps() override;

  std::unique_ptr<ops::Memory> allocate(std::size_t bytes, ops::Use use) override {
    return queue_->allocate(bytes, use);
  }
  ops::WeightPtr matrix(const Matrix& m) override;
  ops::WeightPtr table(const Matrix& m) override;
  ops::WeightPtr vector(const TensorView& t) override;
  ops::WeightPtr linear(const TensorView& t) override;
  ops::WeightPtr conv(const Conv& c, int stride, int dilation) override;
  ops::WeightPtr conv_transpose(const Conv& c, int stride) override;
  ops::WeightPtr upsample(const Conv& c, int stride) override;
  ops::WeightPtr codebook(const RvqLevel& level) override;

  void run(const ops::Program& program, const ops::Memory* state, const std::function<void()>& calls) override;

  void together(const std::function<void()>& one, const std::function<void()>& other) override;
  void select(int n, ops::Place given, ops::Place which, ops::Place made, int count, ops::Place out) override;
  void embed_sum(std::span<const ops::Weight* const> tables, ops::Place ids, int columns, ops::Place x) override;
  void project(const ops::Weight& w, ops::Place x, int columns, const ops::Product& how, ops::Place y) override;
  void project_qkv(const ops::Weight& w, ops::Place x, int columns, const ops::Norm& norm, float max_period,
                   const ops::Ring& ring, ops::Place at, ops::Place q) override;
  void attend(ops::Place q, const ops::Ring& ring, ops::Place at, int columns, ops::Place out) override;
  void norm(const ops::Norm& norm, ops::Place x, int columns, ops::Place y) override;
  void sample(ops::Place logits, int n, ops::Place draw, int stream, ops::Place token) override;

  void conv(const ops::Weight& w, ops::Place window, int count, const ops::ConvOutput& out) override;
  void upsample(const ops::Weight& w, ops::Place window, int count, ops::Place y) override;
  void replicate(const ops::Weight& w, ops::Place window, ops::Place is_first) override;
  void quantize(std::span<const ops::Weight* const> levels, ops::Place x, ops::Place codes) override;
  void dequantize(std::span<const ops::Weight* const> levels, const ops::Codes& codes, ops::Place x) override;

  /// Dispatches so far.
  std::uint64_t calls() const override { return calls_; }

 private:
  /// cos and sin of the rotations of a pass, [columns, head_dim / 2, 2] float32: the host writes them before each run.
  struct Angles {
    ops::Place at;  // the columns, an input
    int columns = 0, head_dim = 0;
    float max_period = 0.0F;
    std::unique_ptr<ops::Memory> memory;
    void fill() const;
  };
  /// An attention that waits for the projection of its result, with which it shares a dispatch.
  struct Waiting {
    ops::Place q;
    ops::Ring ring;
    ops::Place at, out;
  };
  struct Recorded {
    std::unique_ptr<List> list;
    std::vector<const Angles*> angles;
    std::size_t dispatches = 0;
  };

  ops::Place angles(ops::Place at, int columns, int head_dim, float max_period);
  /// Memory between two dispatches of one operation; the same for all of a size in a lane.
  ops::Place scratch(std::size_t bytes);
  /// Dispatches all that waits.
  void flush();
  void flush_attention();
  void attend_now(const Waiting& what, int columns);
  void norm_now(const ops::Norm& norm, ops::Place x, int columns, ops::Place y);

  std::unique_ptr<Queue> queue_;
  ChooseTile choose_;
  WeightMemory weights_;
  Recorder recorder_;
  std::map<std::pair<std::string, int>, Recorded> programs_;
  std::vector<std::unique_ptr<Angles>> all_angles_;
  std::vector<const Angles*> used_angles_;  // by the run being recorded
  std::unique_ptr<Waiting> waiting_;
  friend class GpuCodec;  // the rest of it
  std::unique_ptr<GpuCodec> codec_;
  std::map<std::pair<std::size_t, int>, std::unique_ptr<ops::Memory>> scratch_;  // by bytes and lane
  std::uint64_t calls_ = 0;
};

}  // namespace personaplex::gpu
