// csrc/gpu/cuda_cache.cpp: the format of a cached program.
//
// Strings, each after its length in 8 bytes: mark, key, program; then 8 bytes of FNV-1a over all that. The key is
// stored whole, so that equal hashes of different keys do no harm.
#include "gpu/cuda_cache.h"

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>
#include <system_error>

namespace personaplex::gpu {

namespace {

constexpr std::string_view kMark = "personaplex cubin 1";

std::uint64_t fnv1a(std::string_view bytes) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

std::string hex(std::uint64_t value) {
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4) out[i] = "0123456789abcdef"[value & 15];
  return out;
}

std::string number(std::uint64_t value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

std::string prefixed(std::string_view text) { return number(text.size()) + std::string(text); }

/// Takes strings off the front of a file whose hash was right.
struct Reader {
  std::string_view rest;
  bool sound = true;

  std::string_view next() {
    std::uint64_t size = 0;
    if (rest.size() >= sizeof size) std::memcpy(&size, rest.data(), sizeof size);
    if (rest.size() < sizeof size || rest.size() - sizeof size < size) {
      sound = false;
      return {};
    }
    const std::string_view out = rest.substr(sizeof size, size);
    rest.remove_prefix(sizeof size + size);
    return out;
  }
};

}  // namespace

std::filesystem::path cached_path(const std::filesystem::path& folder, const std::string& name,
                                  const std::string& key) {
  return folder / (name + "-" + hex(fnv1a(key)) + ".cubin");
}

std::optional<std::string> read_cached(const std::filesystem::path& path, const std::string& key) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream content;
  if (!in || !(content << in.rdbuf())) return std::nullopt;
  const std::string bytes = content.str();
  const std::string_view all = bytes;
  if (all.size() < 8) return std::nullopt;
  const std::string_view body = all.substr(0, all.size() - 8);
  if (all.substr(body.size()) != number(fnv1a(body))) return std::nullopt;

  Reader reader{body};
  if (reader.next() != kMark || reader.next() != key) return std::nullopt;
  std::string program(reader.next());
  if (!reader.sound || !reader.rest.empty()) return std::nullopt;
  return program;
}

void write_cached(const std::filesystem::path& path, const std::string& key, const std::string& program) {
  static std::atomic<unsigned> count{0};
  std::string body = prefixed(kMark) + prefixed(key) + prefixed(program);
  body += number(fnv1a(body));

  // Several processes may write the same file: each its own, and the last one stays.
  std::filesystem::path temporary = path;
  temporary += "." + std::to_string(getpid()) + "." + std::to_string(count++) + ".tmp";
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  {
    std::ofstream out(temporary, std::ios::binary);
    out.write(body.data(), static_cast<std::streamsize>(body.size()));
    out.close();
    if (!out) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) std::filesystem::rename(temporary, path, error);
  if (error) std::filesystem::remove(temporary, error);
}

}  // namespace personaplex::gpu
