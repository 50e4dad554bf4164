// tools/metalsim/cuda/msl_cuda_kernel.h: what a kernel's parameters are made from in CUDA, and the macros that no CUDA
// header may meet.
#pragma once
#include "msl_cuda_types.h"

namespace msl_cuda {
typedef metal::vec<uint, 3> uint3_;
template <class P>
MSL_D P builtin(uint3_ v) {
  if constexpr (integral<P>) {
    return (P)v.x;
  } else if constexpr (P::n == 2) {
    return P(v.x, v.y);
  } else {
    return P(v.x, v.y, v.z);
  }
}
template <class P>
MSL_D P builtin(uint v) {
  return (P)v;
}
MSL_D uint thread_index_in_threadgroup() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
MSL_D uint3_ thread_position_in_grid() {
  return uint3_(blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y,
                blockIdx.z * blockDim.z + threadIdx.z);
}
MSL_D uint3_ thread_position_in_threadgroup() { return uint3_(threadIdx.x, threadIdx.y, threadIdx.z); }
MSL_D uint3_ threadgroup_position_in_grid() { return uint3_(blockIdx.x, blockIdx.y, blockIdx.z); }
MSL_D uint3_ threads_per_threadgroup() { return uint3_(blockDim.x, blockDim.y, blockDim.z); }
MSL_D uint3_ threadgroups_per_grid() { return uint3_(gridDim.x, gridDim.y, gridDim.z); }
MSL_D uint3_ threads_per_grid() {
  return uint3_(gridDim.x * blockDim.x, gridDim.y * blockDim.y, gridDim.z * blockDim.z);
}
MSL_D uint thread_index_in_simdgroup() { return thread_index_in_threadgroup() & 31; }
MSL_D uint simdgroup_index_in_threadgroup() { return thread_index_in_threadgroup() >> 5; }
MSL_D uint simdgroups_per_threadgroup() { return (blockDim.x * blockDim.y * blockDim.z + 31) / 32; }
MSL_D uint threads_per_simdgroup() { return 32; }
MSL_D uint quadgroup_index_in_threadgroup() { return thread_index_in_threadgroup() >> 2; }
MSL_D uint thread_index_in_quadgroup() { return thread_index_in_threadgroup() & 3; }
/// Where kernels are launched with programmatic dependencies, the next one may start from here on; otherwise this does
/// nothing. Letting the next one start so early is right because it, too, waits for the end of this one before it
/// touches memory that kernels write.
MSL_D void begin_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/// And goes on when those before it have ended. The first thing that a kernel does, or one whose text calls it, in all
/// its threads, before they read or write anything but what no kernel writes.
MSL_D void await_inputs() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The line of memory at p is going to be read: into the L2 cache with it.
MSL_D void prefetch(const void* p) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
  (void)p;
#endif
}
#ifdef __CUDACC__
#define MSL_GRID_CONSTANT const __grid_constant__
MSL_D void* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char msl_dynamic[];
  return msl_dynamic;
}
#else
#define MSL_GRID_CONSTANT const
MSL_D void* dynamic_shared() {
  void* const* all = ::msl::context().threadgroup_buffers;
  while (!*all) all++;
  return *all;
}
#endif
}  // namespace msl_cuda

#define char2 metal::vec<signed char, 2>
#define char3 metal::vec<signed char, 3>
#define char4 metal::vec<signed char, 4>
#define uchar2 metal::vec<unsigned char, 2>
#define uchar3 metal::vec<unsigned char, 3>
#define uchar4 metal::vec<unsigned char, 4>
#define short2 metal::vec<short, 2>
#define short3 metal::vec<short, 3>
#define short4 metal::vec<short, 4>
#define ushort2 metal::vec<unsigned short, 2>
#define ushort3 metal::vec<unsigned short, 3>
#define ushort4 metal::vec<unsigned short, 4>
#define int2 metal::vec<int, 2>
#define int3 metal::vec<int, 3>
#define int4 metal::vec<int, 4>
#define uint2 metal::vec<unsigned, 2>
#define uint3 metal::vec<unsigned, 3>
#define uint4 metal::vec<unsigned, 4>
#define long2 metal::vec<long, 2>
#define long3 metal::vec<long, 3>
#define long4 metal::vec<long, 4>
#define ulong2 metal::vec<unsigned long, 2>
#define ulong3 metal::vec<unsigned long, 3>
#define ulong4 metal::vec<unsigned long, 4>
#define half2 metal::vec<msl_half, 2>
#define half3 metal::vec<msl_half, 3>
#define half4 metal::vec<msl_half, 4>
#define bfloat2 metal::vec<msl_bfloat, 2>
#define bfloat3 metal::vec<msl_bfloat, 3>
#define bfloat4 metal::vec<msl_bfloat, 4>
#define float2 metal::vec<float, 2>
#define float3 metal::vec<float, 3>
#define float4 metal::vec<float, 4>
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fc00000)
#endif
#ifndef FLT_MAX
#define FLT_MAX 3.402823466e+38f
#endif
#undef MAXFLOAT
#define MAXFLOAT 3.402823466e+38f
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f
#define M_LN2_F 0.69314718055994530942f
#define M_LN10_F 2.30258509299404568402f
#define M_LOG2E_F 1.44269504088896340736f
#define M_E_F 2.71828182845904523536f
