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
// has S <= 8 simdgroups, S a multiple of splits, which is a power of 2. Grid (ceil(outputs / (8 * S / splits)),
// ceil(columns / 2), 1), 32 * S threads. With norm, every threadgroup normalizes x for itself: inputs rounded up to 8
// at most 64 * S.
//   codec_linear_store  codec_linear_add  codec_linear_gelu  codec_linear_norm_store  codec_linear_norm_gelu
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
#define AWAIT_INPUTS() msl_cuda::await_inputs()  // what is before it may run while the kernel before this one ends
#else
#define AWAIT_INPUTS()
#endif

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

/// Four values of a row of `count`, from k on; zeros beyond its end. kAligned: `count` is a multiple of 4.
template <bool kAligned>
METAL_FUNC float4 four(device const float* row, int k, int count) {
  if (kAligned) return k < count ? *(device const float4*)(row + k) : float4(0.0f);
  float4 v = float4(0.0f);
#pragma unroll 1
  for (int i = k; i < k + 4; i++) v = float4(v.y, v.z, v.w, i < count ? row[i] : 0.0f);
  return v;
}

/// Four values of a row of x, and what there is in partials for it.
template <bool kAligned>
METAL_FUNC float4 with_partials(device const float* x, device const float* partials, constant CodecLinearParams& p,
                                int row, int k) {
  float4 own = four<kAligned>(x + row * p.inputs, k, p.inputs);
#pragma unroll 1
  for (int part = 0; part < p.parts; part += kParts) {
    float4 more[kParts];
    for (int v = 0; v < kParts; v++) {
      more[v] = four<kAligned>(partials + (min(part + v, p.parts - 1) * p.columns + row) * p.inputs, k, p.inputs);
    }
    for (int v = 0; v < kParts; v++) {
      if (part + v < p.parts) own += more[v];
    }
  }
  return own;
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
  threadgroup float4 moments[kMaxSimdgroups * kColumns];  // mean, squares, weight
  threadgroup float* staged = (threadgroup float*)staged4;

  const int shift = int(metal::popcount(uint(p.splits) - 1u));  // splits is a power of 2
  const int split = int(sg) & (p.splits - 1);
  const int sets = int(simdgroups) >> shift;  // of 8 outputs, in this threadgroup
  const int first = int(tgid.y) * kColumns;
  const int columns = min(kColumns, p.columns - first);
  const int octets = (p.inputs + 7) / 8;
  const int begin = octets * split >> shift;
  const int end = octets * (split + 1) >> shift;
  const int output = int(lane) % 8;
  const int share = int(lane) / 8;
  // Panels beyond the last one repeat it and are dropped at the end.
  const int panel = min(int(tgid.x) * sets + (int(sg) >> shift), (p.outputs + 7) / 8 - 1);
  device const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output;

  // A thread's output, and what it needs for it: asked for now.
  const int set = int(lid) / (kColumns * 8);
  const int t_out = int(lid) / 8 % kColumns;
  const int n = (int(tgid.x) * sets + set) * 8 + int(lid) % 8;
  const bool gives = set < sets && t_out < columns && n < p.outputs;
  const int at_out = (first + t_out) * p.outputs + n;
  const float scale = gives ? scales[n] : 0.0f;
  const float gain_out = kEpilogue == kAdd && gives && p.layer_scale != 0 ? layer_scale[n] : 1.0f;

  float sums[kColumns] = {0.0f, 0.0f};
  constexpr int kAhead = kNorm ? 4 : kStaged / 8 / 4;  // octets of a lane that are under way together
  uint4 ahead[kAhead];
  float before = 0.0f;
  if (kNorm) {
    ask<kAhead>(w, begin + share, end, ahead);
    const int row = octets * 8;
    const int t = int(lid) * 4 < row ? 0 : 1;
    const int k = int(lid) * 4 - t * row;
    float4 gain;
    float4 offset;
    float4 own = float4(0.0f);
    if (p.inputs % 4 == 0) {
      gain = four<true>(norm_weight, k, p.inputs);
      offset = four<true>(norm_bias, k, p.inputs);
      AWAIT_INPUTS();
      if (t < columns) own = with_partials<true>(x, partials, p, first + t, k);
    } else {
      gain = four<false>(norm_weight, k, p.inputs);
      offset = four<false>(norm_bias, k, p.inputs);
      AWAIT_INPUTS();
      if (t < columns) own = with_partials<false>(x, partials, p, first + t, k);
    }
    keep_moments(own, t, k, p.inputs, lane, sg, moments);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float2 norm = norm_of(moments, t, 1.0f / float(p.inputs), int(simdgroups));
    if (k < row) staged4[int(lid)] = (own - norm.x) * norm.y * gain + offset;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int o = begin + share; o < end; o += 4 * kAhead) {
      if (o != begin + share) ask<kAhead>(w, o, end, ahead);
      add<kAhead>(ahead, o, end, staged + o * 8, row, sums);
    }
  } else {
    ask<kAhead>(w, begin + share, min(end, begin + kStaged / 8), ahead);
    AWAIT_INPUTS();
    if (kEpilogue == kAdd && gives) {
      before = y[at_out];
      for (int part = 0; part < p.parts; part += kParts) {
        float more[kParts];
        for (int v = 0; v < kParts; v++) {
          more[v] = partials[min(part + v, p.parts - 1) * p.columns * p.outputs + at_out];
        }
        for (int v = 0; v < kParts; v++) before += part + v < p.parts ? more[v] : 0.0f;
      }
    }
    threadgroup float* mine = staged + int(sg) * kColumns * kStaged;
    for (int chunk = begin; chunk < end; chunk += kStaged / 8) {
      const int last = min(end, chunk + kStaged / 8);
      if (chunk != begin) ask<kAhead>(w, chunk + share, last, ahead);
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

  if (!gives) return;
  float v = 0.0f;
  for (int s = 0; s < p.splits; s++) v += reduced[(set * p.splits + s) * kColumns * 8 + int(lid) % (kColumns * 8)];
  v *= scale;
  if (kEpilogue == kStore) {
    y[at_out] = v;
  } else if (kEpilogue == kGelu) {
    y[at_out] = gelu(v);
  } else {
    y[at_out] = before + v * gain_out;
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
