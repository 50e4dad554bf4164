// csrc/gpu/cuda_cache.h: one file per compiled program, made whole or not at all.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "gpu/cuda_compiler.h"

namespace personaplex::gpu {

/// The file for a program of `file`; `key` is everything that the result depends on.
std::filesystem::path cached_path(const std::filesystem::path& folder, const std::string& file, const std::string& key);

/// Nothing where the file is absent, damaged or of another key.
std::optional<CudaProgram> read_cached(const std::filesystem::path& path, const std::string& key);

/// Does nothing where the folder cannot be written: the program is then compiled again next time.
void write_cached(const std::filesystem::path& path, const std::string& key, const CudaProgram& program);

}  // namespace personaplex::gpu
