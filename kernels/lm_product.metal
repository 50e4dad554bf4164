// kernels/lm_product.metal: products with a matrix of the language model, and what follows them at once.
//
//   qmv_*             y = W norm(x), stored, added to y, or through SwiGLU          (ops: project)
//   qkv_*             [q; k; v] = W norm(x): rotary, q stored, k and v to the ring   (ops: project_qkv)
//   attend_project_*  y += W attention(q, ring), for a ring of at most 32 slots      (ops: attend, then project)
//
// host_names: <kernel>_<format>_<tile>
//   format  b4_bf16 b4_f16 b8_bf16 b8_f16 (quantized; type of scales and biases) or bf16 (not quantized)
//   tile    r1_c1 r2_c1 r4_c1: a simdgroup computes that many slots of one column; grid.y = columns.
//           c8: a simdgroup computes 4 slots of up to 8 columns; grid.y = ceil(columns / 8). split = 1.
//   qmv has all four, qkv r2_c1 r4_c1 c8, attend_project r1_c1 r2_c1. With r4_c1 and c8 at most 512 threads.
//
// Work: a threadgroup of S simdgroups (threads = 32 S, S <= 32) computes (S / split) * (slots of the tile) slots in
// each of its `passes`; grid.x = ceil(N / (that * passes)). `split` simdgroups (a divisor of S) share each row's K. x
// is staged once for all passes where K <= 4096 (512 with c8). attend_project has no passes. Any S, split and passes
// is right; which is fast is for the host to find out.
// A slot is a row of W; with SwiGLU even slots are gates and odd ones their values. The slots of a pass must be even in
// number for SwiGLU and for qkv; with an int8 ring those of a threadgroup must be a multiple of head_dim, and at most
// 1024 (128 with c8).
//
// W: quantized [N, K] as 16-byte blocks of 32 (b4) or 16 (b8) values, lowest bits first, w = scale * q + bias with
// scales and biases 16-bit [N, K / group], K a multiple of the group (32 or 64: p.group_shift 5 or 6); or bfloat [N,
// K], each row filled up with zeros to a multiple of 8. Base addresses are multiples of 16; of x and norm, too, where K
// is a multiple of 4. x, y, norm and angles are float32.
//
// How: x is staged in threadgroup memory, 4096 values at a time, in the order in which lanes read it, each row one
// float4 longer than it need be, which spares bank conflicts. The first weights are fetched before that. The factor of
// RMSNorm is applied to the results: its sum of squares is gathered while x is staged. A quantized value becomes a
// float by being put into the mantissa of a power of two, so that it is off by that power; what that adds to the
// product depends on x alone and is summed once per block of x (`sums`), with the sum that the bias multiplies.
#include <metal_stdlib>
using namespace metal;

constant constexpr int CHUNK = 4096;            // staged values of x, all columns
constant constexpr int STAGED = CHUNK / 4 + 64;  // float4s, with the extra ones

struct ProductParams {
  int n;            // rows of W
  int k;
  int columns;
  int group_shift;  // log2(group size)
  int split;
  int passes;
  int epilogue;     // 0: y = , 1: y +=, 2: SwiGLU, y [columns, n / 2]
  int norm;         // 1: RMSNorm with buffer 1
};

struct QkvParams {
  int n;            // 3 * heads * head_dim
  int k;
  int columns;
  int group_shift;
  int split;
  int passes;
  int norm;
  int heads;
  int head_dim;
  int rotary;       // 0: buffer 5 is not read
  int kv_bits;      // 32, 16, 8
  uint offset;      // of this layer in a page
};

struct AttendProjectParams {
  int n;
  int k;            // heads * head_dim, at most 4096
  int group_shift;
  int split;
  int heads;
  int head_dim;     // a multiple of 8
  int slots;        // of the ring
  uint offset;      // of this layer in a page; the ring holds bfloat
};

struct Column {
  long position;
  long first_visible;
  int kv_slot;
  int unused;
};

template <bool HALF>
METAL_FUNC float from16(ushort bits) {
  return HALF ? float(as_type<half>(bits)) : as_type<float>(uint(bits) << 16);
}

/// Values in a block of 16 bytes.
constexpr METAL_FUNC int block_values(int bits) {
  return 128 / bits;
}

/// The powers of two into whose mantissas quantized values are put, in registers: an instruction can mask a word and
/// fill in the exponent at once, but then the exponent is no constant. So the compiler must not know that `zero` is 0.
struct Powers {
  uint of_4096, of_256, of_16, of_2048, of_128;
};

METAL_FUNC Powers powers(uint zero) {
  Powers p;
  p.of_4096 = 0x45800000u + zero;
  p.of_256 = 0x43800000u + zero;
  p.of_16 = 0x41800000u + zero;
  p.of_2048 = 0x45000000u + zero;
  p.of_128 = 0x43000000u + zero;
  return p;
}

/// 8 values of 4 bits (+ 4096, 256, 16, 2048, 128, 4096, 256, 16), 4 values of 8 bits (+ 256), or 4 bfloats from two
/// words.
template <int BITS>
METAL_FUNC void decode(uint word, uint next, thread const Powers& p, thread float* v) {
  if (BITS == 4) {
    const uint low = word << 11;
    const uint high = word >> 9;
    v[0] = as_type<float>((low & 0x00007800u) | p.of_4096);
    v[1] = as_type<float>((low & 0x00078000u) | p.of_256);
    v[2] = as_type<float>((low & 0x00780000u) | p.of_16);
    v[3] = as_type<float>((word & 0x0000F000u) | p.of_2048);
    v[4] = as_type<float>((word & 0x000F0000u) | p.of_128);
    v[5] = as_type<float>((high & 0x00007800u) | p.of_4096);
    v[6] = as_type<float>((high & 0x00078000u) | p.of_256);
    v[7] = as_type<float>((high & 0x00780000u) | p.of_16);
  } else if (BITS == 8) {
    v[0] = as_type<float>(((word << 15) & 0x007F8000u) | p.of_256);
    v[1] = as_type<float>(((word << 7) & 0x007F8000u) | p.of_256);
    v[2] = as_type<float>(((word >> 1) & 0x007F8000u) | p.of_256);
    v[3] = as_type<float>(((word >> 9) & 0x007F8000u) | p.of_256);
  } else {
    v[0] = as_type<float>(word << 16);
    v[1] = as_type<float>(word & 0xFFFF0000u);
    v[2] = as_type<float>(next << 16);
    v[3] = as_type<float>(next & 0xFFFF0000u);
  }
}

/// What decode() adds, times x: of four values from an even (odd) quad of a block on.
template <int BITS>
METAL_FUNC float excess(float4 x, int quad) {
  if (BITS == 8) return 256.0f * (x.x + x.y + x.z + x.w);
  return quad % 2 == 0 ? 4096.0f * x.x + 256.0f * x.y + 16.0f * x.z + 2048.0f * x.w
                       : 128.0f * x.x + 4096.0f * x.y + 256.0f * x.z + 16.0f * x.w;
}

/// Where value 4 * i of a staged column lies: lanes next to each other read float4s next to each other.
template <int BITS, int LANES>
METAL_FUNC int staged(int i) {
  constexpr int QUADS = block_values(BITS) / 4;
  const int rest = i % (LANES * QUADS);
  return (i / (LANES * QUADS) * QUADS + rest % QUADS) * (LANES + 1) + rest / QUADS;
}

/// A block of each row of a lane.
template <int R>
struct Blocks {
  uint4 words[R];
  ushort scales[R];
  ushort biases[R];
};

template <int BITS, int R>
METAL_FUNC void fetch(device const uint4* w, device const ushort* scales, device const ushort* biases,
                      thread const int* rows, int k, int group_shift, int block, thread Blocks<R>& out) {
  const int per_row = (k + block_values(BITS) - 1) / block_values(BITS);
  const int at = min(block, per_row - 1);  // beyond K, x is zero
  for (int r = 0; r < R; r++) {
    out.words[r] = w[size_t(rows[r]) * size_t(per_row) + size_t(at)];
    if (BITS != 16) {
      const int group = rows[r] * (k >> group_shift) + ((at * block_values(BITS)) >> group_shift);
      out.scales[r] = scales[group];
      out.biases[r] = biases[group];
    }
  }
}

/// total[r * C + c] += blocks of row r times the staged blocks `step` of column c.
template <int BITS, bool HALF, int R, int C, int LANES>
METAL_FUNC void multiply(thread const Blocks<R>& blocks, threadgroup const float4* xs, threadgroup const float2* sums,
                         int step, int lane, thread const Powers& p, thread float* total) {
  constexpr int QUADS = block_values(BITS) / 4;
  constexpr int UNIT = BITS == 4 ? 8 : 4;  // values that are decoded together
  constexpr int UNIT_WORDS = BITS == 16 ? 2 : 1;
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int COLUMN_BLOCKS = CHUNK / C / block_values(BITS);
  float acc[R * C];
  float sum[C];
#pragma unroll
  for (int c = 0; c < C; c++) {
    float start = 0.0f;
    sum[c] = 0.0f;
    if (BITS != 16) {
      const int block = c * COLUMN_BLOCKS + step * LANES + lane;
      start = -sums[block].x;
      sum[c] = sums[block].y;
    }
#pragma unroll
    for (int r = 0; r < R; r++) acc[r * C + c] = start;
  }
#pragma unroll
  for (int u = 0; u < 4 / UNIT_WORDS; u++) {
    float v[R][8];
#pragma unroll
    for (int r = 0; r < R; r++) {
      const uint4 q = blocks.words[r];
      const uint words[4] = {q.x, q.y, q.z, q.w};
      decode<BITS>(words[u * UNIT_WORDS], words[(u * UNIT_WORDS + 1) % 4], p, v[r]);
    }
#pragma unroll
    for (int quad = 0; quad < UNIT / 4; quad++) {
      const int at = (step * QUADS + u * (UNIT / 4) + quad) * (LANES + 1) + lane;
#pragma unroll
      for (int c = 0; c < C; c++) {
        const float4 x = xs[c * COLUMN + at];
#pragma unroll
        for (int r = 0; r < R; r++) {
          float a = acc[r * C + c];
          a = metal::fma(v[r][quad * 4], x.x, a);
          a = metal::fma(v[r][quad * 4 + 1], x.y, a);
          a = metal::fma(v[r][quad * 4 + 2], x.z, a);
          acc[r * C + c] = metal::fma(v[r][quad * 4 + 3], x.w, a);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    const float scale = BITS == 16 ? 1.0f : from16<HALF>(blocks.scales[r]);
    const float bias = BITS == 16 ? 0.0f : from16<HALF>(blocks.biases[r]);
#pragma unroll
    for (int c = 0; c < C; c++) total[r * C + c] += scale * acc[r * C + c] + bias * sum[c];
  }
}

/// Values at, at + 1 ... of a row of K: zeros beyond it. Rows of another K than a multiple of 4 are not aligned.
template <int BITS>
METAL_FUNC float4 quad_of(device const float* row, int at, int k) {
  if (BITS != 16 || k % 4 == 0) return at < k ? *(device const float4*)(row + at) : float4(0.0f);
  float v[4];
  for (int j = 0; j < 4; j++) v[j] = at + j < k ? row[at + j] : 0.0f;
  return float4(v[0], v[1], v[2], v[3]);
}

/// Stages x from k0 on (zeros beyond K and beyond the last column), times the norm's weight.
template <int BITS, int C, int LANES>
METAL_FUNC void stage(device const float* x, device const float* weight, bool norm, int k, int columns, int k0, int lid,
                      int threads, threadgroup float4* xs, thread float* squares) {
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int STEP = LANES * block_values(BITS);
  const int end = min(CHUNK / C, (k - k0 + STEP - 1) / STEP * STEP);
  for (int c = 0; c < C; c++) {
    device const float* column = x + size_t(c) * size_t(k);
    for (int first = lid; first < end / 4; first += 4 * threads) {
      float4 v[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int at = k0 + 4 * (first + j * threads);
        v[j] = c < columns ? quad_of<BITS>(column, at, k) : float4(0.0f);
      }
      if (norm) {
        float4 factors[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int at = k0 + 4 * (first + j * threads);
          factors[j] = quad_of<BITS>(weight, at, k);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
          if (first + j * threads < end / 4) {
            squares[c] += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
          }
          v[j] = v[j] * factors[j];
        }
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int i = first + j * threads;
        if (i < end / 4) xs[c * COLUMN + staged<BITS, LANES>(i)] = v[j];
      }
    }
  }
}

/// sums[block] = (what decode() adds, times x; sum of x) of every staged block.
template <int BITS, int C, int LANES>
METAL_FUNC void sum_blocks(int k, int k0, int lid, int threads, threadgroup const float4* xs,
                           threadgroup float2* sums) {
  constexpr int QUADS = block_values(BITS) / 4;
  constexpr int COLUMN = CHUNK / C / 4 / LANES * (LANES + 1);
  constexpr int COLUMN_BLOCKS = CHUNK / C / block_values(BITS);
  constexpr int STEP = LANES * block_values(BITS);
  const int blocks = min(CHUNK / C, (k - k0 + STEP - 1) / STEP * STEP) / block_values(BITS);
  for (int c = 0; c < C; c++) {
    for (int b = lid; b < blocks; b += threads) {
      float over = 0.0f;
      float sum = 0.0f;
#pragma unroll
      for (int q = 0; q < QUADS; q++) {
        const float4 x = xs[c * COLUMN + (b / LANES * QUADS + q) * (LANES + 1) + b % LANES];
        over += excess<BITS>(x, q);
        sum += x.x + x.y + x.z + x.w;
      }
      sums[c * COLUMN_BLOCKS + b] = float2(over, sum);
    }
  }
}

/// The sum over the lanes that share a row, in all of them.
template <int LANES>
METAL_FUNC float lanes_sum(float v) {
  for (ushort mask = LANES / 2; mask > 0; mask /= 2) v += simd_shuffle_xor(v, mask);
  return v;
}

/// results[(sg * rows of a simdgroup + row) * C + c]: what each simdgroup has of its rows.
template <int R, int C, int LANES>
METAL_FUNC void reduce(thread float* total, int lane, int sg, threadgroup float* results) {
  constexpr int HALVES = 32 / LANES;
  for (int r = 0; r < R; r++) {
    for (int c = 0; c < C; c++) {
      const float v = lanes_sum<LANES>(total[r * C + c]);
      if (lane % LANES == 0) results[((sg * R + r) * HALVES + lane / LANES) * C + c] = v;
    }
  }
}

/// Slot i of the threadgroup, column c: the parts of the simdgroups that share it.
template <int R, int C, int LANES>
METAL_FUNC float result(threadgroup const float* results, int i, int c, int split) {
  constexpr int ROWS = R * (32 / LANES);
  const int at = (i / ROWS * split * ROWS + i % ROWS) * C + c;
  float v = 0.0f;
  for (int part = 0; part < split; part++) v += results[at + part * ROWS * C];
  return v;
}

template <int C>
METAL_FUNC float norm_factor(threadgroup const float* squares, int simdgroups, int c, int k) {
  float sum = 0.0f;
  for (int i = 0; i < simdgroups; i++) sum += squares[i * C + c];
  return metal::precise::rsqrt(sum / float(k) + 1e-8f);
}

/// What a thread knows of its work.
template <int R>
struct Work {
  int lid, threads, lane, sg;
  int k, group_shift, split, columns;
  bool norm;
  int rows[R];    // of W, in this pass
  Blocks<R> next;  // the first ones of this pass
};

/// A pass: everything up to the parts of the results and of the squares. Begins and ends with a barrier. Unless it is
/// the last, leaves the first blocks of the rows `then` in work.next.
template <int BITS, bool HALF, int R, int C, int LANES>
METAL_FUNC void product(device const float* x, device const float* weight, device const uint4* w,
                        device const ushort* scales, device const ushort* biases, thread Work<R>& work, bool first_pass,
                        bool last_pass, thread const int* then, threadgroup float4* xs, threadgroup float2* sums,
                        threadgroup float* results, threadgroup float* squares) {
  constexpr int STEP = LANES * block_values(BITS);
  constexpr int CHUNK_STEPS = CHUNK / C / STEP;
  const int k = work.k;
  const int steps = (k + STEP - 1) / STEP;
  const int own = work.lane % LANES;
  const int part = work.sg % work.split;
  const Powers p = powers(C == 1 ? uint(work.split) >> 31 : 0u);  // for many columns the registers are worth more
  float total[R * C];
  float square[C];
  for (int i = 0; i < R * C; i++) total[i] = 0.0f;
  for (int c = 0; c < C; c++) square[c] = 0.0f;
  int step = part;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int first = 0; first < steps; first += CHUNK_STEPS) {
    if (first_pass || steps > CHUNK_STEPS) {
      if (first > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
      stage<BITS, C, LANES>(x, weight, work.norm, k, work.columns, first * STEP, work.lid, work.threads, xs, square);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      if (BITS != 16) {
        sum_blocks<BITS, C, LANES>(k, first * STEP, work.lid, work.threads, xs, sums);
        threadgroup_barrier(mem_flags::mem_threadgroup);
      }
    }
    for (; step < min(steps, first + CHUNK_STEPS); step += work.split) {
      const Blocks<R> now = work.next;
      const bool last = step + work.split >= steps;
      if (last && !last_pass) {
        for (int r = 0; r < R; r++) work.rows[r] = then[r];
      }
      if (!last || !last_pass) {
        fetch<BITS, R>(w, scales, biases, work.rows, k, work.group_shift,
                       (last ? part : step + work.split) * LANES + own, work.next);
      }
      multiply<BITS, HALF, R, C, LANES>(now, xs, sums, step - first, own, p, total);
    }
  }
  reduce<R, C, LANES>(total, work.lane, work.sg, results);
  if (work.norm && first_pass) {
    for (int c = 0; c < C; c++) {
      const float v = simd_sum(square[c]);
      if (work.lane == 0) squares[work.sg * C + c] = v;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
}

/// The lane's rows of W for the slots from slot0 on.
template <int R, int LANES>
METAL_FUNC void rows_of(int slot0, int n, bool swiglu, int lane, int sg, int split, thread int* rows) {
  for (int r = 0; r < R; r++) {
    const int slot = min(n - 1, slot0 + sg / split * R * (32 / LANES) + r * (32 / LANES) + lane / LANES);
    rows[r] = swiglu ? slot / 2 + slot % 2 * (n / 2) : slot;
  }
}

template <int BITS, bool HALF, int R, int C, int LANES>
[[kernel]] void qmv(
    device const float* x [[buffer(0)]],           // [columns, k]
    device const float* weight [[buffer(1)]],      // [k]; without a norm not read
    device const uint4* w [[buffer(2)]],
    device const ushort* scales [[buffer(3)]],     // bf16: not read
    device const ushort* biases [[buffer(4)]],     // bf16: not read
    device float* y [[buffer(5)]],                 // [columns, n], SwiGLU: [columns, n / 2]
    constant ProductParams& p [[buffer(6)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int ROWS = R * (32 / LANES);
  threadgroup float4 xs[STAGED];
  threadgroup float2 sums[CHUNK / block_values(BITS)];
  threadgroup float results[32 * ROWS * C];
  threadgroup float squares[32 * C];
  const int slots = int(simdgroups) / p.split * ROWS;
  const int first = int(tgid.y) * C;
  const int columns = min(C, p.columns - first);
  const bool swiglu = p.epilogue == 2;
  const int outputs = swiglu ? slots / 2 : slots;
  const int width = swiglu ? p.n / 2 : p.n;
  int slot0 = int(tgid.x) * p.passes * slots;
  const int end = min(p.n, slot0 + p.passes * slots);

  Work<R> work;
  work.lid = int(lid);
  work.threads = int(simdgroups) * 32;
  work.lane = int(lane);
  work.sg = int(sg);
  work.k = p.k;
  work.group_shift = p.group_shift;
  work.split = p.split;
  work.columns = columns;
  work.norm = p.norm != 0;
  rows_of<R, LANES>(slot0, p.n, swiglu, work.lane, work.sg, p.split, work.rows);
  fetch<BITS, R>(w, scales, biases, work.rows, p.k, p.group_shift, work.sg % p.split * LANES + work.lane % LANES,
                 work.next);
  for (bool first_pass = true; slot0 < end; slot0 += slots, first_pass = false) {
    const bool last_pass = slot0 + slots >= end;
    int then[R];
    if (!last_pass) rows_of<R, LANES>(slot0 + slots, p.n, swiglu, work.lane, work.sg, p.split, then);
    product<BITS, HALF, R, C, LANES>(x + size_t(first) * size_t(p.k), weight, w, scales, biases, work, first_pass,
                                     last_pass, then, xs, sums, results, squares);
    for (int i = work.lid; i < outputs * columns; i += work.threads) {
      const int c = i / outputs;
      const int slot = i % outputs;
      const int n = (swiglu ? slot0 / 2 : slot0) + slot;
      if (n >= width) continue;
      const float factor = work.norm ? norm_factor<C>(squares, int(simdgroups), c, p.k) : 1.0f;
      const size_t at = size_t(first + c) * size_t(width) + size_t(n);
      if (swiglu) {
        const float gate = factor * result<R, C, LANES>(results, 2 * slot, c, p.split);
        const float value = factor * result<R, C, LANES>(results, 2 * slot + 1, c, p.split);
        y[at] = gate / (1.0f + metal::precise::exp(-gate)) * value;
      } else {
        const float v = factor * result<R, C, LANES>(results, slot, c, p.split);
        y[at] = p.epilogue == 1 ? y[at] + v : v;
      }
    }
  }
}

/// Slot of the j-th of `count` visible positions.
METAL_FUNC int slot_of(int j, int count, int kv_slot, int slots) {
  const int slot = kv_slot - (count - 1 - j);
  return slot < 0 ? slot + slots : slot;
}

/// Row `slot` of one head's keys (part 1) or values (part 2).
METAL_FUNC device uchar* ring_row(device uchar* const device* pages, int slot, int part, int heads, int head,
                                  int head_dim, int bytes, uint offset) {
  const int row = ((part - 1) * heads + head) * 32 + slot % 32;
  return pages[slot / 32] + offset + size_t(row) * size_t(head_dim * bytes);
}

template <int BITS, bool HALF, int R, int C, int LANES>
[[kernel]] void qkv(
    device const float* x [[buffer(0)]],                 // [columns, k]
    device const float* weight [[buffer(1)]],            // [k]; without a norm not read
    device const uint4* w [[buffer(2)]],
    device const ushort* scales [[buffer(3)]],           // bf16: not read
    device const ushort* biases [[buffer(4)]],           // bf16: not read
    device const float* angles [[buffer(5)]],            // [columns, head_dim / 2, 2]: cos, sin
    device const Column* at [[buffer(6)]],               // [columns]
    device uchar* const device* pages [[buffer(7)]],     // [slots / 32]
    device float* q [[buffer(8)]],                       // [columns, heads, head_dim]
    constant QkvParams& p [[buffer(9)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  constexpr int ROWS = R * (32 / LANES);
  threadgroup float4 xs[STAGED];
  threadgroup float2 sums[CHUNK / block_values(BITS)];
  threadgroup float results[32 * ROWS * C];
  threadgroup float squares[32 * C];
  threadgroup float heads[1024];  // int8: rotated keys and values [columns][own]
  const int slots = int(simdgroups) / p.split * ROWS;
  const int first = int(tgid.y) * C;
  const int columns = min(C, p.columns - first);
  const int own = p.passes * slots;
  const int own0 = int(tgid.x) * own;
  const int end = min(p.n, own0 + own);
  int slot0 = own0;

  Work<R> work;
  work.lid = int(lid);
  work.threads = int(simdgroups) * 32;
  work.lane = int(lane);
  work.sg = int(sg);
  work.k = p.k;
  work.group_shift = p.group_shift;
  work.split = p.split;
  work.columns = columns;
  work.norm = p.norm != 0;
  rows_of<R, LANES>(slot0, p.n, false, work.lane, work.sg, p.split, work.rows);
  fetch<BITS, R>(w, scales, biases, work.rows, p.k, p.group_shift, work.sg % p.split * LANES + work.lane % LANES,
                 work.next);
  for (bool first_pass = true; slot0 < end; slot0 += slots, first_pass = false) {
    const bool last_pass = slot0 + slots >= end;
    int then[R];
    if (!last_pass) rows_of<R, LANES>(slot0 + slots, p.n, false, work.lane, work.sg, p.split, then);
    product<BITS, HALF, R, C, LANES>(x + size_t(first) * size_t(p.k), weight, w, scales, biases, work, first_pass,
                                     last_pass, then, xs, sums, results, squares);

    // Pairs: rotated, and stored unless they wait for the scale of their head.
    for (int i = work.lid; i < slots / 2 * columns; i += work.threads) {
      const int c = i / (slots / 2);
      const int slot = i % (slots / 2) * 2;
      const int n = slot0 + slot;
      const int part = n / (p.heads * p.head_dim);
      const int head = n / p.head_dim % p.heads;
      const int dim = n % p.head_dim;
      if (n >= p.n) continue;
      const float factor = work.norm ? norm_factor<C>(squares, int(simdgroups), c, p.k) : 1.0f;
      float even = factor * result<R, C, LANES>(results, slot, c, p.split);
      float odd = factor * result<R, C, LANES>(results, slot + 1, c, p.split);
      if (part < 2 && p.rotary != 0) {
        const size_t angle = (size_t(first + c) * size_t(p.head_dim / 2) + size_t(dim / 2)) * 2;
        const float cosine = angles[angle];
        const float sine = angles[angle + 1];
        const float turned = even * cosine - odd * sine;
        odd = even * sine + odd * cosine;
        even = turned;
      }
      if (part == 0) {
        device float* out = q + (size_t(first + c) * size_t(p.heads) + size_t(head)) * size_t(p.head_dim) + size_t(dim);
        out[0] = even;
        out[1] = odd;
        continue;
      }
      device uchar* row =
          ring_row(pages, at[first + c].kv_slot, part, p.heads, head, p.head_dim, p.kv_bits / 8, p.offset);
      if (p.kv_bits == 32) {
        device float* out = (device float*)row + dim;
        out[0] = even;
        out[1] = odd;
      } else if (p.kv_bits == 16) {
        device bfloat* out = (device bfloat*)row + dim;
        out[0] = bfloat(even);
        out[1] = bfloat(odd);
      } else {
        heads[c * own + n - own0] = even;
        heads[c * own + n - own0 + 1] = odd;
      }
    }
  }
  if (p.kv_bits != 8) return;

  // A simdgroup for every key or value of a head: int8 of the largest magnitude / 127.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = work.sg; i < own / p.head_dim * columns; i += int(simdgroups)) {
    const int c = i % columns;
    const int n = own0 + i / columns * p.head_dim;
    const int part = n / (p.heads * p.head_dim);
    const int head = n / p.head_dim % p.heads;
    if (n >= p.n || part == 0) continue;
    threadgroup const float* values = heads + c * own + n - own0;
    float largest = 0.0f;
    for (int dim = work.lane; dim < p.head_dim; dim += 32) largest = max(largest, metal::fabs(values[dim]));
    largest = simd_max(largest);
    const bool nothing = largest < 1e-35f;  // 127 / largest would overflow
    const float inverse = nothing ? 0.0f : 127.0f / largest;
    const int kv_slot = at[first + c].kv_slot;
    device uchar* out = ring_row(pages, kv_slot, part, p.heads, head, p.head_dim, 1, p.offset);
    for (int dim = work.lane; dim < p.head_dim; dim += 32) {
      out[dim] = uchar(int(metal::rint(values[dim] * inverse)) & 255);
    }
    if (lane == 0) {
      const size_t scales_at = size_t(p.offset) + size_t(p.heads * 64) * size_t(p.head_dim);
      device float* of_heads = (device float*)(pages[kv_slot / 32] + scales_at);
      of_heads[((part - 1) * p.heads + head) * 32 + kv_slot % 32] = nothing ? 0.0f : largest / 127.0f;
    }
  }
}

/// Head `head` of softmax(q k^T / sqrt(head_dim)) v over at most 32 positions, by one simdgroup, into the staged x. Two
/// pages hold them all. The first values are fetched before the weights are known.
template <int BITS>
METAL_FUNC void attend_head(device const float* q, device const uchar* first_page, device const uchar* last_page,
                            int kv_slot, int count, int head, int lane, constant AttendProjectParams& p,
                            threadgroup float4* xs) {
  constexpr int EARLY = 8;
  const int row_bytes = 2 * p.head_dim;
  const size_t keys = size_t(p.offset) + size_t(head * 32) * size_t(row_bytes);
  const size_t values = keys + size_t(p.heads * 32) * size_t(row_bytes);
  uint early[EARLY];
#pragma unroll
  for (int i = 0; i < EARLY; i++) {
    const int slot = slot_of(min(i, count - 1), count, kv_slot, p.slots);
    device const uchar* page = slot / 32 == kv_slot / 32 ? last_page : first_page;
    early[i] = *(device const uint*)(page + values + size_t(slot % 32 * row_bytes + 4 * min(lane, p.head_dim / 2 - 1)));
  }

  const int slot = slot_of(min(lane, count - 1), count, kv_slot, p.slots);
  device const uint4* key = (device const uint4*)((slot / 32 == kv_slot / 32 ? last_page : first_page) + keys +
                                                  size_t(slot % 32 * row_bytes));
  float score = 0.0f;
#pragma unroll 8
  for (int i = 0; i < p.head_dim / 8; i++) {
    const uint4 k = key[i];
    const float4 a = *(device const float4*)(q + head * p.head_dim + 8 * i);
    const float4 b = *(device const float4*)(q + head * p.head_dim + 8 * i + 4);
    score += a.x * as_type<float>(k.x << 16) + a.y * as_type<float>(k.x & 0xFFFF0000u);
    score += a.z * as_type<float>(k.y << 16) + a.w * as_type<float>(k.y & 0xFFFF0000u);
    score += b.x * as_type<float>(k.z << 16) + b.y * as_type<float>(k.z & 0xFFFF0000u);
    score += b.z * as_type<float>(k.w << 16) + b.w * as_type<float>(k.w & 0xFFFF0000u);
  }
  score = lane < count ? score * metal::precise::rsqrt(float(p.head_dim)) : -INFINITY;
  const float largest = simd_max(score);
  const float weight = lane < count ? metal::precise::exp(score - largest) : 0.0f;
  const float share = weight / simd_sum(weight);

  for (int first = 0; first < p.head_dim; first += 64) {
    const int dim = min(first + 2 * lane, p.head_dim - 2);
    float even = 0.0f;
    float odd = 0.0f;
    if (first == 0) {
#pragma unroll
      for (int i = 0; i < EARLY; i++) {
        const float s = simd_shuffle(share, ushort(i));  // 0 from `count` on
        even += s * as_type<float>(early[i] << 16);
        odd += s * as_type<float>(early[i] & 0xFFFF0000u);
      }
    }
#pragma unroll 4
    for (int i = first == 0 ? EARLY : 0; i < count; i++) {
      const int at = slot_of(i, count, kv_slot, p.slots);
      device const uchar* page = at / 32 == kv_slot / 32 ? last_page : first_page;
      const uint v = *(device const uint*)(page + values + size_t(at % 32 * row_bytes + 2 * dim));
      const float s = simd_shuffle(share, ushort(i));
      even += s * as_type<float>(v << 16);
      odd += s * as_type<float>(v & 0xFFFF0000u);
    }
    if (first + 2 * lane < p.head_dim) {
      const int k = head * p.head_dim + dim;
      threadgroup float* out = (threadgroup float*)(xs + staged<BITS, 32>(k / 4)) + k % 4;
      out[0] = even;
      out[1] = odd;
    }
  }
}

template <int BITS, bool HALF, int R>
[[kernel]] void attend_project(
    device const float* q [[buffer(0)]],              // [heads, head_dim]: one column
    device const Column* at [[buffer(1)]],            // [1]; sees at most 32 positions
    device uchar* const device* pages [[buffer(2)]],  // [slots / 32]
    device const uint4* w [[buffer(3)]],              // [n, k]
    device const ushort* scales [[buffer(4)]],        // bf16: not read
    device const ushort* biases [[buffer(5)]],        // bf16: not read
    device float* y [[buffer(6)]],                    // [n], added to
    constant AttendProjectParams& p [[buffer(7)]],
    uint3 tgid [[threadgroup_position_in_grid]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float4 xs[STAGED];
  threadgroup float2 sums[CHUNK / block_values(BITS)];
  threadgroup float results[32 * R];
  constexpr int STEP = 32 * block_values(BITS);
  const int threads = int(simdgroups) * 32;
  const int steps = (p.k + STEP - 1) / STEP;
  const int slots = int(simdgroups) / p.split * R;
  const int slot0 = int(tgid.x) * slots;
  int rows[R];
  float total[R];
  for (int r = 0; r < R; r++) {
    rows[r] = min(p.n - 1, slot0 + int(sg) / p.split * R + r);
    total[r] = 0.0f;
  }
  Blocks<R> next;
  int step = int(sg) % p.split;
  if (step < steps) fetch<BITS, R>(w, scales, biases, rows, p.k, p.group_shift, step * 32 + int(lane), next);

  const int count = int(at->position - at->first_visible) + 1;
  const int kv_slot = at->kv_slot;
  device const uchar* first_page = pages[slot_of(0, count, kv_slot, p.slots) / 32];
  device const uchar* last_page = pages[kv_slot / 32];
  for (int head = int(sg); head < p.heads; head += int(simdgroups)) {
    attend_head<BITS>(q, first_page, last_page, kv_slot, count, head, int(lane), p, xs);
  }
  for (int i = p.k / 4 + int(lid); i < steps * STEP / 4; i += threads) xs[staged<BITS, 32>(i)] = float4(0.0f);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (BITS != 16) {
    sum_blocks<BITS, 1, 32>(p.k, 0, int(lid), threads, xs, sums);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  const Powers of_powers = powers(uint(p.split) >> 31);
  for (; step < steps; step += p.split) {
    const Blocks<R> now = next;
    if (step + p.split < steps) {
      fetch<BITS, R>(w, scales, biases, rows, p.k, p.group_shift, (step + p.split) * 32 + int(lane), next);
    }
    multiply<BITS, HALF, R, 1, 32>(now, xs, sums, step, int(lane), of_powers, total);
  }
  reduce<R, 1, 32>(total, int(lane), int(sg), results);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = int(lid); i < min(slots, p.n - slot0); i += threads) {
    y[slot0 + i] += result<R, 1, 32>(results, i, 0, p.split);
  }
}

#define PRODUCTS(format, bits, is_half)                                                                               \
  template [[host_name("qmv_" format "_r1_c1")]] [[kernel]] decltype(qmv<bits, is_half, 1, 1, 32>)                    \
      qmv<bits, is_half, 1, 1, 32>;                                                                                   \
  template [[host_name("qmv_" format "_r2_c1")]] [[kernel]] decltype(qmv<bits, is_half, 2, 1, 32>)                    \
      qmv<bits, is_half, 2, 1, 32>;                                                                                   \
  template [[host_name("qmv_" format "_r4_c1")]] [[kernel]] decltype(qmv<bits, is_half, 4, 1, 32>)                    \
      qmv<bits, is_half, 4, 1, 32>;                                                                                   \
  template [[host_name("qmv_" format "_c8")]] [[kernel]] decltype(qmv<bits, is_half, 2, 8, 16>)                       \
      qmv<bits, is_half, 2, 8, 16>;                                                                                   \
  template [[host_name("qkv_" format "_r2_c1")]] [[kernel]] decltype(qkv<bits, is_half, 2, 1, 32>)                    \
      qkv<bits, is_half, 2, 1, 32>;                                                                                   \
  template [[host_name("qkv_" format "_r4_c1")]] [[kernel]] decltype(qkv<bits, is_half, 4, 1, 32>)                    \
      qkv<bits, is_half, 4, 1, 32>;                                                                                   \
  template [[host_name("qkv_" format "_c8")]] [[kernel]] decltype(qkv<bits, is_half, 2, 8, 16>)                       \
      qkv<bits, is_half, 2, 8, 16>;                                                                                   \
  template [[host_name("attend_project_" format "_r1_c1")]] [[kernel]] decltype(attend_project<bits, is_half, 1>)     \
      attend_project<bits, is_half, 1>;                                                                               \
  template [[host_name("attend_project_" format "_r2_c1")]] [[kernel]] decltype(attend_project<bits, is_half, 2>)     \
      attend_project<bits, is_half, 2>;

PRODUCTS("b4_bf16", 4, false)
PRODUCTS("b4_f16", 4, true)
PRODUCTS("b8_bf16", 8, false)
PRODUCTS("b8_f16", 8, true)
PRODUCTS("bf16", 16, false)
