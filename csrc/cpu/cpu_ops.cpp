// csrc/cpu/cpu_ops.cpp: what of an operation is done by whom: chunks for the pool, kernels for a chunk.
#include "cpu/cpu_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "checkpoint/to_floats.h"
#include "core/error.h"
#include "core/rotary.h"
#include "cpu/cpu_weights.h"
#include "cpu/sampling.h"

namespace personaplex::cpu {

namespace {

// Rows of a matrix that one chunk computes at most: what fits on the stack for every column.
constexpr std::int64_t kChunkRows = 256;
// Work below this (multiplications) is done by the caller alone: handing it out takes longer.
constexpr std::int64_t kAlone = 1 << 16;

/// Which of `chunks` pieces of an operation chunk i is. Threads take chunks in turn; so each goes through a stretch of
/// its own, and what it fetches ahead is what it needs next.
int piece(int i, int chunks, int threads) {
  const int lane = i % threads;
  return lane * (chunks / threads) + std::min(lane, chunks % threads) + i / threads;
}

/// y[t * stride + n] with n from `begin` on lands at `part`.
float* relative(float* part, std::int64_t begin) {
  return reinterpret_cast<float*>(reinterpret_cast<std::uintptr_t>(part) -
                                  static_cast<std::uintptr_t>(begin) * sizeof(float));
}

const float* values_of(const ops::Weight* w) { return w == nullptr ? nullptr : as<VectorWeight>(*w).values.data(); }

HeadSlots head_slots(const ops::Ring& ring, bool values, int head) {
  const auto heads = static_cast<std::size_t>(ring.heads);
  const std::size_t stretch =
      ops::kRingPage * static_cast<std::size_t>(ring.head_dim) * static_cast<std::size_t>(ring.bits) / 8;
  const std::size_t index = static_cast<std::size_t>(head) + (values ? heads : 0);
  HeadSlots side;
  side.format = ring.bits == 32 ? KvFormat::kFloat32 : ring.bits == 16 ? KvFormat::kBfloat16 : KvFormat::kInt8;
  side.head_dim = ring.head_dim;
  side.pages = ring.pages.as<std::byte*>();
  side.offset = ring.offset + index * stretch;
  side.scales = ring.offset + 2 * heads * stretch + index * ops::kRingPage * sizeof(float);
  return side;
}

}  // namespace

CpuOps::CpuOps(Isa isa, int threads)
    : matmul_(matmul_kernels(isa)),
      attention_(attention_kernels(isa)),
      pointwise_(pointwise_kernels(isa)),
      gemm_(gemm_kernels(isa)),
      pool_(process_pool(threads)) {}

void CpuOps::run(const ops::Program&, const ops::Memory*, const std::function<void()>& calls) {
  const Pool::Step step(*pool_);
  calls();
}

// At load.

ops::WeightPtr CpuOps::matrix(const Matrix& m) {
  auto w = std::make_unique<MatrixWeight>();
  w->matrix = m;
  normed_.reserve(static_cast<std::size_t>(m.k) * kMaxColumns * sizeof(float));
  packed_.reserve(matmul_.packed_bytes(m, kMaxColumns));
  for (const TensorView* t : {&m.weight, &m.scales, &m.biases}) fetch_pages(t->data, t->nbytes());
  return w;
}

ops::WeightPtr CpuOps::table(const Matrix& m) {
  if (m.weight.mapped) mapped_tables_.push_back(m.weight);
  auto w = std::make_unique<MatrixWeight>();
  w->matrix = m;
  return w;
}

ops::WeightPtr CpuOps::vector(const TensorView& t) {
  auto w = std::make_unique<VectorWeight>();
  w->values = to_floats(t);
  return w;
}

ops::WeightPtr CpuOps::linear(const TensorView& t) {
  auto w = std::make_unique<PanelsWeight>();
  w->panels = pack_linear(t);
  w->in = w->panels.channels;
  normed_.reserve(static_cast<std::size_t>(w->in) * kMaxColumns * sizeof(float));
  qkv_.reserve(static_cast<std::size_t>(w->panels.n) * kMaxColumns * sizeof(float));
  return w;
}

ops::WeightPtr CpuOps::conv(const Conv& c, int stride, int dilation) {
  auto w = std::make_unique<PanelsWeight>();
  w->panels = pack_conv(c);
  w->in = w->panels.channels;
  w->stride = stride;
  w->dilation = dilation;
  w->carried = (w->panels.taps - 1) * dilation + 1 - stride;
  return w;
}

ops::WeightPtr CpuOps::conv_transpose(const Conv& c, int stride) {
  auto w = std::make_unique<PanelsWeight>();
  w->panels = pack_conv_transpose(c, stride);
  w->in = w->panels.channels;
  w->carried = 1;
  return w;
}

ops::WeightPtr CpuOps::upsample(const Conv& c, int stride) {
  auto w = std::make_unique<UpsampleWeight>();
  w->channels = static_cast<int>(c.weight.dim(0));
  w->stride = stride;
  const auto kernel = static_cast<std::size_t>(c.weight.dim(2));
  const auto channels = static_cast<std::size_t>(w->channels);
  const auto read = [&](const TensorView& t) { return as<VectorWeight>(*vector(t)).values; };
  const std::vector<float> torch = read(c.weight);  // [C, 1, kernel]
  w->taps.resize(torch.size());
  for (std::size_t i = 0; i < channels; ++i) {
    for (std::size_t j = 0; j < kernel; ++j) w->taps[j * channels + i] = torch[i * kernel + j];
  }
  if (!c.bias.empty()) w->bias = read(c.bias);
  return w;
}

ops::WeightPtr CpuOps::codebook(const RvqLevel& level) {
  auto w = std::make_unique<CodebookWeight>();
  const ops::WeightPtr sums = vector(level.embedding_sum);
  const ops::WeightPtr usage = vector(level.cluster_usage);
  OwnedTensor codewords = allocate_tensor(DType::kF32, level.embedding_sum.shape);
  auto* out = reinterpret_cast<float*>(codewords.mutable_data);
  const auto d = static_cast<std::size_t>(level.embedding_sum.dim(1));
  for (std::size_t i = 0; i < as<VectorWeight>(*usage).values.size(); ++i) {
    const float count = std::max(as<VectorWeight>(*usage).values[i], 1e-5F);
    for (std::size_t j = 0; j < d; ++j) out[i * d + j] = as<VectorWeight>(*sums).values[i * d + j] / count;
  }
  w->codewords = pack_codewords(codewords.view);
  return w;
}

void CpuOps::select(int n, ops::Place given, ops::Place which, ops::Place made, int, ops::Place out) {
  ++calls_;
  std::copy_n(given.as<std::uint32_t>(), n, out.as<std::uint32_t>());
  for (int i = 0; which && i < n; ++i) {
    const std::int32_t index = which.as<std::int32_t>()[i];
    if (index >= 0) out.as<std::uint32_t>()[i] = made.as<std::uint32_t>()[index];
  }
}

// Language model.

void CpuOps::embed_sum(std::span<const ops::Weight* const> tables, ops::Place ids, int columns, ops::Place x) {
  ++calls_;
  // A frame reads a few rows of large tables; with what the system maps around them, an hour would hold all of every
  // table.
  constexpr int kRelease = 32;
  if (tables.size() > 1 && ++sums_ % kRelease == 0) {
    for (const TensorView& table : mapped_tables_) release_pages(table.data, table.nbytes());
  }
  const auto dim = as<MatrixWeight>(*tables.front()).matrix.k;
  for (int t = 0; t < columns; ++t) {
    float* column = x.as<float>() + t * dim;
    std::fill_n(column, dim, 0.0F);
    for (std::size_t r = 0; r < tables.size(); ++r) {
      const std::int32_t id = ids.as<std::int32_t>()[r * kMaxColumns + static_cast<std::size_t>(t)];
      if (id >= 0) pointwise_.add_row(as<MatrixWeight>(*tables[r]).matrix, id, column);
    }
  }
}

const float* CpuOps::normalized(const ops::Norm& norm, const float* x, int columns, std::int64_t k) {
  if (norm.weight == nullptr) return x;
  normalize(norm, x, columns, k, normed_.floats());
  return normed_.floats();
}

void CpuOps::normalize(const ops::Norm& norm, const float* x, int columns, std::int64_t k, float* out) const {
  for (int t = 0; t < columns; ++t) {
    if (norm.bias == nullptr) {
      pointwise_.rms_norm(x + t * k, values_of(norm.weight), k, out + t * k);
    } else {
      pointwise_.layer_norm(x + t * k, values_of(norm.weight), values_of(norm.bias), k, out + t * k);
    }
  }
}

template <typename Body>
void CpuOps::over_rows(const Matrix& m, std::int64_t rows, int columns, Body&& body) {
  // Several chunks a thread, so that one that is held up does not hold up the rest; large enough to be worth handing
  // out, small enough that the last ones end together. The first rows of a chunk wait for memory, which products with
  // many columns otherwise do not: theirs are larger.
  constexpr std::int64_t kSmallest = 64 << 10;
  const std::int64_t largest = columns <= 8 ? 256 << 10 : 512 << 10;
  const int threads = pool_->threads();
  const std::int64_t row_bytes = std::max<std::int64_t>(1, static_cast<std::int64_t>(m.nbytes()) / rows);
  const std::int64_t bytes = std::clamp(row_bytes * rows / (16 * threads), kSmallest, largest);
  const std::int64_t chunk = std::clamp((bytes / row_bytes + 7) / 8 * 8, std::int64_t{8}, kChunkRows);
  const auto chunks = static_cast<int>((rows + chunk - 1) / chunk);
  pool_->run(chunks, [&](int i) {
    const std::int64_t begin = piece(i, chunks, threads) * chunk;
    body(begin, std::min(rows, begin + chunk));
  });
}

void CpuOps::project(const ops::Weight& w, ops::Place x, int columns, const ops::Product& how, ops::Place y) {
  ++calls_;
  if (const auto* matrix = dynamic_cast<const MatrixWeight*>(&w)) {
    project_matrix(matrix->matrix, x.as<float>(), columns, how, y.as<float>());
  } else {
    project_panels(as<PanelsWeight>(w).panels, x.as<float>(), columns, how, y.as<float>());
  }
}

void CpuOps::project_matrix(const Matrix& m, const float* x, int columns, const ops::Product& how, float* y) {
  std::byte* packed = packed_.bytes();
  matmul_.pack(m, normalized(how.norm, x, columns, m.k), columns, packed);
  switch (how.epilogue) {
    case ops::Epilogue::kStore:
      over_rows(m, m.n, columns,
                [&](std::int64_t begin, std::int64_t end) { matmul_.rows(m, packed, columns, begin, end, y, m.n); });
      break;
    case ops::Epilogue::kAdd:
      over_rows(m, m.n, columns, [&](std::int64_t begin, std::int64_t end) {
        float part[kMaxColumns * kChunkRows];
        const std::int64_t count = end - begin;
        const float* scale = values_of(how.scale);
        matmul_.rows(m, packed, columns, begin, end, relative(part, begin), count);
        for (int t = 0; t < columns; ++t) {
          pointwise_.add(y + t * m.n + begin, part + t * count, scale == nullptr ? nullptr : scale + begin, count);
        }
      });
      break;
    case ops::Epilogue::kSwiglu: {
      const std::int64_t half = m.n / 2;
      over_rows(m, half, columns, [&](std::int64_t begin, std::int64_t end) {
        float gate[kMaxColumns * kChunkRows];
        float value[kMaxColumns * kChunkRows];
        const std::int64_t count = end - begin;
        matmul_.rows(m, packed, columns, begin, end, relative(gate, begin), count);
        matmul_.rows(m, packed, columns, half + begin, half + end, relative(value, half + begin), count);
        for (int t = 0; t < columns; ++t) {
          pointwise_.swiglu(gate + t * count, value + t * count, count, y + t * half + begin);
        }
      });
      break;
    }
    case ops::Epilogue::kGelu:
      over_rows(m, m.n, columns, [&](std::int64_t begin, std::int64_t end) {
        matmul_.rows(m, packed, columns, begin, end, y, m.n);
        for (int t = 0; t < columns; ++t) {
          pointwise_.gelu(y + t * m.n + begin, end - begin, y + t * m.n + begin);
        }
      });
      break;
  }
}

void CpuOps::gemm(const Panels& w, const Windows& in, int rows, const GemmOutput& out) {
  const int tiles = gemm_.tiles(w, rows);
  const std::int64_t work = static_cast<std::int64_t>(rows) * w.n * w.taps * w.channels;
  const int chunks = work < kAlone ? 1 : std::min(tiles, 16 * pool_->threads());
  pool_->run(chunks, [&](int i) {
    const auto at = [&](int chunk) { return static_cast<int>(static_cast<std::int64_t>(tiles) * chunk / chunks); };
    gemm_.run(w, in, rows, out, at(i), at(i + 1));
  });
}

void CpuOps::project_panels(const Panels& w, const float* x, int columns, const ops::Product& how, float* y) {
  const Windows in = {.x = normalized(how.norm, x, columns, w.channels), .row_stride = w.channels, .tap_stride = 0};
  GemmOutput out;
  out.stride = w.n;
  switch (how.epilogue) {
    case ops::Epilogue::kStore:
      out.raw = y;
      break;
    case ops::Epilogue::kAdd:
      out.raw = y;
      out.residual = y;
      out.scale = values_of(how.scale);
      break;
    case ops::Epilogue::kGelu:
      out.gelu = y;
      break;
    case ops::Epilogue::kSwiglu:
      bad_argument("CpuOps.project", "the codec has no SwiGLU.");
  }
  gemm(w, in, columns, out);
}

const float* CpuOps::rotation(const ops::Column* at, int columns, int head_dim, float max_period) {
  if (max_period == 0.0F) return nullptr;
  const auto half = static_cast<std::size_t>(head_dim / 2);
  const auto count = static_cast<std::size_t>(columns);
  angles_.reserve(2 * count * half * sizeof(float));
  float* cosines = angles_.floats();
  float* sines = cosines + count * half;
  // Columns of a pass follow each other.
  const bool known = rotation_of_.first == at->position && rotation_of_.columns == columns &&
                     rotation_of_.head_dim == head_dim && rotation_of_.max_period == max_period;
  if (known) return cosines;
  for (std::size_t t = 0; t < count; ++t) {
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = rotary_angle(at[t].position, static_cast<int>(i), head_dim, max_period);
      cosines[t * half + i] = static_cast<float>(std::cos(angle));
      sines[t * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  rotation_of_ = {at->position, columns, head_dim, max_period};
  return cosines;
}

void CpuOps::place_head(int part, int head, float* values, std::int64_t stride, int columns, const float* angles,
                        const ops::Ring& ring, const ops::Column* at, float* q) const {
  const int half = ring.head_dim / 2;
  const HeadSlots side = head_slots(ring, part == 2, head);
  for (int t = 0; t < columns; ++t, values += stride) {
    if (part < 2 && angles != nullptr) {
      pointwise_.rope(values, angles + t * half, angles + (columns + t) * half, half);
    }
    if (part == 0) {
      std::copy_n(values, ring.head_dim, q + (t * ring.heads + head) * ring.head_dim);
    } else {
      attention_.append(side, at[t].kv_slot, values);
    }
  }
}

void CpuOps::project_qkv(const ops::Weight& w, ops::Place x, int columns, const ops::Norm& norm, float max_period,
                         const ops::Ring& ring, ops::Place at, ops::Place q) {
  ++calls_;
  const auto* column = at.as<ops::Column>();
  const float* angles = rotation(column, columns, ring.head_dim, max_period);
  const int heads = ring.heads;
  const std::int64_t width = ring.head_dim;
  if (const auto* matrix = dynamic_cast<const MatrixWeight*>(&w)) {
    const Matrix& m = matrix->matrix;
    std::byte* packed = packed_.bytes();
    matmul_.pack(m, normalized(norm, x.as<float>(), columns, m.k), columns, packed);
    pool_->run(3 * heads, [&](int chunk) {
      const int i = piece(chunk, 3 * heads, pool_->threads());
      float part[kMaxColumns * kMaxHeadDim];
      matmul_.rows(m, packed, columns, i * width, (i + 1) * width, relative(part, i * width), width);
      place_head(i / heads, i % heads, part, width, columns, angles, ring, column, q.as<float>());
    });
    return;
  }
  const Panels& panels = as<PanelsWeight>(w).panels;
  GemmOutput out;
  out.raw = qkv_.floats();
  out.stride = panels.n;
  gemm(panels,
       {.x = normalized(norm, x.as<float>(), columns, panels.channels), .row_stride = panels.channels, .tap_stride = 0},
       columns, out);
  for (int i = 0; i < 3 * heads; ++i) {
    place_head(i / heads, i % heads, out.raw + i * width, panels.n, columns, angles, ring, column, q.as<float>());
  }
}

void CpuOps::attend(ops::Place q, const ops::Ring& ring, ops::Place at, int columns, ops::Place out) {
  ++calls_;
  const auto* column = at.as<ops::Column>();
  std::int64_t work = 0;
  for (int t = 0; t < columns; ++t) work += column[t].position - column[t].first_visible + 1;
  const auto one = [&](int head) {
    const HeadSlots keys = head_slots(ring, false, head);
    const HeadSlots values = head_slots(ring, true, head);
    for (int t = 0; t < columns; ++t) {
      const std::int64_t offset = static_cast<std::int64_t>(t * ring.heads + head) * ring.head_dim;
      const auto count = static_cast<int>(column[t].position - column[t].first_visible + 1);
      attention_.attend(keys, values, ring.slots, column[t].kv_slot, count, q.as<float>() + offset,
                        out.as<float>() + offset);
    }
  };
  if (work * ring.heads * ring.head_dim < kAlone) {
    for (int head = 0; head < ring.heads; ++head) one(head);
  } else {
    pool_->run(ring.heads, one);
  }
}

void CpuOps::norm(const ops::Norm& norm, ops::Place x, int columns, ops::Place y) {
  ++calls_;
  const auto dim = static_cast<std::int64_t>(as<VectorWeight>(*norm.weight).values.size());
  normalize(norm, x.as<float>(), columns, dim, y.as<float>());
}

void CpuOps::sample(ops::Place logits, int n, ops::Place draw, int stream, ops::Place token) {
  ++calls_;
  *token.as<std::int32_t>() = cpu::sample(logits.as<float>(), n, *draw.as<ops::Draw>(), stream, sampling_);
}

// Codec.

void CpuOps::conv(const ops::Weight& weight, ops::Place window, int count, const ops::ConvOutput& out) {
  ++calls_;
  const auto& w = as<PanelsWeight>(weight);
  auto* x = window.as<float>();
  GemmOutput result;
  result.residual = out.residual ? out.residual.as<float>() : nullptr;
  result.raw = out.raw ? out.raw.as<float>() : nullptr;
  result.elu = out.elu ? out.elu.as<float>() : nullptr;
  result.stride = w.panels.n;
  gemm(w.panels, {.x = x, .row_stride = std::int64_t{w.stride} * w.in, .tap_stride = std::int64_t{w.dilation} * w.in},
       count, result);
  const std::int64_t fresh = static_cast<std::int64_t>(count) * w.stride * w.in;
  std::memmove(x, x + fresh, static_cast<std::size_t>(w.carried) * static_cast<std::size_t>(w.in) * sizeof(float));
}

void CpuOps::upsample(const ops::Weight& weight, ops::Place window, int count, ops::Place y) {
  ++calls_;
  const auto& w = as<UpsampleWeight>(weight);
  auto* x = window.as<float>();
  auto* out = y.as<float>();
  for (int l = 0; l < count; ++l) {
    const float* before = x + l * w.channels;
    const float* own = before + w.channels;
    for (int s = 0; s < w.stride; ++s, out += w.channels) {
      const float* first = w.taps.data() + s * w.channels;
      const float* second = first + w.stride * w.channels;
      for (int c = 0; c < w.channels; ++c) out[c] = first[c] * own[c] + second[c] * before[c];
      if (!w.bias.empty()) pointwise_.add(out, w.bias.data(), nullptr, w.channels);
    }
  }
  std::copy_n(x + count * w.channels, w.channels, x);
}

void CpuOps::replicate(const ops::Weight& weight, ops::Place window, ops::Place is_first) {
  ++calls_;
  if (*is_first.as<std::int32_t>() == 0) return;
  const auto& w = as<PanelsWeight>(weight);
  auto* x = window.as<float>();
  for (int i = 0; i < w.carried; ++i) std::copy_n(x + w.carried * w.in, w.in, x + i * w.in);
}

void CpuOps::quantize(std::span<const ops::Weight* const> levels, ops::Place x, ops::Place codes) {
  ++calls_;
  constexpr int kChunks = 16;
  auto* residual = x.as<float>();
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const Codewords& level = as<CodebookWeight>(*levels[i]).codewords;
    float distance[kChunks];
    int index[kChunks];
    const int chunks = std::min(kChunks, level.bins);
    pool_->run(chunks, [&](int c) {
      gemm_.nearest(level, residual, level.bins * c / chunks, level.bins * (c + 1) / chunks, &distance[c], &index[c]);
    });
    int best = 0;
    for (int c = 1; c < chunks; ++c) {
      if (distance[c] < distance[best]) best = c;
    }
    const int code = index[best];
    codes.as<std::int32_t>()[i] = code;
    for (int j = 0; j < level.d; ++j) residual[j] -= level.at(code, j);
  }
}

void CpuOps::dequantize(std::span<const ops::Weight* const> levels, const ops::Codes& codes, ops::Place x) {
  ++calls_;
  auto* out = x.as<float>();
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const Codewords& level = as<CodebookWeight>(*levels[i]).codewords;
    const std::int32_t given = codes.at.as<std::int32_t>()[i];
    const int code = given < 0 ? codes.drawn.as<std::int32_t>()[-1 - given] : given;
    for (int j = 0; j < level.d; ++j) out[j] = (i == 0 ? 0.0F : out[j]) + level.at(code, j);
  }
}

std::unique_ptr<ops::Ops> make_cpu_ops(int threads) { return std::make_unique<CpuOps>(chosen_isa(), threads); }

}  // namespace personaplex::cpu
