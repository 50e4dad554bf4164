// tests/cpp/test_cpu_gemm.cpp: the codec's products, with every instruction set, against sums in double over the
// weights as int16 and a scale hold them; packing; the search for the nearest codeword.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/bf16.h"
#include "core/error.h"
#include "cpu/gemm.h"

using namespace personaplex;
using namespace personaplex::cpu;

namespace {

using Doubles = std::vector<double>;
using Floats = std::vector<float>;

double value_at(const TensorView& t, std::int64_t i) {
  if (t.dtype == DType::kF32) return reinterpret_cast<const float*>(t.data)[i];
  const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(t.data)[i];
  return t.dtype == DType::kF16 ? from_f16_bits(bits) : from_bf16_bits(bits);
}

/// What int16 and a common float32 scale make of float32 values.
Doubles held(Doubles values) {
  double largest = 0.0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  const float scale = static_cast<float>(largest) / 32767.0F;
  for (double& value : values) {
    value = scale == 0.0F ? 0.0 : std::nearbyint(static_cast<float>(value) / scale) * double{scale};
  }
  return values;
}

/// Random values; those of F16 have any bits of a magnitude under 4.
TensorView random_tensor(DType dtype, std::vector<std::int64_t> shape, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal;
  OwnedTensor t = allocate_tensor(dtype, std::move(shape));
  for (std::int64_t i = 0; i < t.view.size(); ++i) {
    if (dtype == DType::kF32) reinterpret_cast<float*>(t.mutable_data)[i] = scale * normal(random);
    auto* halves = reinterpret_cast<std::uint16_t*>(t.mutable_data);
    if (dtype == DType::kBF16) halves[i] = to_bf16_bits(scale * normal(random));
    if (dtype == DType::kF16) halves[i] = static_cast<std::uint16_t>(random() & 0xC3FFU);
  }
  return t.view;
}

Floats random_floats(std::size_t count, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal;
  Floats out(count);
  for (float& x : out) x = scale * normal(random);
  return out;
}

/// A convolution of [n, channels, taps] over `rows` windows.
struct Case {
  int rows, channels, n, taps, dilation, stride;
  DType dtype = DType::kF32;

  Windows windows(const Floats& x) const { return {x.data(), stride * channels, dilation * channels}; }
  std::size_t input() const {
    return static_cast<std::size_t>(((rows - 1) * stride + (taps - 1) * dilation + 1) * channels);
  }
  std::size_t output() const { return static_cast<std::size_t>(rows * n); }
};

/// Ragged in every direction, and the sizes that Mimi has. Blocks have 6 or 12 rows, panels 32 outputs.
const Case kCases[] = {
    {1, 1, 1, 1, 1, 1},
    {1, 512, 96, 1, 1, 1},
    {2, 512, 64, 1, 1, 1, DType::kBF16},
    {2, 100, 40, 1, 1, 1, DType::kF16},
    {3, 7, 33, 3, 1, 1},
    {5, 33, 70, 2, 3, 1},
    {7, 3, 1, 3, 1, 1},
    {12, 16, 8, 3, 1, 1},
    {13, 24, 16, 3, 2, 1, DType::kF16},
    {14, 9, 32, 4, 1, 2},
    {23, 5, 65, 7, 4, 3, DType::kBF16},
    {25, 1, 64, 7, 1, 1},
    {50, 24, 1, 7, 1, 1},
    {31, 37, 1, 3, 2, 1, DType::kF16},
    {96, 32, 64, 1, 1, 1},
    {60, 64, 32, 3, 1, 1},
    {16, 256, 40, 12, 1, 6},
    {2, 512, 48, 16, 1, 8},
    {1, 512, 512, 4, 1, 2},
};

Conv random_conv(const Case& c, std::mt19937& random) {
  const auto scale = static_cast<float>(1.0 / std::sqrt(c.channels * c.taps));
  return {random_tensor(c.dtype, {c.n, c.channels, c.taps}, scale, random),
          random_tensor(c.dtype == DType::kF16 ? DType::kBF16 : c.dtype, {c.n}, 1.0F, random)};
}

Doubles expected(const Case& c, const Conv& conv, const Floats& x) {
  Doubles y(c.output());
  const std::int64_t k = c.channels * c.taps;
  for (int n = 0; n < c.n; ++n) {
    Doubles row;
    for (std::int64_t i = 0; i < k; ++i) row.push_back(value_at(conv.weight, n * k + i));
    row = held(row);
    for (int m = 0; m < c.rows; ++m) {
      double sum = conv.bias.empty() ? 0.0 : value_at(conv.bias, n);
      for (int t = 0; t < c.taps; ++t) {
        for (int i = 0; i < c.channels; ++i) {
          sum += row[static_cast<std::size_t>(i * c.taps + t)] *
                 x[static_cast<std::size_t>((m * c.stride + t * c.dilation) * c.channels + i)];
        }
      }
      y[static_cast<std::size_t>(m * c.n + n)] = sum;
    }
  }
  return y;
}

double elu_of(double y) { return y > 0.0 ? y : std::expm1(y); }
double gelu_of(double y) { return 0.5 * y * std::erfc(-y * std::sqrt(0.5)); }

double relative_error(const Floats& got, const Doubles& want) {
  REQUIRE(got.size() == want.size());
  double error = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  if (norm == 0.0) return error == 0.0 ? 0.0 : std::numeric_limits<double>::infinity();
  return std::sqrt(error / norm);
}

Floats raw_result(const GemmKernels& kernels, const Case& c, const Panels& w, const Floats& x) {
  Floats y(c.output(), std::nanf(""));
  GemmOutput out;
  out.raw = y.data();
  out.stride = c.n;
  kernels.run(w, c.windows(x), c.rows, out, 0, kernels.tiles(w, c.rows));
  return y;
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("products of every shape and instruction set are within 1e-5") {
  std::mt19937 random(1);
  for (const Case& c : kCases) {
    CAPTURE(c.rows);
    CAPTURE(c.channels);
    CAPTURE(c.n);
    CAPTURE(c.taps);
    const Conv conv = random_conv(c, random);
    const Panels w = pack_conv(conv);
    const Floats x = random_floats(c.input(), 1.0F, random);
    const Doubles want = expected(c, conv, x);
    for (const Isa isa : supported_isas()) {
      CAPTURE(std::string(name_of(isa)));
      CHECK(relative_error(raw_result(gemm_kernels(isa), c, w, x), want) < 1e-5);
    }
  }
}

TEST_CASE("a linear layer has no bias and may be a 1x1 convolution") {
  std::mt19937 random(2);
  const Case c{4, 50, 45, 1, 1, 1};
  Conv conv{random_tensor(DType::kF32, {c.n, c.channels, 1}, 0.1F, random), {}};
  const Floats x = random_floats(c.input(), 1.0F, random);
  const Doubles want = expected(c, conv, x);
  const Panels kernel = pack_linear(conv.weight);
  conv.weight.shape = {c.n, c.channels};
  const Panels matrix = pack_linear(conv.weight);
  CHECK(matrix.bias == nullptr);
  CHECK(matrix.nbytes() == 2 * 32 * 50 * 2 + 45 * 4);
  for (const Isa isa : supported_isas()) {
    const Floats y = raw_result(gemm_kernels(isa), c, matrix, x);
    CHECK(relative_error(y, want) < 1e-5);
    CHECK(same_bits(y, raw_result(gemm_kernels(isa), c, kernel, x)));
  }
}

TEST_CASE("a transposed convolution equals overlap-add") {
  struct Shape {
    int in, out, stride, columns;
  };
  std::mt19937 random(3);
  for (const Shape& s : {Shape{6, 5, 3, 4}, Shape{16, 8, 8, 3}, Shape{33, 16, 2, 17}, Shape{4, 1, 1, 5},
                         Shape{64, 32, 4, 30}, Shape{3, 40, 5, 1}}) {
    CAPTURE(s.in);
    const int kernel = 2 * s.stride;
    const Conv conv{random_tensor(DType::kF32, {s.in, s.out, kernel}, 0.3F, random),
                    random_tensor(DType::kF32, {s.out}, 1.0F, random)};
    // Column 0 is the one before; every column reaches its own stride outputs and the next column's.
    const Floats x = random_floats(static_cast<std::size_t>((s.columns + 1) * s.in), 1.0F, random);
    Doubles spread(static_cast<std::size_t>((s.columns + 2) * s.stride * s.out));
    for (int o = 0; o < s.out; ++o) {
      for (int t = 0; t < s.stride; ++t) {
        // Places t and t + stride of all input channels belong to one output of the product, and share a scale.
        Doubles shared;
        for (int i = 0; i < s.in; ++i) {
          for (const int at : {t, t + s.stride}) {
            shared.push_back(value_at(conv.weight, (i * s.out + o) * kernel + at));
          }
        }
        shared = held(shared);
        for (int column = 0; column <= s.columns; ++column) {
          for (int half = 0; half < 2; ++half) {
            double& to = spread[static_cast<std::size_t>((column * s.stride + t + half * s.stride) * s.out + o)];
            for (int i = 0; i < s.in; ++i) {
              to += shared[static_cast<std::size_t>(2 * i + half)] * x[static_cast<std::size_t>(column * s.in + i)];
            }
          }
        }
      }
    }
    Doubles want(spread.begin() + s.stride * s.out, spread.end() - s.stride * s.out);
    for (std::size_t i = 0; i < want.size(); ++i) {
      want[i] += value_at(conv.bias, static_cast<std::int64_t>(i) % s.out);
    }
    const Panels w = pack_conv_transpose(conv, s.stride);
    const Case as_conv{s.columns, s.in, s.stride * s.out, 2, 1, 1};
    for (const Isa isa : supported_isas()) {
      CAPTURE(std::string(name_of(isa)));
      CHECK(relative_error(raw_result(gemm_kernels(isa), as_conv, w, x), want) < 1e-5);
    }
  }
}

TEST_CASE("scale, residual, ELU and GELU are applied to the result; the residual may be the result's place") {
  std::mt19937 random(4);
  for (const Case& c : {Case{9, 20, 37, 1, 1, 1}, Case{30, 8, 1, 3, 1, 1}, Case{14, 16, 64, 3, 2, 1}}) {
    const Conv conv = random_conv(c, random);
    const Panels w = pack_conv(conv);
    const Floats x = random_floats(c.input(), 2.0F, random);
    const Doubles product = expected(c, conv, x);
    const std::int64_t stride = c.n + 5;
    const auto size = static_cast<std::size_t>(c.rows * stride);
    const Floats scale = random_floats(static_cast<std::size_t>(c.n), 1.0F, random);
    const Floats residual = random_floats(size, 1.0F, random);
    for (const Isa isa : supported_isas()) {
      const GemmKernels& kernels = gemm_kernels(isa);
      for (int variant = 0; variant < 8; ++variant) {
        const bool scaled = (variant & 1) != 0;
        const bool added = (variant & 2) != 0;
        const bool aliased = (variant & 4) != 0;
        CAPTURE(std::string(name_of(isa)));
        CAPTURE(variant);
        Floats raw = aliased ? residual : Floats(size, 7.0F);
        const Floats before = raw;
        Floats elu(size, 7.0F);
        Floats gelu(size, 7.0F);
        GemmOutput out{added ? (aliased ? raw.data() : residual.data()) : nullptr,
                       scaled ? scale.data() : nullptr,
                       raw.data(),
                       elu.data(),
                       gelu.data(),
                       stride};
        kernels.run(w, c.windows(x), c.rows, out, 0, kernels.tiles(w, c.rows));
        double worst = 0.0;
        for (int m = 0; m < c.rows; ++m) {
          for (std::int64_t n = 0; n < stride; ++n) {
            const auto at = static_cast<std::size_t>(m * stride + n);
            if (n >= c.n) {  // between the rows
              CHECK(raw[at] == before[at]);
              CHECK(elu[at] == 7.0F);
              CHECK(gelu[at] == 7.0F);
              continue;
            }
            double y = product[static_cast<std::size_t>(m * c.n + n)];
            if (scaled) y *= scale[static_cast<std::size_t>(n)];
            if (added) y += residual[at];
            const double bound = 2e-6 + 1e-5 * std::abs(y);
            worst = std::max({worst, std::abs(raw[at] - y) / bound, std::abs(elu[at] - elu_of(y)) / bound,
                              std::abs(gelu[at] - gelu_of(y)) / bound});
          }
        }
        CHECK(worst < 1.0);
        // What is not wanted is not needed: ELU alone is the same.
        Floats alone(size, 7.0F);
        const Floats again = residual;
        out.residual = added ? again.data() : nullptr;
        out.raw = out.gelu = nullptr;
        out.elu = alone.data();
        kernels.run(w, c.windows(x), c.rows, out, 0, kernels.tiles(w, c.rows));
        CHECK(same_bits(alone, elu));
      }
    }
  }
}

TEST_CASE("bits depend neither on how tiles are split nor on the number of rows") {
  std::mt19937 random(5);
  // Several tiles of rows: with weights that stay in a cache, with more of them, and with one output.
  for (const Case& c : {Case{300, 32, 70, 3, 1, 1}, Case{40, 2048, 70, 1, 1, 1}, Case{1500, 64, 1, 3, 1, 1},
                        Case{29, 10, 40, 2, 2, 1}}) {
    CAPTURE(c.rows);
    const Panels w = pack_conv(random_conv(c, random));
    const Floats x = random_floats(c.input(), 1.0F, random);
    for (const Isa isa : supported_isas()) {
      CAPTURE(std::string(name_of(isa)));
      const GemmKernels& kernels = gemm_kernels(isa);
      const int tiles = kernels.tiles(w, c.rows);
      if (c.rows >= 40) CHECK(tiles > w.count());
      const Floats whole = raw_result(kernels, c, w, x);
      Floats pieces(c.output(), std::nanf(""));
      GemmOutput out;
      out.raw = pieces.data();
      out.stride = c.n;
      for (int end = tiles; end > 0;) {
        const int begin = std::max(0, end - 1 - static_cast<int>(random() % 4));
        kernels.run(w, c.windows(x), c.rows, out, begin, end);
        end = begin;
      }
      CHECK(same_bits(whole, pieces));
      for (int rows = 1; rows < std::min(c.rows, 30); ++rows) {
        Case fewer = c;
        fewer.rows = rows;
        const Floats first(whole.begin(), whole.begin() + rows * c.n);
        CHECK(same_bits(first, raw_result(kernels, fewer, w, x)));
      }
    }
  }
}

TEST_CASE("large and tiny activations and weights") {
  std::mt19937 random(6);
  const Case c{15, 40, 50, 3, 1, 1};
  for (const float x_scale : {1e4F, 1.0F, 1e-30F, 0.0F}) {
    for (const float w_scale : {1e4F, 1e-6F}) {
      const Conv conv{random_tensor(DType::kF32, {c.n, c.channels, c.taps}, w_scale, random), {}};
      const Panels w = pack_conv(conv);
      const Floats x = random_floats(c.input(), x_scale, random);
      const Doubles want = expected(c, conv, x);
      for (const Isa isa : supported_isas()) {
        CAPTURE(std::string(name_of(isa)));
        CAPTURE(x_scale);
        CAPTURE(w_scale);
        CHECK(relative_error(raw_result(gemm_kernels(isa), c, w, x), want) < 1e-5);
      }
    }
  }
  for (const Isa isa : supported_isas()) {  // ELU of what overflows exp, and of denormals
    const Panels one = pack_linear(random_tensor(DType::kF16, {32, 1}, 1.0F, random));
    for (const float x : {1e4F, -1e4F, 1e-40F, -1e-40F}) {
      Floats raw(32), elu(32), gelu(32);
      GemmOutput out;
      out.raw = raw.data();
      out.elu = elu.data();
      out.gelu = gelu.data();
      out.stride = 32;
      gemm_kernels(isa).run(one, {&x, 1, 1}, 1, out, 0, 1);
      for (std::size_t i = 0; i < 32; ++i) {
        const double y = raw[i];
        const double bound = 2e-6 + 1e-6 * std::abs(y);
        CHECK(std::abs(elu[i] - elu_of(y)) < bound);
        CHECK(std::abs(gelu[i] - gelu_of(y)) < bound);
      }
    }
  }
}

TEST_CASE("weights are rounded to the nearest integer, ties to even; the largest of an output is 32767") {
  std::mt19937 random(8);
  const int k = 67;  // ragged, the last panel too
  const int n = 90;
  OwnedTensor t = allocate_tensor(DType::kF32, {n, k});
  auto* values = reinterpret_cast<float*>(t.mutable_data);
  std::vector<int> want(static_cast<std::size_t>(n * k));
  Floats scales;
  for (int row = 0; row < n; ++row) {
    const float scale = row == 3    ? 0.0F
                        : row == 40 ? 0x1p-126F
                        : row == 41 ? 0x1p112F
                                    : std::ldexp(1.0F, row % 30 - 20);
    scales.push_back(scale);
    for (int i = 0; i < k; ++i) {
      const int at = row * k + i;
      const int code = i == row % k ? (row % 2 == 0 ? 32767 : -32767) : static_cast<int>(random() % 65533) - 32766;
      const int quarter = i == row % k ? 0 : static_cast<int>(random() % 4);  // half: to the even neighbour
      want[static_cast<std::size_t>(at)] = quarter < 2 ? code : quarter > 2 || code % 2 != 0 ? code + 1 : code;
      values[at] = scale * (static_cast<float>(code) + 0.25F * static_cast<float>(quarter));
    }
  }
  const Panels w = pack_linear(t.view);
  const Codewords table = pack_codewords(t.view);
  CHECK(table.bins == n);
  CHECK(table.d == k);
  std::int64_t wrong = 0;
  for (int row = 0; row < w.count() * 32; ++row) {
    for (int i = 0; i < k; ++i) {
      const bool empty = row >= n || row == 3;
      const int integer = empty ? 0 : want[static_cast<std::size_t>(row * k + i)];
      if (w.weights.get()[(row / 32 * k + i) * 32 + row % 32] != integer) ++wrong;
      if (row < n && table.at(row, i) != static_cast<float>(integer) * scales[static_cast<std::size_t>(row)]) ++wrong;
    }
    if (row < n && w.scales.get()[row] != scales[static_cast<std::size_t>(row)]) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("weights next to nothing become 0") {
  OwnedTensor t = allocate_tensor(DType::kF32, {2, 3});
  std::fill_n(reinterpret_cast<float*>(t.mutable_data), 6, 1e-35F);
  const Panels w = pack_linear(t.view);
  CHECK(w.scales.get()[1] == 0.0F);
  CHECK(std::all_of(w.weights.get(), w.weights.get() + 96, [](int value) { return value == 0; }));
}

TEST_CASE("weights that are not finite are errors") {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::nanf(""), -std::nanf("")}) {
    OwnedTensor t = allocate_tensor(DType::kF32, {3, 4, 2});
    reinterpret_cast<float*>(t.mutable_data)[23] = bad;
    CHECK_THROWS_WITH_AS(pack_conv({t.view, {}}), doctest::Contains("expected finite weights in [3, 4, 2]"),
                         WeightsError);
    CHECK_THROWS_AS(pack_conv_transpose({t.view, {}}, 1), WeightsError);
    TensorView table = t.view;
    table.shape = {3, 8};
    CHECK_THROWS_AS(pack_codewords(table), WeightsError);
    reinterpret_cast<float*>(t.mutable_data)[23] = std::numeric_limits<float>::max();
    CHECK_NOTHROW(pack_conv({t.view, {}}));
  }
  const TensorView integers = allocate_tensor(DType::kI32, {3, 4}).view;
  CHECK_THROWS_AS(pack_linear(integers), std::invalid_argument);
  CHECK_THROWS_AS(pack_conv({integers, {}}), std::invalid_argument);
  CHECK_THROWS_AS(pack_conv_transpose({allocate_tensor(DType::kF32, {3, 4, 5}).view, {}}, 2), std::invalid_argument);
}

TEST_CASE("the nearest codeword; of equal ones the first, whatever the split") {
  std::mt19937 random(7);
  for (const int d : {1, 5, 17, 64, 256}) {
    for (const int bins : {1, 7, 100}) {
      CAPTURE(d);
      CAPTURE(bins);
      OwnedTensor t = allocate_tensor(DType::kF32, {bins, d});
      auto* values = reinterpret_cast<float*>(t.mutable_data);
      std::ranges::copy(random_floats(static_cast<std::size_t>(bins * d), 1.0F, random), values);
      if (bins == 100) {  // 98 and 60 are copies of 20
        for (const int copy : {98, 60}) std::copy_n(values + 20 * d, d, values + copy * d);
      }
      const Codewords table = pack_codewords(t.view);
      for (int trial = 0; trial < 20; ++trial) {
        Floats x = random_floats(static_cast<std::size_t>(d), 1.0F, random);
        if (trial < 5) {  // a codeword itself: hardly any distance
          const int of = bins == 100 ? 98 : 0;
          for (int i = 0; i < d; ++i) x[static_cast<std::size_t>(i)] = table.at(of, i);
        }
        double smallest = std::numeric_limits<double>::infinity();
        Doubles exact(static_cast<std::size_t>(bins));
        for (int b = 0; b < bins; ++b) {
          for (int i = 0; i < d; ++i) {
            const double value = double{table.scales.get()[b]} * table.values.get()[b * d + i];
            const double difference = value - x[static_cast<std::size_t>(i)];
            exact[static_cast<std::size_t>(b)] += difference * difference;
          }
          smallest = std::min(smallest, exact[static_cast<std::size_t>(b)]);
        }
        for (const Isa isa : supported_isas()) {
          CAPTURE(std::string(name_of(isa)));
          const GemmKernels& kernels = gemm_kernels(isa);
          float distance = -1.0F;
          int index = -1;
          kernels.nearest(table, x.data(), 0, bins, &distance, &index);
          REQUIRE(index >= 0);
          REQUIRE(index < bins);
          CHECK(index != 60);
          CHECK(index != 98);
          CHECK(exact[static_cast<std::size_t>(index)] <= smallest * (1 + 1e-5) + 1e-12);
          CHECK(distance == doctest::Approx(exact[static_cast<std::size_t>(index)]).epsilon(1e-5));
          if (trial < 5 && d > 1) CHECK(index == (bins == 100 ? 20 : 0));
          // In pieces, of which an earlier one wins where they are equal.
          float best = std::numeric_limits<float>::infinity();
          int at = 0;
          for (int begin = 0; begin < bins;) {
            const int end = std::min(bins, begin + 1 + static_cast<int>(random() % 30));
            float piece_distance = 0.0F;
            int piece_index = 0;
            kernels.nearest(table, x.data(), begin, end, &piece_distance, &piece_index);
            if (piece_distance < best) {
              best = piece_distance;
              at = piece_index;
            }
            begin = end;
          }
          CHECK(best == distance);
          CHECK(at == index);
        }
      }
    }
  }
}
