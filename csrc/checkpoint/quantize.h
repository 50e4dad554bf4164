// csrc/checkpoint/quantize.h: what LoadOptions mean, shared by the loader, the random weights and apply_bits.
#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/weights.h"

namespace personaplex {

/// Throws std::invalid_argument when an option has a value that does not exist for this model.
void check_options(const Config& config, const LoadOptions& options);

/// Depformer steps to load: options.depformer_steps, or the default.
int depformer_steps(const Config& config, const LoadOptions& options);

/// The bits that options ask for the tensor of this name (NVIDIA's); 0: as it is.
int bits_for(const std::string& name, const LoadOptions& options);

/// The group for rows of k elements: what options ask for, else the larger of 64 and 32 that divides k; 0 when none
/// does.
int group_size_for(std::int64_t k, const LoadOptions& options);

}  // namespace personaplex
