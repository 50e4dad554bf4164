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
// multiple of splits, a power of 2. inputs rounded up to 8 at most 64 * S, head_dim even.
//   codec_qkv
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
// What is before it may run while the kernel before this one ends; the columns and all they lead to come from the host.
#define AWAIT_INPUTS() msl_cuda::await_inputs()
#else
#define AWAIT_INPUTS()
#endif

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

/// Four values of a row of `count`, from k on; zeros beyond its end. kAligned: `count` is a multiple of 4.
template <bool kAligned>
METAL_FUNC float4 four(device const float* row, int k, int count) {
  if (kAligned) return k < count ? *(device const float4*)(row + k) : float4(0.0f);
  float4 v = float4(0.0f);
#pragma unroll 1
  for (int i = k; i < k + 4; i++) v = float4(v.y, v.z, v.w, i < count ? row[i] : 0.0f);
  return v;
}

/// A simdgroup's part of mean and variance of two rows of `count` values, of which each thread has four of one, v, in
/// the order of the threads; those beyond the end count for nothing.
METAL_FUNC void keep_moments(float4 v, int t, int k, int count, uint lane, uint sg, threadgroup float4* moments) {
  float sums[kColumns];
  float weights[kColumns];
  const float here = float(clamp(count - k, 0, 4));
  for (int c = 0; c < kColumns; c++) {
    sums[c] = simd_sum(t == c ? v.x + v.y + v.z + v.w : 0.0f);
    weights[c] = simd_sum(t == c ? here : 0.0f);
  }
  float mean[kColumns];
  for (int c = 0; c < kColumns; c++) mean[c] = sums[c] / max(weights[c], 1.0f);
  const float own_mean = t == 0 ? mean[0] : mean[1];
  float squares = 0.0f;
  for (int j = 0; j < 4; j++) {
    const float d = k + j < count ? v[j] - own_mean : 0.0f;
    squares = metal::fma(d, d, squares);
  }
  for (int c = 0; c < kColumns; c++) {
    const float all = simd_sum(t == c ? squares : 0.0f);
    if (lane == 0) {
      moments[int(sg) * kColumns + c] = float4(mean[c], all, weights[c], 0.0f);
    }
  }
}

/// Mean and 1 / deviation of row t, from all simdgroups' parts, after a barrier.
METAL_FUNC float2 norm_of(threadgroup const float4* moments, int t, float inverse, int simdgroups) {
  float mean = 0.0f;
#pragma unroll 4
  for (int s = 0; s < simdgroups; s++) {
    const float4 part = moments[s * kColumns + t];
    mean = metal::fma(part.x, part.z * inverse, mean);
  }
  float squares = 0.0f;
#pragma unroll 4
  for (int s = 0; s < simdgroups; s++) {
    const float4 part = moments[s * kColumns + t];
    const float d = part.x - mean;
    squares += metal::fma(part.z * d, d, part.y);
  }
  return float2(mean, metal::precise::rsqrt(squares * inverse + 1e-5f));
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
  threadgroup float4 moments[kMaxSimdgroups * kColumns];  // mean, squares, weight
  threadgroup float* normed = (threadgroup float*)normed4;

  const int width = p.heads * p.head_dim;
  const int shift = int(metal::popcount(uint(p.splits) - 1u));  // splits is a power of 2
  const int split = int(sg) & (p.splits - 1);
  const int sets = int(simdgroups) >> shift;  // of 8 outputs, in this threadgroup
  const int first = int(tgid.y) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int octets = (p.inputs + 7) / 8;
  const int row = octets * 8;
  const int begin = octets * split >> shift;
  const int end = octets * (split + 1) >> shift;
  const int output = int(lane) % 8;
  const int share = int(lane) / 8;
  // Panels beyond the last one repeat it and are dropped at the end.
  const int panel = min(int(tgid.x) * sets + (int(sg) >> shift), (3 * width + 7) / 8 - 1);
  device const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output;

  float sums[kColumns] = {0.0f, 0.0f};
  uint4 ahead[kAhead];
  ask(w, begin + share, end, ahead);
  const int t = int(lid) * 4 < row ? 0 : 1;
  const int k = int(lid) * 4 - t * row;
  float4 gain;
  float4 offset;
  if (p.inputs % 4 == 0) {
    gain = four<true>(norm_weight, k, p.inputs);
    offset = four<true>(norm_bias, k, p.inputs);
  } else {
    gain = four<false>(norm_weight, k, p.inputs);
    offset = four<false>(norm_bias, k, p.inputs);
  }

  // A thread's pair of outputs, which lies in one head and one panel, and what it needs for it: asked for now.
  const int set = int(lid) / (kColumns * 4);
  const int t_out = int(lid) / 4 % kColumns;
  const int n = (int(tgid.x) * sets + set) * 8 + int(lid) % 4 * 2;
  const bool gives = set < sets && t_out < columns && n < 3 * width;
  float2 scale = float2(0.0f);
  if (gives) scale = float2(scales[n], scales[n + 1]);
  float2 turn = float2(1.0f, 0.0f);  // cos, sin
  device float* to = q;
  if (gives) {
    const int kind = n < width ? 0 : n < 2 * width ? 1 : 2;  // q, k, v
    const int in_kind = n - kind * width;
    const int head = in_kind / p.head_dim;
    const int in_head = in_kind - head * p.head_dim;
    to += (first + t_out) * width + in_kind;
    if (kind < 2) {
      const int pair = (first + t_out) * p.head_dim + in_head;  // [columns][head_dim / 2][2]
      turn = float2(angles[pair], angles[pair + 1]);
    }
    if (kind > 0) {
      const int slot = at[(first + t_out) * kColumnWords + kSlotWord];
      to = (device float*)(pages[slot / kPage] + p.offset) +
           (((kind - 1) * p.heads + head) * kPage + slot % kPage) * p.head_dim + in_head;
    }
  }

  AWAIT_INPUTS();
  device const float* from = x + (first + min(t, columns - 1)) * p.inputs;
  const float4 own = p.inputs % 4 == 0 ? four<true>(from, k, p.inputs) : four<false>(from, k, p.inputs);
  keep_moments(own, t, k, p.inputs, lane, sg, moments);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const float2 norm = norm_of(moments, t, 1.0f / float(p.inputs), int(simdgroups));
  if (k < row) normed4[int(lid)] = (own - norm.x) * norm.y * gain + offset;
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

  if (!gives) return;
  float2 v = float2(0.0f);
  for (int s = 0; s < p.splits; s++) {
    const int part = ((set * p.splits + s) * kColumns + t_out) * 8 + int(lid) % 4 * 2;
    v += float2(reduced[part], reduced[part + 1]);
  }
  v *= scale;
  to[0] = v.x * turn.x - v.y * turn.y;
  to[1] = v.x * turn.y + v.y * turn.x;
}
