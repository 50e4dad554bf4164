// kernels/codec_attend.metal: attention of the codec's transformers, and each head's share of the projection after it.
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
  for (int t = 0; t < kColumns; t++) {
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
