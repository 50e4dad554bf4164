// csrc/cpu/matmul_neon.cpp: NEON as every aarch64 has it, float32 throughout.
//
// 4 words of 32 bits at a time: step j of 32 / bits reads value j of every word, so x is packed to match: per 16 bytes
// of W, 32 / bits rows of 4 floats, row j = x[(32 / bits) * word + j]. No group is smaller than such a block.
#include "cpu/matmul.h"
#include "cpu/matmul_by_columns.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include <cstring>

#include "checkpoint/bf16.h"

namespace personaplex::cpu {

namespace {

std::int64_t groups(const Matrix& w) { return w.quantized() ? w.k / w.group_size : 0; }
std::int64_t column_floats(const Matrix& w) { return w.k + groups(w); }

std::size_t packed_bytes(const Matrix& w, int columns) {
  return static_cast<std::size_t>(column_floats(w) * columns) * sizeof(float);
}

void pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  auto* out = reinterpret_cast<float*>(packed);
  for (int t = 0; t < columns; ++t, x += w.k, out += column_floats(w)) {
    if (w.bits == 4) {
      for (std::int64_t i = 0; i < w.k; i += 32) {
        const float32x4x4_t a = vld4q_f32(x + i);  // of j and j + 4 of words 0 and 1
        const float32x4x4_t b = vld4q_f32(x + i + 16);
        for (int j = 0; j < 4; ++j) {
          vst1q_f32(out + i + 4 * j, vuzp1q_f32(a.val[j], b.val[j]));
          vst1q_f32(out + i + 16 + 4 * j, vuzp2q_f32(a.val[j], b.val[j]));
        }
      }
    } else if (w.bits == 8) {
      for (std::int64_t i = 0; i < w.k; i += 16) {
        const float32x4x4_t a = vld4q_f32(x + i);
        for (int j = 0; j < 4; ++j) vst1q_f32(out + i + 4 * j, a.val[j]);
      }
    } else {
      std::memcpy(out, x, static_cast<std::size_t>(w.k) * sizeof(float));
    }
    for (std::int64_t g = 0; g < groups(w); ++g) {
      float32x4_t sum = vdupq_n_f32(0.0F);
      for (int i = 0; i < w.group_size; i += 4) sum = vaddq_f32(sum, vld1q_f32(x + g * w.group_size + i));
      out[w.k + g] = vaddvq_f32(sum);
    }
  }
}

inline float widen(const std::uint16_t* p, bool half) {
  if (!half) return from_bf16_bits(*p);
  __fp16 value;
  std::memcpy(&value, p, sizeof value);
  return static_cast<float>(value);
}

template <int kBits, int kColumns>
void quantized_row(const Matrix& w, std::int64_t n, const float* x, float* y, std::int64_t stride) {
  constexpr int kSteps = 32 / kBits;
  constexpr std::int64_t kBlock = 4 * kSteps;  // values in 16 bytes
  const std::int64_t group_count = groups(w);
  const auto* at = reinterpret_cast<const std::uint32_t*>(w.weight.data) + n * (w.k / kSteps);
  const auto* scales = reinterpret_cast<const std::uint16_t*>(w.scales.data) + n * group_count;
  const auto* biases = reinterpret_cast<const std::uint16_t*>(w.biases.data) + n * group_count;
  const bool half = w.scales.dtype == DType::kF16;
  const std::int64_t column = column_floats(w);
  const uint32x4_t mask = vdupq_n_u32((1U << kBits) - 1U);

  float32x4_t sum[kColumns];
  float bias_sum[kColumns];
#pragma GCC unroll 8
  for (int t = 0; t < kColumns; ++t) {
    sum[t] = vdupq_n_f32(0.0F);
    bias_sum[t] = 0.0F;
  }
  for (std::int64_t g = 0; g < group_count; ++g) {
    __builtin_prefetch(at + 256);
    float32x4_t group[kColumns];
#pragma GCC unroll 8
    for (int t = 0; t < kColumns; ++t) group[t] = vdupq_n_f32(0.0F);
    for (std::int64_t i = g * w.group_size; i < (g + 1) * w.group_size; i += kBlock, at += 4) {
      uint32x4_t words = vld1q_u32(at);
#pragma GCC unroll 8
      for (int j = 0; j < kSteps; ++j) {
        const float32x4_t value = vcvtq_f32_u32(vandq_u32(words, mask));
        words = vshrq_n_u32(words, kBits);
#pragma GCC unroll 8
        for (int t = 0; t < kColumns; ++t) {
          group[t] = vfmaq_f32(group[t], value, vld1q_f32(x + t * column + i + 4 * j));
        }
      }
    }
    const float scale = widen(scales + g, half);
    const float bias = widen(biases + g, half);
#pragma GCC unroll 8
    for (int t = 0; t < kColumns; ++t) {
      sum[t] = vfmaq_n_f32(sum[t], group[t], scale);
      bias_sum[t] += bias * x[t * column + w.k + g];
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kColumns; ++t) y[t * stride + n] = vaddvq_f32(sum[t]) + bias_sum[t];
}

template <int kColumns>
void float_row(const Matrix& w, std::int64_t n, const float* x, float* y, std::int64_t stride) {
  const auto* weights = reinterpret_cast<const std::uint16_t*>(w.weight.data) + n * w.k;
  float32x4_t low[kColumns], high[kColumns];
  float tail[kColumns];
#pragma GCC unroll 8
  for (int t = 0; t < kColumns; ++t) {
    low[t] = high[t] = vdupq_n_f32(0.0F);
    tail[t] = 0.0F;
  }
  std::int64_t i = 0;
  for (; i + 8 <= w.k; i += 8) {
    __builtin_prefetch(weights + i + 512);
    const uint16x8_t raw = vld1q_u16(weights + i);
    const float32x4_t first = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(raw), 16));
    const float32x4_t second = vreinterpretq_f32_u32(vshll_high_n_u16(raw, 16));
#pragma GCC unroll 8
    for (int t = 0; t < kColumns; ++t) {
      low[t] = vfmaq_f32(low[t], first, vld1q_f32(x + t * w.k + i));
      high[t] = vfmaq_f32(high[t], second, vld1q_f32(x + t * w.k + i + 4));
    }
  }
  for (; i < w.k; ++i) {
#pragma GCC unroll 8
    for (int t = 0; t < kColumns; ++t) tail[t] += from_bf16_bits(weights[i]) * x[t * w.k + i];
  }
#pragma GCC unroll 8
  for (int t = 0; t < kColumns; ++t) y[t * stride + n] = vaddvq_f32(vaddq_f32(low[t], high[t])) + tail[t];
}

template <int kColumns>
void rows_of(const Matrix& w, const float* x, std::int64_t begin, std::int64_t end, float* y, std::int64_t stride) {
  for (std::int64_t n = begin; n < end; ++n) {
    if (w.bits == 4) {
      quantized_row<4, kColumns>(w, n, x, y, stride);
    } else if (w.bits == 8) {
      quantized_row<8, kColumns>(w, n, x, y, stride);
    } else {
      float_row<kColumns>(w, n, x, y, stride);
    }
  }
}

void rows(const Matrix& w, const std::byte* packed, int columns, std::int64_t begin, std::int64_t end, float* y,
          std::int64_t stride) {
  by_columns(w, columns, begin, end, [&](int first, auto count, std::int64_t n, std::int64_t last) {
    const float* x = reinterpret_cast<const float*>(packed) + first * column_floats(w);
    rows_of<count()>(w, x, n, last, y + first * stride, stride);
  });
}

}  // namespace

const MatmulKernels* neon_matmul() {
  static constexpr MatmulKernels kernels = {packed_bytes, pack, rows};
  return &kernels;
}

}  // namespace personaplex::cpu

#else

namespace personaplex::cpu {
const MatmulKernels* neon_matmul() { return nullptr; }
}  // namespace personaplex::cpu

#endif
