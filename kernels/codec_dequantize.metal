// kernels/codec_dequantize.metal: from codes to the latent: each part's codewords added up, projected, and summed.
//
// Contract: y[n] = sum over parts r of scale[r][n] * sum over i of q[r][n][i] * sum over the levels l of r of
// codebooks[l][codes[l]][i], n < outputs, i < d. Part 1's levels follow those of part 0. A code -1 - i stands for
// drawn[i], i < p.drawn; otherwise one outside 0..bins - 1 counts as the nearest one inside.
//
// Weights: for each part int16 [ceil(outputs / 8)][ceil(d / 8)][8 outputs][8 values], zero where there is nothing;
// scales float [2][outputs].
//
// Buffers: 0 codebooks float [levels0 + levels1][bins][d], 1 codes int [levels0 + levels1], 2 drawn int [p.drawn], 3
// weights, 4 scales, 5 y, 6 params. 5 is written.
//
// Work: a simdgroup does 8 outputs, 4 lanes each. Grid (ceil(outputs / (8 * S)), 1, 1), 32 * S threads, S <= 8. d at
// most 512.
//   codec_dequantize
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
#define AWAIT_INPUTS() msl_cuda::await_inputs()  // what is before it may run while the kernel before this one ends
#else
#define AWAIT_INPUTS()
#endif

struct CodecDequantizeParams {
  int outputs;
  int d;
  int bins;
  int levels0;
  int levels1;
  int drawn;
};

constant constexpr int kMaxD = 512;
constant constexpr int kParts = 2;
constant constexpr int kAhead = 8;  // levels, and octets of a lane and part, under way together

METAL_FUNC void unpack8(uint4 q, thread float* w) {
  for (int i = 0; i < 4; i++) {
    w[2 * i] = float(int(q[i] << 16) >> 16);
    w[2 * i + 1] = float(int(q[i]) >> 16);
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

/// What the codewords of a part's levels `first`..last - 1 add up to, from k on.
template <bool kAligned>
METAL_FUNC float4 sum_of(device const float* codebooks, device const int* codes, device const int* drawn,
                         constant CodecDequantizeParams& p, int first, int last, int k) {
  float4 sum = float4(0.0f);
#pragma unroll 1
  for (int base = first; base < last; base += kAhead) {
    int at[kAhead];
    float4 more[kAhead];
    for (int u = 0; u < kAhead; u++) at[u] = codes[min(base + u, last - 1)];
    for (int u = 0; u < kAhead; u++) {
      if (at[u] < 0 && -1 - at[u] < p.drawn) at[u] = drawn[-1 - at[u]];
      at[u] = min(max(at[u], 0), p.bins - 1);
    }
    for (int u = 0; u < kAhead; u++) {
      more[u] = four<kAligned>(codebooks + (size_t(min(base + u, last - 1)) * p.bins + at[u]) * p.d, k, p.d);
    }
    for (int u = 0; u < kAhead; u++) {
      if (base + u < last) sum += more[u];
    }
  }
  return sum;
}

[[kernel, max_total_threads_per_threadgroup(256)]] void codec_dequantize(
    device const float* codebooks [[buffer(0)]],
    device const int* codes [[buffer(1)]],
    device const int* drawn [[buffer(2)]],
    device const uint4* weights [[buffer(3)]],
    device const float* scales [[buffer(4)]],
    device float* y [[buffer(5)]],
    constant CodecDequantizeParams& p [[buffer(6)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float4 x4[kParts * kMaxD / 4];

  // Panels beyond the last one repeat it and are dropped at the end.
  const int octets = (p.d + 7) / 8;
  const int panels = (p.outputs + 7) / 8;
  const int set = int(tgid.x) * int(simdgroups) + int(sg);
  const int n = set * 8 + int(lane) % 8;
  const int share = int(lane) / 8;
  uint4 ahead[kParts][kAhead];
  float scale[kParts];
  for (int part = 0; part < kParts; part++) {
    device const uint4* w = weights + size_t(part * panels + min(set, panels - 1)) * size_t(octets * 8) + lane % 8;
    for (int u = 0; u < kAhead; u++) ahead[part][u] = w[min(share + 4 * u, octets - 1) * 8];
    scale[part] = scales[part * p.outputs + min(n, p.outputs - 1)];
  }
  AWAIT_INPUTS();

#pragma unroll 1
  for (int i = int(lid); i < kParts * octets * 2; i += int(simdgroups) * 32) {
    const int part = i < octets * 2 ? 0 : 1;
    const int k = (i - part * octets * 2) * 4;
    const int first = part == 0 ? 0 : p.levels0;
    const int last = part == 0 ? p.levels0 : p.levels0 + p.levels1;
    x4[i] = p.d % 4 == 0 ? sum_of<true>(codebooks, codes, drawn, p, first, last, k)
                         : sum_of<false>(codebooks, codes, drawn, p, first, last, k);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  float sum = 0.0f;
  for (int part = 0; part < kParts; part++) {
    device const uint4* w = weights + size_t(part * panels + min(set, panels - 1)) * size_t(octets * 8) + lane % 8;
    float of_part = 0.0f;
#pragma unroll 1
    for (int base = share; base < octets; base += 4 * kAhead) {
      for (int u = 0; u < kAhead; u++) {
        const int o = base + 4 * u;
        if (o >= octets) break;
        float values[8];
        if (base != share) ahead[part][u] = w[o * 8];
        unpack8(ahead[part][u], values);
        of_part = dot8(values, x4[(part * octets + o) * 2], x4[(part * octets + o) * 2 + 1], of_part);
      }
    }
    sum = metal::fma(of_part, scale[part], sum);
  }
  sum += simd_shuffle_xor(sum, ushort(8));
  sum += simd_shuffle_xor(sum, ushort(16));
  if (lane < 8 && n < p.outputs) y[n] = sum;
}
