// kernels/read_memory.metal: reads memory and does nothing else: how fast a GPU's memory is, for the benchmark.
//
// Contract: sums[i] = the xor of the 32-bit words that thread i of the grid has read; together the threads read all
// `count` units of 16 bytes once, UNROLL of them in flight per thread.
// Buffers: 0 data, 1 sums (uint, one a thread), 2 params. 1 is written.
// Work: any grid (groups, 1, 1) of any threadgroup; a step of the grid reads neighbouring units.
// host_names: read_memory_u1, read_memory_u4, read_memory_u8
#include <metal_stdlib>
using namespace metal;

struct ReadMemoryParams {
  uint count;  // units of 16 bytes, below 2^31
};

template <int UNROLL>
[[kernel]] void read_memory(
    device const uint4* data [[buffer(0)]],
    device uint* sums [[buffer(1)]],
    constant ReadMemoryParams& p [[buffer(2)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint3 group_size [[threads_per_threadgroup]],
    uint3 grid_size [[threads_per_grid]]) {
  const uint first = tgid.x * group_size.x + lid;
  const uint step = grid_size.x;
  uint4 sum = uint4(0);
  uint i = first;
  for (; i + uint(UNROLL - 1) * step < p.count; i += uint(UNROLL) * step) {
    uint4 part[UNROLL];
    for (int u = 0; u < UNROLL; u++) part[u] = data[i + uint(u) * step];
    for (int u = 0; u < UNROLL; u++) sum ^= part[u];
  }
  for (; i < p.count; i += step) sum ^= data[i];
  sums[first] = sum.x ^ sum.y ^ sum.z ^ sum.w;
}

template [[host_name("read_memory_u1")]] [[kernel]] decltype(read_memory<1>) read_memory<1>;
template [[host_name("read_memory_u4")]] [[kernel]] decltype(read_memory<4>) read_memory<4>;
template [[host_name("read_memory_u8")]] [[kernel]] decltype(read_memory<8>) read_memory<8>;
