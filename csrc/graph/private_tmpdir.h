// csrc/graph/private_tmpdir.h: for its lifetime, TMPDIR is a fresh directory that only this user can read.
//
// On the CPU, mx::compile writes C++ sources and loads the libraries built from them under TMPDIR/mlx, by predictable
// names. In a shared /tmp anybody could put a library there first. The environment is one for the process, so only one
// such object exists at a time.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>

#include "core/error.h"

namespace personaplex::graph {

class PrivateTmpdir {
 public:
  /// Throws DeviceError when no directory can be made.
  PrivateTmpdir() : lock_(mutex()) {
    std::error_code ignored;
    std::string path = (std::filesystem::temp_directory_path(ignored) / "personaplex-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) {
      throw DeviceError("[compile] no private directory can be made as " + path + ": " + std::strerror(errno) +
                        ". Set TMPDIR to a writable folder, or load without compile.");
    }
    directory_ = path;
    if (const char* old = std::getenv("TMPDIR")) previous_ = old;
    setenv("TMPDIR", path.c_str(), 1);
  }
  ~PrivateTmpdir() {
    if (previous_) {
      setenv("TMPDIR", previous_->c_str(), 1);
    } else {
      unsetenv("TMPDIR");
    }
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);  // loaded libraries stay mapped
  }
  PrivateTmpdir(const PrivateTmpdir&) = delete;
  PrivateTmpdir& operator=(const PrivateTmpdir&) = delete;

 private:
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }

  std::lock_guard<std::mutex> lock_;
  std::string directory_;
  std::optional<std::string> previous_;
};

}  // namespace personaplex::graph
