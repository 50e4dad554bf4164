// kernels/lm_norm.metal: y = norm(x) of every column, RMS (eps 1e-8) or layer norm (eps 1e-5).
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
