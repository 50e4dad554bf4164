// csrc/cpu/matmul_portable.cpp: the kernels in plain C++: the specification of the others, and for processors without
// any.
//
// packed: per column x [K] float32, then the sums of its groups [K / group] float32.
#include <cstring>

#include "checkpoint/bf16.h"
#include "cpu/matmul.h"

namespace personaplex::cpu {

namespace {

std::int64_t groups(const Matrix& w) { return w.quantized() ? w.k / w.group_size : 0; }
std::size_t column_floats(const Matrix& w) { return static_cast<std::size_t>(w.k + groups(w)); }

std::size_t packed_bytes(const Matrix& w, int columns) {
  return column_floats(w) * sizeof(float) * static_cast<std::size_t>(columns);
}

void pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  auto* out = reinterpret_cast<float*>(packed);
  for (int t = 0; t < columns; ++t, x += w.k, out += column_floats(w)) {
    std::memcpy(out, x, static_cast<std::size_t>(w.k) * sizeof(float));
    for (std::int64_t g = 0; g < groups(w); ++g) {
      float sum = 0.0F;
      for (int i = 0; i < w.group_size; ++i) sum += x[g * w.group_size + i];
      out[w.k + g] = sum;
    }
  }
}

template <int kBits>
float quantized_row(const Matrix& w, std::int64_t n, const float* x) {
  constexpr int kPerWord = 32 / kBits;
  constexpr std::uint32_t kMask = (1U << kBits) - 1U;
  const auto* words = reinterpret_cast<const std::uint32_t*>(w.weight.data) + n * (w.k / kPerWord);
  const auto* scales = reinterpret_cast<const std::uint16_t*>(w.scales.data) + n * groups(w);
  const auto* biases = reinterpret_cast<const std::uint16_t*>(w.biases.data) + n * groups(w);
  const bool half = w.scales.dtype == DType::kF16;
  float sum = 0.0F;
  for (std::int64_t g = 0; g < groups(w); ++g) {
    float dot = 0.0F;
    for (int i = 0; i < w.group_size; i += kPerWord) {
      const std::uint32_t word = *words++;
      for (int j = 0; j < kPerWord; ++j) {
        dot += static_cast<float>((word >> (kBits * j)) & kMask) * x[g * w.group_size + i + j];
      }
    }
    const float scale = half ? from_f16_bits(scales[g]) : from_bf16_bits(scales[g]);
    const float bias = half ? from_f16_bits(biases[g]) : from_bf16_bits(biases[g]);
    sum += scale * dot + bias * x[w.k + g];
  }
  return sum;
}

float float_row(const Matrix& w, std::int64_t n, const float* x) {
  const auto* weights = reinterpret_cast<const std::uint16_t*>(w.weight.data) + n * w.k;
  float sum = 0.0F;
  for (std::int64_t i = 0; i < w.k; ++i) sum += from_bf16_bits(weights[i]) * x[i];
  return sum;
}

void rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
          std::int64_t stride) {
  const auto* x = reinterpret_cast<const float*>(packed);
  for (std::int64_t n = begin; n < end; ++n) {
    for (int t = 0; t < columns; ++t) {
      const float* column = x + static_cast<std::size_t>(t) * column_floats(w);
      y[t * stride + n] = w.bits == 4   ? quantized_row<4>(w, n, column)
                          : w.bits == 8 ? quantized_row<8>(w, n, column)
                                        : float_row(w, n, column);
    }
  }
}

}  // namespace

const MatmulKernels& portable_matmul() {
  static constexpr MatmulKernels kernels = {packed_bytes, pack, rows};
  return kernels;
}

}  // namespace personaplex::cpu
