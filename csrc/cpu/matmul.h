// csrc/cpu/matmul.h: y = W x for 1 to 8 columns, W in the checkpoint's own layout; one implementation per instruction
// set.
//
//   W   [N, K]  4-bit or 8-bit affine (w = scale * q + bias per group of 32 or 64 along K), or bfloat16
//   x   [T, K]  float32, T <= 8;  K a multiple of the group (quantized) or anything (bfloat16)
//   y   [T, N]  float32
// Accumulates in float32. avx512bf16 rounds x to bfloat16 first (the bias term uses the rounded x, so the only error is
// that rounding); the others keep x. Every row is summed in one fixed order: results do not depend on how rows are
// split. Tolerance against the product in double with the same x: 1e-5 of |W| |x| per row, and 2^-8 of it where x is
// rounded.
#pragma once

#include <cstddef>
#include <cstdint>

#include "checkpoint/weights.h"
#include "cpu/isa.h"
#include "engine/engine.h"

namespace personaplex::cpu {

struct MatmulKernels {
  /// Bytes that pack() writes for `columns` columns of `k` values. 64-byte aligned memory is expected.
  std::size_t (*packed_bytes)(const Matrix& w, int columns);
  /// Brings x [columns, K] into the order in which rows() reads it. Depends on W's format only, not on its values, so
  /// one packed x serves every matrix of the same K, bits and group.
  void (*pack)(const Matrix& w, const float* x, int columns, std::byte* packed);
  /// Rows [begin, end) of y: y[t * stride + n].
  void (*rows)(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
               std::int64_t stride);
};

/// Kernels of an instruction set that this machine supports.
const MatmulKernels& matmul_kernels(Isa isa);

/// True when the kernels can use this matrix: its dtypes, bits and group are among those above.
bool supports(const Matrix& w);

// Per instruction set; null where this build has none.
const MatmulKernels& portable_matmul();
const MatmulKernels* avx2_matmul();
const MatmulKernels* avx512bf16_matmul();

}  // namespace personaplex::cpu
