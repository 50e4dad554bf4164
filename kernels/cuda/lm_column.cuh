// kernels/cuda/lm_column.cuh: W norm(x) for one column, on tensor cores, as all products of one column have it.
//
// How: each lane's dot products of its own blocks of W with x come out of the tensor core apart from all others,
// because operand B has x in the columns 2 t and 2 t + 1 for the blocks of the lanes t, and zeros elsewhere: what
// lands in a lane's accumulators is what its own blocks give. So scale and bias of each group can be applied. The two
// columns are x rounded to bfloat and what that leaves, so that x is exact to 16 bits. A quantized value q is the
// bfloat 128 + q, or with 8 bits two of them (each of a nibble); what the 128 add is -128 times the sum of x in the
// block, staged with x.
//
// A warp fetches its units AHEAD units before it uses them, the first ones before anything else is done or known:
// memory must have some 40 KB in flight on every multiprocessor to be read at full speed.
#pragma once

#include "lm_weights.cuh"

constexpr int CHUNK = 11264;   // staged values of x
constexpr int PARTIALS = 512;  // results of warps, before those that share a row are added
constexpr int MAX_WARPS = 16;

template <int BITS>
struct Shared {
  uint4 x[CHUNK * 4 / 16];  // of every block, rounded, then the rest
  uint4 zeros[24];          // read from the third on, so that banks differ from those of x
  float sums[CHUNK / GROUP];
  float partials[PARTIALS];
  float squares[MAX_WARPS];
};

/// x from k0 on, `count` values of it (zeros beyond K), times the norm's weight, and the sums of its groups. Returns
/// the sum of squares of what the thread has staged. AT_ONCE loads are on their way before the first is used.
template <int BITS, bool NORM, int AT_ONCE>
__device__ __forceinline__ float stage(const float* x, const float* norm, int k, int k0, int count, Shared<BITS>& s) {
  constexpr int PER_BLOCK = BLOCK<BITS> / 8;
  const int threads = int(blockDim.x);
  float square = 0.0f;
  for (int first = int(threadIdx.x); first - int(threadIdx.x) < count / 8; first += AT_ONCE * threads) {
    float v[AT_ONCE][8], factors[AT_ONCE][8];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      const int at = k0 + 8 * (first + u * threads);
      const float4 zeros = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      *(float4*)v[u] = at < k ? *(const float4*)(x + at) : zeros;
      *(float4*)(v[u] + 4) = at < k ? *(const float4*)(x + at + 4) : zeros;
      if (!NORM) continue;
      *(float4*)factors[u] = at < k ? *(const float4*)(norm + at) : zeros;
      *(float4*)(factors[u] + 4) = at < k ? *(const float4*)(norm + at + 4) : zeros;
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      const int i = first + u * threads;
      const bool there = i < count / 8;
      if (NORM) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
          if (there) square += v[u][j] * v[u][j];
          v[u][j] *= factors[u][j];
        }
      }
      float in_order[8];
      permute<BITS>(v[u], in_order);
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
        for (int mask = 1; mask < GROUP / 8; mask *= 2) sum += __shfl_xor_sync(WARP, sum, mask);
      }
      if (!there) continue;
      uint4* to = s.x + i / PER_BLOCK * (2 * PER_BLOCK) + i % PER_BLOCK;
      to[0] = make_uint4(rounded[0], rounded[1], rounded[2], rounded[3]);
      to[PER_BLOCK] = make_uint4(rest[0], rest[1], rest[2], rest[3]);
      if (BITS != 16 && i % (GROUP / 8) == 0) s.sums[i / (GROUP / 8)] = sum;
    }
  }
  return square;
}

/// What a lane has of a pass: of row g with an even t, of row g + 8 with an odd one; bfloats: of both.
struct Total {
  float v[2] = {0.0f, 0.0f};

  /// In lanes 0 and 1 of four what all have of rows g and g + 8.
  template <int BITS>
  __device__ __forceinline__ float sum() const {
    float out = BITS == 16 ? rows_apart(v[0], v[1]) : v[0];
    return out + __shfl_xor_sync(WARP, out, 2);
  }
  /// Of row g in lanes of an even t, of row g + 8 in those of an odd one, the sum of both lanes'.
  static __device__ __forceinline__ float rows_apart(float first, float second) {
    const bool odd = threadIdx.x % 2 != 0;
    return (odd ? second : first) + __shfl_xor_sync(WARP, odd ? first : second, 1);
  }
};

/// total += the lane's blocks times x, of which `b` is the lane's operand B and `sums` has the groups'.
template <int BITS, bool HALF>
__device__ __forceinline__ void multiply(const Unit& unit, const uint4* b, const float* sums, u32 of_128,
                                         Total& total) {
  constexpr int PER_BLOCK = BLOCK<BITS> / 8;
  float c[2][4] = {};  // 4 bits: of both blocks; 8: of lower and upper halves of values
#pragma unroll
  for (int j = 0; j < 2; j++) {
#pragma unroll
    for (int i = 0; i < PER_BLOCK; i++) {
      const uint4 x = b[j * 4 * PER_BLOCK + i];
      if (BITS == 4) {
        const u32 p = word_of(unit.words[0][j], i), q = word_of(unit.words[1][j], i);
        mma(c[j], nibbles(p, of_128), nibbles(q, of_128), nibbles(p >> 4, of_128), nibbles(q >> 4, of_128), x.x, x.y);
        mma(c[j], nibbles(p >> 8, of_128), nibbles(q >> 8, of_128), nibbles(p >> 12, of_128), nibbles(q >> 12, of_128),
            x.z, x.w);
      } else if (BITS == 8) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const u32 p = word_of(unit.words[0][j], 2 * i + half), q = word_of(unit.words[1][j], 2 * i + half);
          const u32 b0 = half == 0 ? x.x : x.z, b1 = half == 0 ? x.y : x.w;
          mma(c[0], nibbles(p, of_128), nibbles(q, of_128), nibbles(p >> 8, of_128), nibbles(q >> 8, of_128), b0, b1);
          mma(c[1], nibbles(p >> 4, of_128), nibbles(q >> 4, of_128), nibbles(p >> 12, of_128),
              nibbles(q >> 12, of_128), b0, b1);
        }
      } else {
        const uint4 p = unit.words[0][j], q = unit.words[1][j];
        mma(c[0], p.x, q.x, p.y, q.y, x.x, x.y);
        mma(c[1], p.z, q.z, p.w, q.w, x.z, x.w);
      }
    }
  }
  if (BITS == 4) {
    const float2 sum = *(const float2*)sums;
    const float first = Total::rows_apart(c[0][0] + c[0][1], c[0][2] + c[0][3]) - 128.0f * sum.x;
    const float second = Total::rows_apart(c[1][0] + c[1][1], c[1][2] + c[1][3]) - 128.0f * sum.y;
    total.v[0] += from16<HALF>(u16(unit.scales)) * first + from16<HALF>(u16(unit.biases)) * sum.x;
    total.v[0] += from16<HALF>(u16(unit.scales >> 16)) * second + from16<HALF>(u16(unit.biases >> 16)) * sum.y;
  } else if (BITS == 8) {
    // 128 of the lower half, and 16 times that of the upper one.
    const float dot = Total::rows_apart((c[0][0] + c[0][1]) + 16.0f * (c[1][0] + c[1][1]),
                                        (c[0][2] + c[0][3]) + 16.0f * (c[1][2] + c[1][3])) -
                      2176.0f * *sums;
    total.v[0] += from16<HALF>(u16(unit.scales)) * dot + from16<HALF>(u16(unit.biases)) * *sums;
  } else {
    total.v[0] += (c[0][0] + c[0][1]) + (c[1][0] + c[1][1]);
    total.v[1] += (c[0][2] + c[0][3]) + (c[1][2] + c[1][3]);
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
/// The first of a lane's blocks in a unit.
__device__ __forceinline__ int first_of(int t) { return t / 2 * 4 + t % 2; }

template <int BITS>
struct Walk {
  int steps, chunk_steps, split, part, passes;
  int chunk = 0, i = 0, unit = 0;  // i: of the steps of a pass, unit: of the chunk

  __device__ __forceinline__ Walk(int k, const Share& share, int of_passes) {
    steps = (k + STEP<BITS> - 1) / STEP<BITS>;
    split = share.split;
    const int most = CHUNK / STEP<BITS>;
    chunk_steps = steps <= most ? (steps + split - 1) / split * split : most / split * split;
    part = int(threadIdx.x) / 32 % share.split;
    passes = of_passes;
  }
  __device__ __forceinline__ bool has_chunk() const { return chunk * chunk_steps < steps; }
  /// Steps of the chunk, and units of a pass.
  __device__ __forceinline__ int length() const { return min(chunk_steps, steps - chunk * chunk_steps); }
  __device__ __forceinline__ int count() const { return (length() + split - 1) / split; }
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
    block = first_block = walk.step() * 8 + first_of(int(threadIdx.x) % 4);
  }
  /// The next unit, if there is one.
  __device__ __forceinline__ void next(Unit& unit) {
    rows.fetch(m, block, walk.unit < units, unit);
    block += 8 * walk.split;
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

/// Where the parts of slot i of a round begin: of warps that share it, 16 floats apart. Slots of a pair are neighbours.
__device__ __forceinline__ int parts_of(const Share& share, int i) {
  const int pass = i / share.slots, slot = i - pass * share.slots;
  return (pass * share.warps + slot / 16 * share.split) * 16 + slot % 16;
}
__device__ __forceinline__ float sum_of(const float* parts, int split) {
  float v = 0.0f;
#pragma unroll 4
  for (int part = 0; part < split; part++) v += parts[part * 16];
  return v;
}
__device__ __forceinline__ float2 pair_of(const float* parts, int split) {
  float2 v = make_float2(0.0f, 0.0f);
#pragma unroll 4
  for (int part = 0; part < split; part++) {
    const float2 more = *(const float2*)(parts + part * 16);
    v = make_float2(v.x + more.x, v.y + more.y);
  }
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
  float square = 0.0f;
  for (int first_pass = 0; first_pass < share.passes; first_pass += share.round()) {
    const int passes = min(share.round(), share.passes - first_pass);
    Unit ring[AHEAD];
    Fetcher<BITS, AHEAD> fetcher(m, share, first_pass, passes);
#pragma unroll
    for (int d = 0; d < AHEAD; d++) fetcher.next(ring[d]);

    if (first_pass > 0) {
      __syncthreads();  // the results before have been read
    } else {
      if (norm != nullptr) {
        for (int at = 32 * int(threadIdx.x); at < m.k; at += 32 * int(blockDim.x)) {
          asm volatile("prefetch.global.L2 [%0];" ::"l"(norm + at));
        }
      }
      if (threadIdx.x < 24) s.zeros[threadIdx.x] = make_uint4(0, 0, 0, 0);
      wait_for_others();
      then.begin(share);
    }
    for (Walk<BITS> walk(m.k, share, passes); walk.has_chunk(); walk.chunk++) {
      const int count = walk.count(), length = walk.length();
      if (walk.chunk > 0) __syncthreads();
      if (first_pass == 0 || walk.steps > walk.chunk_steps) {
        const int k0 = walk.chunk * walk.chunk_steps * STEP<BITS>, staged = walk.length() * STEP<BITS>;
        if (norm == nullptr) {
          stage<BITS, false, 3>(x, norm, m.k, k0, staged, s);
        } else {
          const float more = stage<BITS, true, 2>(x, norm, m.k, k0, staged, s);
          if (first_pass == 0) square += more;
        }
        __syncthreads();
      }
      const int g = lane / 4, t = lane % 4;
      const bool own = g / 2 == t;  // lanes whose operand B is not zero
      const uint4* const b0 =
          own ? s.x + (walk.part * 8 + first_of(t)) * (2 * PER_BLOCK) + g % 2 * PER_BLOCK : s.zeros + 2;
      const int b_stride = own ? split * 8 * (2 * PER_BLOCK) : 0;
      const float* const sums0 = s.sums + (walk.part * STEP<BITS> + t / 2 * 4 * BLOCK<BITS>) / GROUP;
      const uint4* b = b0;
      const float* sums = sums0;
      Total total;
      const int units = count * passes;
      float* partial = s.partials + warp * 16 + g + 8 * t;
      for (int first = 0; first < units; first += AHEAD) {
#pragma unroll
        for (int d = 0; d < AHEAD; d++) {
          if (first + d < units) {
            if (walk.part + walk.i * split < length) multiply<BITS, HALF>(ring[d], b, sums, of_128, total);
            b += b_stride;
            sums += split * STEP<BITS> / GROUP;
            if (++walk.i == count) {
              const float v = total.sum<BITS>();
              if (t < 2) *partial = walk.chunk == 0 ? v : *partial + v;
              partial += share.warps * 16;
              total = Total();
              walk.i = 0;
              b = b0;
              sums = sums0;
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
#pragma unroll 4
      for (int i = 0; i < share.warps; i++) sum += s.squares[i];
      factor = rsqrtf(sum / float(m.k) + 1e-8f);
    }
    then.finish(share, share.first + first_pass * share.slots, passes * share.slots, factor);
  }
}
