// kernels/cuda/lm_attend_few.cuh: attention over at most 32 positions, in front of its projection: one column.
#pragma once

#include "lm_weights.cuh"

struct AttendProjectParams {
  int n, k, group_shift, split, heads, head_dim, slots;
  u32 offset;
};

/// Slot of the j-th of `count` visible positions.
__device__ __forceinline__ int slot_of(int j, int count, int kv_slot, int slots) {
  const int slot = kv_slot - (count - 1 - j);
  return slot < 0 ? slot + slots : slot;
}

/// Head `head` of softmax(q k^T / sqrt(head_dim)) v over at most 32 positions, by one warp. Two pages hold them all.
__device__ __forceinline__ void attend_head(const float* q, const unsigned char* first_page,
                                            const unsigned char* last_page, int kv_slot, int count, int head,
                                            const AttendProjectParams& p, float* out) {
  constexpr int EARLY = 8;  // values that are fetched before their weights are known
  const int lane = int(threadIdx.x) % 32;
  const int row_bytes = 2 * p.head_dim;
  const size_t keys = size_t(p.offset) + size_t(head * 32) * size_t(row_bytes);
  const size_t values = keys + size_t(p.heads * 32) * size_t(row_bytes);
  const auto row = [&](int j, size_t part) {
    const int slot = slot_of(min(j, count - 1), count, kv_slot, p.slots);
    return (slot / 32 == kv_slot / 32 ? last_page : first_page) + part + size_t(slot % 32 * row_bytes);
  };
  u32 early[EARLY];
#pragma unroll
  for (int i = 0; i < EARLY; i++) early[i] = *(const u32*)(row(i, values) + 4 * min(lane, p.head_dim / 2 - 1));

  const uint4* key = (const uint4*)row(lane, keys);
  float score = 0.0f;
#pragma unroll 8
  for (int i = 0; i < p.head_dim / 8; i++) {
    const uint4 k = key[i];
    const float4 a = *(const float4*)(q + head * p.head_dim + 8 * i);
    const float4 b = *(const float4*)(q + head * p.head_dim + 8 * i + 4);
    score += a.x * from_bits(k.x << 16) + a.y * from_bits(k.x & 0xFFFF0000u);
    score += a.z * from_bits(k.y << 16) + a.w * from_bits(k.y & 0xFFFF0000u);
    score += b.x * from_bits(k.z << 16) + b.y * from_bits(k.z & 0xFFFF0000u);
    score += b.z * from_bits(k.w << 16) + b.w * from_bits(k.w & 0xFFFF0000u);
  }
  score = lane < count ? score / sqrtf(float(p.head_dim)) : __int_as_float(0xFF800000);
  float largest = score;
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, __shfl_xor_sync(WARP, largest, mask));
  const float weight = lane < count ? expf(score - largest) : 0.0f;
  float all = weight;
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) all += __shfl_xor_sync(WARP, all, mask);
  const float share = weight / all;

  for (int first = 0; first < p.head_dim; first += 64) {
    const int dim = min(first + 2 * lane, p.head_dim - 2);
    float even = 0.0f, odd = 0.0f;
    if (first == 0) {
#pragma unroll
      for (int i = 0; i < EARLY; i++) {
        const float part = __shfl_sync(WARP, share, i);  // 0 from `count` on
        even += part * from_bits(early[i] << 16);
        odd += part * from_bits(early[i] & 0xFFFF0000u);
      }
    }
#pragma unroll 4
    for (int i = first == 0 ? EARLY : 0; i < count; i++) {
      const u32 v = *(const u32*)(row(i, values) + 2 * dim);
      const float part = __shfl_sync(WARP, share, i);
      even += part * from_bits(v << 16);
      odd += part * from_bits(v & 0xFFFF0000u);
    }
    if (first + 2 * lane < p.head_dim) *(float2*)(out + head * p.head_dim + dim) = make_float2(even, odd);
  }
}
