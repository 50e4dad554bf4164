// kernels/codec_carry.metal: the end of a half frame of the codec: what its windows keep goes to their fronts.
//
// Contract: for every window of the list, floats [fresh, fresh + carried) of it move to [0, carried). Source and
// destination may overlap (fresh < carried).
//
// Buffers: 0 state, the block of the conversation, float32, written; 1 windows uint [n][4]: offset of the window in
// floats, floats carried, floats fresh, unused; 2 params.
// Work: one threadgroup a window. It moves a stretch at a time, in ascending order: all of a stretch is read before any
// of it is written, and what is written lies before all that is still to be read. Grid (n, 1, 1), 1024 threads (any
// multiple of 32 will do).
//   codec_carry
#include <metal_stdlib>
using namespace metal;

struct CodecCarryParams {
  int windows;  // n
};

[[kernel, max_total_threads_per_threadgroup(1024)]] void codec_carry(
    device float* state [[buffer(0)]],
    device const uint* windows [[buffer(1)]],
    constant CodecCarryParams& p [[buffer(2)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  if (int(tgid.x) >= p.windows) return;
  device float* window = state + windows[4 * tgid.x];
  const uint carried = windows[4 * tgid.x + 1];
  const uint fresh = windows[4 * tgid.x + 2];
  const uint threads = simdgroups * 32;
  for (uint begin = 0; begin < carried; begin += threads) {
    const uint at = begin + lid;
    float value = 0.0f;
    if (at < carried) value = window[fresh + at];
    threadgroup_barrier(mem_flags::mem_device);
    if (at < carried) window[at] = value;
  }
}
