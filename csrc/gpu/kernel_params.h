// csrc/gpu/kernel_params.h: the structs that kernels/lm_*.metal take as `constant Params&`, field by field.
#pragma once

#include <cstdint>

namespace personaplex::gpu {

struct EmbedTable {
  const std::byte* words = nullptr;  // addresses on the device
  const std::byte* scales = nullptr;
  const std::byte* biases = nullptr;
  std::int32_t bits = 0;
  std::int32_t group_shift = 0;
  std::int32_t half_scales = 0;
  std::int32_t unused = 0;
};
static_assert(sizeof(EmbedTable) == 40);

struct EmbedParams {
  std::int32_t dim, count;
};

struct ProductParams {
  std::int32_t n, k, columns, group_shift, split, passes, epilogue, norm;
};

struct QkvParams {
  std::int32_t n, k, columns, group_shift, split, passes, norm, heads, head_dim, rotary, kv_bits;
  std::uint32_t offset;
};

struct AttendProjectParams {
  std::int32_t n, k, group_shift, split, heads, head_dim, slots;
  std::uint32_t offset;
};

struct AttendParams {
  std::int32_t heads, head_dim, slots, splits;
  std::uint32_t offset;
};

struct NormParams {
  std::int32_t dim;
};

struct SampleParams {
  std::int32_t n, stream;
};

}  // namespace personaplex::gpu
