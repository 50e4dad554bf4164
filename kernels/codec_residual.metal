// kernels/codec_residual.metal: a residual block of the codec: x + conv2(elu(conv1(window))).
//
// Contract: hidden[m][h] = elu(bias1[h] + sum over tap, c of W1[h][tap][c] * window[m + tap * dilation][c]), y[m][n] =
// x[m][n] + bias2[n] + sum over h of W2[n][h] * hidden[m][h]; m < count, h < hidden, c and n < channels. raw = y and
// elu = elu(y), where wanted; raw may be x. The window holds elu of the block's input: [(taps - 1) * dilation carried +
// count new columns][channels] float32, time-major; its carry is codec_carry.metal's.
//
// Weights as in codec_conv.metal: int16 [ceil(outputs / 8)][groups][ceil(width / 8)][8][8], times a float per output:
// conv1 has `taps` groups of width `channels`, conv2 one of width `hidden`.
//
// Buffers: 0 window, 1 x, 2 weights1, 3 scales1, 4 bias1, 5 weights2, 6 scales2, 7 bias2, 8 raw, 9 elu, 10 params. What
// `flags` does not ask for is not touched. 8 and 9 are written.
//
// Work: a threadgroup does P positions, all channels. Its simdgroups share out sets of 32 outputs, a lane each, and
// parts of the sum of a set where there are more simdgroups than sets. Grid (ceil(count / P), 1, 1), 32 * S threads, S
// at most 16, P * S at most 64. With channels and hidden rounded up to 8: (P + (taps - 1) * dilation) * channels is at
// most 3072, P * hidden at most 1024; else, or where a few threadgroups have to read large weights, two convolutions by
// codec_conv.metal do the same (on an H200 three times as fast for 512 channels, 16 positions).
//   codec_residual_p8   S <= 8: 64 channels in the real model
//   codec_residual_p4   S <= 16: 128
//   codec_residual_p2   S <= 16: 256
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
#define AWAIT_INPUTS() msl_cuda::await_inputs()  // what is before it may run while the kernel before this one ends
#define PREFETCH(p) msl_cuda::prefetch(p)
#else
#define AWAIT_INPUTS()
#define PREFETCH(p)
#endif

struct CodecResidualParams {
  int count;
  int channels;
  int hidden;
  int taps;
  int dilation;
  int flags;  // 1 bias1, 2 bias2, 4 raw, 8 elu
};

constant constexpr int kWindow = 3072;  // floats of threadgroup memory
constant constexpr int kHidden = 1024;
constant constexpr int kSums = 2048;  // P * S * 32 at most
constant constexpr int kAhead = 8;    // octets of a lane that are under way together
constant constexpr int kLine = 8;     // uint4 of a line of a cache

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

METAL_FUNC float elu_of(float y) { return y > 0.0f ? y : metal::precise::exp(y) - 1.0f; }

/// How many parts the sum of a set of 32 outputs has.
METAL_FUNC int parts_of(int outputs, int simdgroups) { return max(1, simdgroups / ((outputs + 31) / 32)); }

/// One part of the sums of one set of 32 outputs, to `sums` [P][32]: position m's group g begins at x + (m + g *
/// dilation) * row.
template <int P>
METAL_FUNC void part_of_set(device const uint4* weights, int outputs, int groups, int width, int set, int part,
                            int parts, threadgroup const float* x, int row, int dilation, uint lane,
                            threadgroup float* sums) {
  const int in_group = (width + 7) / 8;
  const int octets = groups * in_group;
  const int begin = octets * part / parts;
  const int end = octets * (part + 1) / parts;
  const int panel = min(set * 4 + int(lane) / 8, (outputs + 7) / 8 - 1);
  device const uint4* w = weights + size_t(panel) * size_t(octets * 8) + lane % 8;
  float sum[P];
  for (int m = 0; m < P; m++) sum[m] = 0.0f;
  int group = begin / in_group;
  int in = begin - group * in_group;
  for (int base = begin; base < end; base += kAhead) {
    uint4 ahead[kAhead];
    for (int u = 0; u < kAhead; u++) ahead[u] = w[size_t(min(base + u, end - 1)) * 8];
    for (int u = 0; u < kAhead; u++) {
      if (base + u >= end) break;
      float values[8];
      unpack8(ahead[u], values);
      threadgroup const float* at = x + group * dilation * row + in * 8;
      for (int m = 0; m < P; m++) {
        threadgroup const float4* x4 = (threadgroup const float4*)(at + m * row);
        sum[m] = dot8(values, x4[0], x4[1], sum[m]);
      }
      in++;
      if (in == in_group) {
        in = 0;
        group++;
      }
    }
  }
  for (int m = 0; m < P; m++) sums[m * 32 + int(lane)] = sum[m];
}

template <int P>
[[kernel, max_total_threads_per_threadgroup(512)]] void codec_residual(
    device const float* window [[buffer(0)]],
    device const float* x [[buffer(1)]],
    device const uint4* weights1 [[buffer(2)]],
    device const float* scales1 [[buffer(3)]],
    device const float* bias1 [[buffer(4)]],
    device const uint4* weights2 [[buffer(5)]],
    device const float* scales2 [[buffer(6)]],
    device const float* bias2 [[buffer(7)]],
    device float* raw [[buffer(8)]],
    device float* elu [[buffer(9)]],
    constant CodecResidualParams& p [[buffer(10)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float4 seen4[kWindow / 4];
  threadgroup float4 inner4[kHidden / 4];
  threadgroup float sums[kSums];
  threadgroup float* seen = (threadgroup float*)seen4;    // [P + (taps - 1) * dilation][row]
  threadgroup float* inner = (threadgroup float*)inner4;  // [P][inner_row]

  const int threads = int(simdgroups) * 32;
  const int first = int(tgid.x) * P;
  const int row = (p.channels + 7) / 8 * 8;
  const int inner_row = (p.hidden + 7) / 8 * 8;
  const int carried = (p.taps - 1) * p.dilation;

  // The weights are the same for all threadgroups, which share out who asks for them first.
  const int lines1 = (p.hidden + 7) / 8 * p.taps * (row / 8);
  const int lines2 = (p.channels + 7) / 8 * (inner_row / 8);
  const int groups = (p.count + P - 1) / P;
  for (int i = int(tgid.x) * threads + int(lid); i < lines1 + lines2; i += groups * threads) {
    PREFETCH(i < lines1 ? weights1 + i * kLine : weights2 + (i - lines1) * kLine);
  }
  const int parts1 = parts_of(p.hidden, int(simdgroups));
  const int parts2 = parts_of(p.channels, int(simdgroups));
  // Of a thread's first outputs.
  const int first_h = min(int(lid) / (P * 32) * 32 + int(lid) % 32, p.hidden - 1);
  const int first_n = min(int(lid) / (P * 32) * 32 + int(lid) % 32, p.channels - 1);
  const float first_scale1 = scales1[first_h];
  const float first_scale2 = scales2[first_n];
  const float first_bias1 = (p.flags & 1) != 0 ? bias1[first_h] : 0.0f;
  const float first_bias2 = (p.flags & 2) != 0 ? bias2[first_n] : 0.0f;
  AWAIT_INPUTS();

  for (int i = int(lid); i < (P + carried) * row; i += threads) {
    const int column = first + i / row;
    const int c = i % row;
    seen[i] = c < p.channels && column < carried + p.count ? window[column * p.channels + c] : 0.0f;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // Chunks of as many (set, part) as there are simdgroups: the second half of the work waits for all of the first.
  const int sets1 = (p.hidden + 31) / 32;
  const int together1 = int(simdgroups) / parts1;
  for (int base = 0; base < sets1; base += together1) {
    const int set = base + int(sg) / parts1;
    if (int(sg) < together1 * parts1 && set < sets1) {
      part_of_set<P>(weights1, p.hidden, p.taps, p.channels, set, int(sg) % parts1, parts1, seen, row, p.dilation, lane,
                     sums + int(sg) * P * 32);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < min(together1, sets1 - base) * P * 32; i += threads) {
      const int h = (base + i / (P * 32)) * 32 + i % 32;
      if (h >= inner_row) continue;
      float sum = 0.0f;
      for (int part = 0; part < parts1; part++) sum += sums[(i / (P * 32) * parts1 + part) * P * 32 + i % (P * 32)];
      float y = 0.0f;  // beyond the last output: read by the second convolution, times 0
      if (h == first_h) {
        y = elu_of(sum * first_scale1 + first_bias1);
      } else if (h < p.hidden) {
        y = elu_of(sum * scales1[h] + ((p.flags & 1) != 0 ? bias1[h] : 0.0f));
      }
      inner[i / 32 % P * inner_row + h] = y;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  const int sets2 = (p.channels + 31) / 32;
  const int together2 = int(simdgroups) / parts2;
  for (int base = 0; base < sets2; base += together2) {
    const int set = base + int(sg) / parts2;
    if (int(sg) < together2 * parts2 && set < sets2) {
      part_of_set<P>(weights2, p.channels, 1, p.hidden, set, int(sg) % parts2, parts2, inner, inner_row, 0, lane,
                     sums + int(sg) * P * 32);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < min(together2, sets2 - base) * P * 32; i += threads) {
      const int m = first + i / 32 % P;
      const int n = (base + i / (P * 32)) * 32 + i % 32;
      if (m >= p.count || n >= p.channels) continue;
      float sum = 0.0f;
      for (int part = 0; part < parts2; part++) sum += sums[(i / (P * 32) * parts2 + part) * P * 32 + i % (P * 32)];
      const int at = m * p.channels + n;
      const float y = x[at] + (n == first_n ? sum * first_scale2 + first_bias2
                                            : sum * scales2[n] + ((p.flags & 2) != 0 ? bias2[n] : 0.0f));
      if ((p.flags & 4) != 0) raw[at] = y;
      if ((p.flags & 8) != 0) elu[at] = elu_of(y);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}

template [[host_name("codec_residual_p2")]] [[kernel]] decltype(codec_residual<2>) codec_residual<2>;
template [[host_name("codec_residual_p4")]] [[kernel]] decltype(codec_residual<4>) codec_residual<4>;
template [[host_name("codec_residual_p8")]] [[kernel]] decltype(codec_residual<8>) codec_residual<8>;
