// tests/cpp/test_cpu_pointwise.cpp: every instruction set's pointwise kernels against double, at ragged sizes and with
// extreme values.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "checkpoint/bf16.h"
#include "cpu/isa.h"
#include "cpu/pointwise.h"

using namespace personaplex;
using namespace personaplex::cpu;

namespace {

constexpr std::int64_t kSizes[] = {1, 3, 7, 8, 15, 16, 17, 63, 4096 + 5};
constexpr double kUlp = 0x1p-23;
constexpr float kSmallest = std::numeric_limits<float>::min();  // that is not a denormal

using Vector = std::vector<float>;

Vector random_vector(std::int64_t n, float scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Vector v(static_cast<std::size_t>(n));
  for (float& x : v) x = scale * normal(random);
  return v;
}

/// All finite values that a kernel could trip over, then a fine grid, with `n` values in all.
Vector awkward_values(std::int64_t n) {
  Vector v = {0.0F,  -0.0F,  1e4F,  -1e4F,  88.9F, -88.9F, -104.0F, 104.0F, 1e-40F, -1e-40F, kSmallest, -kSmallest,
              87.3F, -87.4F, 1e30F, -1e30F, 1.0F,  -1.0F,  0.5F,    1e-4F,  -1e-4F, 5.9F,    -5.9F};
  for (int i = 0; v.size() < static_cast<std::size_t>(n); ++i) v.push_back(-20.0F + 0.01F * static_cast<float>(i));
  v.resize(static_cast<std::size_t>(n));
  return v;
}

/// The first value that is off by more than `relative` of it and more than `absolute`; -1 where there is none.
template <typename Exact>
std::int64_t first_wrong(const Vector& got, double relative, double absolute, const Exact& exact) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double want = exact(i);
    // Not written as >, so that NaN is wrong.
    if (!(std::abs(got[i] - want) <= std::max(absolute, relative * std::abs(want)))) {
      MESSAGE("value " << i << ": got " << got[i] << ", expected " << want);
      return static_cast<std::int64_t>(i);
    }
  }
  return -1;
}

double exact_silu(double x) { return x / (1.0 + std::exp(-x)); }
double exact_gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

template <typename Check>
void for_all(const Check& check) {
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const std::int64_t n : kSizes) {
      CAPTURE(n);
      check(pointwise_kernels(isa), n);
    }
  }
}

}  // namespace

TEST_CASE("activations: gelu within 1e-6, elu and swiglu within a few units in the last place") {
  for_all([](const PointwiseKernels& kernels, std::int64_t n) {
    const Vector x = awkward_values(n);
    Vector out(x.size());
    kernels.gelu(x.data(), n, out.data());
    CHECK(first_wrong(out, kUlp, 1e-6, [&](std::size_t i) { return exact_gelu(x[i]); }) == -1);

    kernels.elu(x.data(), n, out.data());
    CHECK(first_wrong(out, 0, 2 * kUlp, [&](std::size_t i) { return x[i] > 0 ? x[i] : std::exp(double{x[i]}) - 1; }) ==
          -1);

    const Vector value = random_vector(n, 1.0F, 2);
    kernels.swiglu(x.data(), value.data(), n, out.data());
    CHECK(first_wrong(out, 8 * kUlp, 1e-37, [&](std::size_t i) { return exact_silu(x[i]) * value[i]; }) == -1);

    Vector in_place = x;
    kernels.swiglu(in_place.data(), value.data(), n, in_place.data());
    CHECK(in_place == out);
    kernels.gelu(x.data(), n, out.data());
    in_place = x;
    kernels.gelu(in_place.data(), n, in_place.data());
    CHECK(in_place == out);
    kernels.elu(x.data(), n, out.data());
    in_place = x;
    kernels.elu(in_place.data(), n, in_place.data());
    CHECK(in_place == out);
  });
}

TEST_CASE("e^x is within 2 units in the last place, as swiglu shows where it is small") {
  // silu(x) = x e^x / (1 + e^x), and for x < -20 the denominator is 1: two more roundings.
  for_all([](const PointwiseKernels& kernels, std::int64_t n) {
    Vector x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = -20.0F - 63.0F * static_cast<float>(i) / static_cast<float>(n);
    const Vector one(x.size(), 1.0F);
    Vector out(x.size());
    kernels.swiglu(x.data(), one.data(), n, out.data());
    CHECK(first_wrong(out, 3 * kUlp, 0, [&](std::size_t i) { return exact_silu(x[i]); }) == -1);
  });
}

TEST_CASE("activations: a value's result does not depend on where it is") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    const PointwiseKernels& kernels = pointwise_kernels(isa);
    const std::int64_t n = 133;
    const Vector x = random_vector(n, 3.0F, 4);
    Vector whole(x.size()), split(x.size());
    for (const auto function : {kernels.gelu, kernels.elu}) {
      function(x.data(), n, whole.data());
      for (std::int64_t i = 0; i < n; i += 19)
        function(x.data() + i, std::min<std::int64_t>(19, n - i), split.data() + i);
      CHECK(split == whole);
    }
    kernels.swiglu(x.data(), x.data(), n, whole.data());
    for (std::int64_t i = 0; i < n; ++i) kernels.swiglu(x.data() + i, x.data() + i, 1, split.data() + i);
    CHECK(split == whole);
  }
}

TEST_CASE("norms") {
  for_all([](const PointwiseKernels& kernels, std::int64_t n) {
    const Vector weight = random_vector(n, 1.0F, 2);
    const Vector bias = random_vector(n, 1.0F, 3);
    for (const float scale : {1.0F, 1e4F, 1e-4F, 0.0F, 1e-40F}) {
      CAPTURE(scale);
      Vector x = random_vector(n, scale, 1);
      if (scale == 1.0F) x[0] = 300.0F;  // activations have outliers
      double mean = 0, squares = 0, variance = 0;
      for (const float v : x) mean += v / static_cast<double>(n);
      for (const float v : x) squares += double{v} * v / static_cast<double>(n);
      for (const float v : x) variance += (v - mean) * (v - mean) / static_cast<double>(n);

      Vector out(x.size());
      kernels.rms_norm(x.data(), weight.data(), n, out.data());
      CHECK(first_wrong(out, 2e-6, 1e-37,
                        [&](std::size_t i) { return x[i] / std::sqrt(squares + 1e-8) * weight[i]; }) == -1);
      Vector in_place = x;
      kernels.rms_norm(in_place.data(), weight.data(), n, in_place.data());
      CHECK(in_place == out);

      kernels.layer_norm(x.data(), weight.data(), bias.data(), n, out.data());
      CHECK(first_wrong(out, 2e-6, 4e-6, [&](std::size_t i) {
              return (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + bias[i];
            }) == -1);
      in_place = x;
      kernels.layer_norm(in_place.data(), weight.data(), bias.data(), n, in_place.data());
      CHECK(in_place == out);
    }
  });
}

TEST_CASE("additions, with and without a scale") {
  for_all([](const PointwiseKernels& kernels, std::int64_t n) {
    const Vector x = awkward_values(n);
    const Vector y = random_vector(n, 2.0F, 1);
    const Vector scale = random_vector(n, 0.1F, 2);
    Vector out = x;
    kernels.add(out.data(), y.data(), nullptr, n);
    CHECK(first_wrong(out, kUlp / 2, 0, [&](std::size_t i) { return double{x[i]} + y[i]; }) == -1);
    out = x;
    kernels.add(out.data(), y.data(), scale.data(), n);
    CHECK(first_wrong(out, kUlp, 1e-7, [&](std::size_t i) { return double{x[i]} + double{scale[i]} * y[i]; }) == -1);
  });
}

TEST_CASE("rotation of interleaved pairs") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const int half : {1, 3, 8, 17, 32, 64, 65}) {
      CAPTURE(half);
      const Vector x = random_vector(2 * half, 1.0F, 1);
      Vector cosines, sines;
      for (int i = 0; i < half; ++i) {
        cosines.push_back(static_cast<float>(std::cos(0.37 * i)));
        sines.push_back(static_cast<float>(std::sin(0.37 * i)));
      }
      Vector out = x;
      pointwise_kernels(isa).rope(out.data(), cosines.data(), sines.data(), half);
      CHECK(first_wrong(out, 0, 1e-6, [&](std::size_t i) {
              const double even = x[i / 2 * 2];
              const double odd = x[i / 2 * 2 + 1];
              const double c = cosines[i / 2];
              const double s = sines[i / 2];
              return i % 2 == 0 ? even * c - odd * s : even * s + odd * c;
            }) == -1);
    }
  }
}

TEST_CASE("rows of an embedding table, in every format") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  constexpr std::int64_t kRows = 5;
  for (const std::int64_t k : {32, 64, 96, 192, 4096}) {
    for (const int bits : {4, 8, 16}) {
      for (const int group : {32, 64}) {
        for (const bool half : {false, true}) {
          if (bits == 16 ? group == 64 || half : k % group != 0) continue;
          CAPTURE(k);
          CAPTURE(bits);
          CAPTURE(group);
          CAPTURE(half);
          Matrix m;
          m.n = kRows;
          m.k = bits == 16 ? k - 5 : k;
          m.bits = bits;
          m.group_size = bits == 16 ? 0 : group;
          // In memory of exactly their size.
          std::vector<std::uint16_t> halves(static_cast<std::size_t>(kRows * m.k));
          std::vector<std::uint32_t> words(static_cast<std::size_t>(kRows * k * bits / 32));
          std::vector<std::uint16_t> scales(static_cast<std::size_t>(kRows * k / group)), biases(scales.size());
          for (auto& v : halves) v = to_bf16_bits(normal(random));
          for (auto& v : words) v = static_cast<std::uint32_t>(random());
          // float16 of the same exponents: 2^-6 to 2^-4, and -1 to -2.
          for (auto& v : scales)
            v = half ? static_cast<std::uint16_t>(0x2400U + random() % 0x800U) : to_bf16_bits(0.05F);
          for (auto& v : biases)
            v = half ? static_cast<std::uint16_t>(0xBC00U + random() % 0x400U) : to_bf16_bits(-1.3F);
          const auto view = [](const void* data, DType dtype) {
            TensorView t;
            t.dtype = dtype;
            t.data = static_cast<const std::byte*>(data);
            return t;
          };
          m.weight = bits == 16 ? view(halves.data(), DType::kBF16) : view(words.data(), DType::kU32);
          if (bits < 16) {
            m.scales = view(scales.data(), half ? DType::kF16 : DType::kBF16);
            m.biases = view(biases.data(), half ? DType::kF16 : DType::kBF16);
          }
          for (const Isa isa : supported_isas()) {
            CAPTURE(name_of(isa));
            for (const std::int64_t row : {std::int64_t{0}, kRows - 1}) {
              const Vector x = random_vector(m.k, 1.0F, 3);
              Vector out = x;
              pointwise_kernels(isa).add_row(m, row, out.data());
              CHECK(first_wrong(out, kUlp, 1e-6, [&](std::size_t i) {
                      const auto at = static_cast<std::size_t>(row * m.k) + i;
                      if (bits == 16) return x[i] + double{from_bf16_bits(halves[at])};
                      const std::size_t per_word = 32U / static_cast<unsigned>(bits);
                      const std::uint32_t q =
                          (words[at / per_word] >> (static_cast<unsigned>(bits) * (at % per_word))) &
                          ((1U << static_cast<unsigned>(bits)) - 1U);
                      const std::size_t g = at / static_cast<std::size_t>(group);
                      const double scale = half ? from_f16_bits(scales[g]) : from_bf16_bits(scales[g]);
                      const double bias = half ? from_f16_bits(biases[g]) : from_bf16_bits(biases[g]);
                      return x[i] + scale * q + bias;
                    }) == -1);
            }
          }
        }
      }
    }
  }
}
