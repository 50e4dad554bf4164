// csrc/cpu/isa.cpp: asks the processor.
#include "cpu/isa.h"

#include <cstdlib>

#include "core/error.h"

namespace personaplex::cpu {

namespace {

#if defined(__x86_64__)
// The builtins also ask the system whether it saves the wide registers.
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0;
}
#endif

constexpr Isa kAll[] = {Isa::kPortable, Isa::kNeon, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAvx512Bf16};

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kNeon:
      return "neon";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "unknown";
}

bool supported(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return true;
#if defined(__aarch64__)
    case Isa::kNeon:  // part of the base architecture
      return true;
#elif defined(__x86_64__)
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    case Isa::kAvx512Vnni:
      return has_avx512() && __builtin_cpu_supports("avx512vnni") != 0;
    case Isa::kAvx512Bf16:
      return has_avx512() && __builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("avx512bf16") != 0;
#endif
    default:
      return false;
  }
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> out;
  for (const Isa isa : kAll) {
    if (supported(isa)) out.push_back(isa);
  }
  return out;
}

std::string supported_names() {
  std::string names;
  for (const Isa isa : supported_isas()) names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
  return names;
}

std::optional<Isa> find_isa(const std::string& name) {
  for (const Isa isa : supported_isas()) {
    if (name == name_of(isa)) return isa;
  }
  return std::nullopt;
}

Isa chosen_isa() {
  const char* asked = std::getenv("PERSONAPLEX_CPU");
  if (asked == nullptr || *asked == '\0') return supported_isas().back();
  if (const auto isa = find_isa(asked)) return *isa;
  throw DeviceError("[PERSONAPLEX_CPU] expected one of " + supported_names() + " on this machine, got '" + asked +
                    "'.");
}

}  // namespace personaplex::cpu
