// tools/metalsim/cuda/msl_cuda.h: what kernel texts translated by metalsim.to_cuda need, for nvcc and NVRTC, which need
// no other header. The common part of both languages, not all of MSL: see README.md.
#pragma once

#include "msl_cuda_types.h"

#include "msl_cuda_simd.h"

#include "msl_cuda_math.h"

#include "msl_cuda_kernel.h"  // the last one, for it has macros
