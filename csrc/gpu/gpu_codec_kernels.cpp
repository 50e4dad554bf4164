// csrc/gpu/gpu_codec_kernels.cpp: one call of the codec as dispatches of kernels/codec_*.metal, and how they are sized.
#include <algorithm>

#include "core/error.h"
#include "gpu/gpu_codec.h"
#include "gpu/gpu_ops.h"
#include "gpu/kernel_params.h"
#include "gpu/operands.h"

namespace personaplex::gpu {

namespace {

constexpr int kMaxSimdgroups = 8;  // of a threadgroup
constexpr int kMaxNormed = 64 * kMaxSimdgroups;

/// A linear layer; with a norm every threadgroup normalizes x for itself.
Job linear_job(const GpuPanels& w, int columns, bool norm) {
  return {.op = ops::Op::kLinear,
          .kernel = "codec_linear_store",
          .n = w.outputs,
          .k = std::int64_t{8} * w.octets(),
          .columns = columns,
          .least_simdgroups = norm ? int32(count(w.in, kMaxNormed / kMaxSimdgroups)) : 1};
}

constexpr int kQuantizeGroups = 128;
constexpr std::uint32_t kQuantizeThreads = 128;
constexpr int kMaxCodeword = 512;

int groups_for(const GpuCodebook& level) { return std::min(level.bins, kQuantizeGroups); }

Operand vector_or_none(const ops::Weight* w, std::size_t bytes) {
  return w == nullptr ? Operand{} : reads(as<GpuVector>(*w).values, bytes);
}

}  // namespace

bool GpuCodec::normalizes_itself(const Project& call) {
  return call.how.norm.bias != nullptr && call.how.epilogue != ops::Epilogue::kAdd && call.w->in <= kMaxNormed;
}

void GpuCodec::linear(const Project& call, ops::Place partials, int parts) {
  const GpuPanels& w = *call.w;
  const ops::Product& how = call.how;
  const char* names[] = {"store", "add", nullptr, "gelu"};
  const char* name = names[static_cast<std::size_t>(how.epilogue)];
  if (name == nullptr) bad_argument("GpuOps.project", "the codec has no SwiGLU.");
  const std::size_t x_bytes = floats(std::int64_t{call.columns} * w.in);
  const std::size_t y_bytes = floats(std::int64_t{call.columns} * w.outputs);
  ops::Place x = call.x;
  const bool norm = normalizes_itself(call);
  if (how.norm.weight != nullptr && !norm) {
    x = ops_.scratch(x_bytes);
    ops_.norm_now(how.norm, call.x, call.columns, x);
  }
  const bool add_y = how.epilogue == ops::Epilogue::kAdd;
  const bool scaled = add_y && how.scale != nullptr;
  const Tile tile = ops_.choose_(linear_job(w, call.columns, norm));
  const auto part_bytes = static_cast<std::size_t>(parts) * (add_y ? y_bytes : x_bytes);
  add(std::string("codec_linear_") + (norm ? "norm_" : "") + name,
      {reads(x, x_bytes), reads_if(partials, part_bytes),
       vector_or_none(norm ? how.norm.weight : nullptr, floats(w.in)),
       vector_or_none(norm ? how.norm.bias : nullptr, floats(w.in)), reads(w.values, w.value_bytes()),
       reads(w.scales, w.output_bytes()), vector_or_none(scaled ? how.scale : nullptr, w.output_bytes()),
       writes(call.y, y_bytes)},
      CodecLinearParams{call.columns, w.outputs, w.in, tile.split, parts, scaled ? 1 : 0},
      {tile.groups_x(w.outputs), tile.groups_y(call.columns)}, tile.threads());
}

void GpuCodec::dispatch(const ProjectQkv& call) {
  const GpuPanels& w = *call.w;
  const ops::Ring& ring = call.ring;
  if (call.norm.bias == nullptr || call.max_period == 0.0F || ring.bits != 32 || w.in > kMaxNormed ||
      ring.head_dim % 2 != 0) {
    bad_argument("GpuOps.project_qkv",
                 "expected a layer norm of at most " + std::to_string(kMaxNormed) +
                     " values, rotated heads of an even size and a float32 ring for a linear layer of the codec.");
  }
  const Tile tile = ops_.choose_(linear_job(w, call.columns, true));
  const std::int64_t values = std::int64_t{call.columns} * ring.heads * ring.head_dim;
  const ops::Place angles = ops_.angles(call.at, call.columns, ring.head_dim, call.max_period);
  add("codec_qkv",
      {reads(call.x, floats(std::int64_t{call.columns} * w.in)), vector_or_none(call.norm.weight, floats(w.in)),
       vector_or_none(call.norm.bias, floats(w.in)), reads(w.values, w.value_bytes()),
       reads(w.scales, w.output_bytes()), reads(angles, floats(std::int64_t{call.columns} * ring.head_dim)),
       columns_at(call.at, call.columns), page_table(ring), writes(call.q, floats(values))},
      CodecQkvParams{call.columns, ring.heads, ring.head_dim, w.in, tile.split,
                     static_cast<std::uint32_t>(ring.offset)},
      {tile.groups_x(w.outputs), tile.groups_y(call.columns)}, tile.threads(), {pages(ring, true)});
}

void GpuCodec::dispatch(const Attend& call) { ops_.attend_now({call.q, call.ring, call.at, call.out}, call.columns); }

void GpuCodec::convolution(const Convolve& call, ops::Place is_first) {
  const GpuPanels& w = *call.w;
  const ops::ConvOutput& out = call.out;
  const int rows = call.count;
  const std::size_t carried = floats(std::int64_t{w.carried} * w.in);
  const std::size_t fresh = floats(std::int64_t{rows} * w.stride * w.in);
  const std::size_t bytes = floats(std::int64_t{rows} * w.outputs);
  const int flags = (w.bias ? 1 : 0) + (out.residual ? 2 : 0) + (out.raw ? 4 : 0) + (out.elu ? 8 : 0);
  const Job job{.op = ops::Op::kConv,
                .kernel = "codec_conv_",
                .n = w.outputs,
                .k = std::int64_t{8} * w.octets(),
                .columns = rows};
  const Tile tile = ops_.choose_(job);
  add(job.kernel + tile.name(),
      {reads(call.window, carried + fresh), reads(w.values, w.value_bytes()), reads(w.scales, w.output_bytes()),
       reads_if(w.bias, w.output_bytes()), reads_if(out.residual, bytes), writes_if(out.raw, bytes),
       writes_if(out.elu, bytes), reads_if(is_first, sizeof(std::int32_t))},
      CodecConvParams{rows, w.outputs, w.groups, w.width, w.stride * w.in, w.dilation * w.in, tile.split, flags,
                      is_first ? w.carried : 0, w.in},
      {tile.groups_x(w.outputs), tile.groups_y(rows)}, tile.threads());
  if (carried > 0) carried_.push_back({call.window, carried, fresh});
}

void GpuCodec::dispatch(const Upsample& call) {
  constexpr std::uint32_t kThreads = 64;
  const GpuUpsample& w = *call.w;
  const std::size_t row = floats(w.channels);
  const auto rows = static_cast<std::size_t>(call.count);
  const auto stride = static_cast<std::size_t>(w.stride);
  add("codec_upsample",
      {writes(call.window, (1 + rows) * row), reads(w.taps, 2 * stride * row), reads_if(w.bias, row),
       writes(call.y, rows * stride * row)},
      CodecUpsampleParams{call.count, w.channels, w.stride, w.bias ? 1 : 0}, {count(w.channels, kThreads)}, kThreads);
}

void GpuCodec::dispatch(const Replicate&) {
  bad_argument("GpuOps.replicate", "expected the convolution of the window as the next operation.");
}

void GpuCodec::dispatch(const Quantize& call) {
  const GpuCodebook& level = *call.levels.front();
  const ops::Place work = quantizer_memory(level);
  linear({&identity(level.d), call.x, 1, {}, work}, {}, 0);
  quantize_parts(call.levels, {}, work, call.codes);
}

void GpuCodec::dispatch(const Dequantize& call) {
  const GpuPanels& through = identity(call.levels.front()->d);
  dequantize_parts(call.levels, {}, call.codes, through, through, call.x);
}

ops::Place GpuCodec::quantizer_memory(const GpuCodebook& level) {
  // Residuals [2][2][d], distances [2][2][groups], indices [2][2][groups].
  return ops_.scratch(floats(4 * (std::int64_t{level.d} + 2 * groups_for(level))));
}

void GpuCodec::quantize_parts(const Levels& first, const Levels& second, ops::Place work, ops::Place codes) {
  const GpuCodebook& level = *first.front();
  const int groups = groups_for(level);
  const std::size_t residual_bytes = floats(4 * std::int64_t{level.d});
  const std::size_t found_bytes = floats(4 * std::int64_t{groups});
  const ops::Place distances = work + residual_bytes;
  const ops::Place indices = distances + found_bytes;
  const ops::Place tables = codebooks(first, second);
  const auto levels0 = static_cast<std::int32_t>(first.size());
  const auto levels1 = static_cast<std::int32_t>(second.size());
  const std::size_t levels = first.size() + second.size();
  const std::int32_t last = std::max(levels0, levels1);
  for (std::int32_t step = 0; step <= last; ++step) {
    add("codec_quantize",
        {reads(tables, levels * level.bytes()), writes(work, residual_bytes), writes(distances, found_bytes),
         writes(indices, found_bytes), writes(codes, levels * sizeof(std::int32_t))},
        CodecQuantizeParams{step, levels0, levels1, level.bins, level.d, groups},
        {step < last ? static_cast<std::uint32_t>(groups) : 1U, second.empty() ? 1U : 2U}, kQuantizeThreads);
  }
}

void GpuCodec::dequantize_parts(const Levels& first, const Levels& second, const ops::Codes& codes,
                                const GpuPanels& first_projection, const GpuPanels& second_projection, ops::Place y) {
  constexpr int kSimdgroups = 2;  // small, so that there are many threadgroups
  const GpuCodebook& level = *first.front();
  const GpuPanels both = joined(first_projection, second_projection);
  const std::size_t levels = first.size() + second.size();
  const std::int32_t outputs = first_projection.outputs;
  add("codec_dequantize",
      {reads(codebooks(first, second), levels * level.bytes()), reads(codes.at, levels * sizeof(std::int32_t)),
       reads_if(codes.drawn, static_cast<std::size_t>(codes.count) * sizeof(std::int32_t)),
       reads(both.values, 2 * first_projection.value_bytes()), reads(both.scales, both.output_bytes()),
       writes(y, first_projection.output_bytes())},
      CodecDequantizeParams{outputs, level.d, level.bins, static_cast<std::int32_t>(first.size()),
                            static_cast<std::int32_t>(second.size()), codes.count},
      {count(outputs, 8 * kSimdgroups)}, 32 * kSimdgroups);
}

ops::Place GpuCodec::codebooks(const Levels& first, const Levels& second) {
  const GpuCodebook& level = *first.front();
  if (level.d > kMaxCodeword) {
    bad_argument("GpuOps.quantize", "expected codewords of at most " + std::to_string(kMaxCodeword) + " values, got " +
                                        std::to_string(level.d) + ".");
  }
  std::vector<ops::Place> all;
  for (const Levels* part : {&first, &second}) {
    for (const GpuCodebook* l : *part) all.push_back(l->codewords);
  }
  return ops_.weights_.joined(all, level.bytes());
}

GpuPanels GpuCodec::joined(const GpuPanels& first, const GpuPanels& second) {
  GpuPanels both = first;
  both.outputs += second.outputs;
  both.values = ops_.weights_.joined({first.values, second.values}, first.value_bytes());
  both.scales = ops_.weights_.joined({first.scales, second.scales}, first.output_bytes());
  return both;
}

const GpuPanels& GpuCodec::identity(int d) {
  for (const auto& w : identities_) {
    if (w->outputs == d) return *w;
  }
  return *identities_.emplace_back(put_identity(ops_.weights_, d));
}

}  // namespace personaplex::gpu
