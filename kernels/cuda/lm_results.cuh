// kernels/cuda/lm_results.cuh: params of the products, and what becomes of their results: see kernels/lm_product.metal.
#pragma once

#include "lm_weights.cuh"

struct ProductParams {
  int n, k, columns, group_shift, split, passes, epilogue, norm;
};

struct QkvParams {
  int n, k, columns, group_shift, split, passes, norm, heads, head_dim, rotary, kv_bits;
  u32 offset;
};

struct Column {
  long long position, first_visible;
  int kv_slot, unused;
};

/// Row `slot` of one head's keys (part 1) or values (part 2).
__device__ __forceinline__ unsigned char* ring_row(unsigned char* page, int slot, int part, int heads, int head,
                                                   int head_dim, int bytes, u32 offset) {
  const int row = ((part - 1) * heads + head) * 32 + slot % 32;
  return page + offset + size_t(row) * size_t(head_dim * bytes);
}

__device__ __forceinline__ float2 turned(float2 v, float2 by) {
  return make_float2(v.x * by.x - v.y * by.y, v.x * by.y + v.y * by.x);
}

/// Where results n and n + 1 of [q; k; v], a pair of a key or value, go in a ring of floats or bfloats.
__device__ __forceinline__ void* pair_in_ring(const QkvParams& p, unsigned char* page, int kv_slot, int n) {
  const int part = n / (p.heads * p.head_dim), head = n / p.head_dim % p.heads;
  const int bytes = p.kv_bits / 8;
  return ring_row(page, kv_slot, part, p.heads, head, p.head_dim, bytes, p.offset) + n % p.head_dim * bytes;
}

/// Stores results n and n + 1, floats for q, otherwise as the ring has them.
__device__ __forceinline__ void store_pair(const QkvParams& p, void* to, int n, float2 v) {
  if (n >= p.heads * p.head_dim && p.kv_bits == 16) {
    *(u32*)to = bfloats(v.x, v.y);
  } else {
    *(float2*)to = v;
  }
}

/// A head's key or value, value(0) and so on, by one warp: int8 of the largest magnitude / 127.
template <typename Value>
__device__ __forceinline__ void quantize_head(const QkvParams& p, unsigned char* page, int kv_slot, int part, int head,
                                              Value&& value) {
  const int lane = int(threadIdx.x) % 32;
  float largest = 0.0f;
  for (int i = lane; i < p.head_dim; i += 32) largest = fmaxf(largest, fabsf(value(i)));
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, __shfl_xor_sync(WARP, largest, mask));
  const bool nothing = largest < 1e-35f;  // 127 / largest would overflow
  const float inverse = nothing ? 0.0f : 127.0f / largest;
  unsigned char* row = ring_row(page, kv_slot, part, p.heads, head, p.head_dim, 1, p.offset);
  for (int i = lane; i < p.head_dim; i += 32) row[i] = (unsigned char)(int(rintf(value(i) * inverse)) & 255);
  if (lane != 0) return;
  float* of_heads = (float*)(page + size_t(p.offset) + size_t(p.heads * 64) * size_t(p.head_dim));
  of_heads[((part - 1) * p.heads + head) * 32 + kv_slot % 32] = nothing ? 0.0f : largest / 127.0f;
}
