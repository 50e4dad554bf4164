// csrc/core/philox.h: Philox 4x32-10, the counter-based random numbers of every engine.
//
// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The noise of one token is a pure function of
// (seed, frame, stream, index), so engines and devices draw the same tokens from the same logits.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace personaplex {

inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

/// q = -log(u), u = ((x >> 8) + 0.5) 2^-24. In float32 the upper half of u is not representable (its largest value
/// would round to 1, and q to 0), so there 1 - u is formed instead, which is exact.
inline float exponential(std::uint32_t x) {
  const std::uint32_t n = x >> 8;
  if (n < (1U << 23)) return -std::log((static_cast<float>(n) + 0.5F) * 0x1p-24F);
  return -std::log1p(-(static_cast<float>((1U << 24) - 1 - n) + 0.5F) * 0x1p-24F);
}

/// The random words of indices 4 * block .. 4 * block + 3 of one stream (0 text, 1.. the audio rows) of one frame:
/// counter = (block, stream, frame low, frame high), key = seed, lane = index % 4.
inline std::array<std::uint32_t, 4> noise_words(std::uint64_t seed, std::uint64_t frame, std::uint32_t stream,
                                                std::uint32_t block) {
  return philox4x32({block, stream, static_cast<std::uint32_t>(frame), static_cast<std::uint32_t>(frame >> 32)},
                    {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

/// Exp(1) noise q = exponential(x) for every index of one stream of one frame, out [count] float32. The token drawn is
/// the argmax of p / q.
inline void exponential_noise(std::uint64_t seed, std::uint64_t frame, std::uint32_t stream, float* out, int count) {
  for (int i = 0; i < count; i += 4) {
    const auto words = noise_words(seed, frame, stream, static_cast<std::uint32_t>(i / 4));
    for (int lane = 0; lane < 4 && i + lane < count; ++lane) {
      out[i + lane] = exponential(words[static_cast<std::size_t>(lane)]);
    }
  }
}

}  // namespace personaplex
