// kernels/cuda/lm_product_column.cu: the products of kernels/lm_product.metal for one column, on tensor cores (compute
// capability 8.0 and later). Same buffers, params, formats and results; the tile `mma_c1`: 16 slots.
//
// Work: as in lm_product.metal. A threadgroup of S warps (S <= 16) computes S / split * 16 slots in each of its
// passes; `split` warps share a row's K. x is staged once for all passes of a round, of which 512 / 16 / S fit: with
// more passes the flow of weights stops in between. Two threadgroups of 8 warps fill a multiprocessor.
//
// K is a multiple of 4 blocks (128 values of 4 bits, 64 of 8, 32 bfloats), groups are of 64 values.
#include "lm_attend_few.cuh"
#include "lm_column.cuh"
#include "lm_results.cuh"
#include "lm_weights.cuh"

template <int BITS, bool HALF>
__device__ __forceinline__ void qmv(const float* x, const float* norm, const Matrix& m, float* y,
                                    const ProductParams& p) {
  struct Then {
    float* y;
    const ProductParams& p;
    Shared<BITS>& s;
    float early;   // what the thread's first result is added to
    int early_at;  // its parts

    __device__ __forceinline__ void begin(const Share& share) {
      const int n = share.first + int(threadIdx.x);
      if (p.epilogue == 1 && n < p.n) early = y[n];
      early_at = parts_of(share, (p.epilogue == 2 ? 2 : 1) * int(threadIdx.x));
    }
    __device__ __forceinline__ void finish(const Share& share, int slot0, int slots, float factor) {
      for (int i = int(threadIdx.x); i < (p.epilogue == 2 ? slots / 2 : slots); i += int(blockDim.x)) {
        const bool first = i == int(threadIdx.x);
        if (p.epilogue == 2) {
          const int n = slot0 / 2 + i;
          if (n >= p.n / 2) break;
          const float2 v = pair_of(s.partials + (first ? early_at : parts_of(share, 2 * i)), share.split);
          const float gate = factor * v.x;
          y[n] = gate / (1.0f + expf(-gate)) * (factor * v.y);
        } else {
          const int n = slot0 + i;
          if (n >= p.n) break;
          const float v = factor * sum_of(s.partials + (first ? early_at : parts_of(share, i)), share.split);
          y[n] = p.epilogue == 0 ? v : (first && slot0 == share.first ? early : y[n]) + v;
        }
      }
    }
  };
  __shared__ Shared<BITS> s;
  product<BITS, HALF, 2>(x, p.norm != 0 ? norm : nullptr, m, p.split, p.passes, s, Then{y, p, s, 0.0f, 0});
}

/// With an int8 ring the slots of a threadgroup are whole heads, and all passes are one round.
template <int BITS, bool HALF>
__device__ __forceinline__ void qkv(const float* x, const float* norm, const Matrix& m, const float* angles,
                                    const Column* at, unsigned char* const* pages, float* q, const QkvParams& p) {
  struct Then {
    const float* angles;
    const Column* at;
    unsigned char* const* pages;
    float* q;
    const QkvParams& p;
    Shared<BITS>& s;
    int kv_slot;
    unsigned char* page;
    float2 early;    // the rotation of the thread's first pair
    int early_at;    // its parts
    void* early_to;  // where it goes

    __device__ __forceinline__ float2 rotation(int n) const {
      return *(const float2*)(angles + n % p.head_dim);  // pairs: [head_dim / 2, 2]
    }
    __device__ __forceinline__ void* place_of(int n) const {
      return n < p.heads * p.head_dim ? q + n : pair_in_ring(p, page, kv_slot, n);
    }
    __device__ __forceinline__ void begin(const Share& share) {
      const int n = share.first + 2 * int(threadIdx.x);
      kv_slot = at->kv_slot;
      if (p.rotary != 0) early = rotation(n);
      early_at = parts_of(share, 2 * int(threadIdx.x));
      page = pages[kv_slot / 32];
      early_to = place_of(n);
    }
    __device__ __forceinline__ void finish(const Share& share, int slot0, int slots, float factor) {
      const int dim = p.heads * p.head_dim;
      float* const heads = (float*)s.x;  // int8: what is not yet scaled
      for (int i = int(threadIdx.x); i < slots / 2; i += int(blockDim.x)) {
        const int n = slot0 + 2 * i;
        if (n >= p.n) break;
        const bool first = i == int(threadIdx.x), very_first = first && slot0 == share.first;
        float2 v = pair_of(s.partials + (first ? early_at : parts_of(share, 2 * i)), share.split);
        v = make_float2(factor * v.x, factor * v.y);
        if (p.rotary != 0 && n < 2 * dim) v = turned(v, very_first ? early : rotation(n));
        if (n >= dim && p.kv_bits == 8) {
          *(float2*)(heads + 2 * i) = v;
        } else {
          store_pair(p, very_first ? early_to : place_of(n), n, v);
        }
      }
      if (p.kv_bits != 8) return;
      __syncthreads();
      for (int i = int(threadIdx.x) / 32; i < slots / p.head_dim; i += share.warps) {
        const int n = slot0 + i * p.head_dim;
        if (n >= p.n) break;
        if (n >= dim) {
          const float* values = heads + i * p.head_dim;
          quantize_head(p, page, kv_slot, n / dim, n / p.head_dim % p.heads, [&](int d) { return values[d]; });
        }
      }
      __syncthreads();
    }
  };
  __shared__ Shared<BITS> s;
  Then then{angles, at, pages, q, p, s, 0, nullptr, make_float2(0.0f, 0.0f), 0, nullptr};
  product<BITS, HALF, 2>(x, p.norm != 0 ? norm : nullptr, m, p.split, p.passes, s, then);
}

/// Where an attention's result is kept until it is staged: behind what will be staged.
template <int BITS>
__device__ __forceinline__ float* attended(Shared<BITS>& s) {
  constexpr int MOST = 4096;
  static_assert(CHUNK >= 2 * MOST);
  return (float*)s.x + CHUNK - MOST;
}

template <int BITS, bool HALF>
__device__ __forceinline__ void attend_project(const float* q, const Column* at, unsigned char* const* pages,
                                               const Matrix& m, float* y, const AttendProjectParams& p) {
  struct Then {
    const float* q;
    const Column* at;
    unsigned char* const* pages;
    float* y;
    const AttendProjectParams& p;
    Shared<BITS>& s;
    float early;

    __device__ __forceinline__ void begin(const Share& share) {
      const int n = share.first + int(threadIdx.x);
      if (int(threadIdx.x) < share.slots && n < p.n) early = y[n];
      const int count = int(at->position - at->first_visible) + 1;
      const int kv_slot = at->kv_slot;
      const unsigned char* first_page = pages[slot_of(0, count, kv_slot, p.slots) / 32];
      const unsigned char* last_page = pages[kv_slot / 32];
      for (int head = int(threadIdx.x) / 32; head < p.heads; head += share.warps) {
        attend_head(q, first_page, last_page, kv_slot, count, head, p, attended(s));
      }
      __syncthreads();
    }
    __device__ __forceinline__ void finish(const Share& share, int slot0, int slots, float factor) {
      const int i = int(threadIdx.x);
      if (i < slots && slot0 + i < p.n) y[slot0 + i] = early + sum_of(s.partials + parts_of(share, i), share.split);
    }
  };
  __shared__ Shared<BITS> s;
  product<BITS, HALF, 1>(attended(s), nullptr, m, p.split, 1, s, Then{q, at, pages, y, p, s, 0.0f});
}

#define QMV(name, bits, half)                                                                                 \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                             \
      name(const float* x, const float* norm, const uint4* w, const u16* scales, const u16* biases, float* y, \
           const ProductParams p) {                                                                           \
    let_others_start();                                                                                       \
    qmv<bits, half>(x, norm, Matrix{w, scales, biases, p.n, p.k, p.epilogue == 2}, y, p);                     \
  }
#define QKV(name, bits, half)                                                                                 \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                             \
      name(const float* x, const float* norm, const uint4* w, const u16* scales, const u16* biases,           \
           const float* angles, const Column* at, unsigned char* const* pages, float* q, const QkvParams p) { \
    let_others_start();                                                                                       \
    qkv<bits, half>(x, norm, Matrix{w, scales, biases, p.n, p.k, false}, angles, at, pages, q, p);            \
  }
#define ATTEND_PROJECT(name, bits, half)                                                                     \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                            \
      name(const float* q, const Column* at, unsigned char* const* pages, const uint4* w, const u16* scales, \
           const u16* biases, float* y, const AttendProjectParams p) {                                       \
    let_others_start();                                                                                      \
    attend_project<bits, half>(q, at, pages, Matrix{w, scales, biases, p.n, p.k, false}, y, p);              \
  }

// clang-format off
// Kernels:
QMV(qmv_b4_bf16_mma_c1, 4, false)
QMV(qmv_b4_f16_mma_c1, 4, true)
QMV(qmv_b8_bf16_mma_c1, 8, false)
QMV(qmv_b8_f16_mma_c1, 8, true)
QMV(qmv_bf16_mma_c1, 16, false)
QKV(qkv_b4_bf16_mma_c1, 4, false)
QKV(qkv_b4_f16_mma_c1, 4, true)
QKV(qkv_b8_bf16_mma_c1, 8, false)
QKV(qkv_b8_f16_mma_c1, 8, true)
QKV(qkv_bf16_mma_c1, 16, false)
ATTEND_PROJECT(attend_project_b4_bf16_mma_c1, 4, false)
ATTEND_PROJECT(attend_project_b4_f16_mma_c1, 4, true)
ATTEND_PROJECT(attend_project_b8_bf16_mma_c1, 8, false)
ATTEND_PROJECT(attend_project_b8_f16_mma_c1, 8, true)
ATTEND_PROJECT(attend_project_bf16_mma_c1, 16, false)
