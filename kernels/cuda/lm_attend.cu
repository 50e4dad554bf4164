// kernels/cuda/lm_attend.cu: attention of kernels/lm_attend.metal in one launch: the parts of a head are put together
// in a cluster. Same buffers and params; `partial` is not touched, nor p.splits read.
//
// Compute capability 9.0.
//
// Work: a cluster of 8 threadgroups takes a head of a column, each an equal part of its positions: grid (8, heads, T),
// 256 threads.
//
// A lane reads 16 bytes of a row, so that 8 to 16 lanes share a row; each such team goes through its own positions with
// its own running maximum, four rows at a time. Scores are powers of 2, not of e.

using u32 = unsigned int;

constexpr u32 WARP = 0xFFFFFFFFu;
constexpr int SPLITS = 8;
constexpr int WARPS = 8;
constexpr int ROWS = 4;           // of a team at a time
constexpr float LOWEST = -3e38f;  // of a team that has seen nothing; unlike infinity it can be subtracted
constexpr float LOG2_E = 1.4426950408889634f;

struct AttendParams {
  int heads, head_dim, slots, splits;
  u32 offset;
};

struct Column {
  long long position, first_visible;
  int kv_slot, unused;
};

__device__ __forceinline__ float exp2_of(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

/// The values in 16 bytes.
template <int BITS>
__device__ __forceinline__ void unpack(uint4 q, float* v) {
  const u32 words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (BITS == 16) {
      v[2 * i] = __uint_as_float(words[i] << 16);
      v[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++) v[4 * i + j] = float(int(words[i] << (24 - 8 * j)) >> 24);
    }
  }
}

/// All threads of the cluster have come here, and see what the others wrote.
__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// All threads of the cluster have come here, and that is all.
__device__ __forceinline__ void cluster_farewell() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

/// *p of the cluster's threadgroup `rank`.
__device__ __forceinline__ float of_cluster(const float* p, int rank) {
  u32 address = u32(__cvta_generic_to_shared(p));
  float out;
  asm volatile("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(address) : "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(out) : "r"(address) : "memory");
  return out;
}

template <int BITS, int DIM>
__device__ __forceinline__ void attend(const float* q, const Column* at, unsigned char* const* pages, float* out,
                                       const AttendParams& p) {
  constexpr int VALUES = 128 / BITS;   // of a row in a lane
  constexpr int LANES = DIM / VALUES;  // of a team
  constexpr int TEAMS = 32 / LANES;
  constexpr int OWN = DIM / SPLITS;  // dimensions that a threadgroup gives
  static_assert(OWN * SPLITS <= 32 * WARPS && LANES <= 32);
  __shared__ float sums[WARPS][DIM];
  __shared__ float largest[WARPS], totals[WARPS];
  __shared__ float part[DIM + 2];  // of this threadgroup: sums, the largest score, the sum of weights
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int split = int(blockIdx.x), head = int(blockIdx.y), column = int(blockIdx.z);
  const int own = lane % LANES, team = lane / LANES;
  const size_t row = size_t(column) * p.heads + head;

  const size_t head_bytes = size_t(32) * DIM * BITS / 8;
  const size_t keys_at = p.offset + head * head_bytes;
  const size_t values_at = keys_at + p.heads * head_bytes;
  const size_t key_scales_at = p.offset + 2 * p.heads * head_bytes + size_t(head) * 128;
  const size_t value_scales_at = key_scales_at + size_t(p.heads) * 128;

  // Columns and pages come from the host: they are there before the kernels before this one have ended.
  constexpr int STRIDE = TEAMS * ROWS;
  const int count = int(at[column].position - at[column].first_visible) + 1;
  const int kv_slot = at[column].kv_slot;
  const int begin = int(u32(count) * u32(split) / SPLITS), end = int(u32(count) * u32(split + 1) / SPLITS);
  const auto slot_of = [&](int position) {
    const int slot = kv_slot - (count - 1 - max(min(position, end - 1), 0));
    return slot < 0 ? slot + p.slots : slot;
  };
  const int own_first = begin + warp * STRIDE;
  const unsigned char* first_pages[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) first_pages[r] = pages[slot_of(own_first + r * TEAMS + team) / 32];
  asm volatile("griddepcontrol.wait;" ::: "memory");
  float query[VALUES];
#pragma unroll
  for (int i = 0; i < VALUES; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(q + row * DIM + own * VALUES + i);
    const float factor = LOG2_E * (DIM == 128 ? 0.08838834764831845f : 0.125f);
    query[i] = four.x * factor;
    query[i + 1] = four.y * factor;
    query[i + 2] = four.z * factor;
    query[i + 3] = four.w * factor;
  }
  float most = LOWEST, total = 0.0f;
  float sum[VALUES] = {};

  for (int first = own_first; first < end; first += WARPS * STRIDE) {
    uint4 keys[ROWS], values[ROWS];
    float key_scales[ROWS], value_scales[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int slot = slot_of(first + r * TEAMS + team);
      const unsigned char* page = first == own_first ? first_pages[r] : pages[slot / 32];
      const size_t cell = size_t(slot % 32 * DIM + own * VALUES) * BITS / 8;
      keys[r] = *reinterpret_cast<const uint4*>(page + keys_at + cell);
      values[r] = *reinterpret_cast<const uint4*>(page + values_at + cell);
      if constexpr (BITS == 8) {
        key_scales[r] = reinterpret_cast<const float*>(page + key_scales_at)[slot % 32];
        value_scales[r] = reinterpret_cast<const float*>(page + value_scales_at)[slot % 32];
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
      for (int i = 0; i < VALUES; i++) score = fmaf(query[i], v[i], score);
#pragma unroll
      for (int mask = 1; mask < LANES; mask *= 2) score += __shfl_xor_sync(WARP, score, mask);
      if constexpr (BITS == 8) score *= key_scales[r];
      scores[r] = first + r * TEAMS + team < end ? score : LOWEST;
      more = fmaxf(more, scores[r]);
    }
    const float shrink = exp2_of(most - more);
    most = more;
    total *= shrink;
#pragma unroll
    for (int i = 0; i < VALUES; i++) sum[i] *= shrink;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float weight = first + r * TEAMS + team < end ? exp2_of(scores[r] - most) : 0.0f;
      total += weight;
      if constexpr (BITS == 8) weight *= value_scales[r];
      float v[VALUES];
      unpack<BITS>(values[r], v);
#pragma unroll
      for (int i = 0; i < VALUES; i++) sum[i] = fmaf(weight, v[i], sum[i]);
    }
  }

  // The teams of the warp, the warps that had any position, the threadgroups of the cluster.
  const int used = min(WARPS, (end - begin + STRIDE - 1) / STRIDE);
  if (warp < used) {
    float of_all = most;
#pragma unroll
    for (int mask = LANES; mask < 32; mask *= 2) of_all = fmaxf(of_all, __shfl_xor_sync(WARP, of_all, mask));
    const float shrink = exp2_of(most - of_all);
    total *= shrink;
#pragma unroll
    for (int mask = LANES; mask < 32; mask *= 2) total += __shfl_xor_sync(WARP, total, mask);
#pragma unroll
    for (int i = 0; i < VALUES; i++) {
      sum[i] *= shrink;
#pragma unroll
      for (int mask = LANES; mask < 32; mask *= 2) sum[i] += __shfl_xor_sync(WARP, sum[i], mask);
      if (team == 0) sums[warp][own * VALUES + i] = sum[i];
    }
    if (lane == 0) {
      largest[warp] = of_all;
      totals[warp] = total;
    }
  }
  __syncthreads();
  if (int(threadIdx.x) < DIM) {
    float of_all = LOWEST, whole = 0.0f, value = 0.0f;
    for (int w = 0; w < used; w++) of_all = fmaxf(of_all, largest[w]);
    for (int w = 0; w < used; w++) {
      const float share = exp2_of(largest[w] - of_all);
      whole = fmaf(totals[w], share, whole);
      value = fmaf(sums[w][threadIdx.x], share, value);
    }
    part[threadIdx.x] = value;
    if (threadIdx.x == 0) {
      part[DIM] = of_all;
      part[DIM + 1] = whole;
    }
  }
  cluster_barrier();
  // Eight lanes a dimension, each with one threadgroup's part.
  if (int(threadIdx.x) < OWN * SPLITS) {
    const int rank = int(threadIdx.x) % SPLITS, dim = split * OWN + int(threadIdx.x) / SPLITS;
    float of_all = of_cluster(&part[DIM], rank);
    float whole = of_cluster(&part[DIM + 1], rank);
    float value = of_cluster(&part[dim], rank);
    const float mine = of_all;
#pragma unroll
    for (int mask = 1; mask < SPLITS; mask *= 2) of_all = fmaxf(of_all, __shfl_xor_sync(WARP, of_all, mask));
    const float share = exp2_of(mine - of_all);
    whole *= share;
    value *= share;
#pragma unroll
    for (int mask = 1; mask < SPLITS; mask *= 2) {
      whole += __shfl_xor_sync(WARP, whole, mask);
      value += __shfl_xor_sync(WARP, value, mask);
    }
    if (rank == 0) out[row * DIM + dim] = value / whole;
  }
  cluster_farewell();  // nobody leaves while others read its part
}

#define ATTEND(name, bits, dim)                                                                                       \
  extern "C" __global__ void __cluster_dims__(SPLITS, 1, 1) __launch_bounds__(32 * WARPS)                             \
      name(const float* q, const Column* at, unsigned char* const* pages, float*, float* out, const AttendParams p) { \
    asm volatile("griddepcontrol.launch_dependents;");                                                                \
    attend<bits, dim>(q, at, pages, out, p);                                                                          \
  }

// Kernels:
ATTEND(attend_bf16_d128_cluster, 16, 128)
ATTEND(attend_bf16_d64_cluster, 16, 64)
ATTEND(attend_int8_d128_cluster, 8, 128)
ATTEND(attend_int8_d64_cluster, 8, 64)
