// kernels/lm_attend.metal: attention of a few columns over a ring of keys and values, split over the positions.
//
// Contract (ops: attend): out [T, heads * head_dim] = softmax(q k^T / sqrt(head_dim)) v of every column over the
// positions first_visible .. position. Those are at most `slots`; position p lies in slot (kv_slot - (position - p))
// mod slots of the ring (see Column), slot s in pages[s / 32]. From p.offset on a page holds the layer's keys
// [heads][32][head_dim], then the values, then, with 8 bits, float scales [heads][32] of the keys and of the values.
//
// attend_<cells>_d<head_dim>: cells bf16, int8 or f32; head_dim 128 or 64, and 0 for any even one up to 512.
//   Buffers: 0 q float [T, heads, head_dim], 1 columns Column [T], 2 pages, 3 partial float [T, heads, splits,
//   head_dim + 2], 4 out float [T, heads, head_dim], 5 params.
//   Work: a threadgroup takes one of p.splits equal parts of a column's positions for one head: grid (splits, heads,
//   T), 32 to 256 threads. With splits 1 the result goes to out (partial is not touched), else its part to partial
//   (out is not touched): per dimension the weighted sum, then the largest score and the sum of weights.
// attend_combine: out from partial.
//   Buffers: 0 partial, 1 out, 2 params (the same), of at most 32 splits. Work: grid (heads, T, 1), 32 to 512 threads.
//
// A lane reads 16 bytes of a row, so 4 to 32 lanes share a row (LANES); each such team goes through its own positions
// with its own running maximum, four rows at a time, and the teams are put together at the end.
#include <metal_stdlib>
using namespace metal;

struct AttendParams {
  int heads;
  int head_dim;
  int slots;
  int splits;
  uint offset;  // of this layer in a page, a multiple of 16
};

struct Column {
  long position;
  long first_visible;
  int kv_slot;
  int unused;
};

constant constexpr int MOST_SIMDGROUPS = 8;
constant constexpr int MOST_DIM = 512;
constant constexpr float LOWEST = -3.0e38f;  // of a team that has seen nothing; unlike infinity it can be subtracted

/// The values in 16 bytes.
template <int BITS>
METAL_FUNC void unpack(uint4 q, thread float* v) {
  const uint words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (BITS == 32) {
      v[i] = as_type<float>(words[i]);
    } else if (BITS == 16) {
      v[2 * i] = as_type<float>(words[i] << 16);
      v[2 * i + 1] = as_type<float>(words[i] & 0xFFFF0000u);
    } else {
      for (int j = 0; j < 4; j++) v[4 * i + j] = float(int(words[i] << uint(24 - 8 * j)) >> 24);
    }
  }
}

template <int BITS>
METAL_FUNC float cell(device const uchar* row, int i) {
  if (BITS == 32) return ((device const float*)row)[i];
  if (BITS == 16) return as_type<float>(uint(((device const ushort*)row)[i]) << 16);
  return float(int(uint(row[i]) << 24) >> 24);
}

/// Where the keys and values of one head lie in every page.
struct Places {
  size_t keys, values, key_scales, value_scales;
};

METAL_FUNC Places places_of(constant AttendParams& p, int bits, int head) {
  const size_t head_bytes = size_t(32 * p.head_dim) * size_t(bits) / 8;
  const size_t heads = size_t(p.heads);
  Places at;
  at.keys = size_t(p.offset) + size_t(head) * head_bytes;
  at.values = at.keys + heads * head_bytes;
  at.key_scales = size_t(p.offset) + 2 * heads * head_bytes + size_t(head) * 128;
  at.value_scales = at.key_scales + heads * 128;
  return at;
}

/// Slot of the j-th of `count` visible positions.
METAL_FUNC int slot_of(int j, int count, int kv_slot, int slots) {
  const int slot = kv_slot - (count - 1 - j);
  return slot < 0 ? slot + slots : slot;
}

/// The threadgroup's result from those of its simdgroups, after a barrier: to out, or as a part to partial.
METAL_FUNC void finish(threadgroup const float* sums, threadgroup const float* largest, threadgroup const float* totals,
                       int simdgroups, int lid, int column, int head, int split, constant AttendParams& p,
                       device float* partial, device float* out) {
  float most = LOWEST;
  for (int i = 0; i < simdgroups; i++) most = max(most, largest[i]);
  float total = 0.0f;
  for (int i = 0; i < simdgroups; i++) total += totals[i] * metal::precise::exp(largest[i] - most);
  const size_t row = size_t(column) * size_t(p.heads) + size_t(head);
  device float* part = partial + (row * size_t(p.splits) + size_t(split)) * size_t(p.head_dim + 2);
  for (int i = lid; i < p.head_dim; i += simdgroups * 32) {
    float sum = 0.0f;
    for (int j = 0; j < simdgroups; j++) sum += sums[j * p.head_dim + i] * metal::precise::exp(largest[j] - most);
    if (p.splits == 1) {
      out[row * size_t(p.head_dim) + size_t(i)] = sum / total;
    } else {
      part[i] = sum;
    }
  }
  if (p.splits > 1 && lid == 0) {
    part[p.head_dim] = most;
    part[p.head_dim + 1] = total;
  }
}

template <int BITS, int DIM>
[[kernel]] void attend(
    device const float* q [[buffer(0)]],
    device const Column* at [[buffer(1)]],
    device uchar* const device* pages [[buffer(2)]],
    device float* partial [[buffer(3)]],
    device float* out [[buffer(4)]],
    constant AttendParams& p [[buffer(5)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int VALUES = 128 / BITS;     // of a row in a lane
  constexpr int LANES = DIM / VALUES;    // of a team
  constexpr int TEAMS = 32 / LANES;
  constexpr int ROWS = 4;                // of a team at a time
  threadgroup float sums[MOST_SIMDGROUPS * DIM];
  threadgroup float largest[MOST_SIMDGROUPS];
  threadgroup float totals[MOST_SIMDGROUPS];
  const int split = int(tgid.x);
  const int head = int(tgid.y);
  const int column = int(tgid.z);
  const int own = int(lane) % LANES;
  const int team = int(lane) / LANES;
  const int count = int(at[column].position - at[column].first_visible) + 1;
  const int kv_slot = at[column].kv_slot;
  const int end = count * (split + 1) / p.splits;
  const Places places = places_of(p, BITS, head);

  float query[VALUES];
  const float factor = metal::precise::rsqrt(float(DIM));
  for (int i = 0; i < VALUES; i++) {
    query[i] = q[(size_t(column) * size_t(p.heads) + size_t(head)) * size_t(DIM) + size_t(own * VALUES + i)] * factor;
  }
  float most = LOWEST;
  float total = 0.0f;
  float sum[VALUES];
  for (int i = 0; i < VALUES; i++) sum[i] = 0.0f;

  const int stride = TEAMS * ROWS;
  for (int first = count * split / p.splits + int(sg) * stride; first < end; first += int(simdgroups) * stride) {
    uint4 keys[ROWS];
    uint4 values[ROWS];
    float key_scales[ROWS];
    float value_scales[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int slot = slot_of(min(first + r * TEAMS + team, end - 1), count, kv_slot, p.slots);
      device const uchar* page = pages[slot / 32];
      const size_t cell = size_t((slot % 32 * DIM + own * VALUES) * BITS / 8);
      keys[r] = *(device const uint4*)(page + places.keys + cell);
      values[r] = *(device const uint4*)(page + places.values + cell);
      if (BITS == 8) {
        key_scales[r] = ((device const float*)(page + places.key_scales))[slot % 32];
        value_scales[r] = ((device const float*)(page + places.value_scales))[slot % 32];
      }
    }
    float scores[ROWS];
    float more = most;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float v[VALUES];
      unpack<BITS>(keys[r], v);
      float score = 0.0f;
#pragma unroll
      for (int i = 0; i < VALUES; i++) score += query[i] * v[i];
#pragma unroll
      for (ushort mask = 1; mask < LANES; mask *= 2) score += simd_shuffle_xor(score, mask);
      if (BITS == 8) score *= key_scales[r];
      scores[r] = first + r * TEAMS + team < end ? score : LOWEST;
      more = max(more, scores[r]);
    }
    const float shrink = metal::fast::exp(most - more);
    most = more;
    total *= shrink;
#pragma unroll
    for (int i = 0; i < VALUES; i++) sum[i] *= shrink;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float weight = first + r * TEAMS + team < end ? metal::fast::exp(scores[r] - most) : 0.0f;
      total += weight;
      if (BITS == 8) weight *= value_scales[r];
      float v[VALUES];
      unpack<BITS>(values[r], v);
#pragma unroll
      for (int i = 0; i < VALUES; i++) sum[i] += weight * v[i];
    }
  }

  // The teams of the simdgroup.
  const float of_all = simd_max(most);
  const float shrink = metal::fast::exp(most - of_all);
  total *= shrink;
  for (ushort mask = LANES; mask < 32; mask *= 2) total += simd_shuffle_xor(total, mask);
#pragma unroll
  for (int i = 0; i < VALUES; i++) {
    sum[i] *= shrink;
    for (ushort mask = LANES; mask < 32; mask *= 2) sum[i] += simd_shuffle_xor(sum[i], mask);
    if (team == 0) sums[int(sg) * DIM + own * VALUES + i] = sum[i];
  }
  if (lane == 0) {
    largest[sg] = of_all;
    totals[sg] = total;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  finish(sums, largest, totals, int(simdgroups), int(lid), column, head, split, p, partial, out);
}

/// Any head_dim: a simdgroup goes through a row at a time, value by value.
template <int BITS>
[[kernel]] void attend_any(
    device const float* q [[buffer(0)]],
    device const Column* at [[buffer(1)]],
    device uchar* const device* pages [[buffer(2)]],
    device float* partial [[buffer(3)]],
    device float* out [[buffer(4)]],
    constant AttendParams& p [[buffer(5)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int VALUES = MOST_DIM / 32;
  threadgroup float sums[MOST_SIMDGROUPS * MOST_DIM];
  threadgroup float largest[MOST_SIMDGROUPS];
  threadgroup float totals[MOST_SIMDGROUPS];
  const int split = int(tgid.x);
  const int head = int(tgid.y);
  const int column = int(tgid.z);
  const int count = int(at[column].position - at[column].first_visible) + 1;
  const int kv_slot = at[column].kv_slot;
  const int end = count * (split + 1) / p.splits;
  const Places places = places_of(p, BITS, head);
  device const float* own = q + (size_t(column) * size_t(p.heads) + size_t(head)) * size_t(p.head_dim);
  const float factor = metal::precise::rsqrt(float(p.head_dim));
  float most = LOWEST;
  float total = 0.0f;
  float sum[VALUES];
  for (int i = 0; i < VALUES; i++) sum[i] = 0.0f;
  for (int j = count * split / p.splits + int(sg); j < end; j += int(simdgroups)) {
    const int slot = slot_of(j, count, kv_slot, p.slots);
    device const uchar* page = pages[slot / 32];
    const size_t row = size_t(slot % 32 * p.head_dim) * size_t(BITS / 8);
    float score = 0.0f;
    for (int i = int(lane); i < p.head_dim; i += 32) score += own[i] * cell<BITS>(page + places.keys + row, i);
    score = simd_sum(score) * factor;
    if (BITS == 8) score *= ((device const float*)(page + places.key_scales))[slot % 32];
    const float more = max(most, score);
    const float shrink = metal::fast::exp(most - more);
    float weight = metal::fast::exp(score - more);
    most = more;
    total = total * shrink + weight;
    if (BITS == 8) weight *= ((device const float*)(page + places.value_scales))[slot % 32];
#pragma unroll
    for (int i = 0; i < VALUES; i++) {
      const int dim = int(lane) + 32 * i;
      if (dim < p.head_dim) sum[i] = sum[i] * shrink + weight * cell<BITS>(page + places.values + row, dim);
    }
  }
#pragma unroll
  for (int i = 0; i < VALUES; i++) {
    const int dim = int(lane) + 32 * i;
    if (dim < p.head_dim) sums[int(sg) * p.head_dim + dim] = sum[i];
  }
  if (lane == 0) {
    largest[sg] = most;
    totals[sg] = total;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  finish(sums, largest, totals, int(simdgroups), int(lid), column, head, split, p, partial, out);
}

[[kernel]] void attend_combine(
    device const float* partial [[buffer(0)]],
    device float* out [[buffer(1)]],
    constant AttendParams& p [[buffer(2)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int TOGETHER = 8;  // parts that are under way together
  const size_t row = size_t(tgid.y) * size_t(p.heads) + size_t(tgid.x);
  const int width = p.head_dim + 2;
  device const float* parts = partial + row * size_t(p.splits) * size_t(width);
  // Lane i has part i's share of the whole.
  device const float* own = parts + min(int(lane), p.splits - 1) * width + p.head_dim;
  const float largest = own[0];
  const float weight = int(lane) < p.splits ? own[1] : 0.0f;
  const float scaled = metal::precise::exp(largest - simd_max(largest));
  const float share = scaled / simd_sum(weight * scaled);
#pragma unroll 1
  for (int first = int(sg) * 32; first < p.head_dim; first += int(simdgroups) * 32) {
    const int dim = first + int(lane);
    device const float* at = parts + min(dim, p.head_dim - 1);
    float sum = 0.0f;
#pragma unroll 1
    for (int base = 0; base < p.splits; base += TOGETHER) {
      float values[TOGETHER];
#pragma unroll
      for (int i = 0; i < TOGETHER; i++) values[i] = at[min(base + i, p.splits - 1) * width];
#pragma unroll
      for (int i = 0; i < TOGETHER; i++) {
        const float of_part = simd_shuffle(share, ushort(min(base + i, 31)));
        if (base + i < p.splits) sum += values[i] * of_part;
      }
    }
    if (dim < p.head_dim) out[row * size_t(p.head_dim) + size_t(dim)] = sum;
  }
}

template [[host_name("attend_bf16_d128")]] [[kernel]] decltype(attend<16, 128>) attend<16, 128>;
template [[host_name("attend_bf16_d64")]] [[kernel]] decltype(attend<16, 64>) attend<16, 64>;
template [[host_name("attend_bf16_d0")]] [[kernel]] decltype(attend_any<16>) attend_any<16>;
template [[host_name("attend_int8_d128")]] [[kernel]] decltype(attend<8, 128>) attend<8, 128>;
template [[host_name("attend_int8_d64")]] [[kernel]] decltype(attend<8, 64>) attend<8, 64>;
template [[host_name("attend_int8_d0")]] [[kernel]] decltype(attend_any<8>) attend_any<8>;
template [[host_name("attend_f32_d128")]] [[kernel]] decltype(attend<32, 128>) attend<32, 128>;
template [[host_name("attend_f32_d64")]] [[kernel]] decltype(attend<32, 64>) attend<32, 64>;
template [[host_name("attend_f32_d0")]] [[kernel]] decltype(attend_any<32>) attend_any<32>;
