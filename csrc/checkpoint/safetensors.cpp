// csrc/checkpoint/safetensors.cpp: the header's checks, and the atomic writer.
#include "checkpoint/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "checkpoint/json.h"
#include "checkpoint/mapped_file.h"
#include "core/error.h"

namespace personaplex {

namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr std::size_t kAlignment = 8;  // of the data of a file that is written

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw WeightsError("[read_safetensors] " + path + ": " + what);
}

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kU32, DType::kI32, DType::kI64, DType::kU8,
                            DType::kBool, DType::kU16, DType::kI16, DType::kI8, DType::kF64, DType::kU64}) {
    if (name == name_of(dtype)) return dtype;
  }
  return std::nullopt;
}

struct Entry {
  const std::string* name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin, end;  // bytes from the start of the data
};

std::uint64_t natural(const std::string& path, const std::string& name, const Json& value, const char* what) {
  const std::int64_t* number = value.integer();
  if (number == nullptr || *number < 0) {
    fail(path, json_quote(name) + ": expected whole numbers from 0 in " + what + ".");
  }
  return static_cast<std::uint64_t>(*number);
}

/// Checks one header member by itself: types, range within the data, size against shape and dtype.
Entry parse_entry(const std::string& path, const JsonMember& member, std::uint64_t data_size) {
  const std::string& name = member.key;
  const Json* dtype_value = member.value.find("dtype");
  const Json* shape_value = member.value.find("shape");
  const Json* offsets_value = member.value.find("data_offsets");
  if (dtype_value == nullptr || dtype_value->string() == nullptr || shape_value == nullptr ||
      shape_value->array() == nullptr || offsets_value == nullptr || offsets_value->array() == nullptr ||
      offsets_value->array()->size() != 2) {
    fail(path, json_quote(name) + ": expected dtype (text), shape (list) and data_offsets (two numbers).");
  }
  const auto dtype = dtype_named(*dtype_value->string());
  if (!dtype) fail(path, json_quote(name) + ": unknown dtype " + json_quote(*dtype_value->string()) + ".");

  Entry entry{&name, *dtype, {}, 0, 0};
  std::uint64_t bytes = size_of(*dtype);
  for (const Json& d : *shape_value->array()) {
    const std::uint64_t extent = natural(path, name, d, "shape");
    entry.shape.push_back(static_cast<std::int64_t>(extent));
    // Held under 2^62, so that neither this product nor any sum with it can wrap; zero extents are checked like ones.
    if (extent > 0 && bytes > (std::uint64_t{1} << 62) / extent) {
      fail(path, json_quote(name) + ": shape " + shape_string(entry.shape) + " is larger than any file.");
    }
    bytes *= std::max<std::uint64_t>(extent, 1);
  }
  if (std::find(entry.shape.begin(), entry.shape.end(), 0) != entry.shape.end()) bytes = 0;

  entry.begin = natural(path, name, (*offsets_value->array())[0], "data_offsets");
  entry.end = natural(path, name, (*offsets_value->array())[1], "data_offsets");
  const std::string range = "[" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + ")";
  if (entry.begin > entry.end || entry.end > data_size) {
    fail(path, json_quote(name) + ": data_offsets " + range + " lie outside the file's " + std::to_string(data_size) +
                   " bytes of data; the file is damaged or only partly downloaded, fetch it again.");
  }
  if (entry.end - entry.begin != bytes) {
    fail(path, json_quote(name) + ": data_offsets " + range + " do not hold " + shape_string(entry.shape) + " " +
                   name_of(*dtype) + ", which is " + std::to_string(bytes) + " bytes.");
  }
  return entry;
}

/// The format wants the tensors to tile the data: no gap, no overlap, no bytes left over.
void check_tiling(const std::string& path, std::vector<Entry>& entries, std::uint64_t data_size) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  std::uint64_t at = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != at) {
      fail(path, json_quote(*entry.name) + ": data begins at byte " + std::to_string(entry.begin) + ", expected " +
                     std::to_string(at) + " (tensors may neither overlap nor leave gaps).");
    }
    at = entry.end;
  }
  if (at != data_size) {
    fail(path, "the tensors end at byte " + std::to_string(at) + " of the data, which has " +
                   std::to_string(data_size) + " bytes.");
  }
}

TensorView view_of(const Entry& entry, const std::byte* data, const MappedFile& file) {
  TensorView view{entry.dtype, entry.shape, data + entry.begin, file.owner, /* mapped = */ true};
  if (reinterpret_cast<std::uintptr_t>(view.data) % size_of(entry.dtype) == 0) return view;
  OwnedTensor copy = allocate_tensor(entry.dtype, entry.shape);
  if (view.nbytes() > 0) std::memcpy(copy.mutable_data, view.data, view.nbytes());
  return copy.view;
}

}  // namespace

Safetensors read_safetensors(const std::string& path) {
  const MappedFile file = map_file(path);
  if (file.size < 8) {
    fail(path, "expected a safetensors file, got " + std::to_string(file.size) + " bytes; fetch it again.");
  }
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, file.data, 8);
  if (header_size > kMaxHeader || header_size > file.size - 8) {
    fail(path, "the header claims " + std::to_string(header_size) + " bytes, the file has " +
                   std::to_string(file.size) +
                   " (and 100 MB is the limit); not a safetensors file, or a partial download.");
  }
  const std::byte* data = file.data + 8 + header_size;
  const std::uint64_t data_size = file.size - 8 - header_size;
  const std::string_view text(reinterpret_cast<const char*>(file.data) + 8, header_size);
  const Json header = parse_json(text, "[read_safetensors] " + path);
  if (header.object() == nullptr) fail(path, "the header is not a JSON object.");

  Safetensors result;
  result.path = path;
  std::vector<Entry> entries;
  for (const JsonMember& member : *header.object()) {
    if (member.key != "__metadata__") {
      entries.push_back(parse_entry(path, member, data_size));
      continue;
    }
    if (member.value.is_null()) continue;  // as MLX writes it where there is none
    if (member.value.object() == nullptr) fail(path, "__metadata__ is not an object.");
    for (const JsonMember& item : *member.value.object()) {
      if (item.value.string() == nullptr) fail(path, "__metadata__ " + json_quote(item.key) + " is not text.");
      result.metadata[item.key] = *item.value.string();
    }
  }
  check_tiling(path, entries, data_size);
  for (const Entry& entry : entries) result.tensors[*entry.name] = view_of(entry, data, file);
  return result;
}

namespace {

/// A file under a temporary name; renamed by commit(), removed by the destructor otherwise.
class PendingFile {
 public:
  explicit PendingFile(std::string path) : path_(std::move(path)) {
    static std::atomic<unsigned> count{0};
    temporary_ = path_ + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) fail("cannot create");
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  ~PendingFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!committed_) ::unlink(temporary_.c_str());
  }

  void write(const void* bytes, std::size_t count) {
    const char* at = static_cast<const char*>(bytes);
    while (count > 0) {
      // Some systems refuse a single write of 2 GiB or more.
      const ssize_t done = ::write(fd_, at, std::min<std::size_t>(count, std::size_t{1} << 30));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail("cannot write");
      at += done;
      count -= static_cast<std::size_t>(done);
    }
  }

  void commit() {
    if (::fsync(fd_) != 0) fail("cannot flush");
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0) fail("cannot close");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot rename");
    committed_ = true;
    // The rename itself survives a power cut only once the directory is flushed; some file systems refuse, which is no
    // failure.
    const std::size_t slash = path_.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path_.substr(0, std::max<std::size_t>(slash, 1));
    const int directory_fd = ::open(directory.c_str(), O_RDONLY | O_CLOEXEC);
    if (directory_fd >= 0) {
      ::fsync(directory_fd);
      ::close(directory_fd);
    }
  }

 private:
  [[noreturn]] void fail(const char* what) const {  // reads errno
    const std::string reason = std::generic_category().message(errno);
    throw WeightsError("[write_safetensors] " + path_ + ": " + what + ": " + reason + ".");
  }

  std::string path_, temporary_;
  int fd_ = -1;
  bool committed_ = false;
};

}  // namespace

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  check_path("write_safetensors", path);
  std::set<std::string> names;
  std::vector<const NamedTensor*> ordered;
  for (const NamedTensor& item : tensors) {
    if (item.name == "__metadata__" || !names.insert(item.name).second) {
      bad_argument("write_safetensors", "expected distinct tensor names, got " + json_quote(item.name) + " again.");
    }
    if (item.tensor.empty() && item.tensor.size() > 0) {
      bad_argument("write_safetensors", json_quote(item.name) + " has a shape but no data.");
    }
    ordered.push_back(&item);
  }
  // Wide elements first: then every tensor is aligned to its element without padding, which the format does not have.
  std::stable_sort(ordered.begin(), ordered.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return size_of(a->tensor.dtype) > size_of(b->tensor.dtype);
  });

  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) header += json_quote(key) + ":" + json_quote(value) + ",";
    header.back() = '}';
    header += ",";
  }
  std::size_t at = 0;
  for (const NamedTensor* item : ordered) {
    const std::size_t end = at + item->tensor.nbytes();
    header += json_quote(item->name) + ":{\"dtype\":\"" + name_of(item->tensor.dtype) +
              "\",\"shape\":" + shape_string(item->tensor.shape) + ",\"data_offsets\":[" + std::to_string(at) + "," +
              std::to_string(end) + "]},";
    at = end;
  }
  if (header.size() > 1) {
    header.back() = '}';
  } else {
    header += "}";
  }
  header.append((kAlignment - header.size() % kAlignment) % kAlignment, ' ');
  if (header.size() > kMaxHeader) bad_argument("write_safetensors", "the header would be over 100 MB.");
  const std::uint64_t header_size = header.size();

  PendingFile file(path);
  file.write(&header_size, 8);
  file.write(header.data(), header.size());
  for (const NamedTensor* item : ordered) file.write(item->tensor.data, item->tensor.nbytes());
  file.commit();
}

}  // namespace personaplex
