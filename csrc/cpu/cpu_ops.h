// csrc/cpu/cpu_ops.h: Ops on this machine's processor.
#pragma once

#include <memory>

#include "cpu/attention.h"
#include "cpu/gemm.h"
#include "cpu/matmul.h"
#include "cpu/memory.h"
#include "cpu/pointwise.h"
#include "cpu/pool.h"
#include "ops/ops.h"

namespace personaplex::cpu {

/// Values that an attention head may have at most.
inline constexpr int kMaxHeadDim = 512;

/// Memory that is only ever grown, at load.
class Scratch {
 public:
  void reserve(std::size_t bytes) {
    if (memory_ == nullptr || memory_->bytes < bytes) memory_ = reserve_memory(bytes, ops::Use::kScratch);
  }
  std::byte* bytes() const { return memory_->base; }
  float* floats() const { return reinterpret_cast<float*>(memory_->base); }

 private:
  std::unique_ptr<ops::Memory> memory_;
};

class CpuOps : public ops::Ops {
 public:
  CpuOps(Isa isa, int threads);

  std::unique_ptr<ops::Memory> allocate(std::size_t bytes, ops::Use use) override { return reserve_memory(bytes, use); }
  ops::WeightPtr matrix(const Matrix& m) override;
  ops::WeightPtr table(const Matrix& m) override;
  ops::WeightPtr vector(const TensorView& t) override;
  ops::WeightPtr linear(const TensorView& t) override;
  ops::WeightPtr conv(const Conv& c, int stride, int dilation) override;
  ops::WeightPtr conv_transpose(const Conv& c, int stride) override;
  ops::WeightPtr upsample(const Conv& c, int stride) override;
  ops::WeightPtr codebook(const RvqLevel& level) override;

  void run(const ops::Program& program, const ops::Memory* state, const std::function<void()>& calls) override;

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

  std::uint64_t calls() const override { return calls_; }

 private:
  /// x, normalized where a norm is given: [columns, k].
  const float* normalized(const ops::Norm& norm, const float* x, int columns, std::int64_t k);
  /// out [columns, k] = norm(x); out may be x.
  void normalize(const ops::Norm& norm, const float* x, int columns, std::int64_t k, float* out) const;
  /// Runs body(begin, end) over rows of a matrix, in chunks of a size that suits its bytes.
  template <typename Body>
  void over_rows(const Matrix& m, std::int64_t rows, int columns, Body&& body);
  /// A product of the codec, all its tiles.
  void gemm(const Panels& w, const Windows& in, int rows, const GemmOutput& out);
  void project_matrix(const Matrix& m, const float* x, int columns, const ops::Product& how, float* y);
  void project_panels(const Panels& w, const float* x, int columns, const ops::Product& how, float* y);
  /// Cosines, then sines of the columns' angles, each [columns, head_dim / 2]; none where max_period is 0.
  const float* rotation(const ops::Column* at, int columns, int head_dim, float max_period);
  /// One head's part of q, k or v of every column, `stride` floats from column to column: rotated, then stored or
  /// appended. `part` 0: q, 1: k, 2: v.
  void place_head(int part, int head, float* values, std::int64_t stride, int columns, const float* angles,
                  const ops::Ring& ring, const ops::Column* at, float* q) const;

  const MatmulKernels& matmul_;
  const AttentionKernels& attention_;
  const PointwiseKernels& pointwise_;
  const GemmKernels& gemm_;
  std::shared_ptr<Pool> pool_;
  Scratch normed_, packed_, qkv_, angles_;
  std::vector<float> sampling_;
  std::vector<TensorView> mapped_tables_;
  std::uint32_t sums_ = 0;  // of several tables
  struct {
    std::int64_t first = -1;
    int columns = 0, head_dim = 0;
    float max_period = 0.0F;
  } rotation_of_;  // what angles_ holds
  std::uint64_t calls_ = 0;
};

/// Ops with the chosen instruction set (chosen_isa()) and the process's pool.
std::unique_ptr<ops::Ops> make_cpu_ops(int threads);

}  // namespace personaplex::cpu
