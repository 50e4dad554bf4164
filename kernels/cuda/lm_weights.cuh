// kernels/cuda/lm_weights.cuh: matrices of the language model as operands of tensor cores: mma.sync m16n8k16, bfloat.
//
// A warp takes W in units: 16 rows (8 from a slot on, 8 more) of 8 blocks, a block being the 16 bytes of a row that one
// lane reads at once: 32 values of 4 bits, 16 of 8, or 8 bfloats. Lane (g, t) = (lane / 4, lane % 4) has two blocks,
// t / 2 * 4 + t % 2 and the next but one, of rows g and g + 8. That is where an operand A of the instruction wants
// them: any order of k will do, as long as x is staged in the same one. How a block lies in that order: see permute().
// K is a multiple of 4 blocks, groups are of 64 values.
#pragma once

using u16 = unsigned short;
using u32 = unsigned int;

constexpr u32 WARP = 0xFFFFFFFFu;

/// Nothing of what earlier kernels write may be read before this, nor anything written: the kernel may have been
/// started while they still run. Weights may be read.
__device__ __forceinline__ void wait_for_others() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The kernel that follows may be started.
__device__ __forceinline__ void let_others_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ float from_bits(u32 bits) { return __uint_as_float(bits); }

template <bool HALF>
__device__ __forceinline__ float from16(u16 bits) {
  if (!HALF) return from_bits(u32(bits) << 16);
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
  return out;
}

/// Two bfloats, the first in the lower half.
__device__ __forceinline__ u32 bfloats(float first, float second) {
  u32 out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
}

/// Values of a block, and of a row in a unit.
template <int BITS>
constexpr int BLOCK = 128 / BITS;
template <int BITS>
constexpr int STEP = 8 * BLOCK<BITS>;
constexpr int GROUP = 64;

/// A lane's part of a unit. Scales and biases: of row g with an even t, of row g + 8 with an odd one; with 4 bits of
/// two groups.
struct Unit {
  uint4 words[2][2] = {};  // row, block
  u32 scales = 0, biases = 0;
};

/// 16 bytes that are not read again, if `there`; v stays otherwise.
__device__ __forceinline__ void read_once(const uint4* p, bool there, uint4& v) {
  asm volatile(
      "{.reg .pred there;\n setp.ne.s32 there, %5, 0;\n"
      " @there ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];}"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(p), "r"(int(there)));
}

/// The same for scales or biases: 32 bits with 4-bit values, else 16.
template <int BITS>
__device__ __forceinline__ void read_scales(const u16* p, bool there, u32& v) {
  if (BITS == 4) {
    asm volatile("{.reg .pred there;\n setp.ne.s32 there, %2, 0;\n @there ld.global.nc.u32 %0, [%1];}"
                 : "+r"(v)
                 : "l"(p), "r"(int(there)));
  } else {
    asm volatile("{.reg .pred there;\n setp.ne.s32 there, %2, 0;\n @there ld.global.nc.u16 %0, [%1];}"
                 : "+r"(v)
                 : "l"(p), "r"(int(there)));
  }
}

/// A matrix, and what becomes of its products: with SwiGLU even slots are rows of the first half, its gates, odd ones
/// of the second. Otherwise a slot is a row.
struct Matrix {
  const uint4* w;
  const u16* scales;
  const u16* biases;
  int n, k;
  bool swiglu;

  __device__ __forceinline__ int row(int slot) const { return swiglu ? slot / 2 + slot % 2 * (n / 2) : slot; }
};

/// A lane's two rows of a unit.
template <int BITS>
struct Rows {
  u32 words[2], groups;  // where they begin
  int slot;              // the first one's

  __device__ __forceinline__ void set(const Matrix& m, int first) {
    slot = first;
    words[0] = u32(m.row(first)) * u32(m.k / BLOCK<BITS>);
    words[1] = u32(m.row(first + 8)) * u32(m.k / BLOCK<BITS>);
    groups = u32(m.row(first + int(threadIdx.x) % 2 * 8)) * u32(m.k / GROUP);
  }
  /// `count` slots, an even number, further on.
  __device__ __forceinline__ void advance(const Matrix& m, int count) {
    slot += count;
    const u32 rows = u32(m.swiglu ? count / 2 : count);
    words[0] += rows * u32(m.k / BLOCK<BITS>);
    words[1] += rows * u32(m.k / BLOCK<BITS>);
    groups += rows * u32(m.k / GROUP);
  }
  /// The unit in which the lane's first block is `block`. What is beyond K or N stays as it is: finite, if it was so,
  /// and multiplied with zeros or not used.
  __device__ __forceinline__ void fetch(const Matrix& m, int block, bool there, Unit& unit) const {
    there = there && block < m.k / BLOCK<BITS>;
    const bool first = there && slot < m.n, second = there && slot + 8 < m.n;
    const uint4* p = m.w + (words[0] + u32(block));
    const uint4* q = m.w + (words[1] + u32(block));
    read_once(p, first, unit.words[0][0]);
    read_once(q, second, unit.words[1][0]);
    read_once(p + 2, first, unit.words[0][1]);
    read_once(q + 2, second, unit.words[1][1]);
    if (BITS == 16) return;
    const u32 group = groups + u32(block * BLOCK<BITS>) / GROUP;
    const bool mine = threadIdx.x % 2 == 0 ? first : second;
    read_scales<BITS>(m.scales + group, mine, unit.scales);
    read_scales<BITS>(m.biases + group, mine, unit.biases);
  }
};

/// 8 values of x, from a multiple of 8 on, in the order in which operands B are read: with words of W that hold
/// quantized values, those whose bits lie 16 apart are one register.
template <int BITS>
__device__ __forceinline__ void permute(const float* v, float* out) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int from = BITS == 4 ? i / 2 + i % 2 * 4 : BITS == 8 ? i / 4 * 4 + i % 4 / 2 + i % 2 * 2 : i;
    out[i] = v[from];
  }
}

/// Two bfloats of 128, in a register: with two constants the compiler makes two instructions of nibbles().
__device__ __forceinline__ u32 two_128s() {
  u32 out;
  asm volatile("mov.u32 %0, 0x43004300;" : "=r"(out));
  return out;
}

/// Bits 0 to 3 and 16 to 19 of a word, as the bfloats 128 + value.
__device__ __forceinline__ u32 nibbles(u32 word, u32 of_128) {
  u32 out;
  asm("lop3.b32 %0, %1, 0x000F000F, %2, 0xEA;" : "=r"(out) : "r"(word), "r"(of_128));
  return out;
}

__device__ __forceinline__ void mma(float* c, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
