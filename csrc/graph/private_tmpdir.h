// csrc/graph/private_tmpdir.h: for its lifetime, TMPDIR is a fresh directory that only this user can read.
//
// On the CPU, mx::compile writes C++ sources and loads the libraries built from them under TMPDIR/mlx, by predictable
// names. In a shared /tmp anybody could put a library there first.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

namespace personaplex::graph {

class PrivateTmpdir {
 public:
  PrivateTmpdir() {
    std::error_code ignored;
    std::string path = (std::filesystem::temp_directory_path(ignored) / "personaplex-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) return;
    directory_ = path;
    if (const char* old = std::getenv("TMPDIR")) previous_ = old;
    setenv("TMPDIR", path.c_str(), 1);
  }
  ~PrivateTmpdir() {
    if (!directory_) return;
    if (previous_) {
      setenv("TMPDIR", previous_->c_str(), 1);
    } else {
      unsetenv("TMPDIR");
    }
    std::error_code ignored;
    std::filesystem::remove_all(*directory_, ignored);  // loaded libraries stay mapped
  }
  PrivateTmpdir(const PrivateTmpdir&) = delete;
  PrivateTmpdir& operator=(const PrivateTmpdir&) = delete;

  bool ok() const { return directory_.has_value(); }

 private:
  std::optional<std::string> directory_, previous_;
};

}  // namespace personaplex::graph
