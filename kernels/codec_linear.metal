// kernels/codec_linear.metal: linear layers of the codec's transformers: y = W norm(x) for one or two columns.
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
      const int i = u * threads + int(lid);
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
