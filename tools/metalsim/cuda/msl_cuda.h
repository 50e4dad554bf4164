// tools/metalsim/cuda/msl_cuda.h: what kernel texts translated by metalsim.to_cuda need, for nvcc and NVRTC, which need
// no other header. The common part of both languages, not all of MSL: see README.md.
#pragma once
#include "msl_cuda_types.h"
// After the types.
#include "msl_cuda_simd.h"
// After both.
#include "msl_cuda_math.h"
// Last: it has macros.
#include "msl_cuda_kernel.h"
