// csrc/cpu/isa.h: which instruction set the kernels use: the best that this machine has, or the one that is asked for.
#pragma once

#include <string>
#include <vector>

namespace personaplex::cpu {

enum class Isa { kPortable, kAvx2, kAvx512Bf16 };

const char* name_of(Isa isa);       // "portable", "avx2", "avx512bf16"
bool supported(Isa isa);            // by this machine and build
std::vector<Isa> supported_isas();  // slowest first

/// The fastest supported one, or the one that the environment variable PERSONAPLEX_CPU names.
/// Throws DeviceError when that is unknown or not supported here.
Isa chosen_isa();

}  // namespace personaplex::cpu
