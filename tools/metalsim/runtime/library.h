// tools/metalsim/runtime/library.h: what the runtime knows of a loaded kernel.
#pragma once

#include <cstdint>
#include <string>

#include "../shim/abi.h"
#include "metalsim.h"

namespace metalsim {

struct Kernel {
  msl::KernelEntry entry;
  bool checked;
  std::string library;            // the shared object's path
  std::uintptr_t code, code_end;  // where it lies in memory: program text and constants
};

/// "file.metal:12" of an address of the kernel's code; empty when no tool here can tell.
std::string source_of(const Kernel& kernel, const void* pc);

}  // namespace metalsim
