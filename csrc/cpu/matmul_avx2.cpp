// csrc/cpu/matmul_avx2.cpp: AVX2 with FMA, float32 throughout.
//
// 8 words of 32 bits at a time; step j of 32 / bits reads value j of every word, so x is packed to match: per 8 * 32 /
// bits values, rows of 8 floats, row j = x[(32 / bits) * word + j]. Two rows of W share the loads of x. A group of 64
// (4-bit) is one such block; of 32, half of one: scales are spread over the lanes of their group.
#include "cpu/matmul.h"
#include "cpu/matmul_by_columns.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#include "checkpoint/bf16.h"

#define PERSONAPLEX_AVX2 __attribute__((target("avx2,fma,f16c")))

namespace personaplex::cpu {

namespace {

constexpr std::int64_t kWords = 8;

std::int64_t per_block(const Matrix& w) { return w.quantized() ? kWords * 32 / w.bits : 8; }
std::int64_t blocks(const Matrix& w) { return (w.k + per_block(w) - 1) / per_block(w); }
std::int64_t groups(const Matrix& w) { return w.quantized() ? w.k / w.group_size : 0; }
std::int64_t column_floats(const Matrix& w) { return blocks(w) * per_block(w) + groups(w); }

std::size_t packed_bytes(const Matrix& w, int columns) {
  return static_cast<std::size_t>(column_floats(w) * columns) * sizeof(float);
}

PERSONAPLEX_AVX2 inline __m256 load_two(const float* low, const float* high) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}

/// out[8 j + i] = x[kWord i + j] for j < 4 and the first 8 words of kWord values, or the first 4 (the rest zeros).
template <int kWord>
PERSONAPLEX_AVX2 inline void transpose(const float* x, bool all, float* out) {
  __m256 row[4];
  for (int i = 0; i < 4; ++i) {
    row[i] = all ? load_two(x + kWord * i, x + kWord * (i + 4)) : _mm256_zextps128_ps256(_mm_loadu_ps(x + kWord * i));
  }
  const __m256 a = _mm256_unpacklo_ps(row[0], row[1]);
  const __m256 b = _mm256_unpacklo_ps(row[2], row[3]);
  const __m256 c = _mm256_unpackhi_ps(row[0], row[1]);
  const __m256 d = _mm256_unpackhi_ps(row[2], row[3]);
  _mm256_storeu_ps(out, _mm256_shuffle_ps(a, b, 0x44));
  _mm256_storeu_ps(out + 8, _mm256_shuffle_ps(a, b, 0xEE));
  _mm256_storeu_ps(out + 16, _mm256_shuffle_ps(c, d, 0x44));
  _mm256_storeu_ps(out + 24, _mm256_shuffle_ps(c, d, 0xEE));
}

PERSONAPLEX_AVX2 inline float reduce(__m256 v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}

PERSONAPLEX_AVX2 void pack(const Matrix& w, const float* x, int columns, std::byte* packed) {
  const std::int64_t size = per_block(w);
  auto* out = reinterpret_cast<float*>(packed);
  for (int t = 0; t < columns; ++t, x += w.k, out += column_floats(w)) {
    if (!w.quantized()) {
      std::memcpy(out, x, static_cast<std::size_t>(w.k) * sizeof(float));
      continue;
    }
    for (std::int64_t i = 0; i < w.k; i += size) {
      if (w.bits == 4) {
        const bool all = i + size <= w.k;
        transpose<8>(x + i, all, out + i);
        transpose<8>(x + i + 4, all, out + i + 32);
      } else {
        transpose<4>(x + i, true, out + i);
      }
    }
    float* sums = out + blocks(w) * size;
    for (std::int64_t g = 0; g < groups(w); ++g) {
      __m256 sum = _mm256_setzero_ps();
      for (int i = 0; i < w.group_size; i += 8) sum = _mm256_add_ps(sum, _mm256_loadu_ps(x + g * w.group_size + i));
      sums[g] = reduce(sum);
    }
  }
}

float widen(std::uint16_t x, bool half) { return half ? from_f16_bits(x) : from_bf16_bits(x); }

template <int kBits, int kColumns>
PERSONAPLEX_AVX2 void quantized_row(const Matrix& w, std::int64_t n, const float* x, float* y, std::int64_t stride) {
  constexpr int kSteps = 32 / kBits;
  const __m256i mask = _mm256_set1_epi32((1 << kBits) - 1);
  const std::int64_t words_per_row = w.k / kSteps;
  const int words_per_group = w.group_size / kSteps;  // 4, 8 or 16
  const auto* words = reinterpret_cast<const std::uint32_t*>(w.weight.data) + n * words_per_row;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(w.scales.data) + n * groups(w);
  const auto* biases = reinterpret_cast<const std::uint16_t*>(w.biases.data) + n * groups(w);
  const bool half = w.scales.dtype == DType::kF16;
  const std::int64_t column = column_floats(w);
  const std::int64_t sums_at = blocks(w) * per_block(w);

  __m256 sum[kColumns];
  float bias_sum[kColumns] = {};
  for (int t = 0; t < kColumns; ++t) sum[t] = _mm256_setzero_ps();
  for (std::int64_t g = 0; g < groups(w); ++g) {
    const float bias = widen(biases[g], half);
    for (int t = 0; t < kColumns; ++t) bias_sum[t] += bias * x[t * column + sums_at + g];
  }
  for (std::int64_t block = 0; block < blocks(w); ++block) {
    const std::uint32_t* at = words + block * kWords;
    const std::int64_t rest = words_per_row - block * kWords;
    __m256i v;
    if (rest >= kWords) {
      _mm_prefetch(reinterpret_cast<const char*>(at) + 8192, _MM_HINT_T1);
      v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    } else {  // only whole groups of 4 words are left
      v = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
      v = _mm256_inserti128_si256(v, _mm_setzero_si128(), 1);
    }
    const std::int64_t group = block * kWords / words_per_group;
    const float first = widen(scales[group], half);
    const float second = words_per_group == 4 && rest >= kWords ? widen(scales[group + 1], half) : first;
    const __m256 scale = _mm256_set_m128(_mm_set1_ps(second), _mm_set1_ps(first));
    __m256 values[kSteps];
    for (int j = 0; j < kSteps; ++j) {
      values[j] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(v, kBits * j), mask));
    }
    for (int t = 0; t < kColumns; ++t) {
      const float* xs = x + t * column + block * kWords * kSteps;
      __m256 a = _mm256_mul_ps(values[0], _mm256_loadu_ps(xs));
      __m256 b = _mm256_mul_ps(values[1], _mm256_loadu_ps(xs + 8));
      for (int j = 2; j < kSteps; j += 2) {
        a = _mm256_fmadd_ps(values[j], _mm256_loadu_ps(xs + 8 * j), a);
        b = _mm256_fmadd_ps(values[j + 1], _mm256_loadu_ps(xs + 8 * j + 8), b);
      }
      sum[t] = _mm256_fmadd_ps(scale, _mm256_add_ps(a, b), sum[t]);
    }
  }
  for (int t = 0; t < kColumns; ++t) y[t * stride + n] = reduce(sum[t]) + bias_sum[t];
}

PERSONAPLEX_AVX2 void float_row(const Matrix& w, std::int64_t n, const float* x, int columns, float* y,
                                std::int64_t stride) {
  const auto* weights = reinterpret_cast<const std::uint16_t*>(w.weight.data) + n * w.k;
  const std::int64_t column = column_floats(w);
  for (int t = 0; t < columns; ++t) {
    const float* xs = x + t * column;
    __m256 a = _mm256_setzero_ps();
    __m256 b = _mm256_setzero_ps();
    std::int64_t i = 0;
    for (; i + 16 <= w.k; i += 16) {
      const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + i));
      const __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(raw));
      const __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(raw, 1));
      a = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_loadu_ps(xs + i), a);
      b = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(high, 16)), _mm256_loadu_ps(xs + i + 8), b);
    }
    float tail = 0.0F;
    for (; i < w.k; ++i) tail += from_bf16_bits(weights[i]) * xs[i];
    y[t * stride + n] = reduce(_mm256_add_ps(a, b)) + tail;
  }
}

template <int kColumns>
void rows_of(const Matrix& w, const float* x, std::int64_t begin, std::int64_t end, float* y, std::int64_t stride) {
  for (std::int64_t n = begin; n < end; ++n) {
    if (w.bits == 4) {
      quantized_row<4, kColumns>(w, n, x, y, stride);
    } else if (w.bits == 8) {
      quantized_row<8, kColumns>(w, n, x, y, stride);
    } else {
      float_row(w, n, x, kColumns, y, stride);
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

const MatmulKernels* avx2_matmul() {
  static constexpr MatmulKernels kernels = {packed_bytes, pack, rows};
  return &kernels;
}

}  // namespace personaplex::cpu

#else

namespace personaplex::cpu {
const MatmulKernels* avx2_matmul() { return nullptr; }
}  // namespace personaplex::cpu

#endif
