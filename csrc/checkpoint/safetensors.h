// csrc/checkpoint/safetensors.h: reads (mapped) and writes (atomically) the safetensors format.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/tensor.h"

namespace personaplex {

struct Safetensors {
  std::string path;
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

/// Maps the file and checks every header field against its size. Throws WeightsError on anything that does not fit:
/// truncated, header over 100 MB or not JSON, unknown dtype, overlapping or out-of-range offsets, size != shape x
/// dtype. A tensor whose data is not aligned to its elements is copied.
Safetensors read_safetensors(const std::string& path);

struct NamedTensor {
  std::string name;
  TensorView tensor;
};

/// Writes to a temporary name beside `path` and renames: a reader sees the old file or the whole new one.
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace personaplex
