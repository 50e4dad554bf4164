// csrc/gpu/gpu_codec.cpp: which calls share a dispatch, and the end of a run, where windows carry.
#include "gpu/gpu_codec.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "gpu/gpu_ops.h"
#include "gpu/kernel_params.h"
#include "gpu/operands.h"

namespace personaplex::gpu {

namespace {

Levels levels_of(std::span<const ops::Weight* const> weights) {
  Levels levels;
  for (const ops::Weight* w : weights) levels.push_back(&as<GpuCodebook>(*w));
  return levels;
}

/// y = W x or y += W x of one column, and nothing else.
bool is_plain(const Project& p, ops::Epilogue epilogue) {
  return p.columns == 1 && p.how.epilogue == epilogue && p.how.norm.weight == nullptr && p.how.scale == nullptr;
}

bool follows(const ops::Codes& codes, const Levels& levels, const ops::Codes& next) {
  return next.at == codes.at + levels.size() * sizeof(std::int32_t) && next.drawn == codes.drawn &&
         next.count == codes.count;
}

bool follows(ops::Place codes, const Levels& levels, ops::Place next) {
  return follows(ops::Codes{codes}, levels, ops::Codes{next});
}

/// Threadgroups of codec_residual.
struct ResidualTile {
  int positions, simdgroups;
};
constexpr ResidualTile kResidualTiles[] = {{8, 8}, {4, 16}, {2, 16}};
constexpr int kWide = 256;  // channels from which on weights are much to read

/// The tile for a residual block of `rows` positions; nothing where two convolutions do it faster, or where it does not
/// fit. Threadgroups for less than half of a GPU's `cores` (0: it does not say) each have much to read one after
/// another: on an H200, 48 of 256 channels take 21 us, the two convolutions 11.
const ResidualTile* residual_tile(const GpuPanels& conv1, const GpuPanels& conv2, int rows, int cores) {
  const int row = (conv1.in + 7) / 8 * 8;
  const int inner = (conv2.in + 7) / 8 * 8;
  for (const ResidualTile& t : kResidualTiles) {
    if (conv1.in * t.positions <= 512 && (t.positions + (conv1.taps - 1) * conv1.dilation) * row <= 3072 &&
        t.positions * inner <= 1024) {
      const bool fills = 2 * static_cast<int>(count(rows, t.positions)) >= cores;
      return fills || conv1.in < kWide ? &t : nullptr;
    }
  }
  return nullptr;
}

}  // namespace

GpuCodec::GpuCodec(GpuOps& ops) : ops_(ops), recorder_(ops.recorder_) {}

void GpuCodec::begin() {
  calls_.clear();
  carried_.clear();
}

void GpuCodec::finish() {
  for (std::size_t i = 0; i < calls_.size();) {
    std::size_t done = attention_block(i);
    if (done == 0) done = residual_block(i);
    if (done == 0) done = replicated_convolution(i);
    if (done == 0) done = encoded_parts(i);
    if (done == 0) done = decoded_parts(i);
    if (done == 0) {
      std::visit([this](const auto& call) { dispatch(call); }, calls_[i]);
      done = 1;
    }
    i += done;
  }
  calls_.clear();
}

// attend, x += scale * out_proj, linear1(norm(x)), x += scale * linear2: between the first and the last, x lacks what
// the attention adds. Only linear1 reads it there, and linear2 adds it.
std::size_t GpuCodec::attention_block(std::size_t i) {
  constexpr int kMaxPositions = 512;
  constexpr int kMaxHeadDim = 128;
  constexpr std::int64_t kPanelsAtOnce = 16;  // of a threadgroup
  const auto* attention = at<Attend>(i);
  const auto* out_proj = at<Project>(i + 1);
  const auto* linear1 = at<Project>(i + 2);
  const auto* linear2 = at<Project>(i + 3);
  if (attention == nullptr || out_proj == nullptr || linear1 == nullptr || linear2 == nullptr) return 0;
  const ops::Ring& ring = attention->ring;
  const GpuPanels& w = *out_proj->w;
  const ops::Place x = out_proj->y;
  const int columns = attention->columns;
  const auto adds_to_x = [&](const Project& p) {
    return p.columns == columns && p.how.epilogue == ops::Epilogue::kAdd && p.how.norm.weight == nullptr && p.y == x &&
           p.w->outputs == w.outputs;
  };
  const bool is_block = adds_to_x(*out_proj) && out_proj->x == attention->out && linear1->columns == columns &&
                        linear1->x == x && linear1->w->in == w.outputs && normalizes_itself(*linear1) &&
                        adds_to_x(*linear2) && linear2->x == linear1->y;
  // Two columns share a threadgroup, and see one position more than one of them does.
  const bool fits = ring.visible > 0 && ring.visible < kMaxPositions && ring.head_dim % 8 == 0 &&
                    ring.head_dim <= kMaxHeadDim && w.in == ring.heads * ring.head_dim;
  if (!is_block || !fits) return 0;

  const std::size_t partial_bytes = floats(std::int64_t{ring.heads} * columns * w.outputs);
  const ops::Place partials = ops_.scratch(partial_bytes);
  const ops::Weight* scale = out_proj->how.scale;
  const auto slices = static_cast<std::int32_t>(count(w.panels(), kPanelsAtOnce));
  add("codec_attend",
      {reads(attention->q, floats(std::int64_t{columns} * w.in)), columns_at(attention->at, columns), page_table(ring),
       reads(w.values, w.value_bytes()), reads(w.scales, w.output_bytes()),
       scale == nullptr ? Operand{} : reads(as<GpuVector>(*scale).values, w.output_bytes()),
       writes(partials, partial_bytes)},
      CodecAttendParams{columns, ring.heads, ring.head_dim, ring.slots, static_cast<std::uint32_t>(ring.offset),
                        w.outputs, slices, scale == nullptr ? 0 : 1,
                        1.0F / std::sqrt(static_cast<float>(ring.head_dim))},
      {static_cast<std::uint32_t>(ring.heads), static_cast<std::uint32_t>(slices), count(columns, 2)}, 512,
      {pages(ring, false)});
  linear(*linear1, partials, ring.heads);
  linear(*linear2, partials, ring.heads);
  return 4;
}

// x + conv2(elu(conv1(window))), where conv1 gives nothing but conv2's window.
std::size_t GpuCodec::residual_block(std::size_t i) {
  const auto* first = at<Convolve>(i);
  const auto* second = at<Convolve>(i + 1);
  if (first == nullptr || second == nullptr) return 0;
  const GpuPanels& conv1 = *first->w;
  const GpuPanels& conv2 = *second->w;
  const bool is_block = first->out.elu == second->window && !first->out.raw && !first->out.residual &&
                        second->out.residual && first->count == second->count && conv1.stride == 1 && conv2.taps == 1 &&
                        conv2.stride == 1 && conv2.in == conv1.outputs && conv1.in == conv2.outputs;
  const bool by_taps = conv1.groups == conv1.taps || conv1.in % 8 == 0;
  const ResidualTile* tile = residual_tile(conv1, conv2, first->count, ops_.queue_->cores());
  if (!is_block || !by_taps || tile == nullptr) return 0;

  const int rows = first->count;
  const std::size_t bytes = floats(std::int64_t{rows} * conv1.in);
  const std::size_t carried = floats(std::int64_t{conv1.carried} * conv1.in);
  const int flags = (conv1.bias ? 1 : 0) + (conv2.bias ? 2 : 0) + (second->out.raw ? 4 : 0) + (second->out.elu ? 8 : 0);
  add("codec_residual_p" + std::to_string(tile->positions),
      {reads(first->window, carried + bytes), reads(second->out.residual, bytes),
       reads(conv1.values, conv1.value_bytes()), reads(conv1.scales, conv1.output_bytes()),
       reads_if(conv1.bias, conv1.output_bytes()), reads(conv2.values, conv2.value_bytes()),
       reads(conv2.scales, conv2.output_bytes()), reads_if(conv2.bias, conv2.output_bytes()),
       writes_if(second->out.raw, bytes), writes_if(second->out.elu, bytes)},
      CodecResidualParams{rows, conv1.in, conv2.in, conv1.taps, conv1.dilation, flags}, {count(rows, tile->positions)},
      static_cast<std::uint32_t>(32 * tile->simdgroups));
  if (carried > 0) carried_.push_back({first->window, carried, bytes});
  return 2;
}

std::size_t GpuCodec::replicated_convolution(std::size_t i) {
  const auto* replicated = at<Replicate>(i);
  const auto* convolved = at<Convolve>(i + 1);
  if (replicated == nullptr || convolved == nullptr || replicated->window != convolved->window ||
      replicated->w != convolved->w) {
    return 0;
  }
  convolution(*convolved, replicated->is_first);
  return 2;
}

// Both parts of the quantizer project the same latent; the second part's codes follow the first's.
std::size_t GpuCodec::encoded_parts(std::size_t i) {
  const auto* project1 = at<Project>(i);
  const auto* quantize1 = at<Quantize>(i + 1);
  const auto* project2 = at<Project>(i + 2);
  const auto* quantize2 = at<Quantize>(i + 3);
  if (project1 == nullptr || quantize1 == nullptr || project2 == nullptr || quantize2 == nullptr) return 0;
  const GpuPanels& w = *project1->w;
  const GpuCodebook& level = *quantize1->levels.front();
  const GpuCodebook& other = *quantize2->levels.front();
  const bool are_parts = is_plain(*project1, ops::Epilogue::kStore) && is_plain(*project2, ops::Epilogue::kStore) &&
                         project1->x == project2->x && project1->y == quantize1->x && project2->y == quantize2->x &&
                         follows(quantize1->codes, quantize1->levels, quantize2->codes) && project2->w->in == w.in &&
                         project2->w->outputs == w.outputs && w.outputs == level.d && other.d == level.d &&
                         other.bins == level.bins;
  if (!are_parts || w.outputs % 8 != 0) return 0;
  const ops::Place work = quantizer_memory(level);
  const GpuPanels both = joined(w, *project2->w);
  linear({&both, project1->x, 1, {}, work}, {}, 0);
  quantize_parts(quantize1->levels, quantize2->levels, work, quantize1->codes);
  return 4;
}

std::size_t GpuCodec::decoded_parts(std::size_t i) {
  const auto* dequantize1 = at<Dequantize>(i);
  const auto* project1 = at<Project>(i + 1);
  const auto* dequantize2 = at<Dequantize>(i + 2);
  const auto* project2 = at<Project>(i + 3);
  if (dequantize1 == nullptr || project1 == nullptr || dequantize2 == nullptr || project2 == nullptr) return 0;
  const GpuCodebook& level = *dequantize1->levels.front();
  const GpuCodebook& other = *dequantize2->levels.front();
  const bool are_parts = is_plain(*project1, ops::Epilogue::kStore) && is_plain(*project2, ops::Epilogue::kAdd) &&
                         project1->x == dequantize1->x && project2->x == dequantize2->x && project1->y == project2->y &&
                         follows(dequantize1->codes, dequantize1->levels, dequantize2->codes) &&
                         project1->w->in == level.d && project2->w->in == level.d && other.d == level.d &&
                         other.bins == level.bins && project1->w->outputs == project2->w->outputs;
  if (!are_parts) return 0;
  dequantize_parts(dequantize1->levels, dequantize2->levels, dequantize1->codes, *project1->w, *project2->w,
                   project1->y);
  return 4;
}

bool GpuCodec::waits_for_carry(const Operand& operand) const {
  return std::any_of(carried_.begin(), carried_.end(), [&](const Carried& c) {
    // Reading what is behind the front does no harm.
    const std::size_t bytes = operand.written ? c.bytes + c.fresh : c.bytes;
    return operand.at.memory == c.window.memory && operand.at.offset < c.window.offset + bytes &&
           c.window.offset < operand.at.offset + operand.bytes;
  });
}

void GpuCodec::carry_before(std::initializer_list<Operand> operands) {
  for (const Operand& o : operands) {
    if (waits_for_carry(o)) carry();
  }
}

void GpuCodec::carry() {
  while (!carried_.empty()) {
    const ops::Memory& memory = *carried_.front().window.memory;
    std::vector<std::uint32_t> list;  // [windows][4]: see kernels/codec_carry.metal
    std::erase_if(carried_, [&](const Carried& c) {
      if (c.window.memory != &memory) return false;
      for (const std::size_t bytes : {c.window.offset, c.bytes, c.fresh}) {
        list.push_back(static_cast<std::uint32_t>(bytes / sizeof(float)));
      }
      list.push_back(0);
      return true;
    });
    const std::size_t bytes = list.size() * sizeof list.front();
    const std::size_t windows = list.size() / 4;
    recorder_.add("codec_carry",
                  {writes({&memory, 0}, memory.bytes), reads(ops_.weights_.put_once(list.data(), bytes), bytes)},
                  CodecCarryParams{static_cast<std::int32_t>(windows)}, {static_cast<std::uint32_t>(windows)}, 1024);
  }
}

// Ops.

ops::WeightPtr GpuOps::linear(const TensorView& t) { return put_linear(weights_, t); }

ops::WeightPtr GpuOps::conv(const Conv& c, int stride, int dilation) { return put_conv(weights_, c, stride, dilation); }

ops::WeightPtr GpuOps::conv_transpose(const Conv& c, int stride) { return put_conv_transpose(weights_, c, stride); }

ops::WeightPtr GpuOps::upsample(const Conv& c, int stride) { return put_upsample(weights_, c, stride); }

ops::WeightPtr GpuOps::codebook(const RvqLevel& level) { return put_codebook(weights_, level); }

void GpuOps::conv(const ops::Weight& w, ops::Place window, int count, const ops::ConvOutput& out) {
  flush_attention();
  codec_->call(Convolve{&as<GpuPanels>(w), window, count, out});
}

void GpuOps::upsample(const ops::Weight& w, ops::Place window, int count, ops::Place y) {
  flush_attention();
  codec_->call(Upsample{&as<GpuUpsample>(w), window, count, y});
}

void GpuOps::replicate(const ops::Weight& w, ops::Place window, ops::Place is_first) {
  flush_attention();
  codec_->call(Replicate{&as<GpuPanels>(w), window, is_first});
}

void GpuOps::quantize(std::span<const ops::Weight* const> levels, ops::Place x, ops::Place codes) {
  flush_attention();
  codec_->call(Quantize{levels_of(levels), x, codes});
}

void GpuOps::dequantize(std::span<const ops::Weight* const> levels, const ops::Codes& codes, ops::Place x) {
  flush_attention();
  codec_->call(Dequantize{levels_of(levels), codes, x});
}

}  // namespace personaplex::gpu
