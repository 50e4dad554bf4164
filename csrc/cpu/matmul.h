// csrc/cpu/matmul.h: y = W x for 1 to 32 columns, W in the checkpoint's own layout; one implementation per instruction
// set.
//
//   W   [N, K]  4-bit or 8-bit affine (w = scale * q + bias per group of 32 or 64 along K), or bfloat16
//   x   [T, K]  float32, T <= kMaxColumns;  K a multiple of the group (quantized) or anything (bfloat16)
//   y   [T, N]  float32
// Accumulates in float32, or exactly, in integers, within a group. How x is held, and so the error:
//  - avx512vnni and avx512bf16, quantized W: 15-bit integers with one scale for every group (1 to 4 columns) or 32
//    values (more): 5e-5 of ||y|| for Gaussian x. More than 4 columns of 4-bit W: 8-bit integers, but 15-bit ones where
//    the error would be over 6e-3 of ||x||.
//  - avx512bf16, bfloat16 W: bfloat16, 2e-3 of ||y||.
//  - All others: float32.
// W's biases multiply the sums of the x so rounded. The rest is within 2e-6 of |W| |x| per row. Every row is summed in
// one fixed order: results do not depend on how rows are split. Splits at multiples of 32 rows are the fastest.
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
const MatmulKernels* neon_matmul();
const MatmulKernels* avx2_matmul();
const MatmulKernels* avx512vnni_matmul();
const MatmulKernels* avx512bf16_matmul();

}  // namespace personaplex::cpu
