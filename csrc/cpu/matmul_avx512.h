// csrc/cpu/matmul_avx512.h: what the two AVX-512 instruction sets share: the kernels for quantized weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/matmul.h"

namespace personaplex::cpu::avx512 {

inline constexpr int kFewColumns = 4;

// Quantized weights and 1 to kFewColumns columns.
std::size_t few_packed_bytes(const Matrix& w, int columns);
void few_pack(const Matrix& w, const float* x, int columns, std::byte* packed);
void few_rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
              std::int64_t stride);

// Quantized weights and more columns.
std::size_t many_packed_bytes(const Matrix& w, int columns);
void many_pack(const Matrix& w, const float* x, int columns, std::byte* packed);
void many_rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
               std::int64_t stride);

}  // namespace personaplex::cpu::avx512
