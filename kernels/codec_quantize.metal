// kernels/codec_quantize.metal: residual vector quantization: one step of it for both parts, the semantic and the rest.
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
// 32 * S threads, S <= 8. A simdgroup does a codeword at a time, and asks for its first four before it knows what they
// are compared with. d at most 512.
//   codec_quantize
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
#define AWAIT_INPUTS() msl_cuda::await_inputs()  // what is before it may run while the kernel before this one ends
#else
#define AWAIT_INPUTS()
#endif

struct CodecQuantizeParams {
  int step;
  int levels0;
  int levels1;
  int bins;
  int d;
  int groups;
};

constant constexpr int kMaxD = 512;
constant constexpr int kMaxSimdgroups = 8;
constant constexpr int kParts = 2;
constant constexpr int kQuads = kMaxD / 4 / 32;  // of a lane
constant constexpr int kAhead = 4;               // codewords, and what a lane reads of `distances`, under way together

/// Four values of a row of `count`, from k on; zeros beyond its end. kAligned: `count` is a multiple of 4.
template <bool kAligned>
METAL_FUNC float4 four(device const float* row, int k, int count) {
  if (kAligned) return k < count ? *(device const float4*)(row + k) : float4(0.0f);
  float4 v = float4(0.0f);
#pragma unroll 1
  for (int i = k; i < k + 4; i++) v = float4(v.y, v.z, v.w, i < count ? row[i] : 0.0f);
  return v;
}

/// The kernel. With rows of 16 bytes' multiples its loads are in a straight line.
template <bool kAligned>
METAL_FUNC void quantize(device const float* codebooks, device float* residual, device float* distances,
                         device int* indices, device int* codes, constant CodecQuantizeParams& p, uint3 tgid, uint lid,
                         uint lane, uint sg, uint simdgroups, threadgroup float* nearest, threadgroup int* nearest_at) {
  const int part = int(tgid.y);
  const int group = int(tgid.x);
  const int levels = part == 0 ? p.levels0 : p.levels1;
  const int first_level = part == 0 ? 0 : p.levels0;
  const int now = p.step % 2;
  const int before = 1 - now;

  const int begin = p.bins * group / p.groups;
  const int end = p.bins * (group + 1) / p.groups;
  device const float* level = codebooks + size_t(min(first_level + p.step, p.levels0 + p.levels1 - 1)) * p.bins * p.d;
  float4 codewords[kAhead][kQuads];
  for (int v = 0; v < kAhead; v++) {
    const int c = min(begin + int(sg) + v * int(simdgroups), p.bins - 1);
    for (int u = 0; u < kQuads; u++) {
      if (u * 128 < p.d) codewords[v][u] = four<kAligned>(level + size_t(c) * p.d, u * 128 + int(lane) * 4, p.d);
    }
  }
  AWAIT_INPUTS();
  if (p.step > levels || (p.step == levels && group > 0)) return;  // whole threadgroups
  device const float* from = residual + ((p.step == 0 ? 0 : before) * kParts + part) * p.d;
  float4 x[kQuads];
  for (int u = 0; u < kQuads; u++) x[u] = four<kAligned>(from, u * 128 + int(lane) * 4, p.d);

  if (p.step > 0) {
    device const float* distance = distances + (before * kParts + part) * p.groups;
    device const int* index = indices + (before * kParts + part) * p.groups;
    float least = INFINITY;
    int at = 0x7fffffff;
#pragma unroll 1
    for (int base = int(lane); base < p.groups; base += 32 * kAhead) {
      float found[kAhead];
      int found_at[kAhead];
      for (int v = 0; v < kAhead; v++) {
        const int g = min(base + 32 * v, p.groups - 1);
        found[v] = distance[g];
        found_at[v] = index[g];
      }
      for (int v = 0; v < kAhead; v++) {
        if (found[v] < least || (found[v] == least && found_at[v] < at)) {
          least = found[v];
          at = found_at[v];
        }
      }
    }
    const float least_of_all = simd_min(least);
    int code = simd_min(least == least_of_all ? at : 0x7fffffff);
    code = min(max(code, 0), p.bins - 1);  // in bounds where all is NaN, too
    if (group == 0 && lid == 0) codes[first_level + p.step - 1] = code;
    if (p.step == levels) return;
    device const float* codeword = codebooks + (size_t(first_level + p.step - 1) * p.bins + code) * p.d;
    device float* to = residual + (now * kParts + part) * p.d;
    for (int u = 0; u < kQuads; u++) {
      const int k = u * 128 + int(lane) * 4;
      x[u] -= four<kAligned>(codeword, k, p.d);
      for (int j = 0; j < 4; j++) {
        if (group == 0 && sg == 0 && k + j < p.d) to[k + j] = x[u][j];
      }
    }
  }

  float least = INFINITY;
  int at = begin;
#pragma unroll 1
  for (int base = begin + int(sg); base < end; base += kAhead * int(simdgroups)) {
    float sums[kAhead];
    for (int v = 0; v < kAhead; v++) {
      const int c = base + v * int(simdgroups);
      sums[v] = 0.0f;
      for (int u = 0; u < kQuads; u++) {
        if (u * 128 >= p.d) break;
        if (base != begin + int(sg)) {
          codewords[v][u] = four<kAligned>(level + size_t(min(c, p.bins - 1)) * p.d, u * 128 + int(lane) * 4, p.d);
        }
        const float4 difference = x[u] - codewords[v][u];
        for (int j = 0; j < 4; j++) sums[v] = metal::fma(difference[j], difference[j], sums[v]);
      }
    }
    for (int v = 0; v < kAhead; v++) sums[v] = simd_sum(sums[v]);
    for (int v = 0; v < kAhead; v++) {
      const int c = base + v * int(simdgroups);
      if (c < end && sums[v] < least) {
        least = sums[v];
        at = c;
      }
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

[[kernel, max_total_threads_per_threadgroup(256)]] void codec_quantize(
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
  threadgroup float nearest[kMaxSimdgroups];
  threadgroup int nearest_at[kMaxSimdgroups];

  if (p.d % 4 == 0) {
    quantize<true>(codebooks, residual, distances, indices, codes, p, tgid, lid, lane, sg, simdgroups, nearest,
                   nearest_at);
  } else {
    quantize<false>(codebooks, residual, distances, indices, codes, p, tgid, lid, lane, sg, simdgroups, nearest,
                    nearest_at);
  }
}
