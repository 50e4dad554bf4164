// csrc/cpu/isa.h: which instruction set the kernels use: the best that this machine has, or the one that is asked for.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace personaplex::cpu {

/// Slowest first. avx512vnni and avx512bf16 both have AVX-512 F, BW, VL and DQ; kernels that multiply float32 only are
/// the same for both.
enum class Isa { kPortable, kNeon, kAvx2, kAvx512Vnni, kAvx512Bf16 };

const char* name_of(Isa isa);                          // "portable", "neon", "avx2", "avx512vnni", "avx512bf16"
bool supported(Isa isa);                               // by this machine and build
std::vector<Isa> supported_isas();                     // slowest first
std::string supported_names();                         // theirs, separated by commas
std::optional<Isa> find_isa(const std::string& name);  // among the supported ones

/// The fastest supported one, or the one that the environment variable PERSONAPLEX_CPU names.
/// Throws DeviceError when that is unknown or not supported here.
Isa chosen_isa();

}  // namespace personaplex::cpu
