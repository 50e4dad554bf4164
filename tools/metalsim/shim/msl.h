// tools/metalsim/shim/msl.h: stands before the text of a kernel file and makes it C++: the library, then the macros
// that no system header may meet.
#pragma once
#include "msl_atomic.h"
#include "msl_simd.h"

#define kernel
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VALF __builtin_inff()
#define MAXFLOAT 3.402823466e+38f
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
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

// A type's name followed by ( constructs.
#define char2(...) metal::make_vector<char2>(__VA_ARGS__)
#define char3(...) metal::make_vector<char3>(__VA_ARGS__)
#define char4(...) metal::make_vector<char4>(__VA_ARGS__)
#define uchar2(...) metal::make_vector<uchar2>(__VA_ARGS__)
#define uchar3(...) metal::make_vector<uchar3>(__VA_ARGS__)
#define uchar4(...) metal::make_vector<uchar4>(__VA_ARGS__)
#define short2(...) metal::make_vector<short2>(__VA_ARGS__)
#define short3(...) metal::make_vector<short3>(__VA_ARGS__)
#define short4(...) metal::make_vector<short4>(__VA_ARGS__)
#define ushort2(...) metal::make_vector<ushort2>(__VA_ARGS__)
#define ushort3(...) metal::make_vector<ushort3>(__VA_ARGS__)
#define ushort4(...) metal::make_vector<ushort4>(__VA_ARGS__)
#define int2(...) metal::make_vector<int2>(__VA_ARGS__)
#define int3(...) metal::make_vector<int3>(__VA_ARGS__)
#define int4(...) metal::make_vector<int4>(__VA_ARGS__)
#define uint2(...) metal::make_vector<uint2>(__VA_ARGS__)
#define uint3(...) metal::make_vector<uint3>(__VA_ARGS__)
#define uint4(...) metal::make_vector<uint4>(__VA_ARGS__)
#define long2(...) metal::make_vector<long2>(__VA_ARGS__)
#define long3(...) metal::make_vector<long3>(__VA_ARGS__)
#define long4(...) metal::make_vector<long4>(__VA_ARGS__)
#define ulong2(...) metal::make_vector<ulong2>(__VA_ARGS__)
#define ulong3(...) metal::make_vector<ulong3>(__VA_ARGS__)
#define ulong4(...) metal::make_vector<ulong4>(__VA_ARGS__)
#define half2(...) metal::make_vector<half2>(__VA_ARGS__)
#define half3(...) metal::make_vector<half3>(__VA_ARGS__)
#define half4(...) metal::make_vector<half4>(__VA_ARGS__)
#define float2(...) metal::make_vector<float2>(__VA_ARGS__)
#define float3(...) metal::make_vector<float3>(__VA_ARGS__)
#define float4(...) metal::make_vector<float4>(__VA_ARGS__)
#define bool2(...) metal::make_vector<bool2>(__VA_ARGS__)
#define bool3(...) metal::make_vector<bool3>(__VA_ARGS__)
#define bool4(...) metal::make_vector<bool4>(__VA_ARGS__)
#define bfloat2(...) metal::make_vector<bfloat2>(__VA_ARGS__)
#define bfloat3(...) metal::make_vector<bfloat3>(__VA_ARGS__)
#define bfloat4(...) metal::make_vector<bfloat4>(__VA_ARGS__)

// What MSL does not have.
#define double MSL_has_no_double
#define virtual MSL_has_no_virtual
#define thread_local MSL_has_no_thread_local
#define dynamic_cast MSL_has_no_dynamic_cast
#define new MSL_has_no_new
#define delete MSL_has_no_delete
#define goto MSL_has_no_goto
#define try MSL_has_no_exceptions
#define throw MSL_has_no_exceptions
