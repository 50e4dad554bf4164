// csrc/cpu/attention_impl.h: attention.h for any instruction set S of simd.h.
//
// Positions go oldest first, in tiles that are counted from the oldest (so where a ring begins changes nothing): the
// tile's scores, their maximum, what came before scaled down to a new maximum, then the weighted values. A score is the
// sum over lanes of two chains of multiply-adds, an output lane is one chain over all positions. Rows are read in the
// order in which they lie in memory, which the hardware prefetches well; prefetching more gained nothing.
#pragma once

#include "cpu/attention.h"

namespace personaplex::cpu {

struct Float32Row {
  using Cell = float;
  template <class S>
  static PERSONAPLEX_INLINE typename S::Vec load(const Cell* p) {
    return S::load(p);
  }
  template <class S>
  static PERSONAPLEX_INLINE typename S::Vec load_n(const Cell* p, int n) {
    return S::load_n(p, n);
  }
};
struct Bfloat16Row {
  using Cell = std::uint16_t;
  template <class S>
  static PERSONAPLEX_INLINE typename S::Vec load(const Cell* p) {
    return S::load_bf16(p);
  }
  template <class S>
  static PERSONAPLEX_INLINE typename S::Vec load_n(const Cell* p, int n) {
    return S::load_bf16_n(p, n);
  }
};
struct Int8Row {
  using Cell = std::int8_t;
  template <class S>
  static PERSONAPLEX_INLINE typename S::Vec load(const Cell* p) {
    return S::load_i8(p);
  }
  template <class S>
  static PERSONAPLEX_INLINE typename S::Vec load_n(const Cell* p, int n) {
    return S::load_i8_n(p, n);
  }
};

template <class S>
struct Attention {
  using Vec = typename S::Vec;
  static constexpr int W = S::kWidth;
  static constexpr int kTile = 32;  // positions; a multiple of every kWidth

  /// Rows that follow each other in memory.
  template <class Cell>
  struct Rows {
    const Cell* at;
    const float* scales;  // of these rows, or null
    int count;
  };

  /// How many of `count` slots from `slot` on follow each other in memory.
  static PERSONAPLEX_INLINE int together(int slot, int count, int slots) {
    return std::min(count, std::min(ops::kRingPage - slot % ops::kRingPage, slots - slot));
  }
  /// The slot `steps` <= slots later.
  static PERSONAPLEX_INLINE int after(int slot, int steps, int slots) {
    return slot + steps < slots ? slot + steps : slot + steps - slots;
  }

  template <class Row>
  static PERSONAPLEX_INLINE Rows<typename Row::Cell> rows_of(const HeadSlots& side, int slot, int count) {
    const std::byte* page = side.pages[slot / ops::kRingPage];
    const int row = slot % ops::kRingPage;
    const auto* cells = reinterpret_cast<const typename Row::Cell*>(page + side.offset);
    const auto* scales = reinterpret_cast<const float*>(page + side.scales);
    return {cells + static_cast<std::ptrdiff_t>(row) * side.head_dim,
            side.format == KvFormat::kInt8 ? scales + row : nullptr, count};
  }

  /// The lanes' sums of one row times q.
  template <class Row>
  static PERSONAPLEX_INLINE Vec product(const typename Row::Cell* row, const float* q, int head_dim) {
    Vec even = S::zero();
    Vec odd = S::zero();
    int i = 0;
    for (; i + 2 * W <= head_dim; i += 2 * W) {
      even = S::fma(Row::template load<S>(row + i), S::load(q + i), even);
      odd = S::fma(Row::template load<S>(row + i + W), S::load(q + i + W), odd);
    }
    for (; i < head_dim; i += W) {
      const int n = std::min(W, head_dim - i);
      even = S::fma(Row::template load_n<S>(row + i, n), S::load_n(q + i, n), even);
    }
    return S::add(even, odd);
  }

  /// scores [rows.count, and up to kWidth - 1 more] = factor * q . row
  template <class Row, int kHeadDim>
  static PERSONAPLEX_INLINE void score(const Rows<typename Row::Cell>& rows, int dim, const float* q, float factor,
                                       float* scores) {
    const int head_dim = kHeadDim != 0 ? kHeadDim : dim;
    for (int r = 0; r < rows.count; r += W) {
      const int n = std::min(W, rows.count - r);
      Vec products[W];
      for (int j = 0; j < n; ++j) {
        products[j] = product<Row>(rows.at + static_cast<std::ptrdiff_t>(r + j) * head_dim, q, head_dim);
      }
      for (int j = n; j < W; ++j) products[j] = S::zero();
      Vec factors = S::set1(factor);
      if (rows.scales != nullptr) factors = S::mul(factors, S::load_n(rows.scales + r, n));
      S::store(scores + r, S::mul(S::sums(products), factors));
    }
  }

  /// out = out * shrink + sum of weights times rows. `weights` are scaled in place.
  template <class Row, int kHeadDim>
  static PERSONAPLEX_INLINE void accumulate(const Rows<typename Row::Cell>& rows, int dim, Vec shrink, float* weights,
                                            float* out) {
    const int head_dim = kHeadDim != 0 ? kHeadDim : dim;
    if (rows.scales != nullptr) {
      for (int r = 0; r < rows.count; ++r) weights[r] *= rows.scales[r];
    }
    constexpr int kBlock = std::min(S::kRegisters / 2, kHeadDim / W);
    int i = 0;
    if constexpr (kBlock > 0) {
      for (; i < head_dim; i += kBlock * W) {
        accumulate_block<Row, kBlock>(rows, head_dim, shrink, weights, rows.at + i, out + i);
      }
    }
    for (; i < head_dim; i += W) {
      const int n = std::min(W, head_dim - i);
      Vec sum = S::mul(S::load_n(out + i, n), shrink);
      const typename Row::Cell* row = rows.at + i;
      for (int r = 0; r < rows.count; ++r, row += head_dim) {
        sum = S::fma(S::set1(weights[r]), Row::template load_n<S>(row, n), sum);
      }
      S::store_n(out + i, sum, n);
    }
  }

  /// kBlock vectors of the output stay in registers.
  template <class Row, int kBlock>
  static PERSONAPLEX_INLINE void accumulate_block(const Rows<typename Row::Cell>& rows, int head_dim, Vec shrink,
                                                  const float* weights, const typename Row::Cell* row, float* out) {
    Vec sums[kBlock];
    for (int b = 0; b < kBlock; ++b) sums[b] = S::mul(S::load(out + b * W), shrink);
    for (int r = 0; r < rows.count; ++r, row += head_dim) {
      const Vec weight = S::set1(weights[r]);
      for (int b = 0; b < kBlock; ++b) sums[b] = S::fma(weight, Row::template load<S>(row + b * W), sums[b]);
    }
    for (int b = 0; b < kBlock; ++b) S::store(out + b * W, sums[b]);
  }

  template <class Row, int kHeadDim>
  static void attend_rows(const HeadSlots& keys, const HeadSlots& values, int slots, int last_slot, int count,
                          const float* q, float* out) {
    const int head_dim = kHeadDim != 0 ? kHeadDim : keys.head_dim;
    const float factor = 1.0F / std::sqrt(static_cast<float>(head_dim));
    int slot = last_slot - (count - 1);
    if (slot < 0) slot += slots;

    float scores[kTile + W];
    float largest = -std::numeric_limits<float>::infinity();
    Vec total = S::zero();
    for (int i = 0; i < head_dim; ++i) out[i] = 0.0F;
    for (int done = 0, n = 0; done < count; done += n, slot = after(slot, n, slots)) {
      n = std::min(kTile, count - done);
      for (int i = 0, rows = 0; i < n; i += rows) {
        const int at = after(slot, i, slots);
        rows = together(at, n - i, slots);
        score<Row, kHeadDim>(rows_of<Row>(keys, at, rows), head_dim, q, factor, scores + i);
      }
      for (int i = n; i < n + W; ++i) scores[i] = -std::numeric_limits<float>::infinity();

      Vec in_tile = S::load(scores);
      for (int i = W; i < n; i += W) in_tile = S::max(in_tile, S::load(scores + i));
      const float before = largest;
      largest = std::max(largest, S::largest(in_tile));
      const Vec shrink = exp<S>(S::set1(before - largest));
      total = S::mul(total, shrink);
      for (int i = 0; i < n; i += W) {
        const Vec weights = exp<S>(S::sub(S::load(scores + i), S::set1(largest)));
        total = S::add(total, weights);
        S::store(scores + i, weights);
      }

      for (int i = 0, rows = 0; i < n; i += rows) {
        const int at = after(slot, i, slots);
        rows = together(at, n - i, slots);
        accumulate<Row, kHeadDim>(rows_of<Row>(values, at, rows), head_dim, i == 0 ? shrink : S::set1(1.0F), scores + i,
                                  out);
      }
    }
    const float inverse = 1.0F / S::sum(total);
    for (int i = 0; i < head_dim; ++i) out[i] *= inverse;
  }

  template <class Row>
  static void attend_format(const HeadSlots& keys, const HeadSlots& values, int slots, int last_slot, int count,
                            const float* q, float* out) {
    switch (keys.head_dim) {
      case 64:
        return attend_rows<Row, 64>(keys, values, slots, last_slot, count, q, out);
      case 128:
        return attend_rows<Row, 128>(keys, values, slots, last_slot, count, q, out);
      default:
        return attend_rows<Row, 0>(keys, values, slots, last_slot, count, q, out);
    }
  }

  static void attend(const HeadSlots& keys, const HeadSlots& values, int slots, int last_slot, int count,
                     const float* q, float* out) {
    switch (keys.format) {
      case KvFormat::kFloat32:
        return attend_format<Float32Row>(keys, values, slots, last_slot, count, q, out);
      case KvFormat::kBfloat16:
        return attend_format<Bfloat16Row>(keys, values, slots, last_slot, count, q, out);
      case KvFormat::kInt8:
        return attend_format<Int8Row>(keys, values, slots, last_slot, count, q, out);
    }
  }

  static void append(const HeadSlots& side, int slot, const float* values) {
    const int head_dim = side.head_dim;
    std::byte* page = side.pages[slot / ops::kRingPage];
    std::byte* row =
        page + side.offset + static_cast<std::size_t>(slot % ops::kRingPage * head_dim) * size_of(side.format);
    if (side.format == KvFormat::kFloat32) {
      std::memcpy(row, values, static_cast<std::size_t>(head_dim) * sizeof(float));
      return;
    }
    if (side.format == KvFormat::kBfloat16) {
      auto* cells = reinterpret_cast<std::uint16_t*>(row);
      for (int i = 0; i < head_dim; i += W) {
        const int n = std::min(W, head_dim - i);
        S::store_bf16_n(cells + i, S::load_n(values + i, n), n);
      }
      return;
    }
    Vec magnitude = S::zero();
    for (int i = 0; i < head_dim; i += W) {
      magnitude = S::max(magnitude, S::abs(S::load_n(values + i, std::min(W, head_dim - i))));
    }
    const float largest = S::largest(magnitude);
    const bool nothing = largest < 1e-35F;  // 127 / largest would overflow
    reinterpret_cast<float*>(page + side.scales)[slot % ops::kRingPage] = nothing ? 0.0F : largest / 127.0F;
    const Vec inverse = S::set1(nothing ? 0.0F : 127.0F / largest);
    auto* cells = reinterpret_cast<std::int8_t*>(row);
    for (int i = 0; i < head_dim; i += W) {
      const int n = std::min(W, head_dim - i);
      S::store_i8_n(cells + i, S::mul(S::load_n(values + i, n), inverse), n);
    }
  }

  static constexpr AttentionKernels kernels() { return {append, attend}; }
};

}  // namespace personaplex::cpu
