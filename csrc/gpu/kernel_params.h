// csrc/gpu/kernel_params.h: the structs that kernels/*.metal take as `constant Params&`, field by field.
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

struct SelectParams {
  std::int32_t n, has_which;
};

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

struct CodecConvParams {
  std::int32_t count, outputs, groups, width, row_stride, group_stride, splits, flags, replicate, columns_in;
};

struct CodecResidualParams {
  std::int32_t count, channels, hidden, taps, dilation, flags;
};

struct CodecCarryParams {
  std::int32_t windows;
};

struct CodecUpsampleParams {
  std::int32_t count, channels, stride, has_bias;
};

struct CodecLinearParams {
  std::int32_t columns, outputs, inputs, splits, parts, layer_scale;
};

struct CodecQkvParams {
  std::int32_t columns, heads, head_dim, inputs, splits;
  std::uint32_t offset;
};

struct CodecAttendParams {
  std::int32_t columns, heads, head_dim, slots;
  std::uint32_t offset;
  std::int32_t outputs, slices, layer_scale;
  float factor;
};

struct CodecQuantizeParams {
  std::int32_t step, levels0, levels1, bins, d, groups;
};

struct CodecDequantizeParams {
  std::int32_t outputs, d, bins, levels0, levels1, drawn;
};

}  // namespace personaplex::gpu
