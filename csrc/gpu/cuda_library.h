// csrc/gpu/cuda_library.h: functions of a library that was opened at run time, and how CUDA writes version numbers.
#pragma once

#include <dlfcn.h>

#include <cstring>
#include <string>

namespace personaplex::gpu::cuda {

/// Sets `function` to the one of this name, null where there is none.
template <typename Function>
bool find_function(void* library, const char* name, Function*& function) {
  void* const symbol = dlsym(library, name);
  static_assert(sizeof(symbol) == sizeof(function));
  std::memcpy(&function, &symbol, sizeof(function));
  return symbol != nullptr;
}

/// "12.9" of 12090.
inline std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace personaplex::gpu::cuda
