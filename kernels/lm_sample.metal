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
// (11, 11 and 10 bits of the key, 11 and 11 of the index, since the first of those that tie are taken), with a
// histogram each, until so few are left that each can count those before it: with logits as models have them, after one
// digit. All that may be drawn is then in threadgroup memory, and only that runs for the token.
//
// Nothing is repeated by unrolling what runs once: a lone threadgroup waits for its instructions, too.
#include <metal_stdlib>
using namespace metal;

#ifdef METALSIM_CUDA
#define AWAIT_INPUTS() msl_cuda::await_inputs()  // what is before it may run while the kernel before this one ends
#else
#define AWAIT_INPUTS()
#endif

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
constant constexpr int MOST_LISTED = 1536;  // that may be drawn
constant constexpr uint FEW = 512;          // that count for themselves, two threads each
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

/// The largest key of the simdgroups and its lowest index: a simdgroup's part of it,
METAL_FUNC void keep_best(uint key, uint index, uint lane, uint sg, threadgroup uint* keys, threadgroup uint* indices) {
  const uint most = simd_max(key);
  const uint at = simd_min(key == most ? index : 0xFFFFFFFFu);
  if (lane == 0) {
    keys[sg] = most;
    indices[sg] = at;
  }
}

/// and after a barrier the best of all, in all threads.
METAL_FUNC Best best_of(uint lane, threadgroup const uint* keys, threadgroup const uint* indices) {
  Best best;
  best.key = simd_max(keys[lane]);
  best.index = simd_min(keys[lane] == best.key ? indices[lane] : 0xFFFFFFFFu);
  return best;
}

/// The bits of a key's logit.
METAL_FUNC uint bits_of(uint key) {
  if (key == 0u) return 0x7FC00000u;
  return (key & 0x80000000u) != 0u ? key & 0x7FFFFFFFu : ~key;
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

METAL_FUNC uint inverted(int i) { return 0x3FFFFFu - uint(i); }

/// From a histogram of the next digit, that of the last that is taken: the bound then knows `digit_mask` << shift too.
/// All have counted (barrier) when this begins.
METAL_FUNC void narrow(thread Bound& bound, int shift, uint digit_mask, bool by_index, uint lid, uint lane, uint sg,
                       threadgroup atomic_uint* histogram, threadgroup uint* parts, threadgroup uint* chosen) {
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
  const uint digit = chosen[0] << uint(shift);
  const uint mask = digit_mask << uint(shift);
  bound.key |= by_index ? 0u : digit;
  bound.key_mask |= by_index ? 0u : mask;
  bound.index |= by_index ? digit : 0u;
  bound.index_mask |= by_index ? mask : 0u;
  bound.places = chosen[1];
  bound.rivals = chosen[2];
}

METAL_FUNC uint4 noise_words(ulong seed, ulong frame, uint stream, uint block) {
  uint4 c = uint4(block, stream, uint(frame), uint(frame >> 32));
  uint key0 = uint(seed);
  uint key1 = uint(seed >> 32);
#pragma unroll 2
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
  threadgroup uint listed[MOST_LISTED];  // indices: rivals of the bound from the front, what is taken from the back
  threadgroup uint listed_keys[MOST_LISTED];
  threadgroup uint parts[32];
  threadgroup uint best_keys[32];
  threadgroup uint best_indices[32];
  threadgroup uint chosen[3];
  threadgroup atomic_uint counts[2];
  for (int i = int(lid); i < BINS; i += THREADS) atomic_store_explicit(&histogram[i], 0u, memory_order_relaxed);
  if (lid < 2u) atomic_store_explicit(&counts[lid], 0u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  AWAIT_INPUTS();
  const float asked = draw->temperature;
  const int top_k = draw->top_k;
  const ulong seed = draw->seed;
  const ulong frame = draw->frame;
  if (draw->forced != 0) {
    if (lid == 0) token[0] = draw->target;
    return;
  }

  const bool limited = top_k > 0 && top_k < p.n;
  uint key = 0u;
  uint at = 0xFFFFFFFFu;
  constexpr int TOGETHER = 4;  // loads of a thread
#pragma unroll 1
  for (int base = int(lid); base < p.n; base += TOGETHER * THREADS) {
    uint words[TOGETHER];
    for (int u = 0; u < TOGETHER; u++) words[u] = logits[min(base + u * THREADS, p.n - 1)];
    for (int u = 0; u < TOGETHER; u++) {
      const int i = base + u * THREADS;
      if (i >= p.n) break;
      const uint k = key_of(words[u]);
      if (k > key || at == 0xFFFFFFFFu) {
        key = k;
        at = uint(i);
      }
      if (limited) atomic_fetch_add_explicit(&histogram[max(k, LOWEST) >> 21], 1u, memory_order_relaxed);
    }
  }
  keep_best(key, at, lane, sg, best_keys, best_indices);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const Best most = best_of(lane, best_keys, best_indices);
  const uint bits = as_type<uint>(asked);
  if ((bits & 0x80000000u) != 0u || bits == 0u || bits > INFINITE) {  // <= 0 or a NaN
    if (lid == 0) token[0] = int(most.index);
    return;
  }
  const float temperature = max(asked, 1.17549435e-38f);
  const uint largest = bits_of(most.key);

  Bound bound;
  bound.key = 0u;
  bound.key_mask = 0u;
  bound.index = 0u;
  bound.index_mask = 0u;
  bound.places = uint(top_k);
  bound.rivals = 0u;
  bool listing = false;
  if (limited) {
    narrow(bound, 21, 0x7FFu, false, lid, lane, sg, histogram, parts, chosen);
    // Further digits, while too many agree with the bound. Minus infinity never wins but as the first of all: which of
    // them are taken does not matter.
#pragma unroll 1
    for (int digit = 1; digit < 5 && bound.rivals > FEW; digit++) {
      const bool by_index = digit >= 3;
      if (by_index && (bound.places == bound.rivals || bound.key == LOWEST)) break;
      const int shift = digit == 1 ? 10 : digit == 3 ? 11 : 0;
      const uint digit_mask = digit == 2 ? 0x3FFu : 0x7FFu;
      for (int i = int(lid); i < BINS; i += THREADS) atomic_store_explicit(&histogram[i], 0u, memory_order_relaxed);
      threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll 1
      for (int i = int(lid); i < p.n; i += THREADS) {
        const uint k = max(key_of(logits[i]), LOWEST);
        const uint index = inverted(i);
        if ((k & bound.key_mask) == bound.key && (index & bound.index_mask) == bound.index) {
          const uint d = ((by_index ? index : k) >> uint(shift)) & digit_mask;
          atomic_fetch_add_explicit(&histogram[d], 1u, memory_order_relaxed);
        }
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
      narrow(bound, shift, digit_mask, by_index, lid, lane, sg, histogram, parts, chosen);
    }
    // Those before the bound's digits, and the rivals: the latter are taken in the order of key and index.
    const uint certain = uint(top_k) - bound.places;
    listing = bound.rivals <= FEW && certain + bound.rivals <= uint(MOST_LISTED);
    if (bound.rivals <= FEW) {
#pragma unroll 1
      for (int base = int(lid); base < p.n; base += TOGETHER * THREADS) {
        uint words[TOGETHER];
        for (int u = 0; u < TOGETHER; u++) words[u] = logits[min(base + u * THREADS, p.n - 1)];
        for (int u = 0; u < TOGETHER; u++) {
          const int i = base + u * THREADS;
          if (i >= p.n) break;
          const uint raw = key_of(words[u]);
          const uint k = max(raw, LOWEST);
          const uint index = inverted(i);
          const uint prefix = k & bound.key_mask;
          const uint index_prefix = index & bound.index_mask;
          const bool rival = prefix == bound.key && index_prefix == bound.index;
          const bool before = prefix > bound.key || (prefix == bound.key && index_prefix > bound.index);
          if (rival || (before && listing)) {
            const uint place = atomic_fetch_add_explicit(&counts[rival ? 0 : 1], 1u, memory_order_relaxed);
            const uint to = rival ? place : uint(MOST_LISTED - 1) - place;
            listed[to] = uint(i);
            listed_keys[to] = raw;
          }
        }
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
      // A rival has as many threads as there are, up to a simdgroup, to count those before it.
      uint sharing = 2u;
      while (sharing < 32u && 2u * sharing * bound.rivals <= uint(THREADS)) sharing *= 2u;
      const uint own = min(lid / sharing, bound.rivals - 1u);
      const uint own_key = max(listed_keys[own], LOWEST);
      const uint own_index = listed[own];
      uint before = 0u;
#pragma unroll 4
      for (uint j = lid & (sharing - 1u); j < bound.rivals; j += sharing) {
        const uint k = max(listed_keys[j], LOWEST);
        before += k > own_key || (k == own_key && listed[j] < own_index) ? 1u : 0u;
      }
      for (ushort step = 1; step < 32; step *= 2) {
        const uint other = simd_shuffle_xor(before, step);
        before += step < sharing ? other : 0u;
      }
      if ((lid & (sharing - 1u)) == 0u && lid / sharing < bound.rivals && before + 1u == bound.places) {
        chosen[0] = own_key;
        chosen[1] = own_key == LOWEST ? 0u : inverted(int(own_index));
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
      bound.key = chosen[0];
      bound.index = chosen[1];
    }
  }

  // The race, by blocks of 4 logits, which share their noise, or by what is listed.
  key = 0u;
  at = 0xFFFFFFFFu;
  const int rivals = int(bound.rivals);
  const int listed_count = top_k - int(bound.places) + rivals;
  const int end = listing ? listed_count : (p.n + 3) / 4;
#pragma unroll 1
  for (int i = int(lid); i < end; i += THREADS) {
    const int place = i < rivals ? i : MOST_LISTED - 1 - (i - rivals);
    const int block = listing ? int(listed[place]) / 4 : i;
    uint taken = 0u;  // bits of the block's logits
    uint keys[4];
    for (int j = 0; j < 4; j++) {
      const int l = 4 * block + j;
      const bool here = listing ? int(listed[place]) == l : l < p.n;
      keys[j] = !here ? 0u : listing ? listed_keys[place] : key_of(logits[l]);
      const uint k = keys[j];
      if (k != 0u && (k > bound.key || (k == bound.key && inverted(l) >= bound.index))) taken |= 1u << uint(j);
    }
    if (taken == 0u) continue;
    const uint4 words = noise_words(seed, frame, uint(p.stream), uint(block));
    const uint noise[4] = {words.x, words.y, words.z, words.w};
#pragma unroll 1
    for (int j = 0; j < 4; j++) {
      if ((taken >> uint(j) & 1u) == 0u) continue;
      const uint k = race(bits_of(j == 0   ? keys[0]
                                  : j == 1 ? keys[1]
                                  : j == 2 ? keys[2]
                                           : keys[3]),
                          largest, temperature,
                          j == 0   ? noise[0]
                          : j == 1 ? noise[1]
                          : j == 2 ? noise[2]
                                   : noise[3]);
      const uint l = uint(4 * block + j);
      if (k > key || (k == key && l < at)) {
        key = k;
        at = l;
      }
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  keep_best(key, at, lane, sg, best_keys, best_indices);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const Best best = best_of(lane, best_keys, best_indices);
  if (lid == 0) token[0] = int(best.key == 0u ? most.index : best.index);
}
