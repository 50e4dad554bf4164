// tools/cudasim/cuda.h: CUDA's words for the kernels of kernels/cuda, on a CPU. Compiled in front of a kernel's text.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "runtime.h"

#define __CUDA_ARCH__ 900
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __shared__ static thread_local

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

#define threadIdx (cudasim::own.fiber->thread)
#define blockIdx (cudasim::own.block->block)
#define blockDim (cudasim::own.block->threads)

inline float __uint_as_float(unsigned u) { return __builtin_bit_cast(float, u); }
inline float __int_as_float(int i) { return __builtin_bit_cast(float, i); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
using std::max;
using std::min;

inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<unsigned>(bytes >> (8 * (which >> 4 * i & 7)) & 0xFF) << 8 * i;
  return out;
}

inline void __syncthreads() { cudasim::barrier(); }
inline unsigned long long __cvta_generic_to_shared(const void* p) { return cudasim::shared_address(p); }

namespace cudasim {
inline int lane() { return own.fiber->linear % 32; }

template <typename T>
T from_lane(const char* what, unsigned mask, T v, int lane) {
  if (mask != ~0u) fail("%s of some lanes only is not simulated", what);
  const Lanes& lanes = meet(what, &v, sizeof v);
  T out;
  std::memcpy(&out, lanes.slot[lane & 31], sizeof out);
  return out;
}

/// Calls a kernel with what `arguments` point to.
template <typename... P, std::size_t... I>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<P>*>(arguments[I])...);
}
template <typename... P>
void call(void (*kernel)(P...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<P...>{});
}
}  // namespace cudasim

template <typename T>
T __shfl_sync(unsigned mask, T v, int from) {
  return cudasim::from_lane("__shfl_sync", mask, v, from);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T v, int with) {
  return cudasim::from_lane("__shfl_xor_sync", mask, v, cudasim::lane() ^ with);
}

#include "ptx.h"
