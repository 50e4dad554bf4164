// csrc/checkpoint/mapped_file.cpp: mmap behind a shared_ptr.
#include "checkpoint/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "checkpoint/json.h"
#include "core/error.h"

namespace personaplex {

namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what, int code) {
  throw WeightsError("[map_file] " + path + ": " + what + ": " + std::generic_category().message(code) + ".");
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

void check_path(const char* where, const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    bad_argument(where, "expected a path without NUL bytes, got " + json_quote(path) + ".");
  }
}

MappedFile map_file(const std::string& path) {
  check_path("map_file", path);
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) fail(path, "cannot open", errno);
  struct stat status = {};
  if (::fstat(file.fd, &status) != 0) fail(path, "cannot read the size", errno);
  if (!S_ISREG(status.st_mode)) throw WeightsError("[map_file] " + path + ": expected a regular file.");
  MappedFile mapped;
  mapped.size = static_cast<std::size_t>(status.st_size);
  if (mapped.size == 0) return mapped;
  void* memory = ::mmap(nullptr, mapped.size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (memory == MAP_FAILED) fail(path, "cannot map", errno);
  const std::size_t size = mapped.size;
  mapped.owner = std::shared_ptr<const void>(memory, [size](void* p) { ::munmap(p, size); });
  mapped.data = static_cast<const std::byte*>(memory);
  return mapped;
}

}  // namespace personaplex
