// tools/metalsim/shim/msl_simd.h: barriers, and the operations in which a whole simdgroup meets.
#pragma once
#include "msl_math.h"

// The caller's place in the source, as a default argument.
#define MSL_SITE msl::Site site_ = {__builtin_FILE(), (__builtin_LINE() << 9) | (__builtin_COLUMN() & 511)}

namespace metal {

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }
METAL_FUNC void threadgroup_barrier(mem_flags flags, MSL_SITE) { msl::barrier((int)flags, site_); }
METAL_FUNC void simdgroup_barrier(mem_flags flags, MSL_SITE) { msl::simd_barrier((int)flags, site_); }

// What MSL's simd functions take: no bool, no bfloat, nothing of 64 bits.
template <class T>
inline constexpr bool is_simd_v =
    (std::is_arithmetic_v<T> && sizeof(T) <= 4 && !std::is_same_v<T, bool>) || std::is_same_v<T, half> || is_vec_v<T>;
#define MSL_SIMD(T)                                          \
  template <class T, class = std::enable_if_t<is_simd_v<T>>> \
  METAL_FUNC

template <class T>
inline const msl::LaneBuffer* meet(int kind, T value, void (*finish)(msl::LaneBuffer*), msl::Site site) {
  static_assert(sizeof(T) <= 16, "simd value too large");
  return msl::collective(kind, &value, sizeof(T), finish, site);
}
template <class T>
inline T from_lane(const msl::LaneBuffer* all, unsigned lane, msl::Site site) {
  if (!((all->mask >> (lane & 31)) & 1)) msl::inactive_lane(lane, site);
  T value;
  memcpy(&value, all->slot[lane & 31], sizeof(T));
  return value;
}

// Reductions in one order of a butterfly, so that results can be repeated; absent lanes contribute nothing.
template <class T, class Operation>
inline void reduce(msl::LaneBuffer* all) {
  T v[32];
  bool active[32];
  for (int i = 0; i < 32; i++) {
    active[i] = (all->mask >> i) & 1;
    memcpy(&v[i], all->slot[i], sizeof(T));
  }
  for (int step = 16; step; step >>= 1) {
    for (int i = 0; i < step; i++) {
      if (active[i] && active[i + step]) {
        v[i] = Operation::apply(v[i], v[i + step]);
      } else if (active[i + step]) {
        v[i] = v[i + step];
        active[i] = true;
      }
    }
  }
  memcpy(all->result, &v[0], sizeof(T));
}
#define MSL_OPERATION(name, expression) \
  struct name##_operation {             \
    template <class T>                  \
    static T apply(T a, T b) {          \
      return (T)(expression);           \
    }                                   \
  };
MSL_OPERATION(sum, a + b)
MSL_OPERATION(product, a* b)
MSL_OPERATION(max, metal::max(a, b))
MSL_OPERATION(min, metal::min(a, b))
MSL_OPERATION(and, a& b)
MSL_OPERATION(or, a | b)
MSL_OPERATION(xor, a ^ b)

#define MSL_REDUCTION(name, kind)                                                   \
  MSL_SIMD(T) T simd_##name(T v, MSL_SITE) {                                        \
    const auto* all = meet<T>(kind, v, &reduce<T, name##_operation>, site_);        \
    T result;                                                                       \
    memcpy(&result, all->result, sizeof(T));                                        \
    return result;                                                                  \
  }                                                                                 \
  MSL_SIMD(T) T quad_##name(T v, MSL_SITE) {                                        \
    const auto* all = meet<T>(kind + 100, v, nullptr, site_);                       \
    const unsigned quad = msl::lane() & ~3u;                                        \
    T result = from_lane<T>(all, quad, site_);                                      \
    for (unsigned i = 1; i < 4; i++) {                                              \
      result = name##_operation::apply(result, from_lane<T>(all, quad + i, site_)); \
    }                                                                               \
    return result;                                                                  \
  }
MSL_REDUCTION(sum, 1)
MSL_REDUCTION(product, 2)
MSL_REDUCTION(max, 3)
MSL_REDUCTION(min, 4)
MSL_REDUCTION(and, 5)
MSL_REDUCTION(or, 6)
MSL_REDUCTION(xor, 7)

#define MSL_SCAN(name, operation, kind, inclusive, start)                                       \
  MSL_SIMD(T) T simd_prefix_##name(T v, MSL_SITE) {                                             \
    const auto* all = meet<T>(kind, v, nullptr, site_);                                         \
    T result = (T)(start);                                                                      \
    for (unsigned i = 0; i < msl::lane() + inclusive; i++) {                                    \
      if ((all->mask >> i) & 1) result = operation::apply(result, from_lane<T>(all, i, site_)); \
    }                                                                                           \
    return result;                                                                              \
  }
MSL_SCAN(inclusive_sum, sum_operation, 8, 1, 0)
MSL_SCAN(exclusive_sum, sum_operation, 9, 0, 0)
MSL_SCAN(inclusive_product, product_operation, 10, 1, 1)
MSL_SCAN(exclusive_product, product_operation, 11, 0, 1)

// Past the edge a lane keeps its own value (undefined on Metal).
#define MSL_SHUFFLE(name, kind, from)                   \
  MSL_SIMD(T) T name(T v, ushort n, MSL_SITE) {         \
    const auto* all = meet<T>(kind, v, nullptr, site_); \
    const int me = (int)msl::lane(), source = (from);   \
    (void)me;                                           \
    if (source < 0 || source > 31) return v;            \
    return from_lane<T>(all, (unsigned)source, site_);  \
  }
MSL_SHUFFLE(simd_shuffle, 20, n)
MSL_SHUFFLE(simd_broadcast, 21, n)
MSL_SHUFFLE(simd_shuffle_xor, 22, me ^ n)
MSL_SHUFFLE(simd_shuffle_up, 23, me - n)
MSL_SHUFFLE(simd_shuffle_down, 24, me + n)
MSL_SHUFFLE(simd_shuffle_rotate_up, 25, (me - n) & 31)
MSL_SHUFFLE(simd_shuffle_rotate_down, 26, (me + n) & 31)
MSL_SHUFFLE(quad_shuffle, 30, (me & ~3) + (n & 3))
MSL_SHUFFLE(quad_broadcast, 31, (me & ~3) + (n & 3))
MSL_SHUFFLE(quad_shuffle_xor, 32, (me & ~3) + ((me ^ n) & 3))

MSL_SIMD(T) T simd_shuffle_and_fill_up(T v, T fill, ushort n, MSL_SITE) {
  const auto* values = meet<T>(27, v, nullptr, site_);
  const auto* fills = meet<T>(28, fill, nullptr, site_);
  const int from = (int)msl::lane() - n;
  return from < 0 ? from_lane<T>(fills, from & 31, site_) : from_lane<T>(values, from, site_);
}
MSL_SIMD(T) T simd_shuffle_and_fill_down(T v, T fill, ushort n, MSL_SITE) {
  const auto* values = meet<T>(27, v, nullptr, site_);
  const auto* fills = meet<T>(28, fill, nullptr, site_);
  const int from = (int)msl::lane() + n;
  return from > 31 ? from_lane<T>(fills, from & 31, site_) : from_lane<T>(values, from, site_);
}
MSL_SIMD(T) T simd_broadcast_first(T v, MSL_SITE) {
  const auto* all = meet<T>(29, v, nullptr, site_);
  return from_lane<T>(all, __builtin_ctz(all->mask), site_);
}

struct simd_vote {
  std::uint64_t votes;
  explicit operator std::uint64_t() const { return votes; }
  bool all() const { return votes == 0xffffffffu; }
  bool any() const { return votes != 0; }
};
inline simd_vote simd_ballot(bool p, MSL_SITE) {
  const auto* all = meet<int>(40, (int)p, nullptr, site_);
  std::uint64_t votes = 0;
  for (unsigned i = 0; i < 32; i++) {
    if ((all->mask >> i) & 1) votes |= (std::uint64_t)(from_lane<int>(all, i, site_) != 0) << i;
  }
  return {votes};
}
inline bool simd_any(bool p, MSL_SITE) { return simd_ballot(p, site_).votes != 0; }
inline bool simd_all(bool p, MSL_SITE) { return simd_ballot(!p, site_).votes == 0; }
inline bool simd_is_first(MSL_SITE) {
  return msl::lane() == (unsigned)__builtin_ctz(meet<int>(41, 0, nullptr, site_)->mask);
}

// ---- 8x8 matrices, two elements a lane, laid out as Apple's GPUs do
template <class T, int R, int C>
struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "8x8 only");
  vec<T, 2> e;
  vec<T, 2>& thread_elements() { return e; }
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T diagonal) {
    int r, c;
    place(msl::lane(), r, c);
    e[0] = r == c ? diagonal : T(0);
    e[1] = r == c + 1 ? diagonal : T(0);
  }
  static void place(unsigned lane, int& row, int& column) {
    const int quad = lane / 4;
    row = (quad & 4) + ((lane / 2) % 4);
    column = (quad & 2) * 2 + (lane % 2) * 2;
  }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
#if !MSL_STRICT_AS
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
#endif
template <class T, int R, int C>
inline simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, R, C> m;
  m.e[0] = m.e[1] = value;
  return m;
}
template <class TD, class TA, class TB, class TC>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<TD, 8, 8>& d, simdgroup_matrix<TA, 8, 8> a,
                                          simdgroup_matrix<TB, 8, 8> b, simdgroup_matrix<TC, 8, 8> c, MSL_SITE) {
  const float4 mine = {(float)a.e[0], (float)a.e[1], (float)b.e[0], (float)b.e[1]};
  const auto* all = meet<float4>(50, mine, nullptr, site_);
  float left[8][8], right[8][8];
  int row, column;
  for (unsigned lane = 0; lane < 32; lane++) {
    const float4 v = from_lane<float4>(all, lane, site_);
    simdgroup_matrix<TA, 8, 8>::place(lane, row, column);
    left[row][column] = v[0];
    left[row][column + 1] = v[1];
    right[row][column] = v[2];
    right[row][column + 1] = v[3];
  }
  simdgroup_matrix<TA, 8, 8>::place(msl::lane(), row, column);
  float s0 = (float)c.e[0], s1 = (float)c.e[1];
  for (int k = 0; k < 8; k++) {
    s0 += left[row][k] * right[k][column];
    s1 += left[row][k] * right[k][column + 1];
  }
  d.e[0] = (TD)s0;
  d.e[1] = (TD)s1;
}
template <class TD, class TA, class TB>
inline void simdgroup_multiply(simdgroup_matrix<TD, 8, 8>& d, simdgroup_matrix<TA, 8, 8> a,
                               simdgroup_matrix<TB, 8, 8> b, MSL_SITE) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<TD, 8, 8>((TD)0), site_);
}
template <class T, class P>
inline void simdgroup_load(thread simdgroup_matrix<T, 8, 8>& m, P p, ulong stride = 8, ulong2 origin = 0,
                           bool transpose = false) {
  int r, c;
  m.place(msl::lane(), r, c);
  for (int i = 0; i < 2; i++) {
    m.e[i] = transpose ? p[(origin.y + c + i) * stride + origin.x + r] : p[(origin.y + r) * stride + origin.x + c + i];
  }
}
template <class T, class P>
inline void simdgroup_store(simdgroup_matrix<T, 8, 8> m, P p, ulong stride = 8, ulong2 origin = 0,
                            bool transpose = false) {
  int r, c;
  m.place(msl::lane(), r, c);
  for (int i = 0; i < 2; i++) {
    if (transpose) {
      p[(origin.y + c + i) * stride + origin.x + r] = m.e[i];
    } else {
      p[(origin.y + r) * stride + origin.x + c + i] = m.e[i];
    }
  }
}

}  // namespace metal
