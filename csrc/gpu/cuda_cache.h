// csrc/gpu/cuda_cache.h: one file per compiled program, made whole or not at all.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace personaplex::gpu {

/// The file of a program; `key` is everything that the program depends on, `name` for people.
std::filesystem::path cached_path(const std::filesystem::path& folder, const std::string& name, const std::string& key);

/// The program; nothing where the file is absent, damaged or of another key.
std::optional<std::string> read_cached(const std::filesystem::path& path, const std::string& key);

/// Does nothing where the folder cannot be written: the program is then compiled again next time.
void write_cached(const std::filesystem::path& path, const std::string& key, const std::string& program);

}  // namespace personaplex::gpu
