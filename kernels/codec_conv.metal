// kernels/codec_conv.metal: streaming convolutions of the codec, plain and transposed, as products over windows.
//
// Contract: y[m][n] = bias[n] + scale[n] * sum over g, j of q[n][g][j] * window[m * row_stride + g * group_stride + j],
// m < count, n < outputs, j < width; then y += residual; raw = y and elu = elu(y), where wanted. The window is
// [carried + new columns][in] float32, time-major, so that
//   a convolution with dilation 1 has one group of width taps * in, row_stride = stride * in;
//   one with a dilation has `taps` groups of width in, group_stride = dilation * in;
//   a transposed convolution of kernel 2 * stride is one over 2 columns (the one before, this one), with stride * out
//   outputs: one group of width 2 * in, row_stride = in.
// The carry of the window is not moved here: codec_carry.metal does it for a whole half of the codec.
// Where replicate > 0 and *is_first is not 0, the first `replicate` columns of the window count as copies of the one
// that follows them, each `columns_in` wide.
//
// Weights: int16 [ceil(outputs / 8)][groups][ceil(width / 8)][8 outputs][8 values], zero where there is nothing, read
// as one uint4 per output and octet of values; scales float [outputs].
//
// Buffers: 0 window, 1 weights, 2 scales, 3 bias, 4 residual, 5 raw, 6 elu, 7 is_first, 8 params. What `flags` does not
// ask for is not touched: any buffer will do. residual may be raw. 5 and 6 are written.
//
// Work: a simdgroup does P positions of `outputs of a simdgroup` O (8 or 32) for one of `splits` parts of the octets;
// 32 / O lanes share an output. A threadgroup has S <= 8 simdgroups, S a multiple of splits. Grid (ceil(outputs / (O *
// S / splits)), ceil(count / P), 1), 32 * S threads.
//   codec_conv_p2_o8   one or two positions: as many simdgroups as possible for the weights
//   codec_conv_p8_o8   some positions, many weights
//   codec_conv_p8_o32  many positions
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
#define AWAIT_INPUTS() msl_cuda::await_inputs()  // what is before it may run while the kernel before this one ends
#else
#define AWAIT_INPUTS()
#endif

struct CodecConvParams {
  int count;         // positions
  int outputs;       // N
  int groups;        // taps, 1 where they follow each other
  int width;         // values of a group
  int row_stride;    // floats from a position's window to the next one's
  int group_stride;  // floats from a group to the next one
  int splits;        // parts of the octets; divides the number of simdgroups
  int flags;         // 1 bias, 2 residual, 4 raw, 8 elu
  int replicate;     // columns to fill on the first frame, or 0
  int columns_in;    // floats of a column; only read where replicate > 0
};

constant constexpr int kStaged = 512;  // floats of threadgroup memory per simdgroup
constant constexpr int kMaxSimdgroups = 8;

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

template <int P, int O>
[[kernel, max_total_threads_per_threadgroup(256)]] void codec_conv(
    device const float* window [[buffer(0)]],
    device const uint4* weights [[buffer(1)]],
    device const float* scales [[buffer(2)]],
    device const float* bias [[buffer(3)]],
    device const float* residual [[buffer(4)]],
    device float* raw [[buffer(5)]],
    device float* elu [[buffer(6)]],
    device const int* is_first [[buffer(7)]],
    constant CodecConvParams& p [[buffer(8)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int kChunk = kStaged / P;             // values of a position that are staged together
  constexpr int kSharing = 32 / O;                // lanes of an output
  constexpr int kOctets = kChunk / 8 / kSharing;  // of a chunk, for a lane
  threadgroup float4 staged4[kMaxSimdgroups * kStaged / 4];
  threadgroup float* staged = (threadgroup float*)staged4;
  threadgroup float* mine = staged + int(sg) * kStaged;

  const int split = int(sg) % p.splits;
  const int sets = int(simdgroups) / p.splits;  // of O outputs, in this threadgroup
  const int first_output = (int(tgid.x) * sets + int(sg) / p.splits) * O;
  const int first = int(tgid.y) * P;
  const int in_group = (p.width + 7) / 8;
  const int octets = p.groups * in_group;
  const int begin = octets * split / p.splits;
  const int end = octets * (split + 1) / p.splits;
  // Outputs beyond the last panel repeat it and are dropped at the end.
  const int output = int(lane) % O;
  const int share = int(lane) / O;
  const int panel = min((first_output + output) / 8, (p.outputs + 7) / 8 - 1);
  device const uint4* w = weights + size_t(panel) * size_t(octets * 8) + output % 8;

  // What a thread's outputs need at the end, where all are of the same column: asked for now.
  const int set_out = int(lid) / (O * P);
  const int n_out = min((int(tgid.x) * sets + set_out) * O + int(lid) % O, p.outputs - 1);
  const float scale = scales[n_out];
  const float more = (p.flags & 1) != 0 ? bias[n_out] : 0.0f;

  float sums[P];
  for (int m = 0; m < P; m++) sums[m] = 0.0f;
  int fill = 0;
  // Four values of a position at a time, where they cannot be in two groups.
  const bool by_four = (p.width | p.row_stride | p.group_stride | (p.replicate > 0 ? p.columns_in : 0)) % 4 == 0;
  for (int chunk = begin; chunk < end; chunk += kChunk / 8) {
    // All that the chunk needs is asked for before any of it is waited for.
    uint4 ahead[kOctets];
    for (int u = 0; u < kOctets; u++) ahead[u] = w[size_t(min(chunk + share + u * kSharing, end - 1)) * 8];
    if (chunk == begin) {
      AWAIT_INPUTS();
      if (p.replicate > 0 && is_first[0] != 0) fill = p.replicate * p.columns_in;
    } else {
      simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    if (by_four) {
      float4 values[kStaged / 128];
      for (int u = 0; u < kStaged / 128; u++) {
        const int i = u * 32 + int(lane);
        const int m = first + i / (kChunk / 4);
        const int octet = chunk + i % (kChunk / 4) / 2;
        const int group = p.groups == 1 ? 0 : octet / in_group;
        const int j = (octet - group * in_group) * 8 + i % 2 * 4;
        int at = m * p.row_stride + group * p.group_stride + j;
        if (at < fill) at = fill + at % p.columns_in;
        values[u] = float4(0.0f);
        if (m < p.count && octet < end && j < p.width) values[u] = *(device const float4*)(window + at);
      }
      for (int u = 0; u < kStaged / 128; u++) ((threadgroup float4*)mine)[u * 32 + int(lane)] = values[u];
    } else {
#pragma unroll 4
      for (int u = 0; u < kStaged / 32; u++) {
        const int i = u * 32 + int(lane);
        const int m = first + i / kChunk;
        const int octet = chunk + i % kChunk / 8;
        const int group = p.groups == 1 ? 0 : octet / in_group;
        const int j = (octet - group * in_group) * 8 + i % 8;
        int at = m * p.row_stride + group * p.group_stride + j;
        if (at < fill) at = fill + at % p.columns_in;
        mine[i] = m < p.count && octet < end && j < p.width ? window[at] : 0.0f;
      }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    // Beyond the end, x is 0.
    for (int u = 0; u < kOctets; u++) {
      float weight[8];
      unpack8(ahead[u], weight);
      threadgroup const float4* x = (threadgroup const float4*)(mine + (share + u * kSharing) * 8);
      for (int m = 0; m < P; m++) sums[m] = dot8(weight, x[m * kChunk / 4], x[m * kChunk / 4 + 1], sums[m]);
    }
  }

  for (int m = 0; m < P; m++) {
    for (int d = O; d < 32; d *= 2) sums[m] += simd_shuffle_xor(sums[m], ushort(d));
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);
  if (share == 0) {
    for (int m = 0; m < P; m++) mine[m * O + output] = sums[m];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (int i = int(lid); i < sets * P * O; i += int(simdgroups) * 32) {
    const int m = first + i / O % P;
    const int n = (int(tgid.x) * sets + i / (O * P)) * O + i % O;
    if (m >= p.count || n >= p.outputs) continue;
    float sum = 0.0f;
    for (int s = 0; s < p.splits; s++) sum += staged[(i / (O * P) * p.splits + s) * kStaged + i % (O * P)];
    float y = n == n_out ? sum * scale + more : sum * scales[n] + ((p.flags & 1) != 0 ? bias[n] : 0.0f);
    const int at = m * p.outputs + n;
    if ((p.flags & 2) != 0) y += residual[at];
    if ((p.flags & 4) != 0) raw[at] = y;
    if ((p.flags & 8) != 0) elu[at] = y > 0.0f ? y : metal::precise::exp(y) - 1.0f;
  }
}

template [[host_name("codec_conv_p2_o8")]] [[kernel]] decltype(codec_conv<2, 8>) codec_conv<2, 8>;
template [[host_name("codec_conv_p8_o8")]] [[kernel]] decltype(codec_conv<8, 8>) codec_conv<8, 8>;
template [[host_name("codec_conv_p8_o32")]] [[kernel]] decltype(codec_conv<8, 32>) codec_conv<8, 32>;
