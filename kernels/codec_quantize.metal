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
