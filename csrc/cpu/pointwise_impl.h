// csrc/cpu/pointwise_impl.h: pointwise.h for any instruction set S of simd.h.
#pragma once

#include "cpu/pointwise.h"

namespace personaplex::cpu {

/// kWidth lanes, and the first n of them: an operation is written once for the body of a loop and its remainder.
template <class S>
struct AllLanes {
  PERSONAPLEX_INLINE typename S::Vec load(const float* p) const { return S::load(p); }
  PERSONAPLEX_INLINE typename S::Vec load_bf16(const std::uint16_t* p) const { return S::load_bf16(p); }
  PERSONAPLEX_INLINE void store(float* p, typename S::Vec v) const { S::store(p, v); }
};
template <class S>
struct FirstLanes {
  int n;
  PERSONAPLEX_INLINE typename S::Vec load(const float* p) const { return S::load_n(p, n); }
  PERSONAPLEX_INLINE typename S::Vec load_bf16(const std::uint16_t* p) const { return S::load_bf16_n(p, n); }
  PERSONAPLEX_INLINE void store(float* p, typename S::Vec v) const { S::store_n(p, v, n); }
};

/// Calls op(lanes, i) for every kWidth of n values.
template <class S, class Op>
PERSONAPLEX_INLINE void for_lanes(std::int64_t n, Op& op) {
  std::int64_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth) op(AllLanes<S>{}, i);
  if (i < n) op(FirstLanes<S>{static_cast<int>(n - i)}, i);
}

/// Sum of (x - mean)^2: four sums side by side, for the latency of an addition.
template <class S>
struct SumOfSquares {
  const float* x;
  typename S::Vec mean;
  typename S::Vec sums[4] = {S::zero(), S::zero(), S::zero(), S::zero()};

  PERSONAPLEX_INLINE float over(std::int64_t n) {
    const std::int64_t vectors = n / S::kWidth;
    std::int64_t v = 0;
    for (; v + 4 <= vectors; v += 4) {
      for (int j = 0; j < 4; ++j) take(j, S::sub(S::load(x + (v + j) * S::kWidth), mean));
    }
    for (; v < vectors; ++v) take(0, S::sub(S::load(x + v * S::kWidth), mean));
    const int rest = static_cast<int>(n - v * S::kWidth);
    float last[S::kWidth] = {};
    S::store_n(last, S::sub(S::load_n(x + v * S::kWidth, rest), mean), rest);
    take(1, S::load(last));
    return S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
  }
  PERSONAPLEX_INLINE void take(int j, typename S::Vec d) { sums[j] = S::fma(d, d, sums[j]); }
};

template <class S>
struct Sum {
  const float* x;
  typename S::Vec sum = S::zero();
  template <class Lanes>
  PERSONAPLEX_INLINE void operator()(Lanes lanes, std::int64_t i) {
    sum = S::add(sum, lanes.load(x + i));
  }
};

template <class S>
struct RmsNorm {
  const float* x;
  const float* alpha;
  typename S::Vec factor;
  float* out;
  template <class Lanes>
  PERSONAPLEX_INLINE void operator()(Lanes lanes, std::int64_t i) const {
    lanes.store(out + i, S::mul(S::mul(lanes.load(x + i), factor), lanes.load(alpha + i)));
  }
};

template <class S>
void rms_norm(const float* x, const float* alpha, std::int64_t n, float* out) {
  SumOfSquares<S> squares{x, S::zero()};
  const float factor = 1.0F / std::sqrt(squares.over(n) / static_cast<float>(n) + 1e-8F);
  RmsNorm<S> op{x, alpha, S::set1(factor), out};
  for_lanes<S>(n, op);
}

template <class S>
struct LayerNorm {
  const float* x;
  const float* weight;
  const float* bias;
  typename S::Vec mean, factor;
  float* out;
  template <class Lanes>
  PERSONAPLEX_INLINE void operator()(Lanes lanes, std::int64_t i) const {
    const typename S::Vec normal = S::mul(S::sub(lanes.load(x + i), mean), factor);
    lanes.store(out + i, S::fma(normal, lanes.load(weight + i), lanes.load(bias + i)));
  }
};

template <class S>
void layer_norm(const float* x, const float* weight, const float* bias, std::int64_t n, float* out) {
  Sum<S> sum{x};
  for_lanes<S>(n, sum);
  const typename S::Vec mean = S::set1(S::sum(sum.sum) / static_cast<float>(n));
  SumOfSquares<S> squares{x, mean};
  const float factor = 1.0F / std::sqrt(squares.over(n) / static_cast<float>(n) + 1e-5F);
  LayerNorm<S> op{x, weight, bias, mean, S::set1(factor), out};
  for_lanes<S>(n, op);
}

template <class S>
struct Swiglu {
  const float* gate;
  const float* value;
  float* out;
  template <class Lanes>
  PERSONAPLEX_INLINE void operator()(Lanes lanes, std::int64_t i) const {
    lanes.store(out + i, S::mul(silu<S>(lanes.load(gate + i)), lanes.load(value + i)));
  }
};

template <class S>
void swiglu(const float* gate, const float* value, std::int64_t n, float* out) {
  Swiglu<S> op{gate, value, out};
  for_lanes<S>(n, op);
}

template <class S>
struct Gelu {
  static PERSONAPLEX_INLINE typename S::Vec of(typename S::Vec x) { return gelu<S>(x); }
};
template <class S>
struct Elu {
  static PERSONAPLEX_INLINE typename S::Vec of(typename S::Vec x) { return elu<S>(x); }
};

template <class Function>
struct Map {
  const float* x;
  float* out;
  template <class Lanes>
  PERSONAPLEX_INLINE void operator()(Lanes lanes, std::int64_t i) const {
    lanes.store(out + i, Function::of(lanes.load(x + i)));
  }
};

template <class S, class Function>
void map(const float* x, std::int64_t n, float* out) {
  Map<Function> op{x, out};
  for_lanes<S>(n, op);
}

/// A loop that compilers vectorise well; S only says for which instruction set.
template <class S>
void rope(float* x, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; ++i) {
    const float even = x[2 * i];
    const float odd = x[2 * i + 1];
    x[2 * i] = even * cos[i] - odd * sin[i];
    x[2 * i + 1] = even * sin[i] + odd * cos[i];
  }
}

template <class S>
struct AddBf16 {
  const std::uint16_t* row;
  float* x;
  template <class Lanes>
  PERSONAPLEX_INLINE void operator()(Lanes lanes, std::int64_t i) const {
    lanes.store(x + i, S::add(lanes.load(x + i), lanes.load_bf16(row + i)));
  }
};

/// One group of a quantized row: bytes hold 8 / bits values, lowest bits first. For the compiler to vectorise.
template <class S, int kBits>
PERSONAPLEX_INLINE void add_group(const std::uint8_t* bytes, float scale, float bias, int group_size, float* x) {
  for (int i = 0; i < group_size * kBits / 8; ++i) {
    if constexpr (kBits == 4) {
      x[2 * i] += scale * static_cast<float>(bytes[i] & 15) + bias;
      x[2 * i + 1] += scale * static_cast<float>(bytes[i] >> 4) + bias;
    } else {
      x[i] += scale * static_cast<float>(bytes[i]) + bias;
    }
  }
}

template <class S>
void add_row(const Matrix& table, std::int64_t row, float* x) {
  if (!table.quantized()) {
    AddBf16<S> op{reinterpret_cast<const std::uint16_t*>(table.weight.data) + row * table.k, x};
    for_lanes<S>(table.k, op);
    return;
  }
  const std::int64_t groups = table.k / table.group_size;
  const std::int64_t group_bytes = table.group_size * table.bits / 8;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(table.weight.data) + row * groups * group_bytes;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(table.scales.data) + row * groups;
  const auto* biases = reinterpret_cast<const std::uint16_t*>(table.biases.data) + row * groups;
  const bool half = table.scales.dtype == DType::kF16;
  for (std::int64_t g = 0; g < groups; ++g, bytes += group_bytes, x += table.group_size) {
    const float scale = half ? from_f16_bits(scales[g]) : from_bf16_bits(scales[g]);
    const float bias = half ? from_f16_bits(biases[g]) : from_bf16_bits(biases[g]);
    if (table.bits == 4) {
      add_group<S, 4>(bytes, scale, bias, table.group_size, x);
    } else {
      add_group<S, 8>(bytes, scale, bias, table.group_size, x);
    }
  }
}

template <class S>
struct Add {
  float* x;
  const float* y;
  template <class Lanes>
  PERSONAPLEX_INLINE void operator()(Lanes lanes, std::int64_t i) const {
    lanes.store(x + i, S::add(lanes.load(x + i), lanes.load(y + i)));
  }
};

template <class S>
struct AddScaled {
  float* x;
  const float* y;
  const float* scale;
  template <class Lanes>
  PERSONAPLEX_INLINE void operator()(Lanes lanes, std::int64_t i) const {
    lanes.store(x + i, S::fma(lanes.load(scale + i), lanes.load(y + i), lanes.load(x + i)));
  }
};

template <class S>
void add(float* x, const float* y, const float* scale, std::int64_t n) {
  if (scale == nullptr) {
    Add<S> op{x, y};
    for_lanes<S>(n, op);
  } else {
    AddScaled<S> op{x, y, scale};
    for_lanes<S>(n, op);
  }
}

template <class S>
constexpr PointwiseKernels pointwise_of() {
  return {rms_norm<S>, layer_norm<S>, swiglu<S>, map<S, Gelu<S>>, map<S, Elu<S>>, rope<S>, add_row<S>, add<S>};
}

}  // namespace personaplex::cpu
