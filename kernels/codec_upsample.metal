// kernels/codec_upsample.metal: depthwise transposed convolution of kernel 2 * stride, from 12.5 Hz to 25 Hz.
//
// Contract: y[l * stride + s][c] = taps[s][c] * window[l + 1][c] + taps[stride + s][c] * window[l][c] (+ bias[c]), l <
// count, s < stride, c < channels; then window[0] = window[count]: this kernel moves its carry itself.
//
// Buffers: 0 window float [1 carried + count][channels], 1 taps float [2 * stride][channels], 2 bias float [channels],
// touched where params says so, 3 y float [count * stride][channels], 4 params. 0 and 3 are written.
// Work: a thread does a channel. Grid (ceil(channels / threads), 1, 1), any number of threads.
//   codec_upsample
#include <metal_stdlib>
using namespace metal;

struct CodecUpsampleParams {
  int count;
  int channels;
  int stride;
  int has_bias;
};

[[kernel]] void codec_upsample(
    device float* window [[buffer(0)]],
    device const float* taps [[buffer(1)]],
    device const float* bias [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant CodecUpsampleParams& p [[buffer(4)]],
    uint3 position [[thread_position_in_grid]]) {
  const int c = int(position.x);
  if (c >= p.channels) return;
  const float more = p.has_bias != 0 ? bias[c] : 0.0f;
  float before = window[c];
  for (int l = 0; l < p.count; l++) {
    const float own = window[(l + 1) * p.channels + c];
    for (int s = 0; s < p.stride; s++) {
      const float both = taps[s * p.channels + c] * own + taps[(p.stride + s) * p.channels + c] * before;
      y[(l * p.stride + s) * p.channels + c] = both + more;
    }
    before = own;
  }
  window[c] = before;
}
