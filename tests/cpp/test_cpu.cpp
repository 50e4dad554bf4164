// tests/cpp/test_cpu.cpp: every instruction set's matrix product against the sum in double, and the thread pool.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <thread>
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

/// Ragged sizes on purpose: K not a multiple of a block, N not of anything.
std::vector<Case> cases() {
  std::vector<Case> out;
  for (const std::int64_t k : {32, 64, 96, 128, 192, 576, 704, 1024, 2816}) {
    for (const int bits : {4, 8}) {
      for (const int group : {32, 64}) {
        if (k % group == 0) out.push_back({bits, group, 13, k});
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

struct Sum {
  double value = 0, magnitude = 0;
};

Sum reference(const Matrix& m, std::int64_t n, const float* x, bool rounded) {
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
      sum.value += (scaled + half(m.biases, group)) * value;
      sum.magnitude += (std::abs(scaled) + std::abs(half(m.biases, group))) * std::abs(value);
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

std::vector<float> multiply(Isa isa, const Matrix& m, const std::vector<float>& x, int columns, std::int64_t split) {
  const MatmulKernels& kernels = matmul_kernels(isa);
  const auto packed = packed_memory(kernels.packed_bytes(m, columns));
  kernels.pack(m, x.data(), columns, packed.get());
  std::vector<float> y(static_cast<std::size_t>(m.n * columns), std::numeric_limits<float>::quiet_NaN());
  kernels.rows(m, packed.get(), columns, 0, split, y.data(), m.n);
  kernels.rows(m, packed.get(), columns, split, m.n, y.data(), m.n);
  return y;
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
        for (int columns = 1; columns <= kMaxColumns; ++columns) {
          std::vector<float> x(static_cast<std::size_t>(c.k * columns));
          for (float& value : x) value = normal(random);
          x[0] = 300.0F;  // activations have outliers
          const auto y = multiply(isa, m, x, columns, c.n / 2);
          CHECK(y == multiply(isa, m, x, columns, 0));  // however rows are split
          double worst = 0;
          for (int t = 0; t < columns; ++t) {
            for (std::int64_t n = 0; n < c.n; ++n) {
              const Sum sum = reference(m, n, x.data() + t * c.k, isa == Isa::kAvx512Bf16);
              worst = std::max(worst, std::abs(y[static_cast<std::size_t>(t * c.n + n)] - sum.value) / sum.magnitude);
            }
          }
          CAPTURE(c.bits);
          CAPTURE(c.group_size);
          CAPTURE(c.k);
          CAPTURE(columns);
          CHECK(worst < 1e-6);
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

TEST_CASE("the pool runs every chunk once, whatever the number of threads and chunks") {
  for (const int threads : {1, 2, 3, 5}) {
    Pool pool(threads);
    CHECK(pool.threads() == threads);
    for (int round = 0; round < 300; ++round) {
      const int chunks = round % 37;
      std::vector<std::atomic<int>> hits(static_cast<std::size_t>(chunks) + 1);
      pool.run(chunks, [&](int i) { hits[static_cast<std::size_t>(i)].fetch_add(1); });
      for (int i = 0; i < chunks; ++i) REQUIRE(hits[static_cast<std::size_t>(i)] == 1);
    }
  }
  CHECK(usable_cores() >= 1);
}

TEST_CASE("steps of several threads take turns") {
  Pool pool(2);
  int inside = 0;
  int steps = 0;
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const Pool::Step step(pool);
        CHECK(++inside == 1);
        std::atomic<int> sum{0};
        pool.run(8, [&](int chunk) { sum += chunk; });
        CHECK(sum == 28);
        --inside;
        ++steps;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(steps == 200);
}
