// tools/metalsim/cuda/msl_cuda_simd.h: MSL's barriers and simdgroup operations in CUDA: a simdgroup is a warp.
#pragma once
#include "msl_cuda_types.h"

namespace metal {

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
MSL_D constexpr mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }
MSL_D void threadgroup_barrier(mem_flags) { __syncthreads(); }
MSL_D void simdgroup_barrier(mem_flags) { __syncwarp(); }
#ifdef __CUDACC__
MSL_D unsigned lane_index() {
  unsigned lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}
#else
MSL_D unsigned lane_index() { return ::msl::lane(); }
#endif
#define MSL_ALL_LANES 0xffffffffu
#define MSL_SHUFFLE(name, call)                                                                     \
  template <class T>                                                                                \
  MSL_D T name(T v, ushort n) {                                                                     \
    static_assert(sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) % 4 == 0, "shuffle size");          \
    if constexpr (sizeof(T) == 1) {                                                                 \
      return as_type<T>((uchar)call(MSL_ALL_LANES, (unsigned)as_type<uchar>(v), n));                \
    } else if constexpr (sizeof(T) == 2) {                                                          \
      return as_type<T>((ushort)call(MSL_ALL_LANES, (unsigned)as_type<ushort>(v), n));              \
    } else {                                                                                        \
      union {                                                                                       \
        T value;                                                                                    \
        unsigned word[sizeof(T) / 4];                                                               \
      } u;                                                                                          \
      u.value = v;                                                                                  \
      for (int i = 0; i < (int)(sizeof(T) / 4); i++) u.word[i] = call(MSL_ALL_LANES, u.word[i], n); \
      return u.value;                                                                               \
    }                                                                                               \
  }
MSL_SHUFFLE(simd_shuffle, __shfl_sync)
MSL_SHUFFLE(simd_broadcast, __shfl_sync)
MSL_SHUFFLE(simd_shuffle_xor, __shfl_xor_sync)
MSL_SHUFFLE(simd_shuffle_up, __shfl_up_sync)
MSL_SHUFFLE(simd_shuffle_down, __shfl_down_sync)
template <class T>
MSL_D T simd_broadcast_first(T v) {
  return simd_broadcast(v, (ushort)0);
}
#define MSL_REDUCTION(name, expression)     \
  template <class T>                        \
  MSL_D T name(T v) {                       \
    for (int m = 16; m; m >>= 1) {          \
      T o = simd_shuffle_xor(v, (ushort)m); \
      v = (T)(expression);                  \
    }                                       \
    return v;                               \
  }
MSL_REDUCTION(simd_sum, v + o)
MSL_REDUCTION(simd_product, v* o)
MSL_REDUCTION(simd_max, v < o ? o : v)
MSL_REDUCTION(simd_min, o < v ? o : v)
MSL_REDUCTION(simd_and, v& o)
MSL_REDUCTION(simd_or, v | o)
MSL_REDUCTION(simd_xor, v ^ o)
template <class T>
MSL_D T simd_prefix_inclusive_sum(T v) {
  const unsigned lane = lane_index();
  for (unsigned m = 1; m < 32; m <<= 1) {
    T o = simd_shuffle_up(v, (ushort)m);
    if (lane >= m) v = v + o;
  }
  return v;
}
template <class T>
MSL_D T simd_prefix_exclusive_sum(T v) {
  T before = simd_shuffle_up(simd_prefix_inclusive_sum(v), (ushort)1);
  return lane_index() ? before : T(0);
}
MSL_D bool simd_any(bool p) { return __any_sync(MSL_ALL_LANES, p); }
MSL_D bool simd_all(bool p) { return __all_sync(MSL_ALL_LANES, p); }
MSL_D bool simd_is_first() { return lane_index() == 0; }
struct simd_vote {
  uint64_t votes;
  MSL_D explicit operator uint64_t() const { return votes; }
  MSL_D bool all() const { return votes == MSL_ALL_LANES; }
  MSL_D bool any() const { return votes != 0; }
};
MSL_D simd_vote simd_ballot(bool p) { return {__ballot_sync(MSL_ALL_LANES, p)}; }

}  // namespace metal
