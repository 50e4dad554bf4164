// tests/cpp/load_fake_cuda.h: the fake libcuda and NVRTC of fake_cuda.cpp, opened as the real ones are.
#pragma once

#include <dlfcn.h>
#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "fake_cuda.h"

namespace personaplex {

inline const std::string kFake = PERSONAPLEX_FAKE_CUDA;

inline FakeCuda& fake_at(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE_MESSAGE(library != nullptr, dlerror());
  void* symbol = dlsym(library, "fake_cuda");
  FakeCudaGetter get = nullptr;
  std::memcpy(&get, &symbol, sizeof get);
  return *get();
}

/// A fake GPU as new, on which nothing has been left.
inline FakeCuda& new_fake() {
  FakeCuda& fake = fake_at(kFake);
  CHECK(fake.alive == 0);
  fake = FakeCuda{};
  return fake;
}

}  // namespace personaplex
