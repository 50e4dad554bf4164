// csrc/cpu/attention.h: one head's keys and values in a ring, and attention over them; one implementation per
// instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.h"
#include "ops/ops.h"

namespace personaplex::cpu {

enum class KvFormat : std::uint8_t { kFloat32, kBfloat16, kInt8 };

constexpr std::size_t size_of(KvFormat format) {
  return format == KvFormat::kFloat32 ? 4 : format == KvFormat::kBfloat16 ? 2 : 1;
}

/// The keys, or the values, of one head in a ring of pages (ops::Ring): slot s is row s % kRingPage of [kRingPage,
/// head_dim] in `format`, `offset` bytes into page s / kRingPage. kInt8 has a float32 scale per slot, [kRingPage] at
/// `scales`: value = scale * q with |q| <= 127 and scale = largest magnitude / 127 (0 where all magnitudes are below
/// 1e-35).
struct HeadSlots {
  std::byte* const* pages = nullptr;
  std::size_t offset = 0, scales = 0;
  KvFormat format = KvFormat::kBfloat16;
  int head_dim = 0;  // even; any size
};

struct AttentionKernels {
  /// Writes values [head_dim] float32 at `slot`, rounded to nearest even.
  void (*append)(const HeadSlots& side, int slot, const float* values);
  /// Keys and values have one format. out [head_dim] = softmax(q . K / sqrt(head_dim)) V over `count` >= 1 positions,
  /// the newest of which is in `last_slot`, the one before it in the slot before (slot 0 follows slot `slots` - 1). One
  /// pass over blocks of positions with a running maximum; float32 sums in an order that depends on the format and on
  /// count only.
  void (*attend)(const HeadSlots& keys, const HeadSlots& values, int slots, int last_slot, int count, const float* q,
                 float* out);
};

/// Kernels of an instruction set that this machine supports.
const AttentionKernels& attention_kernels(Isa isa);

}  // namespace personaplex::cpu
