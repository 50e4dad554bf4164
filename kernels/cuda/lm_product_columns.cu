// kernels/cuda/lm_product_columns.cu: the products of kernels/lm_product.metal for many columns, on tensor cores
// (compute capability 8.0 and later). Same buffers, params, formats and results; the tiles `mma_c8` and `mma_c32`: 16
// slots of up to 8 or 32 columns; grid.y = ceil(columns / that).
//
// Work: a threadgroup of S warps (S <= 16) computes S / split * 16 slots in each of its passes; `split` warps share a
// row's K, and find no work beyond the steps of a chunk: 2 with 4 bits and 32 columns, 4 with 8 bits, 8 of bfloats;
// with 8 columns four times as many. K is a multiple of 4 blocks (128 values of 4 bits, 64 of 8, 32 bfloats), groups
// are of 64 values. With an int8 ring the slots of a threadgroup are a multiple of head_dim.
//
// How: weights become bfloats, scale and bias applied, and so does x: each is off by up to 2^-9 of itself. They are
// read once for all columns, and fetched two units ahead.
#include "lm_results.cuh"
#include "lm_weights.cuh"

constexpr int STAGED = 16384;  // values of x, all columns
constexpr int MAX_WARPS = 16;
constexpr int AHEAD = 2;

template <int COLUMNS>
union Shared {
  uint4 x[STAGED / 8];
  float partials[MAX_WARPS * 16 *
                 (COLUMNS + 1)];  // of a warp's slots, those of warps that share them one after the other
};

/// Where in Shared::x the i-th 16 bytes of a block of a column lie: lanes that read together find different banks.
template <int BITS, int COLUMNS>
__device__ __forceinline__ int staged(int step, int i, int column, int block) {
  return ((step * (BLOCK<BITS> / 8) + i) * COLUMNS + column) * 8 + (block ^ (column % 2 * 2));
}

/// x from k0 on, `count` values of each column (zeros beyond K and the last column), times the norm's weight. A warp
/// has whole columns, the sum of whose squares is added to squares[column].
template <int BITS, int COLUMNS>
__device__ __forceinline__ void stage(const float* x, const float* norm, int k, int columns, int k0, int count,
                                      uint4* xs, float* squares) {
  constexpr int PER_BLOCK = BLOCK<BITS> / 8;
  constexpr int AT_ONCE = 4;                        // loads are on their way before the first is used
  constexpr int TURNS = STAGED / COLUMNS / 8 / 32;  // of a warp for a column
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  float square = 0.0f;
  for (int first = 0; first < (COLUMNS + warps - 1) / warps * TURNS; first += AT_ONCE) {
    float v[AT_ONCE][8];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      const int c = warp + (first + u) / TURNS * warps, at = k0 + 8 * ((first + u) % TURNS * 32 + lane);
      const bool there = c < columns && at < k;
      const float* p = x + size_t(c) * size_t(k) + size_t(at);
      *(float4*)v[u] = there ? *(const float4*)p : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      *(float4*)(v[u] + 4) = there ? *(const float4*)(p + 4) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      const int c = warp + (first + u) / TURNS * warps, i = (first + u) % TURNS * 32 + lane, at = k0 + 8 * i;
      if (c >= COLUMNS) break;  // the same for the whole warp
      if (norm != nullptr) {
        float factor[8] = {};
        if (at < k) {
          *(float4*)factor = *(const float4*)(norm + at);
          *(float4*)(factor + 4) = *(const float4*)(norm + at + 4);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) {
          square += v[u][j] * v[u][j];
          v[u][j] *= factor[j];
        }
        if ((first + u) % TURNS == TURNS - 1) {
#pragma unroll
          for (int mask = 16; mask > 0; mask /= 2) square += __shfl_xor_sync(WARP, square, mask);
          if (lane == 0) squares[c] += square;
          square = 0.0f;
        }
      }
      float in_order[8];
      permute<BITS>(v[u], in_order);
      const int block = i / PER_BLOCK;
      if (8 * i < count) {
        xs[staged<BITS, COLUMNS>(block / 8, i % PER_BLOCK, c, block % 8)] =
            make_uint4(bfloats(in_order[0], in_order[1]), bfloats(in_order[2], in_order[3]),
                       bfloats(in_order[4], in_order[5]), bfloats(in_order[6], in_order[7]));
      }
    }
  }
}

__device__ __forceinline__ u32 fma2(u32 a, u32 b, u32 c) {
  u32 out;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
}

/// A scale or bias, twice.
template <bool HALF>
__device__ __forceinline__ u32 twice(u32 bits, bool upper) {
  if (!HALF) return __byte_perm(bits, 0, upper ? 0x3232 : 0x1010);
  const float v = from16<true>(u16(upper ? bits >> 16 : bits));
  return bfloats(v, v);
}

constexpr u32 TWO_1S = 0x3F803F80u, TWO_16S = 0x41804180u, TWO_M128S = 0xC300C300u, TWO_M2176S = 0xC508C508u;

/// acc += a warp's unit times the staged x of a step.
template <int BITS, bool HALF, int COLUMNS>
__device__ __forceinline__ void multiply(const Unit& unit, const uint4* xs, int step, u32 of_128, float (*acc)[4]) {
  constexpr int PER_BLOCK = BLOCK<BITS> / 8;
  const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  u32 scales[2], biases[2];  // of rows g and g + 8
  if (BITS != 16) {
    const u32 others_scales = __shfl_xor_sync(WARP, unit.scales, 1),
              others_biases = __shfl_xor_sync(WARP, unit.biases, 1);
    scales[0] = t % 2 == 0 ? unit.scales : others_scales;
    scales[1] = t % 2 == 0 ? others_scales : unit.scales;
    biases[0] = t % 2 == 0 ? unit.biases : others_biases;
    biases[1] = t % 2 == 0 ? others_biases : unit.biases;
  }
#pragma unroll
  for (int j = 0; j < 2; j++) {
    u32 scale[2], bias[2];
    if (BITS != 16) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        scale[r] = twice<HALF>(scales[r], BITS == 4 && j == 1);
        bias[r] = twice<HALF>(biases[r], BITS == 4 && j == 1);
      }
    }
#pragma unroll
    for (int i = 0; i < PER_BLOCK; i++) {
      u32 a[2][4];  // of two instructions
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const uint4& words = unit.words[r][j];
#pragma unroll
        for (int q = 0; q < 4; q++) {
          u32 value = word_of(words, q);
          if (BITS == 16) {
            a[q / 2][r + q % 2 * 2] = value;
            continue;
          }
          if (BITS == 4) {
            value = fma2(nibbles(word_of(words, i) >> (4 * q), of_128), TWO_1S, TWO_M128S);
          } else {
            const u32 word = word_of(words, 2 * i + q / 2) >> (q % 2 * 8);
            value = fma2(nibbles(word, of_128), TWO_1S, fma2(nibbles(word >> 4, of_128), TWO_16S, TWO_M2176S));
          }
          a[q / 2][r + q % 2 * 2] = fma2(value, scale[r], bias[r]);
        }
      }
#pragma unroll
      for (int n = 0; n < COLUMNS / 8; n++) {
        const uint4 x = xs[staged<BITS, COLUMNS>(step, i, 8 * n + g, t / 2 * 4 + t % 2 + 2 * j)];
        mma(acc[n], a[0][0], a[0][1], a[0][2], a[0][3], x.x, x.y);
        mma(acc[n], a[1][0], a[1][1], a[1][2], a[1][3], x.z, x.w);
      }
    }
  }
}

/// What a thread knows of its work.
struct Work {
  int warps, split, slots;    // slots: of a pass
  int first_column, columns;  // of this threadgroup
};

/// Slot i of a pass, column c: the sum of the parts.
template <int COLUMNS>
__device__ __forceinline__ float& part_of(Shared<COLUMNS>& s, const Work& work, int i, int c, int part) {
  return s.partials[((i / 16 * work.split + part) * 16 + i % 16) * (COLUMNS + 1) + c];
}
template <int COLUMNS>
__device__ __forceinline__ float result(Shared<COLUMNS>& s, const Work& work, int i, int c) {
  float v = 0.0f;
  for (int part = 0; part < work.split; part++) v += part_of(s, work, i, c, part);
  return v;
}

/// All passes; `finish` is told the first slot of each when its results are there, with the norm's factor of each
/// column.
template <int BITS, bool HALF, int COLUMNS, typename Finish>
__device__ __forceinline__ void product(const float* x, const float* norm, const Matrix& m, int columns, int split,
                                        int passes, Shared<COLUMNS>& s, Finish&& finish) {
  constexpr int CHUNK_STEPS = STAGED / COLUMNS / STEP<BITS>;
  __shared__ float squares[COLUMNS], factors[COLUMNS];
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, g = lane / 4, t = lane % 4;
  const u32 of_128 = two_128s();
  Work work;
  work.warps = int(blockDim.x) / 32;
  work.split = split;
  work.slots = work.warps / split * 16;
  work.first_column = int(blockIdx.y) * COLUMNS;
  work.columns = min(COLUMNS, columns - work.first_column);
  const int steps = (m.k + STEP<BITS> - 1) / STEP<BITS>;
  const int part = warp % split;
  x += size_t(work.first_column) * size_t(m.k);
  bool first_time = true;
  for (int pass = 0; pass < passes; pass++) {
    const int slot0 = (int(blockIdx.x) * passes + pass) * work.slots;
    if (slot0 >= m.n) break;
    Rows<BITS> rows;
    rows.set(m, slot0 + warp / split * 16 + g);
    // Steps of the warp: part, part + split and so on of each chunk.
    int ahead = part;
    const auto fetch_next = [&](Unit& unit) {
      rows.fetch(m, ahead * 8 + t / 2 * 4 + t % 2, ahead < steps, unit);
      const int chunk = ahead / CHUNK_STEPS;
      ahead += split;
      if (ahead / CHUNK_STEPS != chunk) ahead = (chunk + 1) * CHUNK_STEPS + part;
    };
    Unit ring[AHEAD];
    float acc[COLUMNS / 8][4] = {};
    if (part < CHUNK_STEPS) {
#pragma unroll
      for (int d = 0; d < AHEAD; d++) fetch_next(ring[d]);
    }
    if (first_time) wait_for_others();
    first_time = false;
    if (threadIdx.x < COLUMNS) squares[threadIdx.x] = 0.0f;
    int turn = 0;
    for (int first = 0; first < steps; first += CHUNK_STEPS) {
      const int count = min(CHUNK_STEPS, steps - first);
      __syncthreads();
      stage<BITS, COLUMNS>(x, norm, m.k, work.columns, first * STEP<BITS>, count * STEP<BITS>, s.x, squares);
      __syncthreads();
      for (int step = part; step < count; step += split) {
#pragma unroll
        for (int d = 0; d < AHEAD; d++) {
          if (turn != d) continue;
          multiply<BITS, HALF, COLUMNS>(ring[d], s.x, step, of_128, acc);
          fetch_next(ring[d]);
        }
        turn = turn + 1 == AHEAD ? 0 : turn + 1;
      }
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s.partials[(warp * 16 + g + i / 2 * 8) * (COLUMNS + 1) + 8 * n + 2 * t + i % 2] = acc[n][i];
      }
    }
    if (threadIdx.x < COLUMNS) {
      factors[threadIdx.x] = norm == nullptr ? 1.0f : rsqrtf(squares[threadIdx.x] / float(m.k) + 1e-8f);
    }
    __syncthreads();
    finish(work, slot0, factors);
    __syncthreads();
  }
}

template <int BITS, bool HALF, int COLUMNS>
__device__ __forceinline__ void qmv(const float* x, const float* norm, const Matrix& m, float* y,
                                    const ProductParams& p) {
  __shared__ Shared<COLUMNS> s;
  const auto finish = [&](const Work& work, int slot0, const float* factors) {
    const bool swiglu = p.epilogue == 2;
    const int outputs = swiglu ? work.slots / 2 : work.slots, width = swiglu ? p.n / 2 : p.n;
    for (int item = int(threadIdx.x); item < outputs * work.columns; item += int(blockDim.x)) {
      const int c = item / outputs, i = item - c * outputs;
      const int n = (swiglu ? slot0 / 2 : slot0) + i;
      if (n >= width) continue;
      float& out = y[size_t(work.first_column + c) * size_t(width) + size_t(n)];
      if (swiglu) {
        const float gate = factors[c] * result(s, work, 2 * i, c);
        const float value = factors[c] * result(s, work, 2 * i + 1, c);
        out = gate / (1.0f + expf(-gate)) * value;
      } else {
        const float v = factors[c] * result(s, work, i, c);
        out = p.epilogue == 1 ? out + v : v;
      }
    }
  };
  product<BITS, HALF, COLUMNS>(x, p.norm != 0 ? norm : nullptr, m, p.columns, p.split, p.passes, s, finish);
}

template <int BITS, bool HALF, int COLUMNS>
__device__ __forceinline__ void qkv(const float* x, const float* norm, const Matrix& m, const float* angles,
                                    const Column* at, unsigned char* const* pages, float* q, const QkvParams& p) {
  __shared__ Shared<COLUMNS> s;
  const auto finish = [&](const Work& work, int slot0, const float* factors) {
    const int dim = p.heads * p.head_dim, pairs = work.slots / 2;
    for (int item = int(threadIdx.x); item < pairs * work.columns; item += int(blockDim.x)) {
      const int c = item / pairs, i = 2 * (item - c * pairs), n = slot0 + i, column = work.first_column + c;
      if (n >= p.n) continue;
      float2 v = make_float2(factors[c] * result(s, work, i, c), factors[c] * result(s, work, i + 1, c));
      if (p.rotary != 0 && n < 2 * dim) {
        v = turned(v, *(const float2*)(angles + size_t(column) * size_t(p.head_dim) + n % p.head_dim));
      }
      if (n >= dim && p.kv_bits == 8) {
        part_of(s, work, i, c, 0) = v.x;
        part_of(s, work, i + 1, c, 0) = v.y;
      } else if (n >= dim) {
        const int kv_slot = at[column].kv_slot;
        store_pair(p, pair_in_ring(p, pages[kv_slot / 32], kv_slot, n), n, v);
      } else {
        store_pair(p, q + size_t(column) * size_t(dim) + size_t(n), n, v);
      }
    }
    if (p.kv_bits != 8) return;
    __syncthreads();
    for (int item = int(threadIdx.x) / 32; item < work.slots / p.head_dim * work.columns; item += work.warps) {
      const int c = item % work.columns, i = item / work.columns * p.head_dim, n = slot0 + i;
      if (n >= p.n || n < dim) continue;
      const int kv_slot = at[work.first_column + c].kv_slot;
      quantize_head(p, pages[kv_slot / 32], kv_slot, n / dim, n / p.head_dim % p.heads,
                    [&](int d) { return part_of(s, work, i + d, c, 0); });
    }
  };
  product<BITS, HALF, COLUMNS>(x, p.norm != 0 ? norm : nullptr, m, p.columns, p.split, p.passes, s, finish);
}

#define QMV(name, bits, half, columns)                                                                        \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                             \
      name(const float* x, const float* norm, const uint4* w, const u16* scales, const u16* biases, float* y, \
           const ProductParams p) {                                                                           \
    let_others_start();                                                                                       \
    qmv<bits, half, columns>(x, norm, Matrix{w, scales, biases, p.n, p.k, p.epilogue == 2}, y, p);            \
  }
#define QKV(name, bits, half, columns)                                                                        \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                             \
      name(const float* x, const float* norm, const uint4* w, const u16* scales, const u16* biases,           \
           const float* angles, const Column* at, unsigned char* const* pages, float* q, const QkvParams p) { \
    let_others_start();                                                                                       \
    qkv<bits, half, columns>(x, norm, Matrix{w, scales, biases, p.n, p.k, false}, angles, at, pages, q, p);   \
  }

// clang-format off
// Kernels:
QMV(qmv_b4_bf16_mma_c8, 4, false, 8)
QMV(qmv_b4_bf16_mma_c32, 4, false, 32)
QMV(qmv_b4_f16_mma_c8, 4, true, 8)
QMV(qmv_b4_f16_mma_c32, 4, true, 32)
QMV(qmv_b8_bf16_mma_c8, 8, false, 8)
QMV(qmv_b8_bf16_mma_c32, 8, false, 32)
QMV(qmv_b8_f16_mma_c8, 8, true, 8)
QMV(qmv_b8_f16_mma_c32, 8, true, 32)
QMV(qmv_bf16_mma_c8, 16, false, 8)
QMV(qmv_bf16_mma_c32, 16, false, 32)
QKV(qkv_b4_bf16_mma_c8, 4, false, 8)
QKV(qkv_b4_bf16_mma_c32, 4, false, 32)
QKV(qkv_b4_f16_mma_c8, 4, true, 8)
QKV(qkv_b4_f16_mma_c32, 4, true, 32)
QKV(qkv_b8_bf16_mma_c8, 8, false, 8)
QKV(qkv_b8_bf16_mma_c32, 8, false, 32)
QKV(qkv_b8_f16_mma_c8, 8, true, 8)
QKV(qkv_b8_f16_mma_c32, 8, true, 32)
QKV(qkv_bf16_mma_c8, 16, false, 8)
QKV(qkv_bf16_mma_c32, 16, false, 32)
