// tools/metalsim/objc/include/simd/simd.h: types that metal-cpp's headers name.
#pragma once
#include <math.h>

typedef struct {
  float columns[4][4];
} simd_float4x4;
namespace simd {
typedef simd_float4x4 float4x4;
}
