// csrc/gpu/gpu_language_model.cpp: the operations of the language model as dispatches of kernels/lm_*.metal.
#include <algorithm>
#include <optional>

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

/// How a product is shared out: see kernels/lm_product.metal.
struct Tile {
  const char* name = "";
  int rows = 1;  // of a simdgroup
  int simdgroups = 8;
  int split = 1;    // simdgroups that share a row
  int passes = 1;   // times that a threadgroup goes through x
  int columns = 8;  // of a threadgroup

  std::int64_t slots() const { return std::int64_t{simdgroups} / split * rows; }
  std::uint32_t groups(std::int64_t n) const { return count(n, slots() * passes); }
  std::uint32_t threads() const { return static_cast<std::uint32_t>(32 * simdgroups); }
};

/// The fastest of those that were timed on an H200 with matrices of this kind; any is right.
Tile tile_for(const GpuMatrix& m, int columns) {
  if (columns > 1) return {"c8", 4, 8, 1, 1};
  const bool long_rows = m.k >= 2048;
  if (m.n >= 8192) {
    if (m.bits == 16) return {"r4_c1", 4, 8, 4, 1};
    if (m.n < 20000) return {"r2_c1", 2, 8, 1, 2};
    return m.bits == 4 ? Tile{"r4_c1", 4, 4, 1, 3} : Tile{"r2_c1", 2, 8, 1, 3};
  }
  if (m.n >= 2048) {
    if (!long_rows) return {"r2_c1", 2, 8, 1, 1};
    return m.bits == 16 ? Tile{"r4_c1", 4, 16, 4, 1} : Tile{"r4_c1", 4, 8, 2, 1};
  }
  return {"r2_c1", 2, 8, long_rows ? 4 : 1, 1};
}

/// The tile on tensor cores (kernels/cuda) for a product of this kind, where the GPU has it and the matrix is one for
/// it. `whole`: slots that a threadgroup must have a multiple of.
std::optional<Tile> mma_tile(const Queue& queue, const std::string& kernel, const GpuMatrix& m, int columns,
                             int whole = 1) {
  constexpr int kRows = 16, kMostWarps = 16;
  const int step = 8 * 128 / m.bits;  // values of K that a warp takes at once
  Tile tile{columns == 1 ? "mma_c1" : columns <= 8 ? "mma_c8" : "mma_c32", kRows};
  if (m.k % (step / 2) != 0 || (m.bits != 16 && m.group_shift != 6) ||
      !queue.has(kernel + "_" + m.format() + "_" + tile.name)) {
    return {};
  }
  const int cores = std::max(1, queue.cores());
  const auto steps = static_cast<int>((m.k + step - 1) / step), rows = static_cast<int>((m.n + kRows - 1) / kRows);
  if (columns == 1) {
    constexpr int kPartials = 512;  // whose passes are one round
    if (rows <= cores) {
      tile.split = std::min(steps, m.k < 2048 ? 8 : kMostWarps);
    } else {
      tile.split = std::min(steps, rows <= 2 * cores || (m.k >= 2048 && rows <= 8 * cores && whole == 1) ? 8 : 4);
    }
    tile.simdgroups = tile.split * std::max(1, 8 / tile.split);
    tile.passes = static_cast<int>(count(rows * kRows, 2 * cores * tile.slots()));
    while (tile.passes * tile.slots() % whole != 0) ++tile.passes;
    if (whole > 1 && tile.passes * kRows * tile.simdgroups > kPartials) return {};
    return tile;
  }
  int tiles = std::min(static_cast<int>(count(rows, cores)), kMostWarps);
  while (tiles * kRows % whole != 0) ++tiles;
  tile.columns = columns <= 8 ? 8 : 32;
  if (tiles > kMostWarps) return {};
  const int chunk_steps = 16384 / tile.columns / step;
  tile.split = std::clamp(std::min(kMostWarps / tiles, chunk_steps), 1, 8);
  tile.simdgroups = tiles * tile.split;
  return tile;
}

/// A threadgroup of a product that appends to an int8 ring has whole heads, in up to 1024 slots (128 with c8).
Tile whole_heads(int columns, int head_dim) {
  Tile tile = columns > 1 ? Tile{"c8", 4, 8, 1, 1} : Tile{"r4_c1", 4, 16, 1, 1};
  while (tile.slots() * tile.passes % head_dim != 0) ++tile.passes;
  return tile;
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
    Tile tile{"r2_c1", 2, 8, 1, 1};
    if (const auto mma = mma_tile(*queue_, "attend_project", m, 1)) {
      tile = *mma;
      tile.passes = 1;
    }
    recorder_.add(std::string("attend_project_") + m.format() + "_" + tile.name,
                  {reads(a.q, floats(m.k)), columns_at(a.at, 1), page_table(a.ring), weight(m.words, m.word_bytes),
                   weight(m.scales, m.scale_bytes), weight(m.biases, m.scale_bytes), writes(y, floats(m.n))},
                  AttendProjectParams{int32(m.n), int32(m.k), m.group_shift, tile.split, a.ring.heads, a.ring.head_dim,
                                      a.ring.slots, static_cast<std::uint32_t>(a.ring.offset)},
                  {tile.groups(m.n)}, tile.threads(), {pages(a.ring, false)});
    waiting_.reset();
    return;
  }
  flush();
  const bool swiglu = how.epilogue == ops::Epilogue::kSwiglu;
  if (how.epilogue == ops::Epilogue::kGelu || how.scale != nullptr || how.norm.bias != nullptr) {
    bad_argument("GpuOps.project", "a matrix of the language model has neither GELU nor layer scale nor layer norm.");
  }
  const Tile tile = mma_tile(*queue_, "qmv", m, columns).value_or(tile_for(m, columns));
  const std::int64_t out = swiglu ? m.n / 2 : m.n;
  const GpuVector* norm = how.norm.weight == nullptr ? nullptr : &as<GpuVector>(*how.norm.weight);
  recorder_.add(std::string("qmv_") + m.format() + "_" + tile.name,
                {reads(x, floats(columns * m.k)), norm == nullptr ? Operand{} : reads(norm->values, floats(m.k)),
                 weight(m.words, m.word_bytes), weight(m.scales, m.scale_bytes), weight(m.biases, m.scale_bytes),
                 writes(y, floats(columns * out))},
                ProductParams{int32(m.n), int32(m.k), columns, m.group_shift, tile.split, tile.passes,
                              static_cast<std::int32_t>(how.epilogue), norm == nullptr ? 0 : 1},
                {tile.groups(m.n), count(columns, tile.columns)}, tile.threads());
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
  const Tile tile = mma_tile(*queue_, "qkv", m, columns, ring.bits == 8 ? ring.head_dim : 1)
                        .value_or(ring.bits == 8 ? whole_heads(columns, ring.head_dim) : tile_for(m, columns));
  const bool rotary = max_period != 0.0F;
  const std::int64_t angle_count = std::int64_t{columns} * ring.head_dim;
  recorder_.add(std::string("qkv_") + m.format() + "_" + tile.name,
                {reads(x, floats(columns * m.k)), reads(factor.values, floats(m.k)), weight(m.words, m.word_bytes),
                 weight(m.scales, m.scale_bytes), weight(m.biases, m.scale_bytes),
                 rotary ? reads(angles(at, columns, ring.head_dim, max_period), floats(angle_count)) : Operand{},
                 columns_at(at, columns), page_table(ring),
                 writes(q, floats(std::int64_t{columns} * ring.heads * ring.head_dim))},
                QkvParams{int32(m.n), int32(m.k), columns, m.group_shift, tile.split, tile.passes, 1, ring.heads,
                          ring.head_dim, rotary ? 1 : 0, ring.bits, static_cast<std::uint32_t>(ring.offset)},
                {tile.groups(m.n), count(columns, tile.columns)}, tile.threads(), {pages(ring, true)});
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
  // At least 8 parts of a full context for each head; prefill has columns enough.
  int splits = columns > 1 ? 1 : std::clamp(ring.slots / 256, 1, 16);
  std::string name = "attend_" + cells + "_d" + dim;
  std::uint32_t threads = 128;
  std::uint32_t groups = static_cast<std::uint32_t>(splits);
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
                SampleParams{n, stream}, {1}, n > 8192 ? 1024 : 512);
}

}  // namespace personaplex::gpu
