// csrc/cpu/gemm_impl.h: the codec's matrix products, for any instruction set (see simd.h).
//
// Every output is one chain of multiply-adds that follows K in order (N = 1: one chain a lane), times its scale, plus
// its bias. So neither the split into tiles nor how many rows are computed together changes a bit. A micro kernel keeps
// rows x outputs in registers: a vector of weights is widened from int16 once for all of its rows, and every value of x
// is broadcast. The results leave through a small buffer, where the epilogue is applied.
#pragma once

namespace personaplex::cpu {

/// Where a panel's (or the single output's) results go.
template <class S>
struct GemmEpilogue {
  using Vec = typename S::Vec;

  /// `count` sums of one row at `from`; the first of them is output n of the product, and belongs at `to`.
  static void apply(const Panels& w, const GemmOutput& out, const float* from, int n, int count, std::int64_t to) {
    int i = 0;
    for (; i + S::kWidth <= count; i += S::kWidth) vector<true>(w, out, from + i, n + i, S::kWidth, to + i);
    if (i < count) vector<false>(w, out, from + i, n + i, count - i, to + i);
  }

 private:
  template <bool kFull>
  static PERSONAPLEX_INLINE Vec load(const float* p, int count) {
    return kFull ? S::load(p) : S::load_n(p, count);
  }
  template <bool kFull>
  static PERSONAPLEX_INLINE void store(float* p, Vec v, int count) {
    if constexpr (kFull) {
      S::store(p, v);
    } else {
      S::store_n(p, v, count);
    }
  }

  template <bool kFull>
  static PERSONAPLEX_INLINE void vector(const Panels& w, const GemmOutput& out, const float* from, int n, int count,
                                        std::int64_t to) {
    const Vec zero = S::zero();
    Vec y = S::fma(load<kFull>(from, count), load<kFull>(w.scales.get() + n, count),
                   w.bias != nullptr ? load<kFull>(w.bias.get() + n, count) : zero);
    if (out.scale != nullptr) {
      y = S::fma(y, load<kFull>(out.scale + n, count),
                 out.residual != nullptr ? load<kFull>(out.residual + to, count) : zero);
    } else if (out.residual != nullptr) {
      y = S::add(y, load<kFull>(out.residual + to, count));
    }
    if (out.raw != nullptr) store<kFull>(out.raw + to, y, count);
    if (out.elu != nullptr) store<kFull>(out.elu + to, elu<S>(y), count);
    if (out.gelu != nullptr) store<kFull>(out.gelu + to, gelu<S>(y), count);
  }
};

/// Micro kernels of up to kRows rows x kColumns vectors, or of 1 or 2 rows x kFewColumns: as many sums as the registers
/// hold.
template <class S, int kRows, int kColumns, int kFewColumns>
class Gemm {
 public:
  static constexpr GemmKernels kernels() { return {tiles, run, nearest}; }

 private:
  using Vec = typename S::Vec;

  static constexpr int kPanel = Panels::kWidth;
  static constexpr int kFewRows = 2;
  static constexpr std::int64_t kTileProducts = 1 << 18;  // some microseconds
  static constexpr std::int64_t kSmall = 1 << 18;         // bytes of weights that may stay in a core's L2 beside x
  static constexpr int kAhead = 4096;  // bytes that are prefetched: without, 16 rows take a third longer

  // Rows go in blocks of at most kRows, all of about one size; a tile is some blocks of one panel.
  static int blocks(int rows) { return (rows + kRows - 1) / kRows; }
  static int row_tiles(const Panels& w, int rows) {
    const std::int64_t wanted = (std::int64_t{rows} * w.k() * w.width() + kTileProducts - 1) / kTileProducts;
    return wanted < 1 ? 1 : wanted < blocks(rows) ? static_cast<int>(wanted) : blocks(rows);
  }
  static int tiles(const Panels& w, int rows) { return row_tiles(w, rows) * w.count(); }

  /// Where part `index` of `parts` begins.
  static int part(int count, int index, int parts) { return static_cast<int>(std::int64_t{count} * index / parts); }

  static void run(const Panels& w, const Windows& in, int rows, const GemmOutput& out, int begin, int end) {
    const int count = w.count();
    const int row_count = row_tiles(w, rows);
    const int block_count = blocks(rows);
    // Rows of one panel before the next panel, or panels of the same rows before the next rows.
    const bool rows_first = std::int64_t{count} * w.k() * kPanel * 2 > kSmall;
    for (int tile = begin; tile < end; ++tile) {
      const int panel = rows_first ? tile / row_count : tile % count;
      const int row_tile = rows_first ? tile % row_count : tile / count;
      const int last = part(block_count, row_tile + 1, row_count);
      for (int block = part(block_count, row_tile, row_count); block < last; ++block) {
        const int first_row = part(rows, block, block_count);
        block_of(w, panel, in, first_row, part(rows, block + 1, block_count) - first_row, out);
      }
    }
  }

  /// All outputs of a panel for rows [first, first + rows).
  static void block_of(const Panels& w, int panel, const Windows& in, int first, int rows, const GemmOutput& out) {
    const bool joined = in.tap_stride == w.channels;  // taps follow each other: one long window
    const int taps = joined ? 1 : w.taps;
    const int channels = joined ? w.k() : w.channels;
    Windows at = in;
    at.x += first * in.row_stride;
    if (w.n == 1) {
      for (int m = 0; m < rows; ++m, at.x += in.row_stride) {
        const float sum = dot(w.weights.get(), at, taps, channels);
        GemmEpilogue<S>::apply(w, out, &sum, 0, 1, (first + m) * out.stride);
      }
      return;
    }
    const int n = panel * kPanel;
    const int count = w.n - n < kPanel ? w.n - n : kPanel;
    float sums[kRows * kPanel];
    const std::int16_t* weights = w.weights.get() + std::int64_t{panel} * w.k() * kPanel;
    micro_of<kRows>(rows, weights, at, taps, channels, sums);
    for (int m = 0; m < rows; ++m) {
      GemmEpilogue<S>::apply(w, out, sums + m * kPanel, n, count, (first + m) * out.stride + n);
    }
  }

  template <int kCount>
  static void micro_of(int rows, const std::int16_t* weights, const Windows& in, int taps, int channels, float* sums) {
    if constexpr (kCount > 1) {
      if (rows < kCount) return micro_of<kCount - 1>(rows, weights, in, taps, channels, sums);
    }
    constexpr int kWide = kCount <= kFewRows ? kFewColumns : kColumns;
    for (int i = 0; i < kPanel; i += kWide * S::kWidth) {
      micro<kCount, kWide>(weights + i, in, taps, channels, sums + i);
    }
  }

  /// kWide vectors of sums [kCount][kPanel] = W x.
  template <int kCount, int kWide>
  static __attribute__((noinline)) void micro(const std::int16_t* weights, const Windows& in, int taps, int channels,
                                              float* sums) {
    Vec sum[kCount][kWide];
#pragma GCC unroll 16
    for (int m = 0; m < kCount; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < kWide; ++v) sum[m][v] = S::zero();
    }
    const std::int64_t stride = in.row_stride;
    for (int tap = 0; tap < taps; ++tap) {
      const float* x = in.x + tap * in.tap_stride;
#pragma GCC unroll 4
      for (int c = 0; c < channels; ++c, ++x, weights += kPanel) {
        Vec w[kWide];
        __builtin_prefetch(reinterpret_cast<const char*>(weights) + kAhead);
#pragma GCC unroll 8
        for (int v = 0; v < kWide; ++v) w[v] = S::load_i16(weights + v * S::kWidth);
#pragma GCC unroll 16
        for (int m = 0; m < kCount; ++m) {
          const Vec value = S::set1(x[m * stride]);
#pragma GCC unroll 8
          for (int v = 0; v < kWide; ++v) sum[m][v] = S::fma(value, w[v], sum[m][v]);
        }
      }
    }
#pragma GCC unroll 16
    for (int m = 0; m < kCount; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < kWide; ++v) S::store(sums + m * kPanel + v * S::kWidth, sum[m][v]);
    }
  }

  static float dot(const std::int16_t* weights, const Windows& in, int taps, int channels) {
    Vec sum = S::zero();
    for (int tap = 0; tap < taps; ++tap, weights += channels) {
      const float* x = in.x + tap * in.tap_stride;
      int c = 0;
      for (; c + S::kWidth <= channels; c += S::kWidth) sum = S::fma(S::load_i16(weights + c), S::load(x + c), sum);
      if (c < channels) {
        sum = S::fma(S::load_i16_n(weights + c, channels - c), S::load_n(x + c, channels - c), sum);
      }
    }
    return S::sum(sum);
  }

  /// As many codewords at once as a vector has lanes: their sums over the lanes are taken together.
  static void nearest(const Codewords& table, const float* x, int begin, int end, float* distance, int* index) {
    float best = __builtin_inff();
    int at = begin;
    for (int code = begin; code < end; code += S::kWidth) {
      const int count = end - code < S::kWidth ? end - code : S::kWidth;
      Vec squares[S::kWidth];
      for (int i = 0; i < S::kWidth; ++i) {
        squares[i] = i < count ? distances(table, code + i, x) : S::zero();
      }
      float sums[S::kWidth];
      S::store(sums, S::sums(squares));
      for (int i = 0; i < count; ++i) {
        if (sums[i] < best) {
          best = sums[i];
          at = code + i;
        }
      }
    }
    *distance = best;
    *index = at;
  }

  static PERSONAPLEX_INLINE Vec distances(const Codewords& table, int code, const float* x) {
    const int d = table.d;
    const std::int16_t* codeword = table.values.get() + std::int64_t{code} * d;
    const Vec minus_scale = S::set1(-table.scales.get()[code]);
    Vec even = S::zero();
    Vec odd = S::zero();
    int i = 0;
    for (; i + 2 * S::kWidth <= d; i += 2 * S::kWidth) {
      even = squared(even, S::load_i16(codeword + i), minus_scale, S::load(x + i));
      odd = squared(odd, S::load_i16(codeword + i + S::kWidth), minus_scale, S::load(x + i + S::kWidth));
    }
    for (; i < d; i += S::kWidth) {
      const int count = d - i < S::kWidth ? d - i : S::kWidth;
      even = squared(even, S::load_i16_n(codeword + i, count), minus_scale, S::load_n(x + i, count));
    }
    return S::add(even, odd);
  }
  static PERSONAPLEX_INLINE Vec squared(Vec sum, Vec value, Vec minus_scale, Vec x) {
    const Vec difference = S::fma(value, minus_scale, x);
    return S::fma(difference, difference, sum);
  }
};

}  // namespace personaplex::cpu
