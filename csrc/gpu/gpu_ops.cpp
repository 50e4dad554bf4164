// csrc/gpu/gpu_ops.cpp: programs: recorded once, run many times; and what the host prepares for each run.
#include "gpu/gpu_ops.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "checkpoint/to_floats.h"
#include "core/rotary.h"
#include "gpu/gpu_codec.h"
#include "gpu/kernel_params.h"
#include "gpu/operands.h"

namespace personaplex::gpu {

std::unique_ptr<ops::Ops> make_gpu_ops(std::unique_ptr<Queue> queue) {
  return std::make_unique<GpuOps>(std::move(queue));
}

GpuOps::GpuOps(std::unique_ptr<Queue> queue, ChooseTile choose)
    : queue_(std::move(queue)),
      choose_(choose ? std::move(choose) : choose_for(*queue_)),
      weights_(*queue_),
      codec_(std::make_unique<GpuCodec>(*this)) {}
GpuOps::~GpuOps() = default;

namespace {

constexpr std::int64_t kRowValues = 8;  // kernels read bfloats 16 bytes at a time

/// Rows filled up with zeros.
std::vector<std::byte> padded_rows(const Matrix& m) {
  const std::size_t row = static_cast<std::size_t>(m.k) * 2;
  const std::size_t stride = static_cast<std::size_t>((m.k + kRowValues - 1) / kRowValues * kRowValues) * 2;
  std::vector<std::byte> out(static_cast<std::size_t>(m.n) * stride);
  for (std::size_t n = 0; n < static_cast<std::size_t>(m.n); ++n) {
    std::memcpy(out.data() + n * stride, m.weight.data + n * row, row);
  }
  return out;
}

}  // namespace

ops::WeightPtr GpuOps::matrix(const Matrix& m) {
  if (m.quantized() || m.k % kRowValues == 0) return table(m);
  auto w = std::make_unique<GpuMatrix>();
  w->n = m.n;
  w->k = m.k;
  const std::vector<std::byte> rows = padded_rows(m);
  w->words = weights_.put(rows.data(), rows.size());
  w->word_bytes = rows.size();
  return w;
}

ops::WeightPtr GpuOps::table(const Matrix& m) {
  auto w = std::make_unique<GpuMatrix>();
  w->n = m.n;
  w->k = m.k;
  w->words = weights_.put(m.weight.data, m.weight.nbytes());
  w->word_bytes = m.weight.nbytes();
  if (m.quantized()) {
    w->bits = m.bits;
    w->group_shift = std::countr_zero(static_cast<unsigned>(m.group_size));
    w->half_scales = m.scales.dtype == DType::kF16;
    w->scales = weights_.put(m.scales.data, m.scales.nbytes());
    w->biases = weights_.put(m.biases.data, m.biases.nbytes());
    w->scale_bytes = m.scales.nbytes();
  }
  return w;
}

ops::WeightPtr GpuOps::vector(const TensorView& t) {
  const std::vector<float> values = to_floats(t);
  auto w = std::make_unique<GpuVector>();
  w->count = values.size();
  w->values = weights_.put(values.data(), values.size() * sizeof(float));
  return w;
}

void GpuOps::Angles::fill() const {
  const auto* column = reinterpret_cast<const ops::Column*>(at.memory->host + at.offset);
  auto* out = reinterpret_cast<float*>(memory->host);
  for (int t = 0; t < columns; ++t) {
    for (int i = 0; i < head_dim / 2; ++i) {
      const double angle = rotary_angle(column[t].position, i, head_dim, max_period);
      *out++ = static_cast<float>(std::cos(angle));
      *out++ = static_cast<float>(std::sin(angle));
    }
  }
}

ops::Place GpuOps::angles(ops::Place at, int columns, int head_dim, float max_period) {
  const auto same = [&](const Angles& a) {
    return a.at == at && a.columns == columns && a.head_dim == head_dim && a.max_period == max_period;
  };
  const Angles* found = nullptr;
  for (const auto& a : all_angles_) {
    if (same(*a)) found = a.get();
  }
  if (found == nullptr) {
    all_angles_.push_back(std::make_unique<Angles>(Angles{at, columns, head_dim, max_period, nullptr}));
    const std::size_t floats = static_cast<std::size_t>(columns) * static_cast<std::size_t>(head_dim);
    all_angles_.back()->memory = queue_->allocate(floats * sizeof(float), ops::Use::kInput);
    found = all_angles_.back().get();
  }
  bool used = false;
  for (const Angles* a : used_angles_) used = used || a == found;
  if (!used) used_angles_.push_back(found);
  return {found->memory.get(), 0};
}

ops::Place GpuOps::scratch(std::size_t bytes) {
  auto& memory = scratch_[{bytes, recorder_.lane()}];
  if (memory == nullptr) memory = queue_->allocate(bytes, ops::Use::kScratch);
  return {memory.get(), 0};
}

void GpuOps::together(const std::function<void()>& one, const std::function<void()>& other) {
  flush();
  recorder_.begin_lane(1);
  one();
  flush();
  recorder_.begin_lane(2);
  other();
  flush();
  recorder_.begin_lane(0);
}

void GpuOps::select(int n, ops::Place given, ops::Place which, ops::Place made, int made_count, ops::Place out) {
  flush();
  const auto words = [](int count) { return static_cast<std::size_t>(count) * sizeof(std::int32_t); };
  const auto operands = {reads(given, words(n)), reads_if(which, words(n)), reads_if(made, words(made_count)),
                         writes(out, words(n))};
  codec_->carry_before(operands);
  recorder_.add("select_words", operands, SelectParams{n, which ? 1 : 0}, {count(n, 256)}, 256);
}

void GpuOps::run(const ops::Program& program, const ops::Memory* state, const std::function<void()>& calls) {
  const bool kept = program.name != nullptr;
  const std::pair<std::string, int> key(kept ? program.name : "", program.columns);
  const auto found = kept ? programs_.find(key) : programs_.end();
  Recorded passing;
  Recorded* recorded = &passing;
  if (found != programs_.end()) {
    recorded = &found->second;
  } else {
    used_angles_.clear();
    waiting_.reset();
    codec_->begin();
    recorder_.begin(state);
    calls();
    flush();
    codec_->carry();
    std::vector<Dispatch> dispatches = recorder_.take(*queue_);
    passing.dispatches = dispatches.size();
    passing.angles = used_angles_;
    passing.list = queue_->record(std::move(dispatches));
    if (kept) recorded = &programs_.emplace(key, std::move(passing)).first->second;
  }
  for (const Angles* a : recorded->angles) a->fill();
  queue_->run(*recorded->list, state, /* again = */ kept);
  calls_ += recorded->dispatches;
}

}  // namespace personaplex::gpu
