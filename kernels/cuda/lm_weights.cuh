// kernels/cuda/lm_weights.cuh: matrices of the language model as operands of tensor cores: mma.sync m16n8k16, bfloat.
//
// A warp takes W in units: 16 rows (8 from a slot on, 8 more) of 4 blocks, a block being the 16 bytes of a row that
// one lane reads: 32 values of 4 bits, 16 of 8, or 8 bfloats. Lane (g, t) = (lane / 4, lane % 4) has block t of rows g
// and g + 8, which is where an operand A of the instruction wants them: any order of k will do, as long as x is staged
// in the same one. How one block lies in x's staged order: see permute().
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
constexpr int STEP = 4 * BLOCK<BITS>;

/// A lane's part of a unit.
struct Unit {
  uint4 words[2] = {};
  u16 scales[2] = {}, biases[2] = {};
};

/// 16 bytes that are not read again, if `there`; v stays otherwise.
__device__ __forceinline__ void read_once(const uint4* p, bool there, uint4& v) {
  asm volatile(
      "{.reg .pred there;\n setp.ne.s32 there, %5, 0;\n"
      " @there ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];}"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(p), "r"(int(there)));
}

__device__ __forceinline__ void read16(const u16* p, bool there, u16& v) {
  asm volatile("{.reg .pred there;\n setp.ne.s32 there, %2, 0;\n @there ld.global.nc.u16 %0, [%1];}"
               : "+h"(v)
               : "l"(p), "r"(int(there)));
}

/// A matrix, and what becomes of its products: with SwiGLU even slots are rows of the first half, its gates, odd ones of
/// the second. Otherwise a slot is a row.
struct Matrix {
  const uint4* w;
  const u16* scales;
  const u16* biases;
  int n, k, group_shift;
  bool swiglu;

  __device__ __forceinline__ int row(int slot) const { return swiglu ? slot / 2 + slot % 2 * (n / 2) : slot; }
};

/// A lane's two rows of a unit.
template <int BITS>
struct Rows {
  u32 words[2], groups[2];  // where they begin
  int slot;                 // the first one's

  __device__ __forceinline__ void set(const Matrix& m, int first) {
    slot = first;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const u32 row = u32(m.row(first + 8 * r));
      words[r] = row * u32(m.k / BLOCK<BITS>);
      groups[r] = row * u32(m.k >> m.group_shift);
    }
  }
  /// `count` slots, an even number, further on.
  __device__ __forceinline__ void advance(const Matrix& m, int count) {
    slot += count;
    const u32 rows = u32(m.swiglu ? count / 2 : count);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      words[r] += rows * u32(m.k / BLOCK<BITS>);
      groups[r] += rows * u32(m.k >> m.group_shift);
    }
  }
  /// What is beyond K or N stays as it is: finite, if it was so, and multiplied with zeros or not used.
  __device__ __forceinline__ void fetch(const Matrix& m, int block, bool there, Unit& unit) const {
    const u32 group = u32(block * BLOCK<BITS>) >> m.group_shift;
    there = there && block < m.k / BLOCK<BITS>;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const bool in_matrix = there && slot + 8 * r < m.n;
      read_once(m.w + (words[r] + u32(block)), in_matrix, unit.words[r]);
      if (BITS == 16) continue;
      read16(m.scales + (groups[r] + group), in_matrix, unit.scales[r]);
      read16(m.biases + (groups[r] + group), in_matrix, unit.biases[r]);
    }
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

__device__ __forceinline__ u32 word_of(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }
