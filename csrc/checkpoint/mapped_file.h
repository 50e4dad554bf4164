// csrc/checkpoint/mapped_file.h: a file as read-only memory.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace personaplex {

struct MappedFile {
  const std::byte* data = nullptr;  // page aligned; nullptr for an empty file
  std::size_t size = 0;
  std::shared_ptr<const void> owner;  // unmaps when the last copy goes
};

/// std::invalid_argument, naming `where`, for a path with a NUL byte: the system would silently cut it there.
void check_path(const char* where, const std::string& path);

/// Maps a regular file. Throws WeightsError with the system's reason. A file that another process shortens while it is
/// mapped raises SIGBUS on access: replace files by renaming, as write_safetensors does.
MappedFile map_file(const std::string& path);

}  // namespace personaplex
