// csrc/gpu/gpu_language_model.cpp: the operations of the language model as dispatches of kernels/lm_*.metal.
#include <algorithm>

#include "core/error.h"
#include "gpu/gpu_codec.h"
#include "gpu/gpu_ops.h"
#include "gpu/kernel_params.h"
#include "gpu/operands.h"

namespace personaplex::gpu {

namespace {

// So few positions are attended to by the projection that follows.
constexpr int kFewVisible = 32;
constexpr int kFewValues = 4096;  // of all heads

Job job_of(ops::Op op, const char* kernel, const GpuMatrix& m, int columns) {
  return {.op = op,
          .kernel = std::string(kernel) + "_" + m.format() + "_",
          .bits = m.bits,
          .n = m.n,
          .k = m.k,
          .columns = columns,
          .group = m.bits == 16 ? 0 : 1 << m.group_shift};
}

Operand weight(const ops::Place& at, std::size_t bytes) { return bytes == 0 ? Operand{} : reads(at, bytes); }

}  // namespace

void GpuOps::embed_sum(std::span<const ops::Weight* const> tables, ops::Place ids, int columns, ops::Place x) {
  flush();
  std::vector<EmbedTable> list;
  for (const ops::Weight* w : tables) {
    const auto& m = as<GpuMatrix>(*w);
    const auto address = [](const ops::Place& p) -> const std::byte* {
      return p ? p.memory->base + p.offset : nullptr;
    };
    list.push_back(
        {address(m.words), address(m.scales), address(m.biases), m.bits, m.group_shift, m.half_scales ? 1 : 0, 0});
  }
  const std::size_t bytes = list.size() * sizeof(EmbedTable);
  const ops::Place device_list = weights_.put_once(list.data(), bytes);
  const std::int64_t dim = as<GpuMatrix>(*tables.front()).k;
  const std::size_t id_count = (tables.size() - 1) * kMaxColumns + static_cast<std::size_t>(columns);
  recorder_.add(
      "embed_sum",
      {reads(device_list, bytes), reads(ids, id_count * sizeof(std::int32_t)), writes(x, floats(columns * dim))},
      EmbedParams{int32(dim), int32(static_cast<std::int64_t>(tables.size()))},
      {count(dim, 256), static_cast<std::uint32_t>(columns)},
      static_cast<std::uint32_t>(32 * std::min<std::size_t>(tables.size(), 24)));
}

void GpuOps::project(const ops::Weight& w, ops::Place x, int columns, const ops::Product& how, ops::Place y) {
  if (const auto* panels = dynamic_cast<const GpuPanels*>(&w)) {
    flush_attention();
    codec_->call(Project{panels, x, columns, how, y});
    return;
  }
  codec_->finish();
  const auto& m = as<GpuMatrix>(w);
  const bool of_waiting = waiting_ != nullptr && waiting_->out == x;
  if (of_waiting && columns == 1 && how.epilogue == ops::Epilogue::kAdd && how.norm.weight == nullptr) {
    const Waiting& a = *waiting_;
    const Job job = job_of(ops::Op::kAttendProject, "attend_project", m, 1);
    const Tile tile = choose_(job);
    recorder_.add(job.kernel + tile.name(),
                  {reads(a.q, floats(m.k)), columns_at(a.at, 1), page_table(a.ring), weight(m.words, m.word_bytes),
                   weight(m.scales, m.scale_bytes), weight(m.biases, m.scale_bytes), writes(y, floats(m.n))},
                  AttendProjectParams{int32(m.n), int32(m.k), m.group_shift, tile.split, a.ring.heads, a.ring.head_dim,
                                      a.ring.slots, static_cast<std::uint32_t>(a.ring.offset)},
                  {tile.groups_x(m.n)}, tile.threads(), {pages(a.ring, false)});
    waiting_.reset();
    return;
  }
  flush();
  const bool swiglu = how.epilogue == ops::Epilogue::kSwiglu;
  if (how.epilogue == ops::Epilogue::kGelu || how.scale != nullptr || how.norm.bias != nullptr) {
    bad_argument("GpuOps.project", "a matrix of the language model has neither GELU nor layer scale nor layer norm.");
  }
  Job job = job_of(ops::Op::kProject, "qmv", m, columns);
  job.even = swiglu ? 2 : 1;
  const Tile tile = choose_(job);
  const std::int64_t out = swiglu ? m.n / 2 : m.n;
  const GpuVector* norm = how.norm.weight == nullptr ? nullptr : &as<GpuVector>(*how.norm.weight);
  recorder_.add(job.kernel + tile.name(),
                {reads(x, floats(columns * m.k)), norm == nullptr ? Operand{} : reads(norm->values, floats(m.k)),
                 weight(m.words, m.word_bytes), weight(m.scales, m.scale_bytes), weight(m.biases, m.scale_bytes),
                 writes(y, floats(columns * out))},
                ProductParams{int32(m.n), int32(m.k), columns, m.group_shift, tile.split, tile.passes,
                              static_cast<std::int32_t>(how.epilogue), norm == nullptr ? 0 : 1},
                {tile.groups_x(m.n), tile.groups_y(columns)}, tile.threads());
}

void GpuOps::project_qkv(const ops::Weight& w, ops::Place x, int columns, const ops::Norm& norm, float max_period,
                         const ops::Ring& ring, ops::Place at, ops::Place q) {
  if (const auto* panels = dynamic_cast<const GpuPanels*>(&w)) {
    flush_attention();
    codec_->call(ProjectQkv{panels, x, columns, norm, max_period, ring, at, q});
    return;
  }
  flush();
  const auto& m = as<GpuMatrix>(w);
  const auto& factor = as<GpuVector>(*norm.weight);
  Job job = job_of(ops::Op::kProjectQkv, "qkv", m, columns);
  job.even = 2;
  job.whole = ring.bits == 8 ? ring.head_dim : 1;
  const Tile tile = choose_(job);
  const bool rotary = max_period != 0.0F;
  const std::int64_t angle_count = std::int64_t{columns} * ring.head_dim;
  recorder_.add(job.kernel + tile.name(),
                {reads(x, floats(columns * m.k)), reads(factor.values, floats(m.k)), weight(m.words, m.word_bytes),
                 weight(m.scales, m.scale_bytes), weight(m.biases, m.scale_bytes),
                 rotary ? reads(angles(at, columns, ring.head_dim, max_period), floats(angle_count)) : Operand{},
                 columns_at(at, columns), page_table(ring),
                 writes(q, floats(std::int64_t{columns} * ring.heads * ring.head_dim))},
                QkvParams{int32(m.n), int32(m.k), columns, m.group_shift, tile.split, tile.passes, 1, ring.heads,
                          ring.head_dim, rotary ? 1 : 0, ring.bits, static_cast<std::uint32_t>(ring.offset)},
                {tile.groups_x(m.n), tile.groups_y(columns)}, tile.threads(), {pages(ring, true)});
}

void GpuOps::attend(ops::Place q, const ops::Ring& ring, ops::Place at, int columns, ops::Place out) {
  if (ring.bits == 32) {  // the codec's
    flush_attention();
    codec_->call(Attend{q, ring, at, columns, out});
    return;
  }
  flush();
  const Waiting what{q, ring, at, out};
  if (columns == 1 && ring.visible > 0 && ring.visible <= kFewVisible && ring.bits == 16 && ring.head_dim % 8 == 0 &&
      ring.heads * ring.head_dim <= kFewValues) {
    waiting_ = std::make_unique<Waiting>(what);
  } else {
    attend_now(what, columns);
  }
}

void GpuOps::flush() {
  codec_->finish();
  flush_attention();
}

void GpuOps::flush_attention() {
  if (waiting_ == nullptr) return;
  const auto what = std::move(waiting_);
  attend_now(*what, 1);
}

void GpuOps::attend_now(const Waiting& what, int columns) {
  const ops::Ring& ring = what.ring;
  const std::int64_t heads = std::int64_t{columns} * ring.heads;
  const std::string cells = ring.bits == 32 ? "f32" : ring.bits == 16 ? "bf16" : "int8";
  const std::string dim = ring.head_dim == 128 || ring.head_dim == 64 ? std::to_string(ring.head_dim) : "0";
  const Job job{.op = ops::Op::kAttend,
                .kernel = "attend_" + cells + "_d" + dim,
                .bits = ring.bits,
                .n = ring.heads,
                .k = ring.slots,
                .columns = columns};
  const Tile tile = choose_(job);
  std::string name = job.kernel;
  int splits = tile.split;
  auto groups = static_cast<std::uint32_t>(splits);
  std::uint32_t threads = tile.threads();
  if (splits > 1 && queue_->has(name + "_cluster")) {  // which puts the parts together itself
    name += "_cluster";
    threads = 256;
    groups = 8;
    splits = 1;
  }
  const AttendParams params{ring.heads, ring.head_dim, ring.slots, splits, static_cast<std::uint32_t>(ring.offset)};
  const std::size_t out_bytes = floats(heads * ring.head_dim);
  const std::size_t partial_bytes = splits == 1 ? 0 : floats(heads * splits * (ring.head_dim + 2));
  const ops::Place partial = splits == 1 ? ops::Place{} : scratch(partial_bytes);
  recorder_.add(
      name,
      {reads(what.q, out_bytes), columns_at(what.at, columns), page_table(ring),
       splits == 1 ? Operand{} : writes(partial, partial_bytes), splits == 1 ? writes(what.out, out_bytes) : Operand{}},
      params, {groups, static_cast<std::uint32_t>(ring.heads), static_cast<std::uint32_t>(columns)}, threads,
      {pages(ring, false)});
  if (splits > 1) {
    recorder_.add("attend_combine", {reads(partial, partial_bytes), writes(what.out, out_bytes)}, params,
                  {static_cast<std::uint32_t>(ring.heads), static_cast<std::uint32_t>(columns)}, 128);
  }
}

void GpuOps::norm(const ops::Norm& norm, ops::Place x, int columns, ops::Place y) {
  flush();
  norm_now(norm, x, columns, y);
}

void GpuOps::norm_now(const ops::Norm& norm, ops::Place x, int columns, ops::Place y) {
  const auto& weight = as<GpuVector>(*norm.weight);
  const auto dim = static_cast<std::int64_t>(weight.count);
  const bool layer = norm.bias != nullptr;
  recorder_.add(
      layer ? "norm_layer" : "norm_rms",
      {reads(x, floats(columns * dim)), reads(weight.values, floats(dim)),
       layer ? reads(as<GpuVector>(*norm.bias).values, floats(dim)) : Operand{}, writes(y, floats(columns * dim))},
      NormParams{int32(dim)}, {static_cast<std::uint32_t>(columns)}, 1024);
}

void GpuOps::sample(ops::Place logits, int n, ops::Place draw, int stream, ops::Place token) {
  flush();
  recorder_.add("sample",
                {reads(logits, floats(n)), reads(draw, sizeof(ops::Draw)), writes(token, sizeof(std::int32_t))},
                SampleParams{n, stream}, {1}, 1024);
}

}  // namespace personaplex::gpu
