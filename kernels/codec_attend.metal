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
// head_dim at most 128 and a multiple of 4. A lane reads 16 bytes of a row, so that up to 32 lanes share a row; each
// such team goes through its own positions with its own running maximum, and the teams are put together at the end.
//   codec_attend
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
// What is before it may run while the kernel before this one ends; the columns and all they lead to come from the host.
#define AWAIT_INPUTS() msl_cuda::await_inputs()
#else
#define AWAIT_INPUTS()
#endif

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
constant constexpr int kMaxHeadDim = 128;
constant constexpr int kSimdgroups = kThreads / 32;
constant constexpr int kAhead = 4;          // rows of a team that are under way together
constant constexpr float kLowest = -3e38f;  // of a team that has seen nothing; unlike infinity it can be subtracted

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

/// Row `slot` of a head's keys (side = head) or values (side = heads + head) in its page.
METAL_FUNC device const float4* row_of(device const uchar* page, uint offset, int side, int slot, int quads) {
  return (device const float4*)(page + offset) + (side * kPage + slot % kPage) * quads;
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
  threadgroup float4 gathered4[kSimdgroups * kColumns * kMaxHeadDim / 4];  // [simdgroup][column][head_dim]
  threadgroup float4 seen4[kColumns * kMaxHeadDim / 4];
  threadgroup float largest[kColumns * kSimdgroups];
  threadgroup float totals[kColumns * kSimdgroups];
  threadgroup float* seen = (threadgroup float*)seen4;

  const int head = int(tgid.x);
  const int first = int(tgid.z) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int in_row = (p.head_dim + 7) / 8 * 8;

  // The weights of a lane's first outputs, and their scales.
  const int output = int(lane) % 8;
  const int octets = in_row / 8;
  const int panels = (p.outputs + 7) / 8;
  const int first_panel = panels * int(tgid.y) / p.slices + int(sg);
  const int asked_panel = min(first_panel, panels - 1);
  uint4 ahead[kMaxHeadDim / 32];
  for (int u = 0; u < kMaxHeadDim / 32; u++) {
    const int o = min(int(lane) / 8 + 4 * u, octets - 1);
    ahead[u] = weights[((size_t(asked_panel) * size_t(p.heads) + size_t(head)) * size_t(octets) + o) * 8 + output];
  }
  const int first_output = min(asked_panel * 8 + output, p.outputs - 1);
  float first_scale = scales[first_output];
  if (p.layer_scale != 0) first_scale *= layer_scale[first_output];

  // Positions relative to the oldest one that either column sees; they fit 32 bits, of which the low words know enough.
  // Column t sees [from, to). A column that is not there sees the last position, so that all is finite.
  device const int* last = at + (first + columns - 1) * kColumnWords;
  int since[kColumns];  // distances from the last column's position
  int behind[kColumns];
  for (int t = 0; t < kColumns; t++) {
    device const int* column = at + (first + min(t, columns - 1)) * kColumnWords;
    since[t] = last[0] - column[kFirstWord];
    behind[t] = last[0] - column[0];
  }
  const int oldest = max(since[0], since[1]);
  const int count = oldest + 1;
  int start = last[kSlotWord] - oldest;
  if (start < 0) start += p.slots;
  int from[kColumns];
  int to[kColumns];
  for (int t = 0; t < kColumns; t++) {
    from[t] = oldest - since[t];
    to[t] = count - behind[t];
  }

  const int quads = p.head_dim / 4;
  int lanes = 1;  // of a team
  while (lanes < quads) lanes *= 2;
  const int teams = 32 / lanes;
  const int quad = min(int(lane) % lanes, quads - 1);
  const int team = int(lane) / lanes;
  const bool in_team = int(lane) % lanes < quads;
  const int together = kSimdgroups * teams;
  const int begin = int(sg) * teams;
  device const uchar* first_pages[kAhead];
  for (int u = 0; u < kAhead; u++) {
    first_pages[u] = pages[slot_of(start, min(begin + team + u * together, count - 1), p.slots) / kPage];
  }
  AWAIT_INPUTS();

  float4 asked[kColumns];
  for (int t = 0; t < kColumns; t++) {
    const int row = (first + min(t, columns - 1)) * p.heads + head;
    asked[t] = in_team ? ((device const float4*)q)[row * quads + quad] * p.factor : float4(0.0f);
  }

  float most[kColumns] = {kLowest, kLowest};
  float total[kColumns] = {0.0f, 0.0f};
  float4 sums4[kColumns] = {float4(0.0f), float4(0.0f)};
#pragma unroll 1
  for (int base = begin; base < count; base += kAhead * together) {
    float4 k[kAhead];
    float4 v[kAhead];
    for (int u = 0; u < kAhead; u++) {
      const int slot = slot_of(start, min(base + team + u * together, count - 1), p.slots);
      device const uchar* page = first_pages[u];
      if (base != begin) page = pages[slot / kPage];
      k[u] = row_of(page, p.offset, head, slot, quads)[quad];
      v[u] = row_of(page, p.offset, p.heads + head, slot, quads)[quad];
    }
    for (int t = 0; t < kColumns; t++) {
      float scores[kAhead];
      for (int u = 0; u < kAhead; u++) scores[u] = dot4(asked[t], k[u], 0.0f);
#pragma unroll 1
      for (int d = 1; d < lanes; d *= 2) {
        for (int u = 0; u < kAhead; u++) scores[u] += simd_shuffle_xor(scores[u], ushort(d));
      }
      float more = most[t];
      bool sees[kAhead];
      for (int u = 0; u < kAhead; u++) {
        const int i = base + team + u * together;
        sees[u] = i >= from[t] && i < to[t];
        if (sees[u]) more = max(more, scores[u]);
      }
      const float shrink = metal::precise::exp(most[t] - more);
      most[t] = more;
      total[t] *= shrink;
      sums4[t] *= shrink;
      for (int u = 0; u < kAhead; u++) {
        const float weight = sees[u] ? metal::precise::exp(scores[u] - more) : 0.0f;
        total[t] += weight;
        sums4[t] += v[u] * weight;
      }
    }
  }

  // The teams of the simdgroup, then the simdgroups that had any position.
  for (int t = 0; t < kColumns; t++) {
    const float all = simd_max(most[t]);
    const float shrink = metal::precise::exp(most[t] - all);
    total[t] *= shrink;
    sums4[t] *= shrink;
#pragma unroll 1
    for (int d = lanes; d < 32; d *= 2) {
      total[t] += simd_shuffle_xor(total[t], ushort(d));
      for (int j = 0; j < 4; j++) sums4[t][j] += simd_shuffle_xor(sums4[t][j], ushort(d));
    }
    if (in_team && team == 0) gathered4[(int(sg) * kColumns + t) * quads + quad] = sums4[t];
    if (lane == 0) {
      largest[t * kSimdgroups + int(sg)] = all;
      totals[t * kSimdgroups + int(sg)] = total[t];
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (int(sg) * 32 < kColumns * in_row) {
    // Lane s has simdgroup s of the first column, lane 16 + s of the second.
    float all = largest[lane];
    for (ushort d = 1; d < kSimdgroups; d *= 2) all = max(all, simd_shuffle_xor(all, d));
    const float share = metal::precise::exp(largest[lane] - all);
    float whole = totals[lane] * share;
    for (ushort d = 1; d < kSimdgroups; d *= 2) whole += simd_shuffle_xor(whole, d);
    const float portion = share / whole;
    threadgroup const float* gathered = (threadgroup const float*)gathered4;
    const int t = int(lid) < in_row ? 0 : 1;
    const int j = int(lid) - t * in_row;
    float sum = 0.0f;
    const int used = min(kSimdgroups, (count + teams - 1) / teams);
#pragma unroll 4
    for (int s = 0; s < used; s++) {
      const float portion0 = simd_shuffle(portion, ushort(s));
      const float portion1 = simd_shuffle(portion, ushort(kSimdgroups + s));
      if (j < p.head_dim) sum += gathered[(s * kColumns + t) * p.head_dim + j] * (t == 0 ? portion0 : portion1);
    }
    if (j < in_row) seen[int(lid)] = sum;
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
        float scale = first_scale;
        if (panel != first_panel) scale = p.layer_scale != 0 ? scales[n] * layer_scale[n] : scales[n];
        partials[(head * p.columns + first + t) * p.outputs + n] = sums[t] * scale;
      }
    }
  }
}
