// csrc/gpu/metal_sources.cpp: kernels/*.metal. Written by tools/gpu/embed_kernels.py: do not edit.
// clang-format off
#include "gpu/metal_sources.h"

namespace personaplex::gpu {

std::vector<MetalSource> metal_sources() {
  return {
      {"codec_attend.metal",
R"~(// kernels/codec_attend.metal: attention of the codec's transformers, and each head's share of the projection after it.
//
// Contract: seen[t][h] = softmax(q[t][h] . k / sqrt(head_dim)) v over the positions that column t sees (first visible
// to its own); partials[h][t][n] = layer_scale[n] * scale[n] * sum over i of q_w[n][h][i] * seen[t][h][i]. The sum of
// the partials over the heads is what the attention adds to x: codec_linear_norm_gelu (linear1) counts it in and
// codec_linear_add (linear2) adds it.
//
// Ring and columns as in codec_qkv.metal; a position's slot is its column's slot less the distance, modulo `slots`.
// Weights of out_proj: int16 [ceil(outputs / 8)][heads][ceil(head_dim / 8)][8 outputs][8 values], zero where there is
// nothing; scales float [outputs].
//
// Buffers: 0 q float [columns][heads][head_dim], 1 columns, 2 pages, 3 weights, 4 scales, 5 layer_scale, 6 partials
// float [heads][columns][outputs], 7 params. 5 is touched where params says so. 6 is written.
//
// Work: a threadgroup does one head of two columns and one of `slices` of the outputs; every slice repeats the
// attention, which reads head_dim * 2 * positions floats. Grid (heads, slices, ceil(columns / 2)), 512 threads.
// head_dim at most 128 and a multiple of 4; the pair of columns together sees at most 512 positions.
//   codec_attend
#include <metal_stdlib>
using namespace metal;

struct CodecAttendParams {
  int columns;  // T
  int heads;
  int head_dim;
  int slots;        // of the ring
  uint offset;      // of this layer in a page, bytes
  int outputs;      // of out_proj
  int slices;       // of the outputs
  int layer_scale;  // 1: there is one
  float factor;     // 1 / sqrt(head_dim)
};

constant constexpr int kColumns = 2;
constant constexpr int kThreads = 512;
constant constexpr int kPage = 32;        // slots
constant constexpr int kColumnWords = 6;  // of a column's description: see codec_qkv.metal
constant constexpr int kSlotWord = 4;
constant constexpr int kFirstWord = 2;
constant constexpr int kMaxPositions = 512;
constant constexpr int kMaxHeadDim = 128;
constant constexpr int kAhead = 4;  // rows of a thread that are under way together

METAL_FUNC void unpack8(uint4 q, thread float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(thread const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

METAL_FUNC float dot4(float4 a, float4 b, float sum) {
  sum = metal::fma(a.x, b.x, sum);
  sum = metal::fma(a.y, b.y, sum);
  sum = metal::fma(a.z, b.z, sum);
  return metal::fma(a.w, b.w, sum);
}

/// Row `slot` of a head's keys (side = head) or values (side = heads + head).
METAL_FUNC device const float4* row_of(device uchar* const device* pages, uint offset, int side, int slot,
                                       int head_dim) {
  device const float* page = (device const float*)(pages[slot / kPage] + offset);
  return (device const float4*)(page + (side * kPage + slot % kPage) * head_dim);
}

/// The slot of position `i` after the one in slot `start`.
METAL_FUNC int slot_of(int start, int i, int slots) { return start + i < slots ? start + i : start + i - slots; }

[[kernel, max_total_threads_per_threadgroup(512)]] void codec_attend(
    device const float* q [[buffer(0)]],
    device const int* at [[buffer(1)]],
    device uchar* const device* pages [[buffer(2)]],
    device const uint4* weights [[buffer(3)]],
    device const float* scales [[buffer(4)]],
    device const float* layer_scale [[buffer(5)]],
    device float* partials [[buffer(6)]],
    constant CodecAttendParams& p [[buffer(7)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]]) {
  threadgroup float weight[kColumns * kMaxPositions];
  threadgroup float4 gathered4[kColumns * kThreads];  // [group of positions][column][head_dim / 4]
  threadgroup float4 seen4[kColumns * kMaxHeadDim / 4];
  threadgroup float4 asked4[kColumns * kMaxHeadDim / 4];
  threadgroup float* seen = (threadgroup float*)seen4;
  threadgroup float* asked = (threadgroup float*)asked4;

  const int head = int(tgid.x);
  const int first = int(tgid.z) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int in_row = (p.head_dim + 7) / 8 * 8;

  // Positions relative to the oldest one that either column sees; they fit 32 bits, of which the low words know enough.
  device const int* last = at + (first + columns - 1) * kColumnWords;
  int oldest = 0;  // distance of the oldest from the last column
  for (int t = 0; t < columns; t++) oldest = max(oldest, last[0] - at[(first + t) * kColumnWords + kFirstWord]);
  const int count = oldest + 1;
  int start = last[kSlotWord] - oldest;
  if (start < 0) start += p.slots;

  for (int i = int(lid); i < kColumns * p.head_dim; i += kThreads) {
    const int t = i / p.head_dim;
    asked[i] = t < columns ? q[((first + t) * p.heads + head) * p.head_dim + i % p.head_dim] * p.factor : 0.0f;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // Values: head_dim / 4 threads for a row, as many rows at once as there are threads. The first ones, and the first
  // weights of out_proj, are asked for now.
  const int quads = p.head_dim / 4;
  const int together = kThreads / quads;
  const int group = int(lid) / quads;
  const int quad = int(lid) % quads;
  float4 v[kAhead];
  for (int u = 0; u < kAhead; u++) {
    const int slot = slot_of(start, min(group + u * together, count - 1), p.slots);
    v[u] = row_of(pages, p.offset, p.heads + head, slot, p.head_dim)[quad];
  }
  const int output = int(lane) % 8;
  const int octets = in_row / 8;
  const int panels = (p.outputs + 7) / 8;
  const int first_panel = panels * int(tgid.y) / p.slices + int(sg);
  uint4 ahead[kMaxHeadDim / 32];
  for (int u = 0; u < kMaxHeadDim / 32; u++) {
    const int o = min(int(lane) / 8 + 4 * u, octets - 1);
    ahead[u] =
        weights[((size_t(min(first_panel, panels - 1)) * size_t(p.heads) + size_t(head)) * size_t(octets) + o) * 8 +
                output];
  }

  // Scores: 8 lanes a key, some keys at once; beyond the end the last one again.
  constexpr int kStep = kThreads / 8;
  for (int base = 0; base < count; base += kAhead * kStep) {
    const int first_key = base + int(lid) / 8;
    device const float4* keys[kAhead];
    float sums[kAhead * kColumns];
    for (int u = 0; u < kAhead; u++) {
      keys[u] =
          row_of(pages, p.offset, head, slot_of(start, min(first_key + u * kStep, count - 1), p.slots), p.head_dim);
      for (int t = 0; t < kColumns; t++) sums[u * kColumns + t] = 0.0f;
    }
    for (int j = int(lane) % 8; j < p.head_dim / 4; j += 8) {
      float4 k[kAhead];
      for (int u = 0; u < kAhead; u++) k[u] = keys[u][j];
      for (int t = 0; t < kColumns; t++) {
        const float4 x = asked4[t * (p.head_dim / 4) + j];
        for (int u = 0; u < kAhead; u++) sums[u * kColumns + t] = dot4(x, k[u], sums[u * kColumns + t]);
      }
    }
    for (int u = 0; u < kAhead; u++) {
      for (int t = 0; t < kColumns; t++) {
        float sum = sums[u * kColumns + t];
        for (int d = 1; d < 8; d *= 2) sum += simd_shuffle_xor(sum, ushort(d));
        const int i = first_key + u * kStep;
        if (lane % 8 == 0 && i < count) weight[t * kMaxPositions + i] = sum;
      }
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // What column t sees: [from, to). A column that is not there sees the last position, so that all is finite.
  float largest[kColumns];
  float total[kColumns];
  int from[kColumns];
  int to[kColumns];
)~"
R"~(  for (int t = 0; t < kColumns; t++) {
    from[t] = count - 1;
    to[t] = count;
    if (t < columns) {
      device const int* column = at + (first + t) * kColumnWords;
      from[t] = oldest - (last[0] - column[kFirstWord]);
      to[t] = count - (last[0] - column[0]);
    }
    float most = -INFINITY;
    for (int u = 0; u < kMaxPositions / 32; u++) {
      const int i = u * 32 + int(lane);
      if (i >= from[t] && i < to[t]) most = max(most, weight[t * kMaxPositions + i]);
    }
    largest[t] = simd_max(most);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int t = 0; t < kColumns; t++) {
    for (int i = int(lid); i < count; i += kThreads) {
      const float score = weight[t * kMaxPositions + i];
      weight[t * kMaxPositions + i] = i >= from[t] && i < to[t] ? metal::precise::exp(score - largest[t]) : 0.0f;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int t = 0; t < kColumns; t++) {
    float sum = 0.0f;
    for (int u = 0; u < kMaxPositions / 32; u++) {
      const int i = u * 32 + int(lane);
      if (i < count) sum += weight[t * kMaxPositions + i];
    }
    total[t] = simd_sum(sum);
  }

  if (group < together) {
    float4 sums[kColumns] = {float4(0.0f), float4(0.0f)};
    for (int base = group; base < count; base += kAhead * together) {
      for (int u = 0; u < kAhead; u++) {
        const int i = base + u * together;
        if (i >= count) break;
        for (int t = 0; t < kColumns; t++) sums[t] += v[u] * weight[t * kMaxPositions + i];
      }
      for (int u = 0; u < kAhead; u++) {
        const int slot = slot_of(start, min(base + (kAhead + u) * together, count - 1), p.slots);
        v[u] = row_of(pages, p.offset, p.heads + head, slot, p.head_dim)[quad];
      }
    }
    for (int t = 0; t < kColumns; t++) gathered4[(group * kColumns + t) * quads + quad] = sums[t];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  threadgroup const float* gathered = (threadgroup const float*)gathered4;
  for (int i = int(lid); i < kColumns * in_row; i += kThreads) {
    const int t = i / in_row;
    const int j = i % in_row;
    float sum = 0.0f;
    if (j < p.head_dim) {
      for (int g = 0; g < together; g++) sum += gathered[(g * kColumns + t) * p.head_dim + j];
    }
    seen[i] = sum / (t == 0 ? total[0] : total[1]);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // out_proj: a simdgroup takes panels of 8 outputs, 4 lanes each.
  const int end = panels * (int(tgid.y) + 1) / p.slices;
  for (int panel = first_panel; panel < end; panel += kThreads / 32) {
    device const uint4* w = weights + (size_t(panel) * size_t(p.heads) + size_t(head)) * size_t(octets * 8) + output;
    float sums[kColumns] = {0.0f, 0.0f};
    for (int u = 0; u < kMaxHeadDim / 32; u++) {
      const int o = int(lane) / 8 + 4 * u;
      if (o >= octets) break;
      float values[8];
      uint4 q8 = ahead[u];
      if (panel != first_panel) q8 = w[o * 8];
      unpack8(q8, values);
      for (int t = 0; t < kColumns; t++) {
        sums[t] = dot8(values, seen4[t * octets * 2 + o * 2], seen4[t * octets * 2 + o * 2 + 1], sums[t]);
      }
    }
    const int n = panel * 8 + output;
    for (int t = 0; t < kColumns; t++) {
      sums[t] += simd_shuffle_xor(sums[t], ushort(8));
      sums[t] += simd_shuffle_xor(sums[t], ushort(16));
      if (lane < 8 && t < columns && n < p.outputs) {
        const float y = sums[t] * scales[n];
        partials[(head * p.columns + first + t) * p.outputs + n] = p.layer_scale != 0 ? y * layer_scale[n] : y;
      }
    }
  }
}
)~",
       {
           "codec_attend",
       }},
      {"codec_carry.metal",
R"~(// kernels/codec_carry.metal: the end of a half frame of the codec: what its windows keep goes to their fronts.
//
// Contract: for every window of the list, floats [fresh, fresh + carried) of it move to [0, carried). Source and
// destination may overlap (fresh < carried).
//
// Buffers: 0 state, the block of the conversation, float32, written; 1 windows uint [n][4]: offset of the window in
// floats, floats carried, floats fresh, unused; 2 params.
// Work: one threadgroup a window. It moves a stretch at a time, in ascending order: all of a stretch is read before any
// of it is written, and what is written lies before all that is still to be read. Grid (n, 1, 1), 1024 threads (any
// multiple of 32 will do).
//   codec_carry
#include <metal_stdlib>
using namespace metal;

struct CodecCarryParams {
  int windows;  // n
};

[[kernel, max_total_threads_per_threadgroup(1024)]] void codec_carry(
    device float* state [[buffer(0)]],
    device const uint* windows [[buffer(1)]],
    constant CodecCarryParams& p [[buffer(2)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  if (int(tgid.x) >= p.windows) return;
  device float* window = state + windows[4 * tgid.x];
  const uint carried = windows[4 * tgid.x + 1];
  const uint fresh = windows[4 * tgid.x + 2];
  const uint threads = simdgroups * 32;
  for (uint begin = 0; begin < carried; begin += threads) {
    const uint at = begin + lid;
    float value = 0.0f;
    if (at < carried) value = window[fresh + at];
    threadgroup_barrier(mem_flags::mem_device);
    if (at < carried) window[at] = value;
  }
}
)~",
       {
           "codec_carry",
       }},
      {"codec_conv.metal",
R"~(// kernels/codec_conv.metal: streaming convolutions of the codec, plain and transposed, as products over windows.
//
// Contract: y[m][n] = bias[n] + scale[n] * sum over g, j of q[n][g][j] * window[m * row_stride + g * group_stride + j],
// m < count, n < outputs, j < width; then y += residual; raw = y and elu = elu(y), where wanted. The window is
// [carried + new columns][in] float32, time-major, so that
//   a convolution with dilation 1 has one group of width taps * in, row_stride = stride * in;
//   one with a dilation has `taps` groups of width in, group_stride = dilation * in;
//   a transposed convolution of kernel 2 * stride is one over 2 columns (the one before, this one), with stride * out
//   outputs: one group of width 2 * in, row_stride = in.
// The carry of the window is not moved here: codec_carry.metal does it for a whole half of the codec.
// Where replicate > 0 and *is_first is not 0, the first `replicate` columns of the window count as copies of the one
// that follows them, each `columns_in` wide.
//
// Weights: int16 [ceil(outputs / 8)][groups][ceil(width / 8)][8 outputs][8 values], zero where there is nothing, read
// as one uint4 per output and octet of values; scales float [outputs].
//
// Buffers: 0 window, 1 weights, 2 scales, 3 bias, 4 residual, 5 raw, 6 elu, 7 is_first, 8 params. What `flags` does not
// ask for is not touched: any buffer will do. residual may be raw. 5 and 6 are written.
//
// Work: a simdgroup does P positions of `outputs of a simdgroup` O (8 or 32) for one of `splits` parts of the octets;
// 32 / O lanes share an output. A threadgroup has S <= 8 simdgroups, S a multiple of splits. Grid (ceil(outputs / (O *
// S / splits)), ceil(count / P), 1), 32 * S threads.
//   codec_conv_p2_o8   one or two positions: as many simdgroups as possible for the weights
//   codec_conv_p8_o8   some positions, many weights
//   codec_conv_p8_o32  many positions
#include <metal_stdlib>
using namespace metal;

struct CodecConvParams {
  int count;         // positions
  int outputs;       // N
  int groups;        // taps, 1 where they follow each other
  int width;         // values of a group
  int row_stride;    // floats from a position's window to the next one's
  int group_stride;  // floats from a group to the next one
  int splits;        // parts of the octets; divides the number of simdgroups
  int flags;         // 1 bias, 2 residual, 4 raw, 8 elu
  int replicate;     // columns to fill on the first frame, or 0
  int columns_in;    // floats of a column; only read where replicate > 0
};

constant constexpr int kStaged = 512;  // floats of threadgroup memory per simdgroup
constant constexpr int kMaxSimdgroups = 8;

METAL_FUNC void unpack8(uint4 q, thread float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(thread const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

template <int P, int O>
[[kernel, max_total_threads_per_threadgroup(256)]] void codec_conv(
    device const float* window [[buffer(0)]],
    device const uint4* weights [[buffer(1)]],
    device const float* scales [[buffer(2)]],
    device const float* bias [[buffer(3)]],
    device const float* residual [[buffer(4)]],
    device float* raw [[buffer(5)]],
    device float* elu [[buffer(6)]],
    device const int* is_first [[buffer(7)]],
    constant CodecConvParams& p [[buffer(8)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int kChunk = kStaged / P;             // values of a position that are staged together
  constexpr int kSharing = 32 / O;                // lanes of an output
  constexpr int kOctets = kChunk / 8 / kSharing;  // of a chunk, for a lane
  threadgroup float4 staged4[kMaxSimdgroups * kStaged / 4];
  threadgroup float* staged = (threadgroup float*)staged4;
  threadgroup float* mine = staged + int(sg) * kStaged;

  const int split = int(sg) % p.splits;
  const int sets = int(simdgroups) / p.splits;  // of O outputs, in this threadgroup
  const int first_output = (int(tgid.x) * sets + int(sg) / p.splits) * O;
  const int first = int(tgid.y) * P;
  const int in_group = (p.width + 7) / 8;
  const int octets = p.groups * in_group;
  const int begin = octets * split / p.splits;
  const int end = octets * (split + 1) / p.splits;
  const int fill = p.replicate > 0 && is_first[0] != 0 ? p.replicate * p.columns_in : 0;

  // Outputs beyond the last panel repeat it and are dropped at the end.
  const int output = int(lane) % O;
  const int share = int(lane) / O;
  const int panel = min((first_output + output) / 8, (p.outputs + 7) / 8 - 1);
  device const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output % 8;

  float sums[P];
  for (int m = 0; m < P; m++) sums[m] = 0.0f;
  for (int chunk = begin; chunk < end; chunk += kChunk / 8) {
    // All that the chunk needs is asked for before any of it is waited for.
    uint4 ahead[kOctets];
    for (int u = 0; u < kOctets; u++) ahead[u] = w[size_t(min(chunk + share + u * kSharing, end - 1)) * 8];
    float values[kStaged / 32];
    for (int u = 0; u < kStaged / 32; u++) {
      const int i = u * 32 + int(lane);
      const int m = first + i / kChunk;
      const int octet = chunk + i % kChunk / 8;
      const int group = p.groups == 1 ? 0 : octet / in_group;
      const int j = (octet - group * in_group) * 8 + i % 8;
      values[u] = 0.0f;
      if (m < p.count && octet < end && j < p.width) {
        int at = m * p.row_stride + group * p.group_stride + j;
        if (at < fill) at = fill + at % p.columns_in;
        values[u] = window[at];
      }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (int u = 0; u < kStaged / 32; u++) mine[u * 32 + int(lane)] = values[u];
    simdgroup_barrier(mem_flags::mem_threadgroup);
    // Beyond the end, x is 0.
    for (int u = 0; u < kOctets; u++) {
      float weight[8];
      unpack8(ahead[u], weight);
      threadgroup const float4* x = (threadgroup const float4*)(mine + (share + u * kSharing) * 8);
      for (int m = 0; m < P; m++) sums[m] = dot8(weight, x[m * kChunk / 4], x[m * kChunk / 4 + 1], sums[m]);
    }
  }

  for (int m = 0; m < P; m++) {
    for (int d = O; d < 32; d *= 2) sums[m] += simd_shuffle_xor(sums[m], ushort(d));
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);
  if (share == 0) {
    for (int m = 0; m < P; m++) mine[m * O + output] = sums[m];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (int i = int(lid); i < sets * P * O; i += int(simdgroups) * 32) {
    const int m = first + i / O % P;
    const int n = (int(tgid.x) * sets + i / (O * P)) * O + i % O;
    if (m >= p.count || n >= p.outputs) continue;
    float sum = 0.0f;
    for (int s = 0; s < p.splits; s++) sum += staged[(i / (O * P) * p.splits + s) * kStaged + i % (O * P)];
    float y = sum * scales[n];
    if ((p.flags & 1) != 0) y += bias[n];
    const int at = m * p.outputs + n;
    if ((p.flags & 2) != 0) y += residual[at];
    if ((p.flags & 4) != 0) raw[at] = y;
    if ((p.flags & 8) != 0) elu[at] = y > 0.0f ? y : metal::precise::exp(y) - 1.0f;
  }
}

template [[host_name("codec_conv_p2_o8")]] [[kernel]] decltype(codec_conv<2, 8>) codec_conv<2, 8>;
template [[host_name("codec_conv_p8_o8")]] [[kernel]] decltype(codec_conv<8, 8>) codec_conv<8, 8>;
template [[host_name("codec_conv_p8_o32")]] [[kernel]] decltype(codec_conv<8, 32>) codec_conv<8, 32>;
)~",
       {
           "codec_conv_p2_o8",
           "codec_conv_p8_o8",
           "codec_conv_p8_o32",
       }},
      {"codec_dequantize.metal",
R"~(// kernels/codec_dequantize.metal: from codes to the latent: each part's codewords added up, projected, and summed.
//
// Contract: y[n] = sum over parts r of scale[r][n] * sum over i of q[r][n][i] * sum over the levels l of r of
// codebooks[l][codes[l]][i], n < outputs, i < d. Part 1's levels follow those of part 0. A code outside 0..bins - 1
// counts as the nearest one inside.
//
// Weights: for each part int16 [ceil(outputs / 8)][ceil(d / 8)][8 outputs][8 values], zero where there is nothing;
// scales float [2][outputs].
//
// Buffers: 0 codebooks float [levels0 + levels1][bins][d], 1 codes int [levels0 + levels1], 2 weights, 3 scales, 4 y, 5
// params. 4 is written.
//
// Work: a simdgroup does 8 outputs, 4 lanes each. Grid (ceil(outputs / (8 * S)), 1, 1), 32 * S threads. d at most 512.
//   codec_dequantize
#include <metal_stdlib>
using namespace metal;

struct CodecDequantizeParams {
  int outputs;
  int d;
  int bins;
  int levels0;
  int levels1;
};

constant constexpr int kMaxD = 512;
constant constexpr int kParts = 2;

METAL_FUNC void unpack8(uint4 q, thread float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(thread const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

[[kernel, max_total_threads_per_threadgroup(1024)]] void codec_dequantize(
    device const float* codebooks [[buffer(0)]],
    device const int* codes [[buffer(1)]],
    device const uint4* weights [[buffer(2)]],
    device const float* scales [[buffer(3)]],
    device float* y [[buffer(4)]],
    constant CodecDequantizeParams& p [[buffer(5)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float4 x4[kParts * kMaxD / 4];
  threadgroup float* x = (threadgroup float*)x4;

  const int octets = (p.d + 7) / 8;
  for (int i = int(lid); i < kParts * octets * 8; i += int(simdgroups) * 32) {
    const int part = i / (octets * 8);
    const int j = i - part * octets * 8;
    float sum = 0.0f;
    if (j < p.d) {
      const int last = part == 0 ? p.levels0 : p.levels0 + p.levels1;
      for (int level = part == 0 ? 0 : p.levels0; level < last; level++) {
        const int code = min(max(codes[level], 0), p.bins - 1);
        sum += codebooks[(size_t(level) * p.bins + code) * p.d + j];
      }
    }
    x[i] = sum;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // Panels beyond the last one repeat it and are dropped at the end.
  const int panels = (p.outputs + 7) / 8;
  const int set = int(tgid.x) * int(simdgroups) + int(sg);
  const int n = set * 8 + int(lane) % 8;
  float sum = 0.0f;
  for (int part = 0; part < kParts; part++) {
    device const uint4* w = weights + size_t(part * panels + min(set, panels - 1)) * size_t(octets * 8) + lane % 8;
    float of_part = 0.0f;
    for (int o = int(lane) / 8; o < octets; o += 4) {
      float values[8];
      unpack8(w[o * 8], values);
      of_part = dot8(values, x4[(part * octets + o) * 2], x4[(part * octets + o) * 2 + 1], of_part);
    }
    if (n < p.outputs) sum = metal::fma(of_part, scales[part * p.outputs + n], sum);
  }
  sum += simd_shuffle_xor(sum, ushort(8));
  sum += simd_shuffle_xor(sum, ushort(16));
  if (lane < 8 && n < p.outputs) y[n] = sum;
}
)~",
       {
           "codec_dequantize",
       }},
      {"codec_linear.metal",
R"~(// kernels/codec_linear.metal: linear layers of the codec's transformers: y = W norm(x) for one or two columns.
//
// Contract, for columns t < columns and outputs n < outputs:
//   x'[t] = x[t] + sum over parts of partials[part][t]; only with norm, and codec_linear_add's y (see there)
//   v[t][n] = scale[n] * sum over k of q[n][k] * u[t][k]; u = x without norm, (x' - mean) * rsqrt(variance + 1e-5) *
//   norm_weight + norm_bias with it
//   store: y = v. gelu: y = gelu(v), with erf, within 1e-6. add: y += sum over parts of partials[part][t][n] + v *
//   layer_scale[n] (1 without).
// `partials` float [parts][columns][inputs], for add [parts][columns][outputs], is what codec_attend.metal leaves: x
// stays as it is until linear2 adds to it what linear1 only counted in.
//
// Weights: int16 [ceil(outputs / 8)][ceil(inputs / 8)][8 outputs][8 values], zero where there is nothing, read as one
// uint4 per output and octet of values; scales float [outputs].
//
// Buffers: 0 x, 1 partials, 2 norm_weight, 3 norm_bias, 4 weights, 5 scales, 6 layer_scale, 7 y, 8 params. 1 is touched
// where parts > 0, 2 and 3 with norm, 6 with add where params says so. 7 is written; it is none of the others.
//
// Work: a simdgroup does 8 outputs (4 lanes each) of 2 columns for one of `splits` parts of the octets. A threadgroup
// has S <= 8 simdgroups, S a multiple of splits. Grid (ceil(outputs / (8 * S / splits)), ceil(columns / 2), 1), 32 * S
// threads. With norm, every threadgroup normalizes x for itself: inputs rounded up
// to 8 at most 64 * S.
//   codec_linear_store  codec_linear_add  codec_linear_gelu  codec_linear_norm_store  codec_linear_norm_gelu
#include <metal_stdlib>
using namespace metal;

struct CodecLinearParams {
  int columns;      // T
  int outputs;      // N
  int inputs;       // K
  int splits;       // parts of the octets; divides the number of simdgroups
  int parts;        // of x (with norm) or of y (add), or 0
  int layer_scale;  // 1: there is one
};

enum Epilogue { kStore, kAdd, kGelu };

constant constexpr int kColumns = 2;
constant constexpr int kMaxSimdgroups = 8;
constant constexpr int kStaged = 256;  // values of a column that a simdgroup stages together
constant constexpr int kMaxNormed = 512;
constant constexpr int kOwn = 4;    // values that a thread normalizes
constant constexpr int kParts = 8;  // partials that are under way together

METAL_FUNC void unpack8(uint4 q, thread float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(thread const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

/// A lane's share of some octets of a panel, asked for long before it is needed: o, o + 4, ...; the last one again from
/// `end` on.
template <int A>
METAL_FUNC void ask(device const uint4* w, int o, int end, thread uint4* ahead) {
  for (int u = 0; u < A; u++) ahead[u] = w[size_t(max(min(o + 4 * u, end - 1), 0)) * 8];
}

/// sums [2] += what was asked for; column t's octet o is at x + t * row.
template <int A>
METAL_FUNC void add(thread const uint4* ahead, int o, int end, threadgroup const float* x, int row,
                    thread float* sums) {
  for (int u = 0; u < A; u++) {
    if (o + 4 * u >= end) break;
    float values[8];
    unpack8(ahead[u], values);
    for (int t = 0; t < kColumns; t++) {
      threadgroup const float4* x4 = (threadgroup const float4*)(x + t * row + 4 * u * 8);
      sums[t] = dot8(values, x4[0], x4[1], sums[t]);
    }
  }
}

/// x / 2 (1 + erf(x / sqrt 2)): erfc by Abramowitz and Stegun 7.1.26.
METAL_FUNC float gelu(float x) {
  const float z = metal::fabs(x) * 0.70710678f;
  const float t = 1.0f / metal::fma(z, 0.3275911f, 1.0f);
  float p = metal::fma(1.061405429f, t, -1.453152027f);
  p = metal::fma(p, t, 1.421413741f);
  p = metal::fma(p, t, -0.284496736f);
  p = metal::fma(p, t, 0.254829592f);
  const float tail = x * 0.5f * (p * t * metal::precise::exp(-z * z));
  return x < 0.0f ? tail : x - tail;
}

template <bool kNorm, int kEpilogue>
[[kernel, max_total_threads_per_threadgroup(256)]] void codec_linear(
    device const float* x [[buffer(0)]],
    device const float* partials [[buffer(1)]],
    device const float* norm_weight [[buffer(2)]],
    device const float* norm_bias [[buffer(3)]],
    device const uint4* weights [[buffer(4)]],
    device const float* scales [[buffer(5)]],
    device const float* layer_scale [[buffer(6)]],
    device float* y [[buffer(7)]],
    constant CodecLinearParams& p [[buffer(8)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float4 staged4[kColumns * (kNorm ? kMaxNormed : kMaxSimdgroups * kStaged) / 4];
  threadgroup float reduced[kMaxSimdgroups * kColumns * 8];
  threadgroup float* staged = (threadgroup float*)staged4;

  const int threads = int(simdgroups) * 32;
  const int split = int(sg) % p.splits;
  const int sets = int(simdgroups) / p.splits;  // of 8 outputs, in this threadgroup
  const int first = int(tgid.y) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int octets = (p.inputs + 7) / 8;
  const int begin = octets * split / p.splits;
  const int end = octets * (split + 1) / p.splits;
  const int output = int(lane) % 8;
  const int share = int(lane) / 8;
  // Panels beyond the last one repeat it and are dropped at the end.
  const int panel = min(int(tgid.x) * sets + int(sg) / p.splits, (p.outputs + 7) / 8 - 1);
  device const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output;

  float sums[kColumns] = {0.0f, 0.0f};
  constexpr int kAhead = kNorm ? 4 : kStaged / 8 / 4;  // octets of a lane that are under way together
  uint4 ahead[kAhead];
  if (kNorm) {
    ask<kAhead>(w, begin + share, end, ahead);
    const int row = octets * 8;
    float own[kOwn];
    float gain[kOwn];
    float offset[kOwn];
    for (int u = 0; u < kOwn; u++) {
      const int i = u * threads + int(lid);
      const int t = i < row ? 0 : 1;
      const int k = i - t * row;
      const bool here = k < p.inputs;
      own[u] = 0.0f;
      gain[u] = here ? norm_weight[k] : 0.0f;
      offset[u] = here ? norm_bias[k] : 0.0f;
      if (here && t < columns) {
        const int at = (first + t) * p.inputs + k;
        own[u] = x[at];
        for (int part = 0; part < p.parts; part += kParts) {
          float more[kParts];
          for (int v = 0; v < kParts; v++) {
            more[v] = part + v < p.parts ? partials[(part + v) * p.columns * p.inputs + at] : 0.0f;
          }
          for (int v = 0; v < kParts; v++) own[u] += more[v];
        }
      }
      if (i < kColumns * row) staged[i] = own[u];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float mean[kColumns];
    float factor[kColumns];
    for (int t = 0; t < kColumns; t++) {
      float values[kMaxNormed / 32];
      float sum = 0.0f;
      for (int u = 0; u < kMaxNormed / 32; u++) {
        const int k = u * 32 + int(lane);
        values[u] = k < p.inputs ? staged[t * row + k] : 0.0f;
        sum += values[u];
      }
      mean[t] = simd_sum(sum) / float(p.inputs);
      float squares = 0.0f;
      for (int u = 0; u < kMaxNormed / 32; u++) {
        const float d = u * 32 + int(lane) < p.inputs ? values[u] - mean[t] : 0.0f;
        squares = metal::fma(d, d, squares);
      }
      factor[t] = metal::precise::rsqrt(simd_sum(squares) / float(p.inputs) + 1e-5f);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int u = 0; u < kOwn; u++) {
)~"
R"~(      const int i = u * threads + int(lid);
      const float scaled = i < row ? (own[u] - mean[0]) * factor[0] : (own[u] - mean[1]) * factor[1];
      if (i < kColumns * row) staged[i] = scaled * gain[u] + offset[u];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int o = begin + share; o < end; o += 4 * kAhead) {
      if (o != begin + share) ask<kAhead>(w, o, end, ahead);
      add<kAhead>(ahead, o, end, staged + o * 8, row, sums);
    }
  } else {
    threadgroup float* mine = staged + int(sg) * kColumns * kStaged;
    for (int chunk = begin; chunk < end; chunk += kStaged / 8) {
      const int last = min(end, chunk + kStaged / 8);
      ask<kAhead>(w, chunk + share, last, ahead);
      float values[kColumns * kStaged / 32];
      for (int u = 0; u < kColumns * kStaged / 32; u++) {
        const int i = u * 32 + int(lane);
        const int t = i / kStaged;
        const int k = chunk * 8 + i % kStaged;
        values[u] = t < columns && k < min(last * 8, p.inputs) ? x[(first + t) * p.inputs + k] : 0.0f;
      }
      simdgroup_barrier(mem_flags::mem_threadgroup);
      for (int u = 0; u < kColumns * kStaged / 32; u++) mine[u * 32 + int(lane)] = values[u];
      simdgroup_barrier(mem_flags::mem_threadgroup);
      add<kAhead>(ahead, chunk + share, last, mine + share * 8, kStaged, sums);
    }
  }

  for (int t = 0; t < kColumns; t++) {
    sums[t] += simd_shuffle_xor(sums[t], ushort(8));
    sums[t] += simd_shuffle_xor(sums[t], ushort(16));
    if (share == 0) reduced[(int(sg) * kColumns + t) * 8 + output] = sums[t];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (int i = int(lid); i < sets * kColumns * 8; i += threads) {
    const int set = i / (kColumns * 8);
    const int t = i / 8 % kColumns;
    const int n = (int(tgid.x) * sets + set) * 8 + i % 8;
    if (t >= columns || n >= p.outputs) continue;
    float v = 0.0f;
    for (int s = 0; s < p.splits; s++) v += reduced[(set * p.splits + s) * kColumns * 8 + i % (kColumns * 8)];
    v *= scales[n];
    const int at = (first + t) * p.outputs + n;
    if (kEpilogue == kStore) {
      y[at] = v;
    } else if (kEpilogue == kGelu) {
      y[at] = gelu(v);
    } else {
      float before = y[at];
      for (int part = 0; part < p.parts; part++) before += partials[part * p.columns * p.outputs + at];
      y[at] = before + (p.layer_scale != 0 ? v * layer_scale[n] : v);
    }
  }
}

template
    [[host_name("codec_linear_store")]] [[kernel]] decltype(codec_linear<false, kStore>) codec_linear<false, kStore>;
template [[host_name("codec_linear_add")]] [[kernel]] decltype(codec_linear<false, kAdd>) codec_linear<false, kAdd>;
template [[host_name("codec_linear_gelu")]] [[kernel]] decltype(codec_linear<false, kGelu>) codec_linear<false, kGelu>;
template
    [[host_name("codec_linear_norm_store")]] [[kernel]] decltype(codec_linear<true, kStore>) codec_linear<true, kStore>;
template
    [[host_name("codec_linear_norm_gelu")]] [[kernel]] decltype(codec_linear<true, kGelu>) codec_linear<true, kGelu>;
)~",
       {
           "codec_linear_store",
           "codec_linear_add",
           "codec_linear_gelu",
           "codec_linear_norm_store",
           "codec_linear_norm_gelu",
       }},
      {"codec_qkv.metal",
R"~(// kernels/codec_qkv.metal: queries, keys and values of a layer of the codec's transformers, for one or two columns.
//
// Contract: [q; k; v][t] = W layer_norm(x[t]), each [heads][head_dim]; q and k are rotated by angles[t] (interleaved
// pairs: a, b -> a cos - b sin, a sin + b cos); q is stored float [columns][heads][head_dim]; k and v go to the
// column's slot of the ring. angles: float [columns][head_dim / 2][2], cos and sin.
//
// Ring: a table of the pages' addresses, index slot / 32. From p.offset bytes on, a page has keys float
// [heads][32][head_dim], then values, the same. Columns as ops::Column, here six 32-bit words each: position (2), first
// visible (2), slot, unused.
//
// Weights as in codec_linear.metal with outputs = 3 * heads * head_dim.
//
// Buffers: 0 x, 1 norm_weight, 2 norm_bias, 3 weights, 4 scales, 5 angles, 6 columns, 7 pages, 8 q, 9 params. 8 and the
// pages are written.
//
// Work: as codec_linear.metal: grid (ceil(outputs / (8 * S / splits)), ceil(columns / 2), 1), 32 * S threads, S <= 8 a
// multiple of splits. inputs rounded up to 8 at most 64 * S, head_dim even.
//   codec_qkv
#include <metal_stdlib>
using namespace metal;

struct CodecQkvParams {
  int columns;  // T
  int heads;
  int head_dim;
  int inputs;   // K
  int splits;   // parts of the octets; divides the number of simdgroups
  uint offset;  // of this layer in a page, bytes
};

constant constexpr int kColumns = 2;
constant constexpr int kMaxSimdgroups = 8;
constant constexpr int kMaxNormed = 512;
constant constexpr int kOwn = 4;          // values that a thread normalizes
constant constexpr int kAhead = 4;        // octets of a lane that are under way together
constant constexpr int kPage = 32;        // slots
constant constexpr int kColumnWords = 6;  // of a column's description
constant constexpr int kSlotWord = 4;

METAL_FUNC void unpack8(uint4 q, thread float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(thread const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

/// A lane's share of some octets of a panel, asked for long before it is needed: o, o + 4, ...; the last one again from
/// `end` on.
METAL_FUNC void ask(device const uint4* w, int o, int end, thread uint4* ahead) {
  for (int u = 0; u < kAhead; u++) ahead[u] = w[size_t(max(min(o + 4 * u, end - 1), 0)) * 8];
}

/// sums [2] += what was asked for; column t's octet o is at x + t * row.
METAL_FUNC void add(thread const uint4* ahead, int o, int end, threadgroup const float* x, int row,
                    thread float* sums) {
  for (int u = 0; u < kAhead; u++) {
    if (o + 4 * u >= end) break;
    float values[8];
    unpack8(ahead[u], values);
    for (int t = 0; t < kColumns; t++) {
      threadgroup const float4* x4 = (threadgroup const float4*)(x + t * row + 4 * u * 8);
      sums[t] = dot8(values, x4[0], x4[1], sums[t]);
    }
  }
}

[[kernel, max_total_threads_per_threadgroup(256)]] void codec_qkv(
    device const float* x [[buffer(0)]],
    device const float* norm_weight [[buffer(1)]],
    device const float* norm_bias [[buffer(2)]],
    device const uint4* weights [[buffer(3)]],
    device const float* scales [[buffer(4)]],
    device const float* angles [[buffer(5)]],
    device const int* at [[buffer(6)]],
    device uchar* const device* pages [[buffer(7)]],
    device float* q [[buffer(8)]],
    constant CodecQkvParams& p [[buffer(9)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float4 normed4[kColumns * kMaxNormed / 4];
  threadgroup float reduced[kMaxSimdgroups * kColumns * 8];
  threadgroup float* normed = (threadgroup float*)normed4;

  const int threads = int(simdgroups) * 32;
  const int width = p.heads * p.head_dim;
  const int split = int(sg) % p.splits;
  const int sets = int(simdgroups) / p.splits;  // of 8 outputs, in this threadgroup
  const int first = int(tgid.y) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int octets = (p.inputs + 7) / 8;
  const int row = octets * 8;
  const int begin = octets * split / p.splits;
  const int end = octets * (split + 1) / p.splits;
  const int output = int(lane) % 8;
  const int share = int(lane) / 8;
  // Panels beyond the last one repeat it and are dropped at the end.
  const int panel = min(int(tgid.x) * sets + int(sg) / p.splits, (3 * width + 7) / 8 - 1);
  device const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output;

  float sums[kColumns] = {0.0f, 0.0f};
  uint4 ahead[kAhead];
  ask(w, begin + share, end, ahead);
  float own[kOwn];
  float gain[kOwn];
  float offset[kOwn];
  for (int u = 0; u < kOwn; u++) {
    const int i = u * threads + int(lid);
    const int t = i < row ? 0 : 1;
    const int k = i - t * row;
    const bool here = k < p.inputs;
    own[u] = here && t < columns ? x[(first + t) * p.inputs + k] : 0.0f;
    gain[u] = here ? norm_weight[k] : 0.0f;
    offset[u] = here ? norm_bias[k] : 0.0f;
    if (i < kColumns * row) normed[i] = own[u];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float mean[kColumns];
  float factor[kColumns];
  for (int t = 0; t < kColumns; t++) {
    float values[kMaxNormed / 32];
    float sum = 0.0f;
    for (int u = 0; u < kMaxNormed / 32; u++) {
      const int k = u * 32 + int(lane);
      values[u] = k < p.inputs ? normed[t * row + k] : 0.0f;
      sum += values[u];
    }
    mean[t] = simd_sum(sum) / float(p.inputs);
    float squares = 0.0f;
    for (int u = 0; u < kMaxNormed / 32; u++) {
      const float d = u * 32 + int(lane) < p.inputs ? values[u] - mean[t] : 0.0f;
      squares = metal::fma(d, d, squares);
    }
    factor[t] = metal::precise::rsqrt(simd_sum(squares) / float(p.inputs) + 1e-5f);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int u = 0; u < kOwn; u++) {
    const int i = u * threads + int(lid);
    const float scaled = i < row ? (own[u] - mean[0]) * factor[0] : (own[u] - mean[1]) * factor[1];
    if (i < kColumns * row) normed[i] = scaled * gain[u] + offset[u];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (int o = begin + share; o < end; o += 4 * kAhead) {
    if (o != begin + share) ask(w, o, end, ahead);
    add(ahead, o, end, normed + o * 8, row, sums);
  }
  for (int t = 0; t < kColumns; t++) {
    sums[t] += simd_shuffle_xor(sums[t], ushort(8));
    sums[t] += simd_shuffle_xor(sums[t], ushort(16));
    if (share == 0) reduced[(int(sg) * kColumns + t) * 8 + output] = sums[t];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // A thread per pair of outputs: pairs lie in one head, and panels hold whole pairs.
  for (int i = int(lid); i < sets * kColumns * 4; i += threads) {
    const int set = i / (kColumns * 4);
    const int t = i / 4 % kColumns;
    const int n = (int(tgid.x) * sets + set) * 8 + i % 4 * 2;
    if (t >= columns || n >= 3 * width) continue;
    float a = 0.0f;
    float b = 0.0f;
    for (int s = 0; s < p.splits; s++) {
      const int from = ((set * p.splits + s) * kColumns + t) * 8 + i % 4 * 2;
      a += reduced[from];
      b += reduced[from + 1];
    }
    a *= scales[n];
    b *= scales[n + 1];
    const int kind = n / width;  // 0 q, 1 k, 2 v
    const int in_kind = n - kind * width;
    const int head = in_kind / p.head_dim;
    const int in_head = in_kind - head * p.head_dim;
    if (kind < 2) {
      const int pair = (first + t) * p.head_dim + in_head;  // [columns][head_dim / 2][2]
      const float c = angles[pair];
)~"
R"~(      const float s = angles[pair + 1];
      const float rotated = a * c - b * s;
      b = a * s + b * c;
      a = rotated;
    }
    if (kind == 0) {
      q[(first + t) * width + in_kind] = a;
      q[(first + t) * width + in_kind + 1] = b;
    } else {
      const int slot = at[(first + t) * kColumnWords + kSlotWord];
      device float* page = (device float*)(pages[slot / kPage] + p.offset);
      const int cell = (((kind - 1) * p.heads + head) * kPage + slot % kPage) * p.head_dim + in_head;
      page[cell] = a;
      page[cell + 1] = b;
    }
  }
}
)~",
       {
           "codec_qkv",
       }},
      {"codec_quantize.metal",
R"~(// kernels/codec_quantize.metal: residual vector quantization: one step of it for both parts, the semantic and the rest.
//
// Contract: step s of steps 0..max(levels0, levels1), one dispatch each. For part r (its levels follow those of part 0
// in `codebooks` and `codes`), where s > 0 and s <= levels_r: the nearest codeword of level s - 1 is taken from
// `distances` and `indices` (ties to the lowest index), its index goes to codes, and it is subtracted: residual[s %
// 2][r] = residual[(s - 1) % 2][r] - codeword. Where s < levels_r, every threadgroup finds the nearest of its share of
// level s's codewords: smallest sum of squared differences from the residual, ties to the lowest index. The last step
// searches nothing. What is written in a step is read in the next: a barrier lies in between.
//
// Buffers: 0 codebooks float [levels0 + levels1][bins][d], 1 residual float [2][2][d]: step 0 finds the input in
// residual[0], 2 distances float [2][2][groups], 3 indices int [2][2][groups], 4 codes int [levels0 + levels1], 5
// params. 1 to 4 are written.
//
// Work: grid (groups, 2, 1), groups at most bins, the same for all steps but the last, for which (1, 2, 1) is enough;
// 32 * S threads, S <= 32. A simdgroup does a codeword at a time. d at most 512.
//   codec_quantize
#include <metal_stdlib>
using namespace metal;

struct CodecQuantizeParams {
  int step;
  int levels0;
  int levels1;
  int bins;
  int d;
  int groups;
};

constant constexpr int kMaxD = 512;
constant constexpr int kMaxSimdgroups = 32;
constant constexpr int kParts = 2;

[[kernel, max_total_threads_per_threadgroup(1024)]] void codec_quantize(
    device const float* codebooks [[buffer(0)]],
    device float* residual [[buffer(1)]],
    device float* distances [[buffer(2)]],
    device int* indices [[buffer(3)]],
    device int* codes [[buffer(4)]],
    constant CodecQuantizeParams& p [[buffer(5)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float x[kMaxD];
  threadgroup float nearest[kMaxSimdgroups];
  threadgroup int nearest_at[kMaxSimdgroups];

  const int part = int(tgid.y);
  const int group = int(tgid.x);
  const int levels = part == 0 ? p.levels0 : p.levels1;
  const int first_level = part == 0 ? 0 : p.levels0;
  const int now = p.step % 2;
  const int before = 1 - now;
  if (p.step > levels || (p.step == levels && group > 0)) return;  // whole threadgroups

  int code = -1;
  if (p.step > 0) {
    device const float* distance = distances + (before * kParts + part) * p.groups;
    device const int* index = indices + (before * kParts + part) * p.groups;
    float least = INFINITY;
    int at = 0x7fffffff;
    for (int g = int(lane); g < p.groups; g += 32) {
      if (distance[g] < least || (distance[g] == least && index[g] < at)) {
        least = distance[g];
        at = index[g];
      }
    }
    const float least_of_all = simd_min(least);
    code = simd_min(least == least_of_all ? at : 0x7fffffff);
    code = min(max(code, 0), p.bins - 1);  // in bounds where all is NaN, too
    if (group == 0 && lid == 0) codes[first_level + p.step - 1] = code;
  }

  device const float* from = residual + ((p.step == 0 ? 0 : before) * kParts + part) * p.d;
  device const float* codeword = codebooks + (size_t(max(first_level + p.step - 1, 0)) * p.bins + max(code, 0)) * p.d;
  for (int i = int(lid); i < p.d; i += int(simdgroups) * 32) {
    const float value = p.step == 0 ? from[i] : from[i] - codeword[i];
    x[i] = value;
    if (group == 0 && p.step > 0) residual[(now * kParts + part) * p.d + i] = value;
  }
  if (p.step == levels) return;
  threadgroup_barrier(mem_flags::mem_threadgroup);

  device const float* level = codebooks + size_t(first_level + p.step) * p.bins * p.d;
  const int begin = p.bins * group / p.groups;
  const int end = p.bins * (group + 1) / p.groups;
  float least = INFINITY;
  int at = begin;
  float mine[kMaxD / 32];
  for (int u = 0; u < kMaxD / 32; u++) mine[u] = u * 32 + int(lane) < p.d ? x[u * 32 + int(lane)] : 0.0f;
  for (int c = begin + int(sg); c < end; c += int(simdgroups)) {
    float sum = 0.0f;
    for (int u = 0; u < kMaxD / 32; u++) {
      const int i = u * 32 + int(lane);
      const float difference = i < p.d ? mine[u] - level[size_t(c) * p.d + i] : 0.0f;
      sum = metal::fma(difference, difference, sum);
    }
    sum = simd_sum(sum);
    if (sum < least) {
      least = sum;
      at = c;
    }
  }
  if (lane == 0) {
    nearest[sg] = least;
    nearest_at[sg] = at;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lid == 0) {
    for (int s = 1; s < int(simdgroups); s++) {
      if (nearest[s] < least || (nearest[s] == least && nearest_at[s] < at)) {
        least = nearest[s];
        at = nearest_at[s];
      }
    }
    distances[(now * kParts + part) * p.groups + group] = least;
    indices[(now * kParts + part) * p.groups + group] = at;
  }
}
)~",
       {
           "codec_quantize",
       }},
      {"codec_residual.metal",
R"~(// kernels/codec_residual.metal: a residual block of the codec: x + conv2(elu(conv1(window))).
//
// Contract: hidden[m][h] = elu(bias1[h] + sum over tap, c of W1[h][tap][c] * window[m + tap * dilation][c]), y[m][n] =
// x[m][n] + bias2[n] + sum over h of W2[n][h] * hidden[m][h]; m < count, h < hidden, c and n < channels. raw = y and
// elu = elu(y), where wanted; raw may be x. The window holds elu of the block's input: [(taps - 1) * dilation carried +
// count new columns][channels] float32, time-major; its carry is codec_carry.metal's.
//
// Weights as in codec_conv.metal: int16 [ceil(outputs / 8)][groups][ceil(width / 8)][8][8], times a float per output:
// conv1 has `taps` groups of width `channels`, conv2 one of width `hidden`.
//
// Buffers: 0 window, 1 x, 2 weights1, 3 scales1, 4 bias1, 5 weights2, 6 scales2, 7 bias2, 8 raw, 9 elu, 10 params. What
// `flags` does not ask for is not touched. 8 and 9 are written.
//
// Work: a threadgroup does P positions, all channels. Its simdgroups share out sets of 32 outputs, a lane each, and
// parts of the sum of a set where there are more simdgroups than sets. Grid (ceil(count / P), 1, 1), 32 * S threads, S
// at most 16, P * S at most 64. With channels and hidden rounded up to 8: (P + (taps - 1) * dilation) * channels is at
// most 3072, P * hidden at most 1024; else, or where a few threadgroups have to read large weights, two convolutions by
// codec_conv.metal do the same (on an H200 three times as fast for 512 channels, 16 positions).
//   codec_residual_p8   S <= 8: 64 channels in the real model
//   codec_residual_p4   S <= 16: 128
//   codec_residual_p2   S <= 16: 256
#include <metal_stdlib>
using namespace metal;

struct CodecResidualParams {
  int count;
  int channels;
  int hidden;
  int taps;
  int dilation;
  int flags;  // 1 bias1, 2 bias2, 4 raw, 8 elu
};

constant constexpr int kWindow = 3072;  // floats of threadgroup memory
constant constexpr int kHidden = 1024;
constant constexpr int kSums = 2048;  // P * S * 32 at most
constant constexpr int kAhead = 8;    // octets of a lane that are under way together

METAL_FUNC void unpack8(uint4 q, thread float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
  }
}

METAL_FUNC float dot8(thread const float* w, float4 a, float4 b, float sum) {
  sum = metal::fma(w[0], a.x, sum);
  sum = metal::fma(w[1], a.y, sum);
  sum = metal::fma(w[2], a.z, sum);
  sum = metal::fma(w[3], a.w, sum);
  sum = metal::fma(w[4], b.x, sum);
  sum = metal::fma(w[5], b.y, sum);
  sum = metal::fma(w[6], b.z, sum);
  return metal::fma(w[7], b.w, sum);
}

METAL_FUNC float elu_of(float y) { return y > 0.0f ? y : metal::precise::exp(y) - 1.0f; }

/// How many parts the sum of a set of 32 outputs has.
METAL_FUNC int parts_of(int outputs, int simdgroups) { return max(1, simdgroups / ((outputs + 31) / 32)); }

/// One part of the sums of one set of 32 outputs, to `sums` [P][32]: position m's group g begins at x + (m + g *
/// dilation) * row.
template <int P>
METAL_FUNC void part_of_set(device const uint4* weights, int outputs, int groups, int width, int set, int part,
                            int parts, threadgroup const float* x, int row, int dilation, uint lane,
                            threadgroup float* sums) {
  const int in_group = (width + 7) / 8;
  const int octets = groups * in_group;
  const int begin = octets * part / parts;
  const int end = octets * (part + 1) / parts;
  const int panel = min(set * 4 + int(lane) / 8, (outputs + 7) / 8 - 1);
  device const uint4* w = weights + size_t(panel) * size_t(octets * 8) + lane % 8;
  float sum[P];
  for (int m = 0; m < P; m++) sum[m] = 0.0f;
  int group = begin / in_group;
  int in = begin - group * in_group;
  for (int base = begin; base < end; base += kAhead) {
    uint4 ahead[kAhead];
    for (int u = 0; u < kAhead; u++) ahead[u] = w[size_t(min(base + u, end - 1)) * 8];
    for (int u = 0; u < kAhead; u++) {
      if (base + u >= end) break;
      float values[8];
      unpack8(ahead[u], values);
      threadgroup const float* at = x + group * dilation * row + in * 8;
      for (int m = 0; m < P; m++) {
        threadgroup const float4* x4 = (threadgroup const float4*)(at + m * row);
        sum[m] = dot8(values, x4[0], x4[1], sum[m]);
      }
      in++;
      if (in == in_group) {
        in = 0;
        group++;
      }
    }
  }
  for (int m = 0; m < P; m++) sums[m * 32 + int(lane)] = sum[m];
}

template <int P>
[[kernel, max_total_threads_per_threadgroup(512)]] void codec_residual(
    device const float* window [[buffer(0)]],
    device const float* x [[buffer(1)]],
    device const uint4* weights1 [[buffer(2)]],
    device const float* scales1 [[buffer(3)]],
    device const float* bias1 [[buffer(4)]],
    device const uint4* weights2 [[buffer(5)]],
    device const float* scales2 [[buffer(6)]],
    device const float* bias2 [[buffer(7)]],
    device float* raw [[buffer(8)]],
    device float* elu [[buffer(9)]],
    constant CodecResidualParams& p [[buffer(10)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float4 seen4[kWindow / 4];
  threadgroup float4 inner4[kHidden / 4];
  threadgroup float sums[kSums];
  threadgroup float* seen = (threadgroup float*)seen4;    // [P + (taps - 1) * dilation][row]
  threadgroup float* inner = (threadgroup float*)inner4;  // [P][inner_row]

  const int threads = int(simdgroups) * 32;
  const int first = int(tgid.x) * P;
  const int row = (p.channels + 7) / 8 * 8;
  const int inner_row = (p.hidden + 7) / 8 * 8;
  const int carried = (p.taps - 1) * p.dilation;

  for (int i = int(lid); i < (P + carried) * row; i += threads) {
    const int column = first + i / row;
    const int c = i % row;
    seen[i] = c < p.channels && column < carried + p.count ? window[column * p.channels + c] : 0.0f;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // Chunks of as many (set, part) as there are simdgroups: the second half of the work waits for all of the first.
  const int sets1 = (p.hidden + 31) / 32;
  const int parts1 = parts_of(p.hidden, int(simdgroups));
  const int together1 = int(simdgroups) / parts1;
  for (int base = 0; base < sets1; base += together1) {
    const int set = base + int(sg) / parts1;
    if (int(sg) < together1 * parts1 && set < sets1) {
      part_of_set<P>(weights1, p.hidden, p.taps, p.channels, set, int(sg) % parts1, parts1, seen, row, p.dilation, lane,
                     sums + int(sg) * P * 32);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < min(together1, sets1 - base) * P * 32; i += threads) {
      const int h = (base + i / (P * 32)) * 32 + i % 32;
      if (h >= inner_row) continue;
      float sum = 0.0f;
      for (int part = 0; part < parts1; part++) sum += sums[(i / (P * 32) * parts1 + part) * P * 32 + i % (P * 32)];
      float y = 0.0f;  // beyond the last output: read by the second convolution, times 0
      if (h < p.hidden) y = elu_of(sum * scales1[h] + ((p.flags & 1) != 0 ? bias1[h] : 0.0f));
      inner[i / 32 % P * inner_row + h] = y;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  const int sets2 = (p.channels + 31) / 32;
  const int parts2 = parts_of(p.channels, int(simdgroups));
  const int together2 = int(simdgroups) / parts2;
  for (int base = 0; base < sets2; base += together2) {
    const int set = base + int(sg) / parts2;
    if (int(sg) < together2 * parts2 && set < sets2) {
      part_of_set<P>(weights2, p.channels, 1, p.hidden, set, int(sg) % parts2, parts2, inner, inner_row, 0, lane,
                     sums + int(sg) * P * 32);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < min(together2, sets2 - base) * P * 32; i += threads) {
)~"
R"~(      const int m = first + i / 32 % P;
      const int n = (base + i / (P * 32)) * 32 + i % 32;
      if (m >= p.count || n >= p.channels) continue;
      float sum = 0.0f;
      for (int part = 0; part < parts2; part++) sum += sums[(i / (P * 32) * parts2 + part) * P * 32 + i % (P * 32)];
      const int at = m * p.channels + n;
      const float y = sum * scales2[n] + ((p.flags & 2) != 0 ? bias2[n] : 0.0f) + x[at];
      if ((p.flags & 4) != 0) raw[at] = y;
      if ((p.flags & 8) != 0) elu[at] = elu_of(y);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}

template [[host_name("codec_residual_p2")]] [[kernel]] decltype(codec_residual<2>) codec_residual<2>;
template [[host_name("codec_residual_p4")]] [[kernel]] decltype(codec_residual<4>) codec_residual<4>;
template [[host_name("codec_residual_p8")]] [[kernel]] decltype(codec_residual<8>) codec_residual<8>;
)~",
       {
           "codec_residual_p2",
           "codec_residual_p4",
           "codec_residual_p8",
       }},
      {"codec_upsample.metal",
R"~(// kernels/codec_upsample.metal: depthwise transposed convolution of kernel 2 * stride, from 12.5 Hz to 25 Hz.
//
// Contract: y[l * stride + s][c] = taps[s][c] * window[l + 1][c] + taps[stride + s][c] * window[l][c] (+ bias[c]), l <
// count, s < stride, c < channels; then window[0] = window[count]: this kernel moves its carry itself.
//
// Buffers: 0 window float [1 carried + count][channels], 1 taps float [2 * stride][channels], 2 bias float [channels],
// touched where params says so, 3 y float [count * stride][channels], 4 params. 0 and 3 are written.
// Work: a thread does a channel. Grid (ceil(channels / threads), 1, 1), any number of threads.
//   codec_upsample
#include <metal_stdlib>
using namespace metal;

struct CodecUpsampleParams {
  int count;
  int channels;
  int stride;
  int has_bias;
};

[[kernel]] void codec_upsample(
    device float* window [[buffer(0)]],
    device const float* taps [[buffer(1)]],
    device const float* bias [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant CodecUpsampleParams& p [[buffer(4)]],
    uint3 position [[thread_position_in_grid]]) {
  const int c = int(position.x);
  if (c >= p.channels) return;
  const float more = p.has_bias != 0 ? bias[c] : 0.0f;
  float before = window[c];
  for (int l = 0; l < p.count; l++) {
    const float own = window[(l + 1) * p.channels + c];
    for (int s = 0; s < p.stride; s++) {
      const float both = taps[s * p.channels + c] * own + taps[(p.stride + s) * p.channels + c] * before;
      y[(l * p.stride + s) * p.channels + c] = both + more;
    }
    before = own;
  }
  window[c] = before;
}
)~",
       {
           "codec_upsample",
       }},
      {"lm_attend.metal",
R"~(// kernels/lm_attend.metal: attention of a few columns over a ring of keys and values, split over the positions.
//
// Contract (ops: attend): out [T, heads * head_dim] = softmax(q k^T / sqrt(head_dim)) v of every column over the
// positions first_visible .. position. Those are at most `slots`; position p lies in slot (kv_slot - (position - p))
// mod slots of the ring (see Column), slot s in pages[s / 32]. From p.offset on a page holds the layer's keys
// [heads][32][head_dim], then the values, then, with 8 bits, float scales [heads][32] of the keys and of the values.
//
// attend_<cells>_d<head_dim>: cells bf16, int8 or f32; head_dim 128 or 64, and 0 for any even one up to 512.
//   Buffers: 0 q float [T, heads, head_dim], 1 columns Column [T], 2 pages, 3 partial float [T, heads, splits,
//   head_dim + 2], 4 out float [T, heads, head_dim], 5 params.
//   Work: a threadgroup takes one of p.splits equal parts of a column's positions for one head: grid (splits, heads,
//   T), 32 to 256 threads. With splits 1 the result goes to out (partial is not touched), else its part to partial
//   (out is not touched): per dimension the weighted sum, then the largest score and the sum of weights.
// attend_combine: out from partial.
//   Buffers: 0 partial, 1 out, 2 params (the same). Work: grid (heads, T, 1), 32 to 512 threads.
//
// A lane reads 16 bytes of a row, so 4 to 32 lanes share a row (LANES); each such team goes through its own positions
// with its own running maximum, four rows at a time, and the teams are put together at the end.
#include <metal_stdlib>
using namespace metal;

struct AttendParams {
  int heads;
  int head_dim;
  int slots;
  int splits;
  uint offset;  // of this layer in a page, a multiple of 16
};

struct Column {
  long position;
  long first_visible;
  int kv_slot;
  int unused;
};

constant constexpr int MOST_SIMDGROUPS = 8;
constant constexpr int MOST_DIM = 512;
constant constexpr float LOWEST = -3.0e38f;  // of a team that has seen nothing; unlike infinity it can be subtracted

/// The values in 16 bytes.
template <int BITS>
METAL_FUNC void unpack(uint4 q, thread float* v) {
  const uint words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (BITS == 32) {
      v[i] = as_type<float>(words[i]);
    } else if (BITS == 16) {
      v[2 * i] = as_type<float>(words[i] << 16);
      v[2 * i + 1] = as_type<float>(words[i] & 0xFFFF0000u);
    } else {
      for (int j = 0; j < 4; j++) v[4 * i + j] = float(int(words[i] << uint(24 - 8 * j)) >> 24);
    }
  }
}

template <int BITS>
METAL_FUNC float cell(device const uchar* row, int i) {
  if (BITS == 32) return ((device const float*)row)[i];
  if (BITS == 16) return as_type<float>(uint(((device const ushort*)row)[i]) << 16);
  return float(int(uint(row[i]) << 24) >> 24);
}

/// Where the keys and values of one head lie in every page.
struct Places {
  size_t keys, values, key_scales, value_scales;
};

METAL_FUNC Places places_of(constant AttendParams& p, int bits, int head) {
  const size_t head_bytes = size_t(32 * p.head_dim) * size_t(bits) / 8;
  const size_t heads = size_t(p.heads);
  Places at;
  at.keys = size_t(p.offset) + size_t(head) * head_bytes;
  at.values = at.keys + heads * head_bytes;
  at.key_scales = size_t(p.offset) + 2 * heads * head_bytes + size_t(head) * 128;
  at.value_scales = at.key_scales + heads * 128;
  return at;
}

/// Slot of the j-th of `count` visible positions.
METAL_FUNC int slot_of(int j, int count, int kv_slot, int slots) {
  const int slot = kv_slot - (count - 1 - j);
  return slot < 0 ? slot + slots : slot;
}

/// The threadgroup's result from those of its simdgroups, after a barrier: to out, or as a part to partial.
METAL_FUNC void finish(threadgroup const float* sums, threadgroup const float* largest, threadgroup const float* totals,
                       int simdgroups, int lid, int column, int head, int split, constant AttendParams& p,
                       device float* partial, device float* out) {
  float most = LOWEST;
  for (int i = 0; i < simdgroups; i++) most = max(most, largest[i]);
  float total = 0.0f;
  for (int i = 0; i < simdgroups; i++) total += totals[i] * metal::precise::exp(largest[i] - most);
  const size_t row = size_t(column) * size_t(p.heads) + size_t(head);
  device float* part = partial + (row * size_t(p.splits) + size_t(split)) * size_t(p.head_dim + 2);
  for (int i = lid; i < p.head_dim; i += simdgroups * 32) {
    float sum = 0.0f;
    for (int j = 0; j < simdgroups; j++) sum += sums[j * p.head_dim + i] * metal::precise::exp(largest[j] - most);
    if (p.splits == 1) {
      out[row * size_t(p.head_dim) + size_t(i)] = sum / total;
    } else {
      part[i] = sum;
    }
  }
  if (p.splits > 1 && lid == 0) {
    part[p.head_dim] = most;
    part[p.head_dim + 1] = total;
  }
}

template <int BITS, int DIM>
[[kernel]] void attend(
    device const float* q [[buffer(0)]],
    device const Column* at [[buffer(1)]],
    device uchar* const device* pages [[buffer(2)]],
    device float* partial [[buffer(3)]],
    device float* out [[buffer(4)]],
    constant AttendParams& p [[buffer(5)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int VALUES = 128 / BITS;     // of a row in a lane
  constexpr int LANES = DIM / VALUES;    // of a team
  constexpr int TEAMS = 32 / LANES;
  constexpr int ROWS = 4;                // of a team at a time
  threadgroup float sums[MOST_SIMDGROUPS * DIM];
  threadgroup float largest[MOST_SIMDGROUPS];
  threadgroup float totals[MOST_SIMDGROUPS];
  const int split = int(tgid.x);
  const int head = int(tgid.y);
  const int column = int(tgid.z);
  const int own = int(lane) % LANES;
  const int team = int(lane) / LANES;
  const int count = int(at[column].position - at[column].first_visible) + 1;
  const int kv_slot = at[column].kv_slot;
  const int end = count * (split + 1) / p.splits;
  const Places places = places_of(p, BITS, head);

  float query[VALUES];
  const float factor = metal::precise::rsqrt(float(DIM));
  for (int i = 0; i < VALUES; i++) {
    query[i] = q[(size_t(column) * size_t(p.heads) + size_t(head)) * size_t(DIM) + size_t(own * VALUES + i)] * factor;
  }
  float most = LOWEST;
  float total = 0.0f;
  float sum[VALUES];
  for (int i = 0; i < VALUES; i++) sum[i] = 0.0f;

  const int stride = TEAMS * ROWS;
  for (int first = count * split / p.splits + int(sg) * stride; first < end; first += int(simdgroups) * stride) {
    uint4 keys[ROWS];
    uint4 values[ROWS];
    float key_scales[ROWS];
    float value_scales[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int slot = slot_of(min(first + r * TEAMS + team, end - 1), count, kv_slot, p.slots);
      device const uchar* page = pages[slot / 32];
      const size_t cell = size_t((slot % 32 * DIM + own * VALUES) * BITS / 8);
      keys[r] = *(device const uint4*)(page + places.keys + cell);
      values[r] = *(device const uint4*)(page + places.values + cell);
      if (BITS == 8) {
        key_scales[r] = ((device const float*)(page + places.key_scales))[slot % 32];
        value_scales[r] = ((device const float*)(page + places.value_scales))[slot % 32];
      }
    }
    float scores[ROWS];
    float more = most;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float v[VALUES];
      unpack<BITS>(keys[r], v);
      float score = 0.0f;
#pragma unroll
      for (int i = 0; i < VALUES; i++) score += query[i] * v[i];
#pragma unroll
      for (ushort mask = 1; mask < LANES; mask *= 2) score += simd_shuffle_xor(score, mask);
      if (BITS == 8) score *= key_scales[r];
      scores[r] = first + r * TEAMS + team < end ? score : LOWEST;
      more = max(more, scores[r]);
    }
    const float shrink = metal::fast::exp(most - more);
    most = more;
    total *= shrink;
)~"
R"~(#pragma unroll
    for (int i = 0; i < VALUES; i++) sum[i] *= shrink;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float weight = first + r * TEAMS + team < end ? metal::fast::exp(scores[r] - most) : 0.0f;
      total += weight;
      if (BITS == 8) weight *= value_scales[r];
      float v[VALUES];
      unpack<BITS>(values[r], v);
#pragma unroll
      for (int i = 0; i < VALUES; i++) sum[i] += weight * v[i];
    }
  }

  // The teams of the simdgroup.
  const float of_all = simd_max(most);
  const float shrink = metal::fast::exp(most - of_all);
  total *= shrink;
  for (ushort mask = LANES; mask < 32; mask *= 2) total += simd_shuffle_xor(total, mask);
#pragma unroll
  for (int i = 0; i < VALUES; i++) {
    sum[i] *= shrink;
    for (ushort mask = LANES; mask < 32; mask *= 2) sum[i] += simd_shuffle_xor(sum[i], mask);
    if (team == 0) sums[int(sg) * DIM + own * VALUES + i] = sum[i];
  }
  if (lane == 0) {
    largest[sg] = of_all;
    totals[sg] = total;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  finish(sums, largest, totals, int(simdgroups), int(lid), column, head, split, p, partial, out);
}

/// Any head_dim: a simdgroup goes through a row at a time, value by value.
template <int BITS>
[[kernel]] void attend_any(
    device const float* q [[buffer(0)]],
    device const Column* at [[buffer(1)]],
    device uchar* const device* pages [[buffer(2)]],
    device float* partial [[buffer(3)]],
    device float* out [[buffer(4)]],
    constant AttendParams& p [[buffer(5)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int VALUES = MOST_DIM / 32;
  threadgroup float sums[MOST_SIMDGROUPS * MOST_DIM];
  threadgroup float largest[MOST_SIMDGROUPS];
  threadgroup float totals[MOST_SIMDGROUPS];
  const int split = int(tgid.x);
  const int head = int(tgid.y);
  const int column = int(tgid.z);
  const int count = int(at[column].position - at[column].first_visible) + 1;
  const int kv_slot = at[column].kv_slot;
  const int end = count * (split + 1) / p.splits;
  const Places places = places_of(p, BITS, head);
  device const float* own = q + (size_t(column) * size_t(p.heads) + size_t(head)) * size_t(p.head_dim);
  const float factor = metal::precise::rsqrt(float(p.head_dim));
  float most = LOWEST;
  float total = 0.0f;
  float sum[VALUES];
  for (int i = 0; i < VALUES; i++) sum[i] = 0.0f;
  for (int j = count * split / p.splits + int(sg); j < end; j += int(simdgroups)) {
    const int slot = slot_of(j, count, kv_slot, p.slots);
    device const uchar* page = pages[slot / 32];
    const size_t row = size_t(slot % 32 * p.head_dim) * size_t(BITS / 8);
    float score = 0.0f;
    for (int i = int(lane); i < p.head_dim; i += 32) score += own[i] * cell<BITS>(page + places.keys + row, i);
    score = simd_sum(score) * factor;
    if (BITS == 8) score *= ((device const float*)(page + places.key_scales))[slot % 32];
    const float more = max(most, score);
    const float shrink = metal::fast::exp(most - more);
    float weight = metal::fast::exp(score - more);
    most = more;
    total = total * shrink + weight;
    if (BITS == 8) weight *= ((device const float*)(page + places.value_scales))[slot % 32];
#pragma unroll
    for (int i = 0; i < VALUES; i++) {
      const int dim = int(lane) + 32 * i;
      if (dim < p.head_dim) sum[i] = sum[i] * shrink + weight * cell<BITS>(page + places.values + row, dim);
    }
  }
#pragma unroll
  for (int i = 0; i < VALUES; i++) {
    const int dim = int(lane) + 32 * i;
    if (dim < p.head_dim) sums[int(sg) * p.head_dim + dim] = sum[i];
  }
  if (lane == 0) {
    largest[sg] = most;
    totals[sg] = total;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  finish(sums, largest, totals, int(simdgroups), int(lid), column, head, split, p, partial, out);
}

[[kernel]] void attend_combine(
    device const float* partial [[buffer(0)]],
    device float* out [[buffer(1)]],
    constant AttendParams& p [[buffer(2)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  const size_t row = size_t(tgid.y) * size_t(p.heads) + size_t(tgid.x);
  const int width = p.head_dim + 2;
  device const float* parts = partial + row * size_t(p.splits) * size_t(width);
  float most = LOWEST;
  for (int i = 0; i < p.splits; i++) most = max(most, parts[i * width + p.head_dim]);
  float total = 0.0f;
  for (int i = 0; i < p.splits; i++) {
    total += parts[i * width + p.head_dim + 1] * metal::precise::exp(parts[i * width + p.head_dim] - most);
  }
  for (int dim = int(lid); dim < p.head_dim; dim += int(simdgroups) * 32) {
    float sum = 0.0f;
#pragma unroll 4
    for (int i = 0; i < p.splits; i++) {
      sum += parts[i * width + dim] * metal::precise::exp(parts[i * width + p.head_dim] - most);
    }
    out[row * size_t(p.head_dim) + size_t(dim)] = sum / total;
  }
}

template [[host_name("attend_bf16_d128")]] [[kernel]] decltype(attend<16, 128>) attend<16, 128>;
template [[host_name("attend_bf16_d64")]] [[kernel]] decltype(attend<16, 64>) attend<16, 64>;
template [[host_name("attend_bf16_d0")]] [[kernel]] decltype(attend_any<16>) attend_any<16>;
template [[host_name("attend_int8_d128")]] [[kernel]] decltype(attend<8, 128>) attend<8, 128>;
template [[host_name("attend_int8_d64")]] [[kernel]] decltype(attend<8, 64>) attend<8, 64>;
template [[host_name("attend_int8_d0")]] [[kernel]] decltype(attend_any<8>) attend_any<8>;
template [[host_name("attend_f32_d128")]] [[kernel]] decltype(attend<32, 128>) attend<32, 128>;
template [[host_name("attend_f32_d64")]] [[kernel]] decltype(attend<32, 64>) attend<32, 64>;
template [[host_name("attend_f32_d0")]] [[kernel]] decltype(attend_any<32>) attend_any<32>;
)~",
       {
           "attend_bf16_d128",
           "attend_bf16_d64",
           "attend_bf16_d0",
           "attend_int8_d128",
           "attend_int8_d64",
           "attend_int8_d0",
           "attend_f32_d128",
           "attend_f32_d64",
           "attend_f32_d0",
           "attend_combine",
       }},
      {"lm_embed.metal",
R"~(// kernels/lm_embed.metal: x = the sum of one row of each of several tables.
//
// Contract: x [T, dim] = sum over tables r, in order, of their row ids[r * 32 + t]; -1 adds nothing.
// Tables: bits 4 or 8 as in lm_product.metal (w = scale * q + bias, lowest bits first), or 16: bfloat rows. dim is a
// multiple of 8 and of every table's group.
// Buffers: 0 tables, EmbedTable [count], whose pointers are device addresses; 1 ids, int32 [count][32]; 2 x, float;
// 3 params.
// Work: a simdgroup takes a table in turn, 256 values of its row; grid (ceil(dim / 256), T, 1), 32 * min(count, 24)
// threads (or fewer, down to 32; never more than 24 simdgroups).
// host_names: embed_sum
#include <metal_stdlib>
using namespace metal;

struct EmbedTable {       // 40 bytes
  device const uint* words;
  device const ushort* scales;  // not read with 16 bits
  device const ushort* biases;
  int bits;
  int group_shift;        // log2(group size)
  int half_scales;        // 1: scales and biases are half, 0: bfloat
  int unused;
};

struct EmbedParams {
  int dim;
  int count;  // tables
};

constant constexpr int SPAN = 256;       // values of a row that a simdgroup reads
constant constexpr int MOST_SIMDGROUPS = 24;

METAL_FUNC float from16(ushort bits, bool is_half) {
  return is_half ? float(as_type<half>(bits)) : as_type<float>(uint(bits) << 16);
}

[[kernel]] void embed_sum(
    device const EmbedTable* tables [[buffer(0)]],
    device const int* ids [[buffer(1)]],
    device float* x [[buffer(2)]],
    constant EmbedParams& p [[buffer(3)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float rows[MOST_SIMDGROUPS * SPAN];
  threadgroup float sums[SPAN];
  const int column = int(tgid.y);
  const int first = int(tgid.x) * SPAN;
  const int at = first + int(lane) * 8;
  const int threads = int(simdgroups) * 32;
  for (int i = int(lid); i < SPAN; i += threads) sums[i] = 0.0f;
  for (int done = 0; done < p.count; done += int(simdgroups)) {
    const int r = done + int(sg);
    const int id = r < p.count ? ids[r * 32 + column] : -1;
    float v[8];
    for (int i = 0; i < 8; i++) v[i] = 0.0f;
    if (id >= 0 && at < p.dim) {
      const int bits = tables[r].bits;
      device const uint* word = tables[r].words + (size_t(id) * size_t(p.dim) + size_t(at)) * size_t(bits) / 32;
      if (bits == 16) {
        for (int i = 0; i < 4; i++) {
          v[2 * i] = as_type<float>(word[i] << 16);
          v[2 * i + 1] = as_type<float>(word[i] & 0xFFFF0000u);
        }
      } else {
        const int shift = tables[r].group_shift;
        const bool is_half = tables[r].half_scales != 0;
        const size_t group = size_t(id) * size_t(p.dim >> shift) + size_t(at >> shift);
        const float scale = from16(tables[r].scales[group], is_half);
        const float bias = from16(tables[r].biases[group], is_half);
        const uint low = word[0];
        if (bits == 4) {
          for (int i = 0; i < 8; i++) v[i] = scale * float((low >> uint(4 * i)) & 15u) + bias;
        } else {
          const uint high = word[1];
          for (int i = 0; i < 4; i++) {
            v[i] = scale * float((low >> uint(8 * i)) & 255u) + bias;
            v[4 + i] = scale * float((high >> uint(8 * i)) & 255u) + bias;
          }
        }
      }
    }
    for (int i = 0; i < 8; i++) rows[int(sg) * SPAN + int(lane) * 8 + i] = v[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < SPAN; i += threads) {
      float sum = sums[i];
      for (int j = 0; j < min(int(simdgroups), p.count - done); j++) sum += rows[j * SPAN + i];
      sums[i] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (int i = int(lid); i < min(SPAN, p.dim - first); i += threads) {
    x[size_t(column) * size_t(p.dim) + size_t(first + i)] = sums[i];
  }
}
)~",
       {
           "embed_sum",
       }},
      {"lm_norm.metal",
R"~(// kernels/lm_norm.metal: y = norm(x) of every column, RMS (eps 1e-8) or layer norm (eps 1e-5).
//
// Contract: x, y float [T, dim]; weight, bias float [dim]. y may be x.
// Buffers: 0 x, 1 weight, 2 bias (RMS: not read), 3 y, 4 params.
// Work: a threadgroup a column: grid (T, 1, 1), any number of threads up to 1024.
// host_names: norm_rms, norm_layer
#include <metal_stdlib>
using namespace metal;

struct NormParams {
  int dim;
};

/// The sum over the threadgroup, in all threads. Begins and ends with a barrier.
METAL_FUNC float group_sum(float v, uint lane, uint sg, uint simdgroups, threadgroup float* parts) {
  v = simd_sum(v);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) parts[sg] = v;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return simd_sum(lane < simdgroups ? parts[lane] : 0.0f);
}

template <bool LAYER>
[[kernel]] void norm(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device const float* bias [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant NormParams& p [[buffer(4)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float parts[32];
  const int threads = int(simdgroups) * 32;
  const size_t column = size_t(tgid.x) * size_t(p.dim);
  float mean = 0.0f;
  if (LAYER) {
    float sum = 0.0f;
    for (int i = int(lid); i < p.dim; i += threads) sum += x[column + size_t(i)];
    mean = group_sum(sum, lane, sg, simdgroups, parts) / float(p.dim);
  }
  float squares = 0.0f;
  for (int i = int(lid); i < p.dim; i += threads) {
    const float d = x[column + size_t(i)] - mean;
    squares += d * d;
  }
  const float variance = group_sum(squares, lane, sg, simdgroups, parts) / float(p.dim);
  const float factor = metal::precise::rsqrt(variance + (LAYER ? 1e-5f : 1e-8f));
  for (int i = int(lid); i < p.dim; i += threads) {
    const float v = (x[column + size_t(i)] - mean) * factor * weight[i];
    y[column + size_t(i)] = LAYER ? v + bias[i] : v;
  }
}

template [[host_name("norm_rms")]] [[kernel]] decltype(norm<false>) norm<false>;
template [[host_name("norm_layer")]] [[kernel]] decltype(norm<true>) norm<true>;
)~",
       {
           "norm_rms",
           "norm_layer",
       }},
      {"lm_product.metal",
R"~(// kernels/lm_product.metal: products with a matrix of the language model, and what follows them at once.
//
//   qmv_*             y = W norm(x), stored, added to y, or through SwiGLU          (ops: project)
//   qkv_*             [q; k; v] = W norm(x): rotary, q stored, k and v to the ring   (ops: project_qkv)
//   attend_project_*  y += W attention(q, ring), for a ring of at most 32 slots      (ops: attend, then project)
//
// host_names: <kernel>_<format>_<tile>
//   format  b4_bf16 b4_f16 b8_bf16 b8_f16 (quantized; type of scales and biases) or bf16 (not quantized)
//   tile    r1_c1 r2_c1 r4_c1: a simdgroup computes that many slots of one column; grid.y = columns.
//           c8: a simdgroup computes 4 slots of up to 8 columns; grid.y = ceil(columns / 8). split = 1.
//   qmv has all four, qkv r2_c1 r4_c1 c8, attend_project r1_c1 r2_c1. With r4_c1 and c8 at most 512 threads.
//
// Work: a threadgroup of S simdgroups (threads = 32 S, S <= 32) computes (S / split) * (slots of the tile) slots in
// each of its `passes`; grid.x = ceil(N / (that * passes)). `split` simdgroups (a divisor of S) share each row's K. x
// is staged once for all passes where K <= 4096 (512 with c8). attend_project has no passes. Any S, split and passes
// is right; which is fast is for the host to find out.
// A slot is a row of W; with SwiGLU even slots are gates and odd ones their values. The slots of a pass must be even in
// number for SwiGLU and for qkv; with an int8 ring those of a threadgroup must be a multiple of head_dim, and at most
// 1024 (128 with c8).
//
// W: quantized [N, K] as 16-byte blocks of 32 (b4) or 16 (b8) values, lowest bits first, w = scale * q + bias with
// scales and biases 16-bit [N, K / group], K a multiple of the group (32 or 64: p.group_shift 5 or 6); or bfloat [N,
// K], K a multiple of 8. Base addresses are multiples of 16. x, y, norm and angles are float32.
//
// How: x is staged in threadgroup memory, 4096 values at a time, in the order in which lanes read it, each row one
// float4 longer than it need be, which spares bank conflicts. The first weights are fetched before that. The factor of
// RMSNorm is applied to the results: its sum of squares is gathered while x is staged. A quantized value becomes a
// float by being put into the mantissa of a power of two, so that it is off by that power; what that adds to the
// product depends on x alone and is summed once per block of x (`sums`), with the sum that the bias multiplies.
#include <metal_stdlib>
using namespace metal;

constant constexpr int CHUNK = 4096;            // staged values of x, all columns
constant constexpr int STAGED = CHUNK / 4 + 64;  // float4s, with the extra ones

struct ProductParams {
  int n;            // rows of W
  int k;
  int columns;
  int group_shift;  // log2(group size)
  int split;
  int passes;
  int epilogue;     // 0: y = , 1: y +=, 2: SwiGLU, y [columns, n / 2]
  int norm;         // 1: RMSNorm with buffer 1
};

struct QkvParams {
  int n;            // 3 * heads * head_dim
  int k;
  int columns;
  int group_shift;
  int split;
  int passes;
  int norm;
  int heads;
  int head_dim;
  int rotary;       // 0: buffer 5 is not read
  int kv_bits;      // 32, 16, 8
  uint offset;      // of this layer in a page
};

struct AttendProjectParams {
  int n;
  int k;            // heads * head_dim, at most 4096
  int group_shift;
  int split;
  int heads;
  int head_dim;     // a multiple of 8
  int slots;        // of the ring
  uint offset;      // of this layer in a page; the ring holds bfloat
};

struct Column {
  long position;
  long first_visible;
  int kv_slot;
  int unused;
};

template <bool HALF>
METAL_FUNC float from16(ushort bits) {
  return HALF ? float(as_type<half>(bits)) : as_type<float>(uint(bits) << 16);
}

/// Values in a block of 16 bytes.
constexpr METAL_FUNC int block_values(int bits) {
  return 128 / bits;
}

/// The powers of two into whose mantissas quantized values are put, in registers: an instruction can mask a word and
/// fill in the exponent at once, but then the exponent is no constant. So the compiler must not know that `zero` is 0.
struct Powers {
  uint of_4096, of_256, of_16, of_2048, of_128;
};

METAL_FUNC Powers powers(uint zero) {
  Powers p;
  p.of_4096 = 0x45800000u + zero;
  p.of_256 = 0x43800000u + zero;
  p.of_16 = 0x41800000u + zero;
  p.of_2048 = 0x45000000u + zero;
  p.of_128 = 0x43000000u + zero;
  return p;
}

/// 8 values of 4 bits (+ 4096, 256, 16, 2048, 128, 4096, 256, 16), 4 values of 8 bits (+ 256), or 4 bfloats from two
/// words.
template <int BITS>
METAL_FUNC void decode(uint word, uint next, thread const Powers& p, thread float* v) {
  if (BITS == 4) {
    const uint low = word << 11;
    const uint high = word >> 9;
    v[0] = as_type<float>((low & 0x00007800u) | p.of_4096);
    v[1] = as_type<float>((low & 0x00078000u) | p.of_256);
    v[2] = as_type<float>((low & 0x00780000u) | p.of_16);
    v[3] = as_type<float>((word & 0x0000F000u) | p.of_2048);
    v[4] = as_type<float>((word & 0x000F0000u) | p.of_128);
    v[5] = as_type<float>((high & 0x00007800u) | p.of_4096);
    v[6] = as_type<float>((high & 0x00078000u) | p.of_256);
    v[7] = as_type<float>((high & 0x00780000u) | p.of_16);
  } else if (BITS == 8) {
    v[0] = as_type<float>(((word << 15) & 0x007F8000u) | p.of_256);
    v[1] = as_type<float>(((word << 7) & 0x007F8000u) | p.of_256);
    v[2] = as_type<float>(((word >> 1) & 0x007F8000u) | p.of_256);
    v[3] = as_type<float>(((word >> 9) & 0x007F8000u) | p.of_256);
  } else {
    v[0] = as_type<float>(word << 16);
    v[1] = as_type<float>(word & 0xFFFF0000u);
    v[2] = as_type<float>(next << 16);
    v[3] = as_type<float>(next & 0xFFFF0000u);
  }
}

/// What decode() adds, times x: of four values from an even (odd) quad of a block on.
template <int BITS>
METAL_FUNC float excess(float4 x, int quad) {
  if (BITS == 8) return 256.0f * (x.x + x.y + x.z + x.w);
  return quad % 2 == 0 ? 4096.0f * x.x + 256.0f * x.y + 16.0f * x.z + 2048.0f * x.w
                       : 128.0f * x.x + 4096.0f * x.y + 256.0f * x.z + 16.0f * x.w;
}

/// Where value 4 * i of a staged column lies: lanes next to each other read float4s next to each other.
template <int BITS, int LANES>
METAL_FUNC int staged(int i) {
  constexpr int QUADS = block_values(BITS) / 4;
  const int rest = i % (LANES * QUADS);
  return (i / (LANES * QUADS) * QUADS + rest % QUADS) * (LANES + 1) + rest / QUADS;
}

/// A block of each row of a lane.
template <int R>
struct Blocks {
  uint4 words[R];
  ushort scales[R];
  ushort biases[R];
};

template <int BITS, int R>
METAL_FUNC void fetch(device const uint4* w, device const ushort* scales, device const ushort* biases,
                      thread const int* rows, int k, int group_shift, int block, thread Blocks<R>& out) {
  const int per_row = k / block_values(BITS);
  const int at = min(block, per_row - 1);  // beyond K, x is zero
  for (int r = 0; r < R; r++) {
    out.words[r] = w[size_t(rows[r]) * size_t(per_row) + size_t(at)];
    if (BITS != 16) {
      const int group = rows[r] * (k >> group_shift) + ((at * block_values(BITS)) >> group_shift);
      out.scales[r] = scales[group];
      out.biases[r] = biases[group];
    }
  }
}

/// total[r * C + c] += blocks of row r times the staged blocks `step` of column c.
template <int BITS, bool HALF, int R, int C, int LANES>
METAL_FUNC void multiply(thread const Blocks<R>& blocks, threadgroup const float4* xs, threadgroup const float2* sums,
                         int step, int lane, thread const Powers& p, thread float* total) {
  constexpr int QUADS = block_values(BITS) / 4;
  constexpr int UNIT = BITS == 4 ? 8 : 4;  // values that are decoded together
  constexpr int UNIT_WORDS = BITS == 16 ? 2 : 1;
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int COLUMN_BLOCKS = CHUNK / C / block_values(BITS);
  float acc[R * C];
  float sum[C];
#pragma unroll
  for (int c = 0; c < C; c++) {
    float start = 0.0f;
)~"
R"~(    sum[c] = 0.0f;
    if (BITS != 16) {
      const int block = c * COLUMN_BLOCKS + step * LANES + lane;
      start = -sums[block].x;
      sum[c] = sums[block].y;
    }
#pragma unroll
    for (int r = 0; r < R; r++) acc[r * C + c] = start;
  }
#pragma unroll
  for (int u = 0; u < 4 / UNIT_WORDS; u++) {
    float v[R][8];
#pragma unroll
    for (int r = 0; r < R; r++) {
      const uint4 q = blocks.words[r];
      const uint words[4] = {q.x, q.y, q.z, q.w};
      decode<BITS>(words[u * UNIT_WORDS], words[(u * UNIT_WORDS + 1) % 4], p, v[r]);
    }
#pragma unroll
    for (int quad = 0; quad < UNIT / 4; quad++) {
      const int at = (step * QUADS + u * (UNIT / 4) + quad) * (LANES + 1) + lane;
#pragma unroll
      for (int c = 0; c < C; c++) {
        const float4 x = xs[c * COLUMN + at];
#pragma unroll
        for (int r = 0; r < R; r++) {
          float a = acc[r * C + c];
          a = metal::fma(v[r][quad * 4], x.x, a);
          a = metal::fma(v[r][quad * 4 + 1], x.y, a);
          a = metal::fma(v[r][quad * 4 + 2], x.z, a);
          acc[r * C + c] = metal::fma(v[r][quad * 4 + 3], x.w, a);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    const float scale = BITS == 16 ? 1.0f : from16<HALF>(blocks.scales[r]);
    const float bias = BITS == 16 ? 0.0f : from16<HALF>(blocks.biases[r]);
#pragma unroll
    for (int c = 0; c < C; c++) total[r * C + c] += scale * acc[r * C + c] + bias * sum[c];
  }
}

/// Stages x from k0 on (zeros beyond K and beyond the last column), times the norm's weight.
template <int BITS, int C, int LANES>
METAL_FUNC void stage(device const float* x, device const float* weight, bool norm, int k, int columns, int k0, int lid,
                      int threads, threadgroup float4* xs, thread float* squares) {
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int STEP = LANES * block_values(BITS);
  const int end = min(CHUNK / C, (k - k0 + STEP - 1) / STEP * STEP);
  for (int c = 0; c < C; c++) {
    device const float* column = x + size_t(c) * size_t(k);
    for (int first = lid; first < end / 4; first += 4 * threads) {
      float4 v[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int at = k0 + 4 * (first + j * threads);
        v[j] = c < columns && at < k ? *(device const float4*)(column + at) : float4(0.0f);
      }
      if (norm) {
        float4 factors[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int at = k0 + 4 * (first + j * threads);
          factors[j] = at < k ? *(device const float4*)(weight + at) : float4(0.0f);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
          if (first + j * threads < end / 4) {
            squares[c] += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
          }
          v[j] = v[j] * factors[j];
        }
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int i = first + j * threads;
        if (i < end / 4) xs[c * COLUMN + staged<BITS, LANES>(i)] = v[j];
      }
    }
  }
}

/// sums[block] = (what decode() adds, times x; sum of x) of every staged block.
template <int BITS, int C, int LANES>
METAL_FUNC void sum_blocks(int k, int k0, int lid, int threads, threadgroup const float4* xs,
                           threadgroup float2* sums) {
  constexpr int QUADS = block_values(BITS) / 4;
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int COLUMN_BLOCKS = CHUNK / C / block_values(BITS);
  constexpr int STEP = LANES * block_values(BITS);
  const int blocks = min(CHUNK / C, (k - k0 + STEP - 1) / STEP * STEP) / block_values(BITS);
  for (int c = 0; c < C; c++) {
    for (int b = lid; b < blocks; b += threads) {
      float over = 0.0f;
      float sum = 0.0f;
#pragma unroll
      for (int q = 0; q < QUADS; q++) {
        const float4 x = xs[c * COLUMN + (b / LANES * QUADS + q) * (LANES + 1) + b % LANES];
        over += excess<BITS>(x, q);
        sum += x.x + x.y + x.z + x.w;
      }
      sums[c * COLUMN_BLOCKS + b] = float2(over, sum);
    }
  }
}

/// The sum over the lanes that share a row, in all of them.
template <int LANES>
METAL_FUNC float lanes_sum(float v) {
  for (ushort mask = LANES / 2; mask > 0; mask /= 2) v += simd_shuffle_xor(v, mask);
  return v;
}

/// results[(sg * rows of a simdgroup + row) * C + c]: what each simdgroup has of its rows.
template <int R, int C, int LANES>
METAL_FUNC void reduce(thread float* total, int lane, int sg, threadgroup float* results) {
  constexpr int HALVES = 32 / LANES;
  for (int r = 0; r < R; r++) {
    for (int c = 0; c < C; c++) {
      const float v = lanes_sum<LANES>(total[r * C + c]);
      if (lane % LANES == 0) results[((sg * R + r) * HALVES + lane / LANES) * C + c] = v;
    }
  }
}

/// Slot i of the threadgroup, column c: the parts of the simdgroups that share it.
template <int R, int C, int LANES>
METAL_FUNC float result(threadgroup const float* results, int i, int c, int split) {
  constexpr int ROWS = R * (32 / LANES);
  const int at = (i / ROWS * split * ROWS + i % ROWS) * C + c;
  float v = 0.0f;
  for (int part = 0; part < split; part++) v += results[at + part * ROWS * C];
  return v;
}

template <int C>
METAL_FUNC float norm_factor(threadgroup const float* squares, int simdgroups, int c, int k) {
  float sum = 0.0f;
  for (int i = 0; i < simdgroups; i++) sum += squares[i * C + c];
  return metal::precise::rsqrt(sum / float(k) + 1e-8f);
}

/// What a thread knows of its work.
template <int R>
struct Work {
  int lid, threads, lane, sg;
  int k, group_shift, split, columns;
  bool norm;
  int rows[R];    // of W, in this pass
  Blocks<R> next;  // the first ones of this pass
};

/// A pass: everything up to the parts of the results and of the squares. Begins and ends with a barrier. Unless it is
/// the last, leaves the first blocks of the rows `then` in work.next.
template <int BITS, bool HALF, int R, int C, int LANES>
METAL_FUNC void product(device const float* x, device const float* weight, device const uint4* w,
                        device const ushort* scales, device const ushort* biases, thread Work<R>& work, bool first_pass,
                        bool last_pass, thread const int* then, threadgroup float4* xs, threadgroup float2* sums,
                        threadgroup float* results, threadgroup float* squares) {
  constexpr int STEP = LANES * block_values(BITS);
  constexpr int CHUNK_STEPS = CHUNK / C / STEP;
  const int k = work.k;
  const int steps = (k + STEP - 1) / STEP;
  const int own = work.lane % LANES;
  const int part = work.sg % work.split;
  const Powers p = powers(C == 1 ? uint(work.split) >> 31 : 0u);  // for many columns the registers are worth more
  float total[R * C];
  float square[C];
  for (int i = 0; i < R * C; i++) total[i] = 0.0f;
  for (int c = 0; c < C; c++) square[c] = 0.0f;
  int step = part;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int first = 0; first < steps; first += CHUNK_STEPS) {
    if (first_pass || steps > CHUNK_STEPS) {
      if (first > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
      stage<BITS, C, LANES>(x, weight, work.norm, k, work.columns, first * STEP, work.lid, work.threads, xs, square);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      if (BITS != 16) {
        sum_blocks<BITS, C, LANES>(k, first * STEP, work.lid, work.threads, xs, sums);
        threadgroup_barrier(mem_flags::mem_threadgroup);
      }
    }
    for (; step < min(steps, first + CHUNK_STEPS); step += work.split) {
      const Blocks<R> now = work.next;
      const bool last = step + work.split >= steps;
      if (last && !last_pass) {
        for (int r = 0; r < R; r++) work.rows[r] = then[r];
      }
      if (!last || !last_pass) {
        fetch<BITS, R>(w, scales, biases, work.rows, k, work.group_shift,
                       (last ? part : step + work.split) * LANES + own, work.next);
      }
)~"
R"~(      multiply<BITS, HALF, R, C, LANES>(now, xs, sums, step - first, own, p, total);
    }
  }
  reduce<R, C, LANES>(total, work.lane, work.sg, results);
  if (work.norm && first_pass) {
    for (int c = 0; c < C; c++) {
      const float v = simd_sum(square[c]);
      if (work.lane == 0) squares[work.sg * C + c] = v;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
}

/// The lane's rows of W for the slots from slot0 on.
template <int R, int LANES>
METAL_FUNC void rows_of(int slot0, int n, bool swiglu, int lane, int sg, int split, thread int* rows) {
  for (int r = 0; r < R; r++) {
    const int slot = min(n - 1, slot0 + sg / split * R * (32 / LANES) + r * (32 / LANES) + lane / LANES);
    rows[r] = swiglu ? slot / 2 + slot % 2 * (n / 2) : slot;
  }
}

template <int BITS, bool HALF, int R, int C, int LANES>
[[kernel]] void qmv(
    device const float* x [[buffer(0)]],           // [columns, k]
    device const float* weight [[buffer(1)]],      // [k]; without a norm not read
    device const uint4* w [[buffer(2)]],
    device const ushort* scales [[buffer(3)]],     // bf16: not read
    device const ushort* biases [[buffer(4)]],     // bf16: not read
    device float* y [[buffer(5)]],                 // [columns, n], SwiGLU: [columns, n / 2]
    constant ProductParams& p [[buffer(6)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int ROWS = R * (32 / LANES);
  threadgroup float4 xs[STAGED];
  threadgroup float2 sums[CHUNK / block_values(BITS)];
  threadgroup float results[32 * ROWS * C];
  threadgroup float squares[32 * C];
  const int slots = int(simdgroups) / p.split * ROWS;
  const int first = int(tgid.y) * C;
  const int columns = min(C, p.columns - first);
  const bool swiglu = p.epilogue == 2;
  const int outputs = swiglu ? slots / 2 : slots;
  const int width = swiglu ? p.n / 2 : p.n;
  int slot0 = int(tgid.x) * p.passes * slots;
  const int end = min(p.n, slot0 + p.passes * slots);

  Work<R> work;
  work.lid = int(lid);
  work.threads = int(simdgroups) * 32;
  work.lane = int(lane);
  work.sg = int(sg);
  work.k = p.k;
  work.group_shift = p.group_shift;
  work.split = p.split;
  work.columns = columns;
  work.norm = p.norm != 0;
  rows_of<R, LANES>(slot0, p.n, swiglu, work.lane, work.sg, p.split, work.rows);
  fetch<BITS, R>(w, scales, biases, work.rows, p.k, p.group_shift, work.sg % p.split * LANES + work.lane % LANES,
                 work.next);
  for (bool first_pass = true; slot0 < end; slot0 += slots, first_pass = false) {
    const bool last_pass = slot0 + slots >= end;
    int then[R];
    if (!last_pass) rows_of<R, LANES>(slot0 + slots, p.n, swiglu, work.lane, work.sg, p.split, then);
    product<BITS, HALF, R, C, LANES>(x + size_t(first) * size_t(p.k), weight, w, scales, biases, work, first_pass,
                                     last_pass, then, xs, sums, results, squares);
    for (int i = work.lid; i < outputs * columns; i += work.threads) {
      const int c = i / outputs;
      const int slot = i % outputs;
      const int n = (swiglu ? slot0 / 2 : slot0) + slot;
      if (n >= width) continue;
      const float factor = work.norm ? norm_factor<C>(squares, int(simdgroups), c, p.k) : 1.0f;
      const size_t at = size_t(first + c) * size_t(width) + size_t(n);
      if (swiglu) {
        const float gate = factor * result<R, C, LANES>(results, 2 * slot, c, p.split);
        const float value = factor * result<R, C, LANES>(results, 2 * slot + 1, c, p.split);
        y[at] = gate / (1.0f + metal::precise::exp(-gate)) * value;
      } else {
        const float v = factor * result<R, C, LANES>(results, slot, c, p.split);
        y[at] = p.epilogue == 1 ? y[at] + v : v;
      }
    }
  }
}

/// Slot of the j-th of `count` visible positions.
METAL_FUNC int slot_of(int j, int count, int kv_slot, int slots) {
  const int slot = kv_slot - (count - 1 - j);
  return slot < 0 ? slot + slots : slot;
}

/// Row `slot` of one head's keys (part 1) or values (part 2).
METAL_FUNC device uchar* ring_row(device uchar* const device* pages, int slot, int part, int heads, int head,
                                  int head_dim, int bytes, uint offset) {
  const int row = ((part - 1) * heads + head) * 32 + slot % 32;
  return pages[slot / 32] + offset + size_t(row) * size_t(head_dim * bytes);
}

template <int BITS, bool HALF, int R, int C, int LANES>
[[kernel]] void qkv(
    device const float* x [[buffer(0)]],                 // [columns, k]
    device const float* weight [[buffer(1)]],            // [k]; without a norm not read
    device const uint4* w [[buffer(2)]],
    device const ushort* scales [[buffer(3)]],           // bf16: not read
    device const ushort* biases [[buffer(4)]],           // bf16: not read
    device const float* angles [[buffer(5)]],            // [columns, head_dim / 2, 2]: cos, sin
    device const Column* at [[buffer(6)]],               // [columns]
    device uchar* const device* pages [[buffer(7)]],     // [slots / 32]
    device float* q [[buffer(8)]],                       // [columns, heads, head_dim]
    constant QkvParams& p [[buffer(9)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int ROWS = R * (32 / LANES);
  threadgroup float4 xs[STAGED];
  threadgroup float2 sums[CHUNK / block_values(BITS)];
  threadgroup float results[32 * ROWS * C];
  threadgroup float squares[32 * C];
  threadgroup float heads[1024];  // int8: rotated keys and values [columns][own]
  const int slots = int(simdgroups) / p.split * ROWS;
  const int first = int(tgid.y) * C;
  const int columns = min(C, p.columns - first);
  const int own = p.passes * slots;
  const int own0 = int(tgid.x) * own;
  const int end = min(p.n, own0 + own);
  int slot0 = own0;

  Work<R> work;
  work.lid = int(lid);
  work.threads = int(simdgroups) * 32;
  work.lane = int(lane);
  work.sg = int(sg);
  work.k = p.k;
  work.group_shift = p.group_shift;
  work.split = p.split;
  work.columns = columns;
  work.norm = p.norm != 0;
  rows_of<R, LANES>(slot0, p.n, false, work.lane, work.sg, p.split, work.rows);
  fetch<BITS, R>(w, scales, biases, work.rows, p.k, p.group_shift, work.sg % p.split * LANES + work.lane % LANES,
                 work.next);
  for (bool first_pass = true; slot0 < end; slot0 += slots, first_pass = false) {
    const bool last_pass = slot0 + slots >= end;
    int then[R];
    if (!last_pass) rows_of<R, LANES>(slot0 + slots, p.n, false, work.lane, work.sg, p.split, then);
    product<BITS, HALF, R, C, LANES>(x + size_t(first) * size_t(p.k), weight, w, scales, biases, work, first_pass,
                                     last_pass, then, xs, sums, results, squares);

    // Pairs: rotated, and stored unless they wait for the scale of their head.
    for (int i = work.lid; i < slots / 2 * columns; i += work.threads) {
      const int c = i / (slots / 2);
      const int slot = i % (slots / 2) * 2;
      const int n = slot0 + slot;
      const int part = n / (p.heads * p.head_dim);
      const int head = n / p.head_dim % p.heads;
      const int dim = n % p.head_dim;
      if (n >= p.n) continue;
      const float factor = work.norm ? norm_factor<C>(squares, int(simdgroups), c, p.k) : 1.0f;
      float even = factor * result<R, C, LANES>(results, slot, c, p.split);
      float odd = factor * result<R, C, LANES>(results, slot + 1, c, p.split);
      if (part < 2 && p.rotary != 0) {
        const size_t angle = (size_t(first + c) * size_t(p.head_dim / 2) + size_t(dim / 2)) * 2;
        const float cosine = angles[angle];
        const float sine = angles[angle + 1];
)~"
R"~(        const float turned = even * cosine - odd * sine;
        odd = even * sine + odd * cosine;
        even = turned;
      }
      if (part == 0) {
        device float* out = q + (size_t(first + c) * size_t(p.heads) + size_t(head)) * size_t(p.head_dim) + size_t(dim);
        out[0] = even;
        out[1] = odd;
        continue;
      }
      device uchar* row =
          ring_row(pages, at[first + c].kv_slot, part, p.heads, head, p.head_dim, p.kv_bits / 8, p.offset);
      if (p.kv_bits == 32) {
        device float* out = (device float*)row + dim;
        out[0] = even;
        out[1] = odd;
      } else if (p.kv_bits == 16) {
        device bfloat* out = (device bfloat*)row + dim;
        out[0] = bfloat(even);
        out[1] = bfloat(odd);
      } else {
        heads[c * own + n - own0] = even;
        heads[c * own + n - own0 + 1] = odd;
      }
    }
  }
  if (p.kv_bits != 8) return;

  // A simdgroup for every key or value of a head: int8 of the largest magnitude / 127.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = work.sg; i < own / p.head_dim * columns; i += int(simdgroups)) {
    const int c = i % columns;
    const int n = own0 + i / columns * p.head_dim;
    const int part = n / (p.heads * p.head_dim);
    const int head = n / p.head_dim % p.heads;
    if (n >= p.n || part == 0) continue;
    threadgroup const float* values = heads + c * own + n - own0;
    float largest = 0.0f;
    for (int dim = work.lane; dim < p.head_dim; dim += 32) largest = max(largest, metal::fabs(values[dim]));
    largest = simd_max(largest);
    const bool nothing = largest < 1e-35f;  // 127 / largest would overflow
    const float inverse = nothing ? 0.0f : 127.0f / largest;
    const int kv_slot = at[first + c].kv_slot;
    device uchar* out = ring_row(pages, kv_slot, part, p.heads, head, p.head_dim, 1, p.offset);
    for (int dim = work.lane; dim < p.head_dim; dim += 32) {
      out[dim] = uchar(int(metal::rint(values[dim] * inverse)) & 255);
    }
    if (lane == 0) {
      const size_t scales_at = size_t(p.offset) + size_t(p.heads * 64) * size_t(p.head_dim);
      device float* of_heads = (device float*)(pages[kv_slot / 32] + scales_at);
      of_heads[((part - 1) * p.heads + head) * 32 + kv_slot % 32] = nothing ? 0.0f : largest / 127.0f;
    }
  }
}

/// Head `head` of softmax(q k^T / sqrt(head_dim)) v over at most 32 positions, by one simdgroup, into the staged x. Two
/// pages hold them all. The first values are fetched before the weights are known.
template <int BITS>
METAL_FUNC void attend_head(device const float* q, device const uchar* first_page, device const uchar* last_page,
                            int kv_slot, int count, int head, int lane, constant AttendProjectParams& p,
                            threadgroup float4* xs) {
  constexpr int EARLY = 8;
  const int row_bytes = 2 * p.head_dim;
  const size_t keys = size_t(p.offset) + size_t(head * 32) * size_t(row_bytes);
  const size_t values = keys + size_t(p.heads * 32) * size_t(row_bytes);
  uint early[EARLY];
#pragma unroll
  for (int i = 0; i < EARLY; i++) {
    const int slot = slot_of(min(i, count - 1), count, kv_slot, p.slots);
    device const uchar* page = slot / 32 == kv_slot / 32 ? last_page : first_page;
    early[i] = *(device const uint*)(page + values + size_t(slot % 32 * row_bytes + 4 * min(lane, p.head_dim / 2 - 1)));
  }

  const int slot = slot_of(min(lane, count - 1), count, kv_slot, p.slots);
  device const uint4* key = (device const uint4*)((slot / 32 == kv_slot / 32 ? last_page : first_page) + keys +
                                                  size_t(slot % 32 * row_bytes));
  float score = 0.0f;
#pragma unroll 8
  for (int i = 0; i < p.head_dim / 8; i++) {
    const uint4 k = key[i];
    const float4 a = *(device const float4*)(q + head * p.head_dim + 8 * i);
    const float4 b = *(device const float4*)(q + head * p.head_dim + 8 * i + 4);
    score += a.x * as_type<float>(k.x << 16) + a.y * as_type<float>(k.x & 0xFFFF0000u);
    score += a.z * as_type<float>(k.y << 16) + a.w * as_type<float>(k.y & 0xFFFF0000u);
    score += b.x * as_type<float>(k.z << 16) + b.y * as_type<float>(k.z & 0xFFFF0000u);
    score += b.z * as_type<float>(k.w << 16) + b.w * as_type<float>(k.w & 0xFFFF0000u);
  }
  score = lane < count ? score * metal::precise::rsqrt(float(p.head_dim)) : -INFINITY;
  const float largest = simd_max(score);
  const float weight = lane < count ? metal::precise::exp(score - largest) : 0.0f;
  const float share = weight / simd_sum(weight);

  for (int first = 0; first < p.head_dim; first += 64) {
    const int dim = min(first + 2 * lane, p.head_dim - 2);
    float even = 0.0f;
    float odd = 0.0f;
    if (first == 0) {
#pragma unroll
      for (int i = 0; i < EARLY; i++) {
        const float s = simd_shuffle(share, ushort(i));  // 0 from `count` on
        even += s * as_type<float>(early[i] << 16);
        odd += s * as_type<float>(early[i] & 0xFFFF0000u);
      }
    }
#pragma unroll 4
    for (int i = first == 0 ? EARLY : 0; i < count; i++) {
      const int at = slot_of(i, count, kv_slot, p.slots);
      device const uchar* page = at / 32 == kv_slot / 32 ? last_page : first_page;
      const uint v = *(device const uint*)(page + values + size_t(at % 32 * row_bytes + 2 * dim));
      const float s = simd_shuffle(share, ushort(i));
      even += s * as_type<float>(v << 16);
      odd += s * as_type<float>(v & 0xFFFF0000u);
    }
    if (first + 2 * lane < p.head_dim) {
      const int k = head * p.head_dim + dim;
      threadgroup float* out = (threadgroup float*)(xs + staged<BITS, 32>(k / 4)) + k % 4;
      out[0] = even;
      out[1] = odd;
    }
  }
}

template <int BITS, bool HALF, int R>
[[kernel]] void attend_project(
    device const float* q [[buffer(0)]],              // [heads, head_dim]: one column
    device const Column* at [[buffer(1)]],            // [1]; sees at most 32 positions
    device uchar* const device* pages [[buffer(2)]],  // [slots / 32]
    device const uint4* w [[buffer(3)]],              // [n, k]
    device const ushort* scales [[buffer(4)]],        // bf16: not read
    device const ushort* biases [[buffer(5)]],        // bf16: not read
    device float* y [[buffer(6)]],                    // [n], added to
    constant AttendProjectParams& p [[buffer(7)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float4 xs[STAGED];
  threadgroup float2 sums[CHUNK / block_values(BITS)];
  threadgroup float results[32 * R];
  constexpr int STEP = 32 * block_values(BITS);
  const int threads = int(simdgroups) * 32;
  const int steps = (p.k + STEP - 1) / STEP;
  const int slots = int(simdgroups) / p.split * R;
  const int slot0 = int(tgid.x) * slots;
  int rows[R];
  float total[R];
  for (int r = 0; r < R; r++) {
    rows[r] = min(p.n - 1, slot0 + int(sg) / p.split * R + r);
    total[r] = 0.0f;
  }
  Blocks<R> next;
  int step = int(sg) % p.split;
  if (step < steps) fetch<BITS, R>(w, scales, biases, rows, p.k, p.group_shift, step * 32 + int(lane), next);

  const int count = int(at->position - at->first_visible) + 1;
  const int kv_slot = at->kv_slot;
  device const uchar* first_page = pages[slot_of(0, count, kv_slot, p.slots) / 32];
  device const uchar* last_page = pages[kv_slot / 32];
  for (int head = int(sg); head < p.heads; head += int(simdgroups)) {
    attend_head<BITS>(q, first_page, last_page, kv_slot, count, head, int(lane), p, xs);
  }
  for (int i = p.k / 4 + int(lid); i < steps * STEP / 4; i += threads) xs[staged<BITS, 32>(i)] = float4(0.0f);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (BITS != 16) {
    sum_blocks<BITS, 1, 32>(p.k, 0, int(lid), threads, xs, sums);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  const Powers of_powers = powers(uint(p.split) >> 31);
)~"
R"~(  for (; step < steps; step += p.split) {
    const Blocks<R> now = next;
    if (step + p.split < steps) {
      fetch<BITS, R>(w, scales, biases, rows, p.k, p.group_shift, (step + p.split) * 32 + int(lane), next);
    }
    multiply<BITS, HALF, R, 1, 32>(now, xs, sums, step, int(lane), of_powers, total);
  }
  reduce<R, 1, 32>(total, int(lane), int(sg), results);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = int(lid); i < min(slots, p.n - slot0); i += threads) {
    y[slot0 + i] += result<R, 1, 32>(results, i, 0, p.split);
  }
}

#define PRODUCTS(format, bits, is_half)                                                                               \
  template [[host_name("qmv_" format "_r1_c1")]] [[kernel]] decltype(qmv<bits, is_half, 1, 1, 32>)                    \
      qmv<bits, is_half, 1, 1, 32>;                                                                                   \
  template [[host_name("qmv_" format "_r2_c1")]] [[kernel]] decltype(qmv<bits, is_half, 2, 1, 32>)                    \
      qmv<bits, is_half, 2, 1, 32>;                                                                                   \
  template [[host_name("qmv_" format "_r4_c1")]] [[kernel]] decltype(qmv<bits, is_half, 4, 1, 32>)                    \
      qmv<bits, is_half, 4, 1, 32>;                                                                                   \
  template [[host_name("qmv_" format "_c8")]] [[kernel]] decltype(qmv<bits, is_half, 2, 8, 16>)                       \
      qmv<bits, is_half, 2, 8, 16>;                                                                                   \
  template [[host_name("qkv_" format "_r2_c1")]] [[kernel]] decltype(qkv<bits, is_half, 2, 1, 32>)                    \
      qkv<bits, is_half, 2, 1, 32>;                                                                                   \
  template [[host_name("qkv_" format "_r4_c1")]] [[kernel]] decltype(qkv<bits, is_half, 4, 1, 32>)                    \
      qkv<bits, is_half, 4, 1, 32>;                                                                                   \
  template [[host_name("qkv_" format "_c8")]] [[kernel]] decltype(qkv<bits, is_half, 2, 8, 16>)                       \
      qkv<bits, is_half, 2, 8, 16>;                                                                                   \
  template [[host_name("attend_project_" format "_r1_c1")]] [[kernel]] decltype(attend_project<bits, is_half, 1>)     \
      attend_project<bits, is_half, 1>;                                                                               \
  template [[host_name("attend_project_" format "_r2_c1")]] [[kernel]] decltype(attend_project<bits, is_half, 2>)     \
      attend_project<bits, is_half, 2>;

PRODUCTS("b4_bf16", 4, false)
PRODUCTS("b4_f16", 4, true)
PRODUCTS("b8_bf16", 8, false)
PRODUCTS("b8_f16", 8, true)
PRODUCTS("bf16", 16, false)
)~",
       {
           "qmv_b4_bf16_r1_c1",
           "qmv_b4_bf16_r2_c1",
           "qmv_b4_bf16_r4_c1",
           "qmv_b4_bf16_c8",
           "qkv_b4_bf16_r2_c1",
           "qkv_b4_bf16_r4_c1",
           "qkv_b4_bf16_c8",
           "attend_project_b4_bf16_r1_c1",
           "attend_project_b4_bf16_r2_c1",
           "qmv_b4_f16_r1_c1",
           "qmv_b4_f16_r2_c1",
           "qmv_b4_f16_r4_c1",
           "qmv_b4_f16_c8",
           "qkv_b4_f16_r2_c1",
           "qkv_b4_f16_r4_c1",
           "qkv_b4_f16_c8",
           "attend_project_b4_f16_r1_c1",
           "attend_project_b4_f16_r2_c1",
           "qmv_b8_bf16_r1_c1",
           "qmv_b8_bf16_r2_c1",
           "qmv_b8_bf16_r4_c1",
           "qmv_b8_bf16_c8",
           "qkv_b8_bf16_r2_c1",
           "qkv_b8_bf16_r4_c1",
           "qkv_b8_bf16_c8",
           "attend_project_b8_bf16_r1_c1",
           "attend_project_b8_bf16_r2_c1",
           "qmv_b8_f16_r1_c1",
           "qmv_b8_f16_r2_c1",
           "qmv_b8_f16_r4_c1",
           "qmv_b8_f16_c8",
           "qkv_b8_f16_r2_c1",
           "qkv_b8_f16_r4_c1",
           "qkv_b8_f16_c8",
           "attend_project_b8_f16_r1_c1",
           "attend_project_b8_f16_r2_c1",
           "qmv_bf16_r1_c1",
           "qmv_bf16_r2_c1",
           "qmv_bf16_r4_c1",
           "qmv_bf16_c8",
           "qkv_bf16_r2_c1",
           "qkv_bf16_r4_c1",
           "qkv_bf16_c8",
           "attend_project_bf16_r1_c1",
           "attend_project_bf16_r2_c1",
       }},
      {"lm_sample.metal",
R"~(// kernels/lm_sample.metal: draws a token from logits, the same one on every device.
//
// Contract (ops: sample): token = target where `forced`; the argmax where temperature <= 0; else the argmax of
// exp((x - max x) / temperature) / q over the top_k largest logits (top_k <= 0 or >= n: over all), q = the Exp(1) noise
// that csrc/core/philox.h draws for (seed, frame, stream, index). All ties go to the lowest index. A NaN is never drawn
// unless all are NaN, and counts as minus infinity for the top_k.
//
// Buffers: 0 logits float [n], read as words; 1 draw, Draw; 2 token int32, written; 3 params.
// Work: one threadgroup of exactly 1024 threads. n < 2^22.
// host_names: sample
//
// Logits are compared as integers in the order of the floats. The k-th largest is found digit by digit from the top
// (11, 11 and 10 bits), with a histogram each; where it ties and not all that tie are taken, two more digits find the
// last index that is.
#include <metal_stdlib>
using namespace metal;

struct SampleParams {
  int n;
  int stream;
};

struct Draw {  // ops::Draw
  float temperature;
  int top_k;
  int target;
  int forced;
  ulong seed;
  ulong frame;
};

constant constexpr int THREADS = 1024;
constant constexpr int BINS = 2048;
constant constexpr uint INFINITE = 0x7F800000u;
constant constexpr uint LOWEST = 0x007FFFFFu;  // the key of minus infinity

/// Keys are in the order of the floats; 0 is a NaN, and both zeros are the same.
METAL_FUNC uint key_of(uint bits) {
  if ((bits & 0x7FFFFFFFu) > INFINITE) return 0u;
  if (bits == 0x80000000u) bits = 0u;
  return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}

struct Best {
  uint key;
  uint index;
};

/// The largest key of the threadgroup and its lowest index, in all threads.
METAL_FUNC Best group_best(uint key, uint index, uint lane, uint sg, threadgroup uint* keys,
                           threadgroup uint* indices) {
  uint most = simd_max(key);
  uint at = simd_min(key == most ? index : 0xFFFFFFFFu);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    keys[sg] = most;
    indices[sg] = at;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  Best best;
  best.key = simd_max(keys[lane]);
  best.index = simd_min(keys[lane] == best.key ? indices[lane] : 0xFFFFFFFFu);
  return best;
}

/// Which logits are taken: those whose key and inverted index, as one number, are at least a bound. It is known down to
/// some bit of the key, then of the index.
struct Bound {
  uint key;
  uint key_mask;
  uint index;  // inverted
  uint index_mask;
  uint places;  // left for those that agree with the bound so far
  uint rivals;  // how many those are
};

METAL_FUNC uint inverted(int i) {
  return 0x3FFFFFu - uint(i);
}

/// The next `bits` digits of the bound: of the key from `shift` on or, where `by_index`, of the inverted index.
METAL_FUNC void narrow(thread Bound& bound, device const uint* logits, int n, int shift, int bits, bool by_index,
                       uint lid, uint lane, uint sg, threadgroup atomic_uint* histogram, threadgroup uint* parts,
                       threadgroup uint* chosen) {
  const uint digit_mask = (1u << uint(bits)) - 1u;
  for (int i = int(lid); i < BINS; i += THREADS) atomic_store_explicit(&histogram[i], 0u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = int(lid); i < n; i += THREADS) {
    const uint key = max(key_of(logits[i]), LOWEST);
    const uint index = inverted(i);
    if ((key & bound.key_mask) == bound.key && (index & bound.index_mask) == bound.index) {
      const uint digit = ((by_index ? index : key) >> uint(shift)) & digit_mask;
      atomic_fetch_add_explicit(&histogram[digit], 1u, memory_order_relaxed);
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  // Two bins a thread, from the top: how many are before them?
  const uint high = uint(BINS - 1) - 2u * lid;
  const uint in_high = atomic_load_explicit(&histogram[high], memory_order_relaxed);
  const uint in_low = atomic_load_explicit(&histogram[high - 1u], memory_order_relaxed);
  uint before = simd_prefix_exclusive_sum(in_high + in_low);
  if (lane == 31u) parts[sg] = before + in_high + in_low;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  before += simd_sum(lane < sg ? parts[lane] : 0u);
  if (before < bound.places && bound.places <= before + in_high + in_low) {
    const bool in_first = bound.places <= before + in_high;
    chosen[0] = in_first ? high : high - 1u;
    chosen[1] = bound.places - before - (in_first ? 0u : in_high);
    chosen[2] = in_first ? in_high : in_low;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (by_index) {
    bound.index |= chosen[0] << uint(shift);
    bound.index_mask |= digit_mask << uint(shift);
  } else {
    bound.key |= chosen[0] << uint(shift);
    bound.key_mask |= digit_mask << uint(shift);
  }
  bound.places = chosen[1];
  bound.rivals = chosen[2];
}

METAL_FUNC uint4 noise_words(ulong seed, ulong frame, uint stream, uint block) {
  uint4 c = uint4(block, stream, uint(frame), uint(frame >> 32));
  uint key0 = uint(seed);
  uint key1 = uint(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const ulong a = ulong(0xD2511F53u) * ulong(c.x);
    const ulong b = ulong(0xCD9E8D57u) * ulong(c.z);
    c = uint4(uint(b >> 32) ^ c.y ^ key0, uint(b), uint(a >> 32) ^ c.w ^ key1, uint(a));
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

/// -log(u), u = ((x >> 8) + 0.5) 2^-24; for u > 1/2 by the series of 2 atanh(z / (2 - z)) = -log(1 - z), z = 1 - u.
METAL_FUNC float exponential(uint x) {
  const uint n = x >> 8;
  if (n < 0x800000u) return -metal::precise::log((float(n) + 0.5f) * 5.9604644775390625e-8f);
  const float z = (float(0xFFFFFFu - n) + 0.5f) * 5.9604644775390625e-8f;
  const float s = z / (2.0f - z);
  const float t = s * s;
  float sum = 1.0f / 15.0f;
  sum = sum * t + 1.0f / 13.0f;
  sum = sum * t + 1.0f / 11.0f;
  sum = sum * t + 1.0f / 9.0f;
  sum = sum * t + 1.0f / 7.0f;
  sum = sum * t + 1.0f / 5.0f;
  sum = sum * t + 1.0f / 3.0f;
  return 2.0f * (s + s * t * sum);
}

/// 1 more than the bits of exp((x - largest) / temperature) / noise, which are in its order; 0 for one that cannot win.
METAL_FUNC uint race(uint x, uint largest, float temperature, uint noise) {
  if (largest == INFINITE) return x == INFINITE ? 0u : 1u;  // infinity - infinity, and exp(-infinity)
  if ((largest & INFINITE) == INFINITE) return 0u;
  if (x == (INFINITE | 0x80000000u)) return 1u;
  const float far = (as_type<float>(x) - as_type<float>(largest)) / temperature;
  return as_type<uint>(metal::precise::exp(max(far, -200.0f)) / exponential(noise)) + 1u;
}

[[kernel]] void sample(
    device const uint* logits [[buffer(0)]],
    device const Draw* draw [[buffer(1)]],
    device int* token [[buffer(2)]],
    constant SampleParams& p [[buffer(3)]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]]) {
  threadgroup atomic_uint histogram[BINS];
  threadgroup uint parts[32];
  threadgroup uint indices[32];
  threadgroup uint chosen[3];
  if (draw->forced != 0) {
    if (lid == 0) token[0] = draw->target;
    return;
  }

  uint key = 0u;
  uint at = 0xFFFFFFFFu;
  for (int i = int(lid); i < p.n; i += THREADS) {
    const uint k = key_of(logits[i]);
    if (k > key || at == 0xFFFFFFFFu) {
      key = k;
      at = uint(i);
    }
  }
  const uint largest = group_best(key, at, lane, sg, parts, indices).index;
  const uint bits = as_type<uint>(draw->temperature);
  if ((bits & 0x80000000u) != 0u || bits == 0u || bits > INFINITE) {  // <= 0 or a NaN
    if (lid == 0) token[0] = int(largest);
    return;
  }
  const float temperature = max(draw->temperature, 1.17549435e-38f);

  Bound bound;
  bound.key = 0u;
  bound.key_mask = 0u;
  bound.index = 0u;
  bound.index_mask = 0u;
  bound.places = uint(draw->top_k);
  bound.rivals = 0u;
)~"
R"~(  if (draw->top_k > 0 && draw->top_k < p.n) {
    narrow(bound, logits, p.n, 21, 11, false, lid, lane, sg, histogram, parts, chosen);
    narrow(bound, logits, p.n, 10, 11, false, lid, lane, sg, histogram, parts, chosen);
    narrow(bound, logits, p.n, 0, 10, false, lid, lane, sg, histogram, parts, chosen);
    if (bound.places < bound.rivals && bound.key != LOWEST) {  // minus infinity never wins but as the first of all
      narrow(bound, logits, p.n, 11, 11, true, lid, lane, sg, histogram, parts, chosen);
      narrow(bound, logits, p.n, 0, 11, true, lid, lane, sg, histogram, parts, chosen);
    }
  }

  key = 0u;
  at = 0xFFFFFFFFu;
  for (int block = int(lid); 4 * block < p.n; block += THREADS) {
    bool taken[4];
    bool any = false;
    for (int j = 0; j < 4; j++) {
      const int i = 4 * block + j;
      const uint k = i < p.n ? key_of(logits[i]) : 0u;
      taken[j] = k != 0u && (k > bound.key || (k == bound.key && inverted(i) >= bound.index));
      any = any || taken[j];
    }
    if (!any) continue;
    const uint4 words = noise_words(draw->seed, draw->frame, uint(p.stream), uint(block));
    const uint noise[4] = {words.x, words.y, words.z, words.w};
    for (int j = 0; j < 4; j++) {
      if (!taken[j]) continue;
      const uint k = race(logits[4 * block + j], logits[largest], temperature, noise[j]);
      if (k > key) {
        key = k;
        at = uint(4 * block + j);
      }
    }
  }
  const Best best = group_best(key, at, lane, sg, parts, indices);
  if (lid == 0) token[0] = int(best.key == 0u ? largest : best.index);
}
)~",
       {
           "sample",
       }},
  };
}

}  // namespace personaplex::gpu
