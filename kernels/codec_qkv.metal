// kernels/codec_qkv.metal: queries, keys and values of a layer of the codec's transformers, for one or two columns.
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
      const float s = angles[pair + 1];
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
