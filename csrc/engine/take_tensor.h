// csrc/engine/take_tensor.h: a snapshot's tensors, checked one by one.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"

namespace personaplex {

/// Moves a tensor out of a snapshot file's tensors. WeightsError unless it is there with this dtype and shape, and
/// finite where it is of floats.
TensorView take_tensor(std::map<std::string, TensorView>& in, const std::string& name, DType dtype,
                       const std::vector<std::int64_t>& shape);

/// A position as the tensor `name` of a snapshot, and back: WeightsError unless it is 0 to 2^40.
NamedTensor position_tensor(const std::string& name, std::int64_t position);
std::int64_t take_position(std::map<std::string, TensorView>& in, const std::string& name);

/// WeightsError unless the codec's position, `prefix`.ring.position, is that of whole frames: two a frame.
void check_codec_position(const std::string& prefix, std::int64_t position);
/// WeightsError when tensors are left that nothing has taken.
void check_all_taken(const std::map<std::string, TensorView>& rest);

}  // namespace personaplex
