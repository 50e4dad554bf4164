// tools/metalsim/cuda/cuda_on_cpu.h: CUDA's words for the simulator, so that translated texts and msl_cuda.h can be
// tried without a GPU. Arithmetic and rendezvous are right; CUDA's memory model is not checked.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../shim/kernel_side.h"

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __shared__ static
#define __constant__

namespace msl_cuda {
inline unsigned short half_bits(float f) { return __builtin_bit_cast(unsigned short, (_Float16)f); }
inline float half_value(unsigned short h) { return (float)__builtin_bit_cast(_Float16, h); }
inline unsigned short bfloat_bits(float f) {
  const unsigned u = __builtin_bit_cast(unsigned, f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (unsigned short)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
}  // namespace msl_cuda
namespace msl {
inline Site cuda_site(int kind) { return {"cuda", kind << 9}; }
template <class T>
inline T shuffle(int kind, T v, unsigned from) {
  const LaneBuffer* all = collective(kind, &v, sizeof v, nullptr, cuda_site(kind));
  if (from < 32) std::memcpy(&v, all->slot[from], sizeof v);
  return v;
}
}  // namespace msl
#define threadIdx msl::context().thread_position_in_threadgroup
#define blockIdx msl::context().threadgroup_position_in_grid
#define blockDim msl::context().threads_per_threadgroup
#define gridDim msl::context().threadgroups_per_grid

inline float __uint_as_float(unsigned u) { return __builtin_bit_cast(float, u); }
inline float __int_as_float(int i) { return __builtin_bit_cast(float, i); }
inline void __syncthreads() { msl::barrier(3, msl::cuda_site(1)); }
inline void __syncwarp() { msl::simd_barrier(3, msl::cuda_site(2)); }
inline unsigned __shfl_sync(unsigned, unsigned v, unsigned l) { return msl::shuffle(20, v, l & 31); }
inline unsigned __shfl_xor_sync(unsigned, unsigned v, unsigned m) { return msl::shuffle(22, v, msl::lane() ^ m); }
inline unsigned __shfl_up_sync(unsigned, unsigned v, unsigned n) { return msl::shuffle(23, v, msl::lane() - n); }
inline unsigned __shfl_down_sync(unsigned, unsigned v, unsigned n) { return msl::shuffle(24, v, msl::lane() + n); }
inline unsigned __ballot_sync(unsigned, bool p) {
  const int mine = p;
  const msl::LaneBuffer* all = msl::collective(40, &mine, sizeof mine, nullptr, msl::cuda_site(40));
  unsigned votes = 0;
  for (int i = 0; i < 32; i++) {
    int v;
    std::memcpy(&v, all->slot[i], sizeof v);
    votes |= (unsigned)(v != 0) << i;
  }
  return votes;
}
inline bool __any_sync(unsigned m, bool p) { return __ballot_sync(m, p) != 0; }
inline bool __all_sync(unsigned m, bool p) { return __ballot_sync(m, !p) == 0; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long)a * b) >> 32); }
inline int __mulhi(int a, int b) { return (int)(((long)a * b) >> 32); }
inline unsigned long __umul64hi(unsigned long a, unsigned long b) {
  return (unsigned long)(((unsigned __int128)a * b) >> 64);
}
#define CUDA_ATOMIC(name, expression) \
  template <class T>                  \
  inline T name(T* p, T x) {          \
    T o = *p;                         \
    *p = (T)(expression);             \
    return o;                         \
  }
CUDA_ATOMIC(atomicAdd, o + x)
CUDA_ATOMIC(atomicSub, o - x)
CUDA_ATOMIC(atomicMin, x < o ? x : o)
CUDA_ATOMIC(atomicMax, o < x ? x : o)
CUDA_ATOMIC(atomicAnd, o& x)
CUDA_ATOMIC(atomicOr, o | x)
CUDA_ATOMIC(atomicXor, o ^ x)
CUDA_ATOMIC(atomicExch, x)
template <class T>
inline T atomicCAS(T* p, T expected, T x) {
  T o = *p;
  if (o == expected) *p = x;
  return o;
}
