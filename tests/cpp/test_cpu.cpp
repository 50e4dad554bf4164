// tests/cpp/test_cpu.cpp: every instruction set's matrix product against the sum in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "checkpoint/bf16.h"
#include "core/error.h"
#include "cpu/matmul.h"
#include "cpu/pool.h"

using namespace personaplex;
using namespace personaplex::cpu;

namespace {

struct Case {
  int bits, group_size;
  std::int64_t n, k;
};

/// Ragged sizes on purpose: K not a multiple of a block or chunk, N not of anything.
std::vector<Case> cases() {
  std::vector<Case> out;
  for (const std::int64_t k : {32, 64, 96, 128, 192, 288, 576, 704, 1024, 2816}) {
    for (const int bits : {4, 8}) {
      for (const int group : {32, 64}) {
        if (k % group == 0) out.push_back({bits, group, k == 704 ? 75 : 13, k});
      }
    }
    out.push_back({16, 0, 7, k});
    out.push_back({16, 0, 7, k + 5});
  }
  return out;
}

std::uint16_t to_f16_small(float x) {  // exact for the small dyadic values that the tests store
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7FFFFFFFU) == 0) return static_cast<std::uint16_t>(bits >> 16);
  const std::uint32_t exponent = ((bits >> 23) & 0xFFU) - 112;
  return static_cast<std::uint16_t>(((bits >> 16) & 0x8000U) | (exponent << 10) | ((bits >> 13) & 0x3FFU));
}

TensorView random_halves(std::vector<std::int64_t> shape, DType dtype, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal;
  OwnedTensor t = allocate_tensor(dtype, std::move(shape));
  auto* out = reinterpret_cast<std::uint16_t*>(t.mutable_data);
  for (std::int64_t i = 0; i < t.view.size(); ++i) {
    out[i] = dtype == DType::kF16 ? to_f16_small(std::round(normal(random) * 64.0F) / 64.0F * scale)
                                  : to_bf16_bits(normal(random) * scale);
  }
  return t.view;
}

Matrix random_matrix(const Case& c, DType scale_dtype, std::mt19937& random) {
  Matrix m;
  m.n = c.n;
  m.k = c.k;
  m.bits = c.bits;
  m.group_size = c.group_size;
  if (c.bits == 16) {
    m.weight = random_halves({c.n, c.k}, DType::kBF16, 1.0F, random);
    return m;
  }
  OwnedTensor words = allocate_tensor(DType::kU32, {c.n, c.k * c.bits / 32});
  for (std::int64_t i = 0; i < words.view.size(); ++i) {
    reinterpret_cast<std::uint32_t*>(words.mutable_data)[i] = static_cast<std::uint32_t>(random());
  }
  m.weight = words.view;
  m.scales = random_halves({c.n, c.k / c.group_size}, scale_dtype, 0.0625F, random);
  m.biases = random_halves({c.n, c.k / c.group_size}, scale_dtype, 0.25F, random);
  return m;
}

/// All that kernels are compiled for, and both sides of where they change.
constexpr int kColumnCounts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 31, kMaxColumns};

/// Half the distance of the numbers that stand for each x[i]; 0: x is kept, or rounded to bfloat16. The AVX-512 kernels
/// for quantized weights take 15-bit integers with one scale for every group, with many columns for every 32 values;
/// there, of 4-bit weights, 8-bit ones may do.
std::vector<double> half_steps(Isa isa, const Matrix& m, const float* x, int columns) {
  std::vector<double> steps(static_cast<std::size_t>(m.k), 0.0);
  if (!m.quantized() || (isa != Isa::kAvx512Vnni && isa != Isa::kAvx512Bf16)) return steps;
  const bool coarse = m.bits == 4 && columns > 4;
  const std::int64_t together = columns <= 4 ? m.group_size : 32;
  for (std::int64_t first = 0; first < m.k; first += together) {
    const std::int64_t end = std::min(first + together, m.k);
    double largest = 0;
    for (std::int64_t i = first; i < end; ++i) largest = std::max(largest, std::abs(static_cast<double>(x[i])));
    const double step = largest < 1e-30 ? largest : largest / (coarse ? 127 : 16256) / 2 * 1.001;
    std::fill(steps.begin() + first, steps.begin() + end, step);
  }
  return steps;
}

struct Sum {
  double value = 0, magnitude = 0;
  double rounding = 0;  // what rounding x may change
};

Sum reference(const Matrix& m, std::int64_t n, const float* x, bool rounded, const std::vector<double>& steps) {
  Sum sum;
  const auto half = [&](const TensorView& t, std::int64_t i) {
    const std::uint16_t raw = reinterpret_cast<const std::uint16_t*>(t.data)[i];
    return static_cast<double>(t.dtype == DType::kF16 ? from_f16_bits(raw) : from_bf16_bits(raw));
  };
  for (std::int64_t i = 0; i < m.k; ++i) {
    const double value = rounded ? from_bf16_bits(to_bf16_bits(x[i])) : x[i];
    if (m.quantized()) {
      const std::int64_t per_word = 32 / m.bits;
      const std::uint32_t word =
          reinterpret_cast<const std::uint32_t*>(m.weight.data)[n * (m.k / per_word) + i / per_word];
      const std::uint32_t q = (word >> (m.bits * (i % per_word))) & ((1U << m.bits) - 1U);
      const std::int64_t group = n * (m.k / m.group_size) + i / m.group_size;
      const double scaled = half(m.scales, group) * q;
      const double bias = half(m.biases, group);
      sum.value += (scaled + bias) * value;
      sum.magnitude += (std::abs(scaled) + std::abs(bias)) * std::abs(value);
      sum.rounding += std::abs(scaled + bias) * steps[static_cast<std::size_t>(i)];
    } else {
      const double weight = half(m.weight, n * m.k + i);
      sum.value += weight * value;
      sum.magnitude += std::abs(weight * value);
    }
  }
  return sum;
}

/// 64-byte aligned memory that ends right after its last byte, so that a sanitizer sees a read past it.
std::shared_ptr<std::byte> packed_memory(std::size_t bytes) {
  void* memory = nullptr;
  REQUIRE(posix_memalign(&memory, 64, bytes) == 0);
  return {static_cast<std::byte*>(memory), [](std::byte* p) { std::free(p); }};
}

/// Rows in the ranges that begin at 0 and at each of `cuts`.
std::vector<float> multiply(Isa isa, const Matrix& m, const std::vector<float>& x, int columns,
                            std::vector<std::int64_t> cuts = {}) {
  const MatmulKernels& kernels = matmul_kernels(isa);
  const auto packed = packed_memory(kernels.packed_bytes(m, columns));
  kernels.pack(m, x.data(), columns, packed.get());
  std::vector<float> y(static_cast<std::size_t>(m.n * columns), std::numeric_limits<float>::quiet_NaN());
  std::sort(cuts.begin(), cuts.end());
  std::int64_t begin = 0;
  for (const std::int64_t cut : cuts) {
    kernels.rows(m, packed.get(), columns, begin, cut, y.data(), m.n);
    begin = cut;
  }
  kernels.rows(m, packed.get(), columns, begin, m.n, y.data(), m.n);
  return y;
}

/// The largest error of y in units of what may be: 2e-6 of |W| |x| for the sums, and x's rounding.
double worst_error(Isa isa, const Matrix& m, const std::vector<float>& x, int columns, const std::vector<float>& y) {
  const bool rounded = isa == Isa::kAvx512Bf16 && !m.quantized();
  double worst = 0;
  for (int t = 0; t < columns; ++t) {
    const auto steps = half_steps(isa, m, x.data() + t * m.k, columns);
    for (std::int64_t n = 0; n < m.n; ++n) {
      const Sum sum = reference(m, n, x.data() + t * m.k, rounded, steps);
      const double error = std::abs(y[static_cast<std::size_t>(t * m.n + n)] - sum.value);
      const double allowed = 2e-6 * sum.magnitude + sum.rounding;
      if (!(error <= allowed * 1e6)) return std::numeric_limits<double>::infinity();  // also not a number
      if (error > 0) worst = std::max(worst, error / allowed);
    }
  }
  return worst;
}

std::vector<std::int64_t> random_cuts(std::int64_t n, std::mt19937& random) {
  std::vector<std::int64_t> cuts(random() % 4);
  for (auto& cut : cuts) cut = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(n + 1));
  return cuts;
}

}  // namespace

TEST_CASE("matrix products of every instruction set, format, size and number of columns") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const Case& c : cases()) {
      for (const DType scale_dtype : {DType::kBF16, DType::kF16}) {
        if (c.bits == 16 && scale_dtype == DType::kF16) continue;
        const Matrix m = random_matrix(c, scale_dtype, random);
        REQUIRE(supports(m));
        for (const int columns : kColumnCounts) {
          std::vector<float> x(static_cast<std::size_t>(c.k * columns));
          for (float& value : x) value = normal(random);
          x[0] = 300.0F;  // activations have outliers
          const auto y = multiply(isa, m, x, columns);
          CAPTURE(c.bits);
          CAPTURE(c.group_size);
          CAPTURE(c.k);
          CAPTURE(columns);
          CHECK(worst_error(isa, m, x, columns, y) <= 1.0);
          CHECK(y == multiply(isa, m, x, columns, random_cuts(c.n, random)));  // however rows are split
        }
      }
    }
  }
}

TEST_CASE("matrix products of extreme activations") {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  const auto fill = [&](int kind, std::vector<float>& x) {
    for (float& value : x) {
      value = kind == 0   ? 0.0F
              : kind == 1 ? std::numeric_limits<float>::denorm_min() * static_cast<float>(random() % 1000)
              : kind == 2 ? -7.25F
              : kind == 3 ? (random() % 50 == 0 ? 1e4F : normal(random))
              : kind == 4 ? 1e15F * normal(random)
                          : normal(random) * normal(random) * normal(random);
    }
  };
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const Case& c : {Case{4, 64, 21, 704}, Case{4, 32, 21, 672}, Case{8, 64, 21, 704}, Case{16, 0, 21, 700}}) {
      const Matrix m = random_matrix(c, DType::kBF16, random);
      for (int kind = 0; kind < 6; ++kind) {
        for (const int columns : {1, 3, 8, 21}) {
          std::vector<float> x(static_cast<std::size_t>(c.k * columns));
          fill(kind, x);
          const auto y = multiply(isa, m, x, columns);
          CAPTURE(c.bits);
          CAPTURE(kind);
          CAPTURE(columns);
          if (kind == 1) {  // sums of denormal numbers may be rounded to one of them, or be zero
            for (const float value : y) CHECK(std::abs(value) < 1e-30F);
          } else {
            CHECK(worst_error(isa, m, x, columns, y) <= 1.0);
          }
          CHECK(y == multiply(isa, m, x, columns, random_cuts(c.n, random)));
        }
      }
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        for (const int columns : {1, 4, 8, kMaxColumns}) {  // is seen in the column that has it, and in no other
          std::vector<float> x(static_cast<std::size_t>(c.k * columns), 1.0F);
          x[static_cast<std::size_t>(c.k * (columns - 1) + 40)] = bad;
          const auto y = multiply(isa, m, x, columns);
          for (std::size_t i = 0; i < y.size(); ++i) {
            CHECK(std::isfinite(y[i]) == (i < static_cast<std::size_t>(c.n * (columns - 1))));
          }
        }
      }
    }
  }
}

TEST_CASE("the error of a matrix product in relation to its result") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const int bits : {4, 8, 16}) {
      Matrix m = random_matrix({bits, bits == 16 ? 0 : 64, 150, 2048}, DType::kBF16, random);
      if (m.quantized()) {  // centred, as weights are
        const auto* scales = reinterpret_cast<const std::uint16_t*>(m.scales.data);
        OwnedTensor biases = allocate_tensor(DType::kBF16, {m.n, m.k / 64});
        for (std::int64_t i = 0; i < biases.view.size(); ++i) {
          reinterpret_cast<std::uint16_t*>(biases.mutable_data)[i] =
              to_bf16_bits(from_bf16_bits(scales[i]) * -0.5F * static_cast<float>((1 << bits) - 1));
        }
        m.biases = biases.view;
      }
      for (int kind = 0; kind < 3; ++kind) {  // Gaussian; heavy tails; outliers in the same places of every column
        for (const int columns : kColumnCounts) {
          std::vector<float> x(static_cast<std::size_t>(m.k * columns));
          for (std::size_t i = 0; i < x.size(); ++i) {
            x[i] = normal(random) * (kind == 1 ? normal(random) : kind == 2 && i % 97 == 5 ? 30.0F : 1.0F);
          }
          const auto y = multiply(isa, m, x, columns);
          const std::vector<double> unrounded(static_cast<std::size_t>(m.k), 0.0);
          double error = 0, size = 0;
          for (int t = 0; t < columns; ++t) {
            for (std::int64_t n = 0; n < m.n; ++n) {
              const double exact = reference(m, n, x.data() + t * m.k, false, unrounded).value;
              const double difference = y[static_cast<std::size_t>(t * m.n + n)] - exact;
              error += difference * difference;
              size += exact * exact;
            }
          }
          const bool wide = isa == Isa::kAvx512Vnni || isa == Isa::kAvx512Bf16;
          const double allowed = bits == 16 && isa == Isa::kAvx512Bf16 ? 3e-3
                                 : wide && bits == 4 && columns > 4    ? 6.6e-3
                                 : wide && bits != 16                  ? 4e-4
                                                                       : 2e-6;
          CAPTURE(bits);
          CAPTURE(kind);
          CAPTURE(columns);
          CHECK(std::sqrt(error / size) < allowed);
        }
      }
    }
  }
}

TEST_CASE("formats that no kernel reads are told apart") {
  std::mt19937 random(1);
  Matrix m = random_matrix({16, 0, 2, 32}, DType::kBF16, random);
  m.weight.dtype = DType::kF32;
  CHECK_FALSE(supports(m));
  Matrix q = random_matrix({4, 64, 2, 64}, DType::kBF16, random);
  q.scales.dtype = DType::kF32;
  CHECK_FALSE(supports(q));
}

TEST_CASE("PERSONAPLEX_CPU chooses the instruction set, or says which there are") {
  const char* before = std::getenv("PERSONAPLEX_CPU");
  const std::string kept = before == nullptr ? "" : before;
  setenv("PERSONAPLEX_CPU", "portable", 1);
  CHECK(chosen_isa() == Isa::kPortable);
  setenv("PERSONAPLEX_CPU", "abacus", 1);
  CHECK_THROWS_AS(chosen_isa(), DeviceError);
  unsetenv("PERSONAPLEX_CPU");
  CHECK(chosen_isa() == supported_isas().back());
  if (!kept.empty()) setenv("PERSONAPLEX_CPU", kept.c_str(), 1);
}

TEST_CASE("bfloat16 and float16, one value at a time") {
  CHECK(to_bf16_bits(1.0F) == 0x3F80);
  CHECK(to_bf16_bits(std::bit_cast<float>(0x3F808000U)) == 0x3F80);  // a tie goes to even
  CHECK(to_bf16_bits(std::bit_cast<float>(0x3F818000U)) == 0x3F82);
  CHECK(std::isnan(from_bf16_bits(to_bf16_bits(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(from_bf16_bits(to_bf16_bits(std::numeric_limits<float>::infinity())) == std::numeric_limits<float>::infinity());
  CHECK(from_f16_bits(0x3C00) == 1.0F);
  CHECK(from_f16_bits(0x0001) == 0x1p-24F);
  CHECK(from_f16_bits(0xFBFF) == -65504.0F);
}
