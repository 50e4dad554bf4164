// csrc/cpu/matmul_avx512.h: what the two AVX-512 instruction sets share: the kernels for quantized weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/matmul.h"

namespace personaplex::cpu::avx512 {

std::size_t quantized_packed_bytes(const Matrix& w, int columns);
void quantized_pack(const Matrix& w, const float* x, int columns, std::byte* packed);
void quantized_rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end,
                    float* y, std::int64_t stride);

}  // namespace personaplex::cpu::avx512
