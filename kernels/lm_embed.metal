// kernels/lm_embed.metal: x = the sum of one row of each of several tables.
//
// Contract: x [T, dim] = sum over tables r, in order, of their row ids[r * 32 + t]; -1 adds nothing.
// Tables: bits 4 or 8 as in lm_product.metal (w = scale * q + bias, lowest bits first), or 16: bfloat rows. dim is a
// multiple of 8 and of every table's group.
// Buffers: 0 tables, EmbedTable [count], whose pointers are device addresses; 1 ids, int32 [count][32]; 2 x, float;
// 3 params.
// Work: a simdgroup takes a table in turn, 256 values of its row; grid (ceil(dim / 256), T, 1), 32 * min(count, 24)
// threads (or fewer, down to 32; never more than 24 simdgroups).
// host_names: embed_sum
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
#define AWAIT_INPUTS() msl_cuda::await_inputs()  // what is before it may run while the kernel before this one ends
#else
#define AWAIT_INPUTS()
#endif

struct EmbedTable {  // 40 bytes
  device const uint* words;
  device const ushort* scales;  // not read with 16 bits
  device const ushort* biases;
  int bits;
  int group_shift;  // log2(group size)
  int half_scales;  // 1: scales and biases are half, 0: bfloat
  int unused;
};

struct EmbedParams {
  int dim;
  int count;  // tables
};

constant constexpr int SPAN = 256;  // values of a row that a simdgroup reads
constant constexpr int MOST_SIMDGROUPS = 24;

METAL_FUNC float from16(ushort bits, bool is_half) {
  return is_half ? float(as_type<half>(bits)) : as_type<float>(uint(bits) << 16);
}

METAL_FUNC void read_table(device const EmbedTable& from, thread EmbedTable& to) {
  to.words = from.words;
  to.scales = from.scales;
  to.biases = from.biases;
  to.bits = from.bits;
  to.group_shift = from.group_shift;
  to.half_scales = from.half_scales;
}

[[kernel]] void embed_sum(
    device const EmbedTable* tables [[buffer(0)]],
    device const int* ids [[buffer(1)]],
    device float* x [[buffer(2)]],
    constant EmbedParams& p [[buffer(3)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float rows[MOST_SIMDGROUPS * SPAN];
  threadgroup float sums[SPAN];
  const int column = int(tgid.y);
  const int first = int(tgid.x) * SPAN;
  const int at = first + int(lane) * 8;
  const int threads = int(simdgroups) * 32;
  for (int i = int(lid); i < SPAN; i += threads) sums[i] = 0.0f;
  EmbedTable table;
  read_table(tables[min(int(sg), p.count - 1)], table);
  AWAIT_INPUTS();
  for (int done = 0; done < p.count; done += int(simdgroups)) {
    const int r = done + int(sg);
    const int id = r < p.count ? ids[r * 32 + column] : -1;
    if (done > 0) read_table(tables[min(r, p.count - 1)], table);
    float v[8];
    for (int i = 0; i < 8; i++) v[i] = 0.0f;
    if (id >= 0 && at < p.dim) {
      const int bits = table.bits;
      device const uint* word = table.words + (size_t(id) * size_t(p.dim) + size_t(at)) * size_t(bits) / 32;
      if (bits == 16) {
        for (int i = 0; i < 4; i++) {
          v[2 * i] = as_type<float>(word[i] << 16);
          v[2 * i + 1] = as_type<float>(word[i] & 0xFFFF0000u);
        }
      } else {
        const int shift = table.group_shift;
        const bool is_half = table.half_scales != 0;
        const size_t group = size_t(id) * size_t(p.dim >> shift) + size_t(at >> shift);
        const float scale = from16(table.scales[group], is_half);
        const float bias = from16(table.biases[group], is_half);
        const uint low = word[0];
        if (bits == 4) {
          for (int i = 0; i < 8; i++) v[i] = scale * float((low >> uint(4 * i)) & 15u) + bias;
        } else {
          const uint high = word[1];
          for (int i = 0; i < 4; i++) {
            v[i] = scale * float((low >> uint(8 * i)) & 255u) + bias;
            v[4 + i] = scale * float((high >> uint(8 * i)) & 255u) + bias;
          }
        }
      }
    }
    if (p.count == 1) {  // nothing to add up
      if (sg == 0 && at < p.dim) {
        for (int i = 0; i < 8; i++) x[size_t(column) * size_t(p.dim) + size_t(at + i)] = v[i];
      }
      return;
    }
    for (int i = 0; i < 8; i++) rows[int(sg) * SPAN + int(lane) * 8 + i] = v[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(lid); i < SPAN; i += threads) {
      float sum = sums[i];
      for (int j = 0; j < min(int(simdgroups), p.count - done); j++) sum += rows[j * SPAN + i];
      sums[i] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (int i = int(lid); i < min(SPAN, p.dim - first); i += threads) {
    x[size_t(column) * size_t(p.dim) + size_t(first + i)] = sums[i];
  }
}
