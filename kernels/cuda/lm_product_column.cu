// kernels/cuda/lm_product_column.cu: the products of kernels/lm_product.metal for one column, on tensor cores (compute
// capability 8.0 and later). Same buffers, params, formats and results; the tile `mma_c1`: 16 slots.
//
// Work: as in lm_product.metal. A threadgroup of S warps (S <= 16) computes S / split * 16 slots in each of its
// passes; `split` warps share a row's K. x is staged once for all passes of a round, of which 512 / 16 / S fit: with more
// passes the flow of weights stops in between. Two threadgroups of 8 warps fill a multiprocessor.
//
// K is a multiple of 4 blocks (128 values of 4 bits, 64 of 8, 32 bfloats), groups are of 64 values.
//
// How: each lane's dot products of its own blocks of W with x come out of the tensor core apart from all others,
// because operand B has x in the columns 2 t and 2 t + 1 for the blocks of the lanes t, and zeros elsewhere: what
// lands in a lane's accumulators is what its own blocks give. So scale and bias of each group can be applied. The two
// columns are x rounded to bfloat and what that leaves, so that x is exact to 16 bits. A quantized value q is the
// bfloat 128 + q, or with 8 bits two of them (each of a nibble); what the 128 add is -128 times the sum of x in the
// block, staged with x.
//
// A warp fetches its units AHEAD units before it uses them, the first ones before anything else is done or known: memory
// must have some 40 KB in flight on every multiprocessor to be read at full speed.
#include "lm_weights.cuh"
#include "lm_results.cuh"

constexpr int CHUNK = 11264;   // staged values of x
constexpr int PARTIALS = 512;  // results of warps, before those that share a row are added
constexpr int MAX_WARPS = 16;

struct AttendProjectParams {
  int n, k, group_shift, split, heads, head_dim, slots;
  u32 offset;
};

template <int BITS>
struct Shared {
  uint4 x[CHUNK * 4 / 16];  // of every block, rounded, then the rest
  uint4 zeros[24];          // read from the third on, so that banks differ from those of x
  float sums[CHUNK / GROUP];
  float partials[PARTIALS];
  float squares[MAX_WARPS];
};

/// x from k0 on, `count` values of it (zeros beyond K), times the norm's weight, and the sums of its groups. Returns the
/// sum of squares of what the thread has staged. AT_ONCE loads are on their way before the first is used.
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
        mma(c[j], nibbles(p >> 8, of_128), nibbles(q >> 8, of_128), nibbles(p >> 12, of_128),
            nibbles(q >> 12, of_128), x.z, x.w);
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

#define QMV(name, bits, half)                                                                                       \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                                   \
      name(const float* x, const float* norm, const uint4* w, const u16* scales, const u16* biases, float* y,       \
           const ProductParams p) {                                                                                 \
    let_others_start();                                                                                             \
    qmv<bits, half>(x, norm, Matrix{w, scales, biases, p.n, p.k, p.epilogue == 2}, y, p);            \
  }
#define QKV(name, bits, half)                                                                                       \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                                   \
      name(const float* x, const float* norm, const uint4* w, const u16* scales, const u16* biases,                 \
           const float* angles, const Column* at, unsigned char* const* pages, float* q, const QkvParams p) {       \
    let_others_start();                                                                                             \
    qkv<bits, half>(x, norm, Matrix{w, scales, biases, p.n, p.k, false}, angles, at, pages, q, p);   \
  }
#define ATTEND_PROJECT(name, bits, half)                                                                            \
  extern "C" __global__ void __launch_bounds__(32 * MAX_WARPS, 1)                                                   \
      name(const float* q, const Column* at, unsigned char* const* pages, const uint4* w, const u16* scales,        \
           const u16* biases, float* y, const AttendProjectParams p) {                                              \
    let_others_start();                                                                                             \
    attend_project<bits, half>(q, at, pages, Matrix{w, scales, biases, p.n, p.k, false}, y, p);      \
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
