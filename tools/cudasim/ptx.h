// tools/cudasim/ptx.h: the PTX that kernels/cuda uses, instruction by instruction: cudasim.py turns each `asm` into a
// call of ptx_<name> with its operands in their order, and has the table of the texts.
#pragma once

inline float bfloat_value(std::uint32_t bits) { return __uint_as_float(bits << 16); }
inline std::uint32_t bfloat_bits(float f) {
  const auto u = __builtin_bit_cast(std::uint32_t, f);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
  return (u + 0x7FFFu + ((u >> 16) & 1)) >> 16;
}

inline void ptx_nothing() {}
template <typename P>
void ptx_prefetch(P) {}
inline void ptx_half(float& out, std::uint16_t bits) { out = static_cast<float>(__builtin_bit_cast(_Float16, bits)); }
inline void ptx_bfloats(std::uint32_t& out, float upper, float lower) {
  out = bfloat_bits(lower) | bfloat_bits(upper) << 16;
}
inline void ptx_fma_bfloats(std::uint32_t& out, std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  const auto half = [&](int shift) {
    return bfloat_bits(std::fma(bfloat_value(a >> shift & 0xFFFF), bfloat_value(b >> shift & 0xFFFF),
                                bfloat_value(c >> shift & 0xFFFF)));
  };
  out = half(0) | half(16) << 16;
}
inline void ptx_two_128s(std::uint32_t& out) { out = 0x43004300; }
inline void ptx_nibbles(std::uint32_t& out, std::uint32_t word, std::uint32_t more) {
  out = (word & 0x000F000F) | more;
}
inline void ptx_exp2(float& out, float x) { out = std::exp2(x); }

template <typename P>
void ptx_read_once(std::uint32_t& x, std::uint32_t& y, std::uint32_t& z, std::uint32_t& w, P p, int there) {
  if (there == 0) return;
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  x = v.x, y = v.y, z = v.z, w = v.w;
}
template <typename P>
void ptx_read_u32(std::uint32_t& v, P p, int there) {
  if (there != 0) v = *reinterpret_cast<const std::uint32_t*>(p);
}
template <typename P>
void ptx_read_u16(std::uint32_t& v, P p, int there) {
  if (there != 0) v = *reinterpret_cast<const std::uint16_t*>(p);
}

/// m16n8k16: c[i] of lane (g, t) is row g + i / 2 * 8, column 2 t + i % 2. Rows of A: registers 0 and 2 of lanes
/// (g, .) have k = 2 t, 2 t + 1 and 8 more of row g, 1 and 3 of row g + 8; B the same of column g.
inline void ptx_mma(float& c0, float& c1, float& c2, float& c3, std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                    std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  const std::uint32_t own[6] = {a0, a1, a2, a3, b0, b1};
  const cudasim::Lanes& lanes = cudasim::meet("mma.sync", own, sizeof own);
  const auto word = [&](int lane, int i) {
    std::uint32_t v;
    std::memcpy(&v, lanes.slot[lane] + 4 * i, 4);
    return v;
  };
  const int g = cudasim::lane() / 4, t = cudasim::lane() % 4;
  float* const c[4] = {&c0, &c1, &c2, &c3};
  for (int i = 0; i < 4; ++i) {
    const int column = 2 * t + i % 2;
    float sum = *c[i];
    for (int pair = 0; pair < 4; ++pair) {
      for (int k = 0; k < 2; ++k) {
        const std::uint32_t a = word(4 * g + pair, i / 2 + 2 * k), b = word(4 * column + pair, 4 + k);
        sum += bfloat_value(a & 0xFFFF) * bfloat_value(b & 0xFFFF) + bfloat_value(a >> 16) * bfloat_value(b >> 16);
      }
    }
    *c[i] = sum;
  }
}

inline void ptx_cluster_barrier() { cudasim::cluster_barrier(); }
inline void ptx_mapa(std::uint32_t& address, int rank) { address = cudasim::shared_of_rank(address, rank); }
inline void ptx_load_cluster(float& out, std::uint32_t at) {
  out = *static_cast<const float*>(cudasim::shared_pointer(at));
}
