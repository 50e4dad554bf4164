// csrc/checkpoint/mlx_layout.h: temporal, depformer and embeddings.safetensors joined under NVIDIA's names.
#pragma once

#include <string>

#include "checkpoint/key_reader.h"

namespace personaplex {

TensorTable read_mlx_layout(const std::string& directory);

}  // namespace personaplex
