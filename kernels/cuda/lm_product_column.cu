// kernels/cuda/lm_product_column.cu: the products of kernels/lm_product.metal for one column, on tensor cores (compute
// capability 8.0 and later). Same buffers, params, formats and results; the tile `mma_c1`: 16 slots.
//
// Work: as in lm_product.metal. A threadgroup of S warps (S <= 16) computes S / split * 16 slots in each of its
// passes; `split` warps share a row's K. One threadgroup a multiprocessor, with as many passes as that takes, is about
// right: x is staged once for all.
//
// How: each lane's dot products of its own blocks of W with x come out of the tensor core apart from all others,
// because operand B has x in the columns 2 t and 2 t + 1 for the blocks of the lanes t, and zeros elsewhere: what
// lands in a lane's accumulators is what its own blocks give. So each applies scale and bias of its own group. The two
// columns are x rounded to bfloat and what that leaves, so that x is exact to 16 bits. A quantized value q is the
// bfloat 128 + q, or with 8 bits two of them (each of a nibble); what the 128 add is -128 times the sum of x in the
// block, staged with x.
//
// A warp fetches its units AHEAD units before it uses them, the first ones before anything else is done or known: memory
// must have some 40 KB in flight on every multiprocessor to be read at full speed.
#include "lm_weights.cuh"

constexpr int CHUNK = 6144;      // staged values of x, a multiple of 16 steps of any format
constexpr int PARTIALS = 4096;   // results of warps, before those that share a row are added
constexpr int MAX_WARPS = 16;

struct ProductParams {
  int n, k, columns, group_shift, split, passes, epilogue, norm;
};

struct QkvParams {
  int n, k, columns, group_shift, split, passes, norm, heads, head_dim, rotary, kv_bits;
  u32 offset;
};

struct AttendProjectParams {
  int n, k, group_shift, split, heads, head_dim, slots;
  u32 offset;
};

struct Column {
  long long position, first_visible;
  int kv_slot, unused;
};

/// x of a block: rounded, then the rest.
template <int BITS>
constexpr int STAGED_BLOCK = 4 * BLOCK<BITS>;  // bytes

template <int BITS>
struct Shared {
  uint4 x[CHUNK * 4 / 16];
  uint4 zeros[8];  // read at one of its halves' 16 bytes, so that banks differ from those of x
  float sums[BITS == 16 ? 1 : CHUNK / BLOCK<BITS>];
  float partials[PARTIALS];
  float squares[MAX_WARPS];
};

/// x from k0 on, `count` values of it (zeros beyond K), times the norm's weight. Of each block the sum.
template <int BITS>
__device__ __forceinline__ void stage(const float* x, const float* norm, int k, int k0, int count,
                                      const float* early_norm, float* square, Shared<BITS>& s) {
  constexpr int PER_BLOCK = BLOCK<BITS> / 8;
  const int threads = int(blockDim.x);
  for (int first = 0; first < count / 8; first += threads) {
    const int i = first + int(threadIdx.x);
    const int at = k0 + 8 * i;
    float v[8], factor[8], in_order[8];
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = 0.0f;
    if (i < count / 8 && at < k) {
      *(float4*)v = *(const float4*)(x + at);
      *(float4*)(v + 4) = *(const float4*)(x + at + 4);
      if (norm != nullptr) {
        if (first == 0 && k0 == 0) {
#pragma unroll
          for (int j = 0; j < 8; j++) factor[j] = early_norm[j];
        } else {
          *(float4*)factor = *(const float4*)(norm + at);
          *(float4*)(factor + 4) = *(const float4*)(norm + at + 4);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) {
          *square += v[j] * v[j];
          v[j] *= factor[j];
        }
      }
    }
    permute<BITS>(v, in_order);
    u32 rounded[4], rest[4];
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      rounded[j] = bfloats(in_order[2 * j], in_order[2 * j + 1]);
      const float a = from_bits(rounded[j] << 16), b = from_bits(rounded[j] & 0xFFFF0000u);
      rest[j] = bfloats(in_order[2 * j] - a, in_order[2 * j + 1] - b);
      sum += (a + b) + (from_bits(rest[j] << 16) + from_bits(rest[j] & 0xFFFF0000u));
    }
    if (BITS != 16) {
#pragma unroll
      for (int mask = 1; mask < PER_BLOCK; mask *= 2) sum += __shfl_xor_sync(WARP, sum, mask);
    }
    if (i < count / 8) {
      uint4* to = s.x + i / PER_BLOCK * (2 * PER_BLOCK) + i % PER_BLOCK;
      to[0] = make_uint4(rounded[0], rounded[1], rounded[2], rounded[3]);
      to[PER_BLOCK] = make_uint4(rest[0], rest[1], rest[2], rest[3]);
      if (BITS != 16 && i % PER_BLOCK == 0) s.sums[i / PER_BLOCK] = sum;
    }
  }
}

/// total[r] += the lane's blocks of row r times x, of which `b` is the lane's operand B.
template <int BITS, bool HALF>
__device__ __forceinline__ void multiply(const Unit& unit, const uint4* b, float sum, u32 of_128, float* total) {
  float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int i = 0; i < (BITS == 4 ? 4 : BITS == 8 ? 2 : 1); i++) {
    const uint4 x = b[i];
    if (BITS == 4) {
      const u32 p = word_of(unit.words[0], i), q = word_of(unit.words[1], i);
      float* to = i % 2 == 0 ? c : d;
      mma(to, nibbles(p, of_128), nibbles(q, of_128), nibbles(p >> 4, of_128), nibbles(q >> 4, of_128), x.x, x.y);
      mma(to, nibbles(p >> 8, of_128), nibbles(q >> 8, of_128), nibbles(p >> 12, of_128), nibbles(q >> 12, of_128), x.z, x.w);
    } else if (BITS == 8) {
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const u32 p = word_of(unit.words[0], 2 * i + j), q = word_of(unit.words[1], 2 * i + j);
        const u32 b0 = j == 0 ? x.x : x.z, b1 = j == 0 ? x.y : x.w;
        mma(c, nibbles(p, of_128), nibbles(q, of_128), nibbles(p >> 8, of_128), nibbles(q >> 8, of_128), b0, b1);
        mma(d, nibbles(p >> 4, of_128), nibbles(q >> 4, of_128), nibbles(p >> 12, of_128), nibbles(q >> 12, of_128), b0, b1);
      }
    } else {
      mma(c, unit.words[0].x, unit.words[1].x, unit.words[0].y, unit.words[1].y, x.x, x.y);
      mma(d, unit.words[0].z, unit.words[1].z, unit.words[0].w, unit.words[1].w, x.z, x.w);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float low = c[2 * r] + c[2 * r + 1];
    const float high = d[2 * r] + d[2 * r + 1];
    if (BITS == 16) {
      total[r] += low + high;
    } else {
      const float excess = BITS == 4 ? 128.0f : 2176.0f;  // 8 bits: 128 + 16 * 128
      const float dot = (BITS == 4 ? low + high : low + 16.0f * high) - excess * sum;
      total[r] += from16<HALF>(unit.scales[r]) * dot + from16<HALF>(unit.biases[r]) * sum;
    }
  }
}

/// Slots of this threadgroup, pass by pass.
struct Share {
  int warps, split, slots, first, passes;  // slots: of a pass

  __device__ __forceinline__ Share(int n, int of_split, int of_passes) {
    warps = int(blockDim.x) / 32;
    split = of_split;
    slots = warps / split * 16;
    first = int(blockIdx.x) * of_passes * slots;
    passes = min(of_passes, (n - first + slots - 1) / slots);
  }
  /// Passes whose partial results there is room for.
  __device__ __forceinline__ int round() const { return min(passes, PARTIALS / 16 / warps); }
};

/// The way of a warp through its units: chunks of x, in each all passes of a round, in each every split-th step. In a
/// chunk all warps have as many, some of which are beyond K; it ends at a multiple of AHEAD.
template <int BITS>
struct Walk {
  int steps, chunk_steps, split, part, passes;
  int chunk = 0, i = 0, unit = 0;  // i: of the steps of a pass, unit: of the chunk

  __device__ __forceinline__ Walk(int k, const Share& share, int of_passes) {
    steps = (k + STEP<BITS> - 1) / STEP<BITS>;
    chunk_steps = CHUNK / STEP<BITS> / share.split * share.split;
    split = share.split;
    part = int(threadIdx.x) / 32 % share.split;
    passes = of_passes;
  }
  __device__ __forceinline__ bool has_chunk() const { return chunk * chunk_steps < steps; }
  __device__ __forceinline__ int count() const {
    return (min(chunk_steps, steps - chunk * chunk_steps) + split - 1) / split;
  }
  __device__ __forceinline__ int step() const { return chunk * chunk_steps + i * split + part; }
};

/// Fetches a warp's units, one after the other.
template <int BITS, int AHEAD>
struct Fetcher {
  const Matrix& m;
  Walk<BITS> walk;
  Rows<BITS> rows;
  int slots, first_slot, block, first_block;  // the lane's, of a pass
  int count, units, end;                      // of the chunk: units of a pass, of all, with those that are left out

  __device__ __forceinline__ Fetcher(const Matrix& of, const Share& share, int first_pass, int passes)
      : m(of), walk(of.k, share, passes) {
    slots = share.slots;
    first_slot =
        share.first + first_pass * slots + int(threadIdx.x) / 32 / share.split * 16 + int(threadIdx.x) % 32 / 4;
    start_chunk();
  }
  __device__ __forceinline__ void start_chunk() {
    count = walk.has_chunk() ? walk.count() : 0;
    units = count * walk.passes;
    end = (units + AHEAD - 1) / AHEAD * AHEAD;
    rows.set(m, first_slot);
    block = first_block = walk.step() * 4 + int(threadIdx.x) % 4;
  }
  /// The next unit, if there is one.
  __device__ __forceinline__ void next(Unit& unit) {
    rows.fetch(m, block, walk.unit < units, unit);
    block += 4 * walk.split;
    if (++walk.i == count) {
      walk.i = 0;
      block = first_block;
      rows.advance(m, slots);
    }
    if (++walk.unit != end) return;
    walk.unit = walk.i = 0;
    walk.chunk++;
    start_chunk();
  }
};

/// Slot i of a round: the sum of what the warps that share it have.
template <int BITS>
__device__ __forceinline__ float result(const Shared<BITS>& s, const Share& share, int i) {
  const int pass = i / share.slots, slot = i - pass * share.slots;
  const float* at = s.partials + (pass * share.warps + slot / 16 * share.split) * 16 + slot % 16;
  float v = 0.0f;
  for (int part = 0; part < share.split; part++) v += at[part * 16];
  return v;
}

/// All passes. `then` gets told when earlier kernels are done, and when the results of a round of passes are there.
template <int BITS, bool HALF, int AHEAD, typename Then>
__device__ __forceinline__ void product(const float* x, const float* norm, const Matrix& m, int split, int of_passes,
                                        Shared<BITS>& s, Then&& then) {
  constexpr int PER_BLOCK = BLOCK<BITS> / 8;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const Share share(m.n, split, of_passes);
  const u32 of_128 = two_128s();
  float square = 0.0f, unused = 0.0f;
  for (int first_pass = 0; first_pass < share.passes; first_pass += share.round()) {
    const int passes = min(share.round(), share.passes - first_pass);
    Unit ring[AHEAD];
    Fetcher<BITS, AHEAD> fetcher(m, share, first_pass, passes);
#pragma unroll
    for (int d = 0; d < AHEAD; d++) fetcher.next(ring[d]);

    float early_norm[8];
    if (first_pass > 0) {
      __syncthreads();  // the results before have been read
    } else {
      if (norm != nullptr && 8 * int(threadIdx.x) < m.k) {
        *(float4*)early_norm = *(const float4*)(norm + 8 * threadIdx.x);
        *(float4*)(early_norm + 4) = *(const float4*)(norm + 8 * threadIdx.x + 4);
      }
      if (threadIdx.x < 8) s.zeros[threadIdx.x] = make_uint4(0, 0, 0, 0);
      wait_for_others();
      then.begin(share);
    }
    for (Walk<BITS> walk(m.k, share, passes); walk.has_chunk(); walk.chunk++) {
      const int count = walk.count();
      if (walk.chunk > 0) __syncthreads();
      if (first_pass == 0 || walk.steps > walk.chunk_steps) {
        stage<BITS>(x, norm, m.k, walk.chunk * walk.chunk_steps * STEP<BITS>, count * split * STEP<BITS>, early_norm,
                    first_pass == 0 ? &square : &unused, s);
        __syncthreads();
      }
      const int g = lane / 4, t = lane % 4;
      const bool own = g / 2 == t;  // lanes whose operand B is not zero
      const uint4* const b0 = own ? s.x + (walk.part * 4 + t) * (2 * PER_BLOCK) + g % 2 * PER_BLOCK : s.zeros + 2;
      const int b_stride = own ? split * 4 * (2 * PER_BLOCK) : 0;
      const int sum0 = walk.part * 4 + t;
      const uint4* b = b0;
      int sum = sum0;
      float total[2] = {0.0f, 0.0f};
      const int units = count * passes;
      float* partial = s.partials + warp * 16;
      for (int first = 0; first < units; first += AHEAD) {
#pragma unroll
        for (int d = 0; d < AHEAD; d++) {
          if (first + d < units) {
            multiply<BITS, HALF>(ring[d], b, BITS == 16 ? 0.0f : s.sums[sum], of_128, total);
            b += b_stride;
            sum += split * 4;
            if (++walk.i == count) {
#pragma unroll
              for (int r = 0; r < 2; r++) {
                total[r] += __shfl_xor_sync(WARP, total[r], 1);
                total[r] += __shfl_xor_sync(WARP, total[r], 2);
              }
              if (t < 2) {
                float* to = partial + g + 8 * t;
                const float v = t == 0 ? total[0] : total[1];
                *to = walk.chunk == 0 ? v : *to + v;
              }
              partial += share.warps * 16;
              total[0] = total[1] = 0.0f;
              walk.i = 0;
              b = b0;
              sum = sum0;
            }
          }
          fetcher.next(ring[d]);
        }
      }
    }
    if (norm != nullptr && first_pass == 0) {
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) square += __shfl_xor_sync(WARP, square, mask);
      if (lane == 0) s.squares[warp] = square;
    }
    __syncthreads();
    float factor = 1.0f;
    if (norm != nullptr) {
      float sum = 0.0f;
      for (int i = 0; i < share.warps; i++) sum += s.squares[i];
      factor = 1.0f / sqrtf(sum / float(m.k) + 1e-8f);
    }
    then.finish(share, share.first + first_pass * share.slots, passes * share.slots, factor);
  }
}

template <int BITS, bool HALF>
__device__ __forceinline__ void qmv(const float* x, const float* norm, const Matrix& m, float* y,
                                    const ProductParams& p) {
  struct Then {
    float* y;
    const ProductParams& p;
    Shared<BITS>& s;
    float early;  // what the thread's first result is added to

    __device__ __forceinline__ void begin(const Share& share) {
      const int n = share.first + int(threadIdx.x);
      if (p.epilogue == 1 && n < p.n) early = y[n];
    }
    __device__ __forceinline__ void finish(const Share& share, int slot0, int slots, float factor) {
      for (int i = int(threadIdx.x); i < (p.epilogue == 2 ? slots / 2 : slots); i += int(blockDim.x)) {
        if (p.epilogue == 2) {
          const int n = slot0 / 2 + i;
          if (n >= p.n / 2) break;
          const float gate = factor * result<BITS>(s, share, 2 * i);
          const float value = factor * result<BITS>(s, share, 2 * i + 1);
          y[n] = gate / (1.0f + expf(-gate)) * value;
        } else {
          const int n = slot0 + i;
          if (n >= p.n) break;
          const float v = factor * result<BITS>(s, share, i);
          if (p.epilogue == 0) y[n] = v;
          else y[n] = (slot0 == share.first && i == int(threadIdx.x) ? early : y[n]) + v;
        }
      }
    }
  };
  __shared__ Shared<BITS> s;
  product<BITS, HALF, 4>(x, p.norm != 0 ? norm : nullptr, m, p.split, p.passes, s, Then{y, p, s, 0.0f});
}

/// Row `slot` of one head's keys (part 1) or values (part 2).
__device__ __forceinline__ unsigned char* ring_row(unsigned char* page, int slot, int part, int heads, int head,
                                                   int head_dim, int bytes, u32 offset) {
  const int row = ((part - 1) * heads + head) * 32 + slot % 32;
  return page + offset + size_t(row) * size_t(head_dim * bytes);
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
    float2 early;  // the rotation of the thread's first pair

    __device__ __forceinline__ float2 rotation(int n) const {
      return *(const float2*)(angles + n % p.head_dim);  // pairs: [head_dim / 2, 2]
    }
    __device__ __forceinline__ void begin(const Share& share) {
      kv_slot = at->kv_slot;
      page = pages[kv_slot / 32];
      if (p.rotary != 0) early = rotation(share.first + 2 * int(threadIdx.x));
    }
    /// Results 2 i and 2 i + 1 of a round, which are a pair, turned.
    __device__ __forceinline__ float2 pair(const Share& share, int slot0, int i, float factor) const {
      const int n = slot0 + 2 * i;
      const float even = factor * result<BITS>(s, share, 2 * i);
      const float odd = factor * result<BITS>(s, share, 2 * i + 1);
      if (p.rotary == 0 || n >= 2 * p.heads * p.head_dim) return make_float2(even, odd);
      const float2 turn = slot0 == share.first && i == int(threadIdx.x) ? early : rotation(n);
      return make_float2(even * turn.x - odd * turn.y, even * turn.y + odd * turn.x);
    }
    __device__ __forceinline__ void finish(const Share& share, int slot0, int slots, float factor) {
      const int dim = p.heads * p.head_dim;
      float* const heads = (float*)s.x;  // int8: what is not yet scaled
      for (int i = int(threadIdx.x); i < slots / 2; i += int(blockDim.x)) {
        const int n = slot0 + 2 * i;
        if (n >= p.n) break;
        const float2 v = pair(share, slot0, i, factor);
        const int part = n / dim;
        if (part == 0) {
          *(float2*)(q + n) = v;
        } else if (p.kv_bits == 8) {
          *(float2*)(heads + 2 * i) = v;
        } else {
          const int head = n / p.head_dim % p.heads;
          unsigned char* row = ring_row(page, kv_slot, part, p.heads, head, p.head_dim, p.kv_bits / 8, p.offset);
          if (p.kv_bits == 16) ((u32*)row)[n % p.head_dim / 2] = bfloats(v.x, v.y);
          else ((float2*)row)[n % p.head_dim / 2] = v;
        }
      }
      if (p.kv_bits != 8) return;
      __syncthreads();
      for (int i = int(threadIdx.x) / 32; i < slots / p.head_dim; i += share.warps) {
        const int n = slot0 + i * p.head_dim;
        if (n >= p.n) break;
        if (n >= dim) quantize(heads + i * p.head_dim, n / dim, n / p.head_dim % p.heads);
      }
      __syncthreads();
    }
    /// A head's key or value, by one warp: int8 of the largest magnitude / 127.
    __device__ __forceinline__ void quantize(const float* values, int part, int head) const {
      const int lane = int(threadIdx.x) % 32;
      float largest = 0.0f;
      for (int i = lane; i < p.head_dim; i += 32) largest = fmaxf(largest, fabsf(values[i]));
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, __shfl_xor_sync(WARP, largest, mask));
      const bool nothing = largest < 1e-35f;  // 127 / largest would overflow
      const float inverse = nothing ? 0.0f : 127.0f / largest;
      unsigned char* row = ring_row(page, kv_slot, part, p.heads, head, p.head_dim, 1, p.offset);
      for (int i = lane; i < p.head_dim; i += 32) row[i] = (unsigned char)(int(rintf(values[i] * inverse)) & 255);
      if (lane != 0) return;
      float* of_heads = (float*)(page + size_t(p.offset) + size_t(p.heads * 64) * size_t(p.head_dim));
      of_heads[((part - 1) * p.heads + head) * 32 + kv_slot % 32] = nothing ? 0.0f : largest / 127.0f;
    }
  };
  __shared__ Shared<BITS> s;
  Then then{angles, at, pages, q, p, s, 0, nullptr, make_float2(0.0f, 0.0f)};
  product<BITS, HALF, 4>(x, p.norm != 0 ? norm : nullptr, m, p.split, p.passes, s, then);
}

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
        attend_head(q, first_page, last_page, kv_slot, count, head, p, s.partials);
      }
      __syncthreads();
    }
    __device__ __forceinline__ void finish(const Share& share, int slot0, int slots, float factor) {
      const int i = int(threadIdx.x);
      if (i < slots && slot0 + i < p.n) y[slot0 + i] = early + result<BITS>(s, share, i);
    }
  };
  __shared__ Shared<BITS> s;
  static_assert(PARTIALS >= 4096, "an attention's result");
  product<BITS, HALF, 2>(s.partials, nullptr, m, p.split, 1, s, Then{q, at, pages, y, p, s, 0.0f});
}

#define QMV(name, bits, half)                                                                                       \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                                   \
      name(const float* x, const float* norm, const uint4* w, const u16* scales, const u16* biases, float* y,       \
           const ProductParams p) {                                                                                 \
    let_others_start();                                                                                             \
    qmv<bits, half>(x, norm, Matrix{w, scales, biases, p.n, p.k, p.group_shift, p.epilogue == 2}, y, p);            \
  }
#define QKV(name, bits, half)                                                                                       \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                                   \
      name(const float* x, const float* norm, const uint4* w, const u16* scales, const u16* biases,                 \
           const float* angles, const Column* at, unsigned char* const* pages, float* q, const QkvParams p) {       \
    let_others_start();                                                                                             \
    qkv<bits, half>(x, norm, Matrix{w, scales, biases, p.n, p.k, p.group_shift, false}, angles, at, pages, q, p);   \
  }
#define ATTEND_PROJECT(name, bits, half)                                                                            \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                                   \
      name(const float* q, const Column* at, unsigned char* const* pages, const uint4* w, const u16* scales,        \
           const u16* biases, float* y, const AttendProjectParams p) {                                              \
    let_others_start();                                                                                             \
    attend_project<bits, half>(q, at, pages, Matrix{w, scales, biases, p.n, p.k, p.group_shift, false}, y, p);      \
  }

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
