// csrc/cpu/memory.h: page-aligned memory that costs nothing until it is touched.
#pragma once

#include "ops/ops.h"

namespace personaplex::cpu {

/// Zero-filled; reserved now, backed by pages as they are written. DeviceError when the system refuses.
std::unique_ptr<ops::Memory> reserve_memory(std::size_t bytes, ops::Use use);

/// Reads the pages of [data, data + bytes) in, where the system can: weights that every frame reads are then there when
/// the first frame comes. Only a hint.
void fetch_pages(const std::byte* data, std::size_t bytes);

/// Lets go of the whole pages of a mapped file in [data, data + bytes): they no longer count as this process's memory,
/// and are read again from the system's cache when they are needed. Only a hint.
void release_pages(const std::byte* data, std::size_t bytes);

}  // namespace personaplex::cpu
