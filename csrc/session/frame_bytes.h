// csrc/session/frame_bytes.h: how much memory one frame must read, counted from the weight table: the floor of its
// time; and how much a GPU must hold.
#pragma once

#include <cstddef>

#include "checkpoint/weights.h"

namespace personaplex {

/// Bytes of weights that each part of a frame reads once, and of keys and values per visible position.
struct FrameBytes {
  std::size_t mimi_encode = 0, temporal = 0, depformer = 0, mimi_decode = 0;
  std::size_t temporal_kv = 0;  // a position of 80 ms that the temporal transformer sees
  std::size_t mimi_kv = 0;      // a position of 40 ms that one of Mimi's two transformers sees

  bool operator==(const FrameBytes&) const = default;
};

/// The text head and one row of every embedding table belong to the temporal part. Mimi's weights are held in
/// `mimi_bits` (16 or 32), its keys and values in 32; the temporal transformer's in `kv_bits` (8: and a float32 scale
/// for each head).
FrameBytes frame_bytes(const Weights& weights, int kv_bits, int mimi_bits);

/// Bytes that the fused engine keeps in a GPU's memory.
struct ResidentBytes {
  std::size_t weights = 0;
  std::size_t conversation = 0;  // keys and values of one that has filled its context
};
ResidentBytes resident_bytes(const Weights& weights, int kv_bits);

}  // namespace personaplex
