// kernels/lm_sample.metal: draws a token from logits, the same one on every device.
//
// Contract (ops: sample): token = target where `forced`; the argmax where temperature <= 0; else the argmax of
// exp((x - max x) / temperature) / q over the top_k largest logits (top_k <= 0 or >= n: over all), q = the Exp(1) noise
// that csrc/core/philox.h draws for (seed, frame, stream, index). All ties go to the lowest index. A NaN is never drawn
// unless all are NaN, and counts as minus infinity for the top_k.
//
// Buffers: 0 logits float [n], read as words; 1 draw, Draw; 2 token int32, written; 3 params.
// Work: one threadgroup of exactly 1024 threads. n < 2^22.
// host_names: sample
//
// Logits are compared as integers in the order of the floats. The k-th largest is found digit by digit from the top
// (11, 11 and 10 bits), with a histogram each; where it ties and not all that tie are taken, two more digits find the
// last index that is.
#include <metal_stdlib>
using namespace metal;

struct SampleParams {
  int n;
  int stream;
};

struct Draw {  // ops::Draw
  float temperature;
  int top_k;
  int target;
  int forced;
  ulong seed;
  ulong frame;
};

constant constexpr int THREADS = 1024;
constant constexpr int BINS = 2048;
constant constexpr uint INFINITE = 0x7F800000u;
constant constexpr uint LOWEST = 0x007FFFFFu;  // the key of minus infinity

/// Keys are in the order of the floats; 0 is a NaN, and both zeros are the same.
METAL_FUNC uint key_of(uint bits) {
  if ((bits & 0x7FFFFFFFu) > INFINITE) return 0u;
  if (bits == 0x80000000u) bits = 0u;
  return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}

struct Best {
  uint key;
  uint index;
};

/// The largest key of the threadgroup and its lowest index, in all threads.
METAL_FUNC Best group_best(uint key, uint index, uint lane, uint sg, threadgroup uint* keys,
                           threadgroup uint* indices) {
  uint most = simd_max(key);
  uint at = simd_min(key == most ? index : 0xFFFFFFFFu);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    keys[sg] = most;
    indices[sg] = at;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  Best best;
  best.key = simd_max(keys[lane]);
  best.index = simd_min(keys[lane] == best.key ? indices[lane] : 0xFFFFFFFFu);
  return best;
}

/// Which logits are taken: those whose key and inverted index, as one number, are at least a bound. It is known down to
/// some bit of the key, then of the index.
struct Bound {
  uint key;
  uint key_mask;
  uint index;  // inverted
  uint index_mask;
  uint places;  // left for those that agree with the bound so far
  uint rivals;  // how many those are
};

METAL_FUNC uint inverted(int i) {
  return 0x3FFFFFu - uint(i);
}

/// The next `bits` digits of the bound: of the key from `shift` on or, where `by_index`, of the inverted index.
METAL_FUNC void narrow(thread Bound& bound, device const uint* logits, int n, int shift, int bits, bool by_index,
                       uint lid, uint lane, uint sg, threadgroup atomic_uint* histogram, threadgroup uint* parts,
                       threadgroup uint* chosen) {
  const uint digit_mask = (1u << uint(bits)) - 1u;
  for (int i = int(lid); i < BINS; i += THREADS) atomic_store_explicit(&histogram[i], 0u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int i = int(lid); i < n; i += THREADS) {
    const uint key = max(key_of(logits[i]), LOWEST);
    const uint index = inverted(i);
    if ((key & bound.key_mask) == bound.key && (index & bound.index_mask) == bound.index) {
      const uint digit = ((by_index ? index : key) >> uint(shift)) & digit_mask;
      atomic_fetch_add_explicit(&histogram[digit], 1u, memory_order_relaxed);
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  // Two bins a thread, from the top: how many are before them?
  const uint high = uint(BINS - 1) - 2u * lid;
  const uint in_high = atomic_load_explicit(&histogram[high], memory_order_relaxed);
  const uint in_low = atomic_load_explicit(&histogram[high - 1u], memory_order_relaxed);
  uint before = simd_prefix_exclusive_sum(in_high + in_low);
  if (lane == 31u) parts[sg] = before + in_high + in_low;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  before += simd_sum(lane < sg ? parts[lane] : 0u);
  if (before < bound.places && bound.places <= before + in_high + in_low) {
    const bool in_first = bound.places <= before + in_high;
    chosen[0] = in_first ? high : high - 1u;
    chosen[1] = bound.places - before - (in_first ? 0u : in_high);
    chosen[2] = in_first ? in_high : in_low;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (by_index) {
    bound.index |= chosen[0] << uint(shift);
    bound.index_mask |= digit_mask << uint(shift);
  } else {
    bound.key |= chosen[0] << uint(shift);
    bound.key_mask |= digit_mask << uint(shift);
  }
  bound.places = chosen[1];
  bound.rivals = chosen[2];
}

METAL_FUNC uint4 noise_words(ulong seed, ulong frame, uint stream, uint block) {
  uint4 c = uint4(block, stream, uint(frame), uint(frame >> 32));
  uint key0 = uint(seed);
  uint key1 = uint(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const ulong a = ulong(0xD2511F53u) * ulong(c.x);
    const ulong b = ulong(0xCD9E8D57u) * ulong(c.z);
    c = uint4(uint(b >> 32) ^ c.y ^ key0, uint(b), uint(a >> 32) ^ c.w ^ key1, uint(a));
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

/// -log(u), u = ((x >> 8) + 0.5) 2^-24; for u > 1/2 by the series of 2 atanh(z / (2 - z)) = -log(1 - z), z = 1 - u.
METAL_FUNC float exponential(uint x) {
  const uint n = x >> 8;
  if (n < 0x800000u) return -metal::precise::log((float(n) + 0.5f) * 5.9604644775390625e-8f);
  const float z = (float(0xFFFFFFu - n) + 0.5f) * 5.9604644775390625e-8f;
  const float s = z / (2.0f - z);
  const float t = s * s;
  float sum = 1.0f / 15.0f;
  sum = sum * t + 1.0f / 13.0f;
  sum = sum * t + 1.0f / 11.0f;
  sum = sum * t + 1.0f / 9.0f;
  sum = sum * t + 1.0f / 7.0f;
  sum = sum * t + 1.0f / 5.0f;
  sum = sum * t + 1.0f / 3.0f;
  return 2.0f * (s + s * t * sum);
}

/// 1 more than the bits of exp((x - largest) / temperature) / noise, which are in its order; 0 for one that cannot win.
METAL_FUNC uint race(uint x, uint largest, float temperature, uint noise) {
  if (largest == INFINITE) return x == INFINITE ? 0u : 1u;  // infinity - infinity, and exp(-infinity)
  if ((largest & INFINITE) == INFINITE) return 0u;
  if (x == (INFINITE | 0x80000000u)) return 1u;
  const float far = (as_type<float>(x) - as_type<float>(largest)) / temperature;
  return as_type<uint>(metal::precise::exp(max(far, -200.0f)) / exponential(noise)) + 1u;
}

[[kernel]] void sample(
    device const uint* logits [[buffer(0)]],
    device const Draw* draw [[buffer(1)]],
    device int* token [[buffer(2)]],
    constant SampleParams& p [[buffer(3)]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]]) {
  threadgroup atomic_uint histogram[BINS];
  threadgroup uint parts[32];
  threadgroup uint indices[32];
  threadgroup uint chosen[3];
  if (draw->forced != 0) {
    if (lid == 0) token[0] = draw->target;
    return;
  }

  uint key = 0u;
  uint at = 0xFFFFFFFFu;
  for (int i = int(lid); i < p.n; i += THREADS) {
    const uint k = key_of(logits[i]);
    if (k > key || at == 0xFFFFFFFFu) {
      key = k;
      at = uint(i);
    }
  }
  const uint largest = group_best(key, at, lane, sg, parts, indices).index;
  const uint bits = as_type<uint>(draw->temperature);
  if ((bits & 0x80000000u) != 0u || bits == 0u || bits > INFINITE) {  // <= 0 or a NaN
    if (lid == 0) token[0] = int(largest);
    return;
  }
  const float temperature = max(draw->temperature, 1.17549435e-38f);

  Bound bound;
  bound.key = 0u;
  bound.key_mask = 0u;
  bound.index = 0u;
  bound.index_mask = 0u;
  bound.places = uint(draw->top_k);
  bound.rivals = 0u;
  if (draw->top_k > 0 && draw->top_k < p.n) {
    narrow(bound, logits, p.n, 21, 11, false, lid, lane, sg, histogram, parts, chosen);
    narrow(bound, logits, p.n, 10, 11, false, lid, lane, sg, histogram, parts, chosen);
    narrow(bound, logits, p.n, 0, 10, false, lid, lane, sg, histogram, parts, chosen);
    if (bound.places < bound.rivals && bound.key != LOWEST) {  // minus infinity never wins but as the first of all
      narrow(bound, logits, p.n, 11, 11, true, lid, lane, sg, histogram, parts, chosen);
      narrow(bound, logits, p.n, 0, 11, true, lid, lane, sg, histogram, parts, chosen);
    }
  }

  key = 0u;
  at = 0xFFFFFFFFu;
  for (int block = int(lid); 4 * block < p.n; block += THREADS) {
    bool taken[4];
    bool any = false;
    for (int j = 0; j < 4; j++) {
      const int i = 4 * block + j;
      const uint k = i < p.n ? key_of(logits[i]) : 0u;
      taken[j] = k != 0u && (k > bound.key || (k == bound.key && inverted(i) >= bound.index));
      any = any || taken[j];
    }
    if (!any) continue;
    const uint4 words = noise_words(draw->seed, draw->frame, uint(p.stream), uint(block));
    const uint noise[4] = {words.x, words.y, words.z, words.w};
    for (int j = 0; j < 4; j++) {
      if (!taken[j]) continue;
      const uint k = race(logits[4 * block + j], logits[largest], temperature, noise[j]);
      if (k > key) {
        key = k;
        at = uint(4 * block + j);
      }
    }
  }
  const Best best = group_best(key, at, lane, sg, parts, indices);
  if (lid == 0) token[0] = int(best.key == 0u ? largest : best.index);
}
