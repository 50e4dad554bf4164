// csrc/gpu/obstacle.cpp: the limits that kernels/*.metal state, as far as a model's sizes can go beyond them.
#include "gpu/obstacle.h"

#include <numeric>
#include <utility>
#include <vector>
namespace personaplex::gpu {

std::string obstacle(const Config& config, int kv_bits) {
  constexpr int kMaxNormed = 512;    // kernels/codec_qkv.metal
  constexpr int kMaxCodeword = 512;  // kernels/codec_quantize.metal
  constexpr int kMaxHeadDim = 128;   // kernels/codec_attend.metal
  constexpr int kMaxVisible = 511;   // the same, by one column of the two
  constexpr int kEmbedValues = 8;    // kernels/lm_embed.metal
  constexpr int kTileSlots = 32;     // kernels/lm_product.metal: of a pass of c8
  constexpr int kMaxHeads = 128;     // the same, that it keeps
  const MimiConfig& mimi = config.mimi;
  const int head_dim = mimi.dimension / mimi.num_heads;
  const auto most = [](const char* what, int limit, int got) {
    return std::string("its GPU kernels take ") + what + " of at most " + std::to_string(limit) +
           ", and this model's is " + std::to_string(got);
  };
  if (mimi.dimension > kMaxNormed) return most("a Mimi dimension", kMaxNormed, mimi.dimension);
  if (mimi.quantizer_dimension > kMaxCodeword) return most("codewords", kMaxCodeword, mimi.quantizer_dimension);
  if (head_dim > kMaxHeadDim) return most("a head size in Mimi", kMaxHeadDim, head_dim);
  if (mimi.context > kMaxVisible) return most("a Mimi context", kMaxVisible, mimi.context);
  if (head_dim % 4 != 0) {
    return "its GPU kernels take heads in Mimi of a multiple of 4 values, and this model's have " +
           std::to_string(head_dim);
  }
  for (const auto& [name, dim] : {std::pair{"dim", config.dim}, std::pair{"depformer_dim", config.depformer_dim}}) {
    if (dim % kEmbedValues != 0) {
      return std::string("its GPU kernels take a ") + name + " that is a multiple of " + std::to_string(kEmbedValues) +
             ", and this model's is " + std::to_string(dim);
    }
  }
  if (config.depformer_head_dim() % 2 != 0) {
    return "its GPU kernels take heads in the depformer of an even size, and this model's have " +
           std::to_string(config.depformer_head_dim()) + " values";
  }
  if (kv_bits == 8 && std::lcm(kTileSlots, config.head_dim()) > kMaxHeads) {
    return "its GPU kernels keep int8 keys and values of heads of 32, 64, 96 or 128 values or a part of that, and this "
           "model's have " +
           std::to_string(config.head_dim()) + " (kv_bits=16 takes them)";
  }
  return "";
}

}  // namespace personaplex::gpu
