// tests/cpp/test_cpu_attention.cpp: every instruction set's attention over a ring against the sum in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "checkpoint/bf16.h"
#include "cpu/attention.h"
#include "cpu/isa.h"

using namespace personaplex;
using namespace personaplex::cpu;

namespace {

constexpr KvFormat kFormats[] = {KvFormat::kFloat32, KvFormat::kBfloat16, KvFormat::kInt8};

/// The keys, or the values, of one head, in pages of exactly their size. Unused slots hold NaN or what is as bad.
struct Side {
  std::vector<std::vector<std::byte>> memory;
  std::vector<std::byte*> pages;
  HeadSlots slots;

  Side(KvFormat format, int count, int head_dim) {
    constexpr int kPage = ops::kRingPage;
    const std::size_t scales = static_cast<std::size_t>(kPage * head_dim) * size_of(format);
    for (int first = 0; first < count; first += kPage) {
      memory.emplace_back(scales + (format == KvFormat::kInt8 ? kPage * sizeof(float) : 0), std::byte{0xFF});
      pages.push_back(memory.back().data());
    }
    slots = {pages.data(), 0, scales, format, head_dim};
  }

  std::byte* row(int slot) const {
    return pages[static_cast<std::size_t>(slot / ops::kRingPage)] +
           static_cast<std::size_t>(slot % ops::kRingPage * slots.head_dim) * size_of(slots.format);
  }
  float scale(int slot) const {
    return reinterpret_cast<const float*>(pages[static_cast<std::size_t>(slot / ops::kRingPage)] +
                                          slots.scales)[slot % ops::kRingPage];
  }

  double value(int slot, int i) const {
    switch (slots.format) {
      case KvFormat::kFloat32:
        return reinterpret_cast<const float*>(row(slot))[i];
      case KvFormat::kBfloat16:
        return from_bf16_bits(reinterpret_cast<const std::uint16_t*>(row(slot))[i]);
      case KvFormat::kInt8:
        return static_cast<double>(scale(slot)) * reinterpret_cast<const std::int8_t*>(row(slot))[i];
    }
    return 0;
  }
};

/// A ring after `appended` positions, of which those that are kept were made by `random` with this seed.
struct Head {
  Side keys, values;
  int slots, last_slot, count, head_dim;

  Head(Isa isa, KvFormat format, int ring_slots, int first_slot, int positions, int dim, unsigned seed,
       bool all_alike = false)
      : keys(format, ring_slots, dim),
        values(format, ring_slots, dim),
        slots(ring_slots),
        last_slot((first_slot + positions - 1) % ring_slots),
        count(positions),
        head_dim(dim) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> key(static_cast<std::size_t>(dim)), value(key);
    for (int i = 0; i < positions; ++i) {
      if (i == 0 || !all_alike) {
        for (float& x : key) x = normal(random);
        for (float& x : value) x = normal(random);
      }
      attention_kernels(isa).append(keys.slots, (first_slot + i) % slots, key.data());
      attention_kernels(isa).append(values.slots, (first_slot + i) % slots, value.data());
    }
  }

  std::vector<float> attend(Isa isa, const std::vector<float>& q) const {
    std::vector<float> out(q.size(), std::numeric_limits<float>::quiet_NaN());
    attention_kernels(isa).attend(keys.slots, values.slots, slots, last_slot, count, q.data(), out.data());
    return out;
  }

  std::vector<double> reference(const std::vector<float>& q) const {
    std::vector<double> scores(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
      const int slot = (last_slot + slots - (count - 1) + i) % slots;
      for (int d = 0; d < head_dim; ++d) scores[i] += q[static_cast<std::size_t>(d)] * keys.value(slot, d);
      scores[i] /= std::sqrt(static_cast<double>(head_dim));
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    std::vector<double> out(static_cast<std::size_t>(head_dim));
    for (int i = 0; i < count; ++i) {
      const int slot = (last_slot + slots - (count - 1) + i) % slots;
      const double p = std::exp(scores[i] - largest);
      total += p;
      for (int d = 0; d < head_dim; ++d) out[static_cast<std::size_t>(d)] += p * values.value(slot, d);
    }
    for (double& x : out) x /= total;
    return out;
  }
};

std::vector<float> random_query(int head_dim, float scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> q(static_cast<std::size_t>(head_dim));
  for (float& x : q) x = scale * normal(random);
  return q;
}

/// Largest difference. NaN counts as infinite.
double distance(const std::vector<float>& got, const std::vector<double>& want) {
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = std::abs(got[i] - want[i]);
    worst = std::isnan(d) ? std::numeric_limits<double>::infinity() : std::max(worst, d);
  }
  return worst;
}

}  // namespace

TEST_CASE("attention of every instruction set, format, size and number of positions, wrapped or not") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const KvFormat format : kFormats) {
      CAPTURE(static_cast<int>(format));
      for (const int head_dim : {2, 6, 16, 32, 64, 128, 130}) {
        CAPTURE(head_dim);
        const auto q = random_query(head_dim, 1.0F, 7);
        for (const int count : {1, 2, 3, 15, 16, 17, 31, 32, 33, 255, 1000}) {
          CAPTURE(count);
          const Head straight(isa, format, count + 5, 0, count, head_dim, 3);
          const auto out = straight.attend(isa, q);
          CHECK(distance(out, straight.reference(q)) < 2e-6);
          // Where the ring begins changes nothing: full and one slot late; begun in the middle of a tile; the newest
          // position alone after the end.
          CHECK(Head(isa, format, count, 1 % count, count, head_dim, 3).attend(isa, q) == out);
          CHECK(Head(isa, format, count + 7, count / 2 + 7, count, head_dim, 3).attend(isa, q) == out);
          CHECK(Head(isa, format, count + 1, 2, count, head_dim, 3).attend(isa, q) == out);
        }
      }
    }
  }
}

TEST_CASE("attention: scores that saturate, and positions that are all alike") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const KvFormat format : kFormats) {
      CAPTURE(static_cast<int>(format));
      for (const int head_dim : {6, 64, 128}) {
        CAPTURE(head_dim);
        const Head head(isa, format, 300, 250, 290, head_dim, 5);
        // Scores of about +-10^4: one position takes all, whether it comes early or late.
        for (unsigned seed = 0; seed < 8; ++seed) {
          const auto q = random_query(head_dim, 3000.0F, seed);
          CHECK(distance(head.attend(isa, q), head.reference(q)) < 1e-2);  // of scores rounded at 10^4
        }
        // Scores of about +-100: most weights are below the smallest float.
        const auto q = random_query(head_dim, 50.0F, 11);
        CHECK(distance(head.attend(isa, q), head.reference(q)) < 2e-4);
        const auto zero = random_query(head_dim, 0.0F, 1);
        CHECK(distance(head.attend(isa, zero), head.reference(zero)) < 2e-6);

        const Head alike(isa, format, 300, 17, 299, head_dim, 5, true);
        const auto out = alike.attend(isa, random_query(head_dim, 1.0F, 2));
        for (int i = 0; i < head_dim; ++i) {
          CHECK(out[static_cast<std::size_t>(i)] == doctest::Approx(alike.values.value(17, i)).epsilon(1e-5));
        }
      }
    }
  }
}

TEST_CASE("attention: a long ring") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const KvFormat format : kFormats) {
      const auto q = random_query(128, 1.0F, 1);
      const Head head(isa, format, 9000, 8000, 8999, 128, 9);
      CHECK(distance(head.attend(isa, q), head.reference(q)) < 2e-6);
    }
  }
}

TEST_CASE("append rounds to nearest even, in every format, and touches its own slot only") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    for (const int head_dim : {2, 6, 16, 34, 64, 128, 130}) {
      CAPTURE(head_dim);
      auto values = random_query(head_dim, 3.0F, 1);
      values[0] = std::bit_cast<float>(0x3F808000U);  // a tie, in bfloat16
      values[1] = -0.0F;
      for (const KvFormat format : kFormats) {
        Side side(format, 3, head_dim);
        attention_kernels(isa).append(side.slots, 1, values.data());
        const std::ptrdiff_t row = side.row(1) - side.row(0);
        const auto untouched = [](std::byte b) { return b == std::byte{0xFF}; };
        CHECK(std::all_of(side.row(0), side.row(1), untouched));
        CHECK(std::all_of(side.row(2), side.row(2) + row, untouched));
        float largest = 0;
        for (const float x : values) largest = std::max(largest, std::abs(x));
        if (format == KvFormat::kInt8) {
          CHECK(side.scale(1) == largest / 127.0F);
          CHECK(std::isnan(side.scale(0)));
          CHECK(std::isnan(side.scale(2)));
        }
        for (int i = 0; i < head_dim; ++i) {
          const float x = values[static_cast<std::size_t>(i)];
          const double stored = side.value(1, i);
          if (format == KvFormat::kFloat32) CHECK(stored == x);
          if (format == KvFormat::kBfloat16) CHECK(stored == from_bf16_bits(to_bf16_bits(x)));
          if (format == KvFormat::kInt8) CHECK(std::abs(stored - x) <= 0.5001 * side.scale(1));
        }
      }
    }
    // The largest magnitude is exact but for the rounding of its scale; nothing, and next to nothing, is nothing.
    for (const float large : {1.0F, -3.7F, 1e30F, 1e-30F, 1e-37F, 1e-42F, 0.0F}) {
      CAPTURE(large);
      Side side(KvFormat::kInt8, 1, 4);
      const float values[4] = {large / 254.0F, large, -large, 0.0F};
      attention_kernels(isa).append(side.slots, 0, values);
      CHECK(std::isfinite(side.scale(0)));
      CHECK(side.value(0, 1) == doctest::Approx(std::abs(large) < 1e-35F ? 0.0 : large).epsilon(1e-6));
      CHECK(side.value(0, 2) == -side.value(0, 1));
      CHECK(side.value(0, 3) == 0.0);
    }
  }
}
