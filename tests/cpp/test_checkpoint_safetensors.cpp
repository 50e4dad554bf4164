// tests/cpp/test_checkpoint_safetensors.cpp: round trips, alignment, and files that lie about themselves.
#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/mapped_file.h"
#include "test_checkpoint_files.h"

using namespace personaplex;
using namespace personaplex::testing;

namespace {

std::string with_header(const std::string& header, const std::string& data) {
  const std::uint64_t size = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  return file + header + data;
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

TensorView bytes_tensor(DType dtype, std::vector<std::int64_t> shape, unsigned char first) {
  OwnedTensor t = allocate_tensor(dtype, std::move(shape));
  for (std::size_t i = 0; i < t.view.nbytes(); ++i) t.mutable_data[i] = static_cast<std::byte>(first + i);
  return t.view;
}

}  // namespace

TEST_CASE("safetensors: what is written is read, aligned, with metadata") {
  TemporaryDirectory dir;
  const std::vector<NamedTensor> tensors = {
      {"bytes", bytes_tensor(DType::kU8, {3}, 1)},    {"half", bytes_tensor(DType::kBF16, {2, 3}, 20)},
      {"wide", bytes_tensor(DType::kI64, {2}, 40)},   {"scalar", bytes_tensor(DType::kF32, {}, 60)},
      {"none", bytes_tensor(DType::kF32, {0, 5}, 0)}, {"é\"\n", bytes_tensor(DType::kBool, {1}, 80)}};
  const std::string path = dir / "a.safetensors";
  write_safetensors(path, tensors, {{"format", "pt"}, {"quote\"", "line\n"}});
  Safetensors read = read_safetensors(path);
  CHECK(read.path == path);
  CHECK(read.metadata.at("quote\"") == "line\n");
  REQUIRE(read.tensors.size() == tensors.size());
  for (const NamedTensor& t : tensors) {
    CAPTURE(t.name);
    CHECK(same_bytes(read.tensors.at(t.name), t.tensor));
    CHECK(reinterpret_cast<std::uintptr_t>(read.tensors.at(t.name).data) % size_of(t.tensor.dtype) == 0);
  }
  // Views outlive the struct and the directory entry.
  const TensorView kept = read.tensors.at("wide");
  read = Safetensors{};
  std::filesystem::remove(path);
  CHECK(same_bytes(kept, tensors[2].tensor));
}

TEST_CASE("safetensors: the writer replaces whole files and leaves nothing behind") {
  TemporaryDirectory dir;
  const std::string path = dir / "a.safetensors";
  write_safetensors(path, {{"x", bytes_tensor(DType::kU8, {1}, 1)}}, {});
  write_safetensors(path, {{"x", bytes_tensor(DType::kU8, {2}, 7)}}, {});
  CHECK(read_safetensors(path).tensors.at("x").size() == 2);
  write_safetensors(dir / "empty.safetensors", {}, {});
  CHECK(read_safetensors(dir / "empty.safetensors").tensors.empty());

  std::filesystem::create_directory(dir / "folder");
  write_text(dir / "folder/file", "x");
  CHECK_THROWS_AS(write_safetensors(dir / "folder", {}, {}), WeightsError);  // rename onto a directory
  CHECK_THROWS_AS(write_safetensors(dir / "no/such/folder", {}, {}), WeightsError);
  CHECK_THROWS_AS(write_safetensors(path, {{"x", {}}, {"x", {}}}, {}), std::invalid_argument);
  CHECK_THROWS_AS(write_safetensors(path, {{"__metadata__", bytes_tensor(DType::kU8, {1}, 1)}}, {}),
                  std::invalid_argument);
  int files = 0;
  for (const auto& item : std::filesystem::directory_iterator(dir.path)) {
    CHECK_FALSE(contains(item.path().string(), ".tmp-"));
    ++files;
  }
  CHECK(files == 3);
  CHECK(read_safetensors(path).tensors.at("x").size() == 2);
}

TEST_CASE("safetensors: a path is not cut at a NUL byte") {
  const TemporaryDirectory directory;
  write_safetensors(directory / "file", {}, {});
  const std::string path = (directory / "file") + std::string("\0more", 5);
  CHECK_THROWS_AS(map_file(path), std::invalid_argument);
  CHECK_THROWS_AS(read_safetensors(path), std::invalid_argument);
  CHECK_THROWS_AS(write_safetensors(path, {}, {}), std::invalid_argument);
  CHECK(message_of<std::invalid_argument>([&] { load_checkpoint(path, {}); }) ==
        "[load_checkpoint] expected a path without NUL bytes, got \"" + (directory / "file") + "\\u0000more\".");
}

TEST_CASE("safetensors: metadata may be absent, null or empty") {
  const TemporaryDirectory dir;
  for (const char* metadata : {"", R"("__metadata__":null,)", R"("__metadata__":{},)"}) {
    CAPTURE(metadata);
    write_text(dir / "file",
               with_header(std::string("{") + metadata + "\"a\":" + entry("U8", "[2]", "[0,2]") + "}", "xy"));
    const Safetensors file = read_safetensors(dir / "file");
    CHECK(file.metadata.empty());
    CHECK(file.tensors.at("a").size() == 2);
  }
}

TEST_CASE("safetensors: malformed files") {
  TemporaryDirectory dir;
  const std::string eight(8, 'd');
  const std::string whole = entry("F32", "[2]", "[0,8]");
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "0 bytes"},
      {"1234567", "7 bytes"},
      {std::string("\0\0\0\0\0\0\0\x10", 8) + "{}", "claims 1152921504606846976 bytes"},
      {std::string(8, '\xFF') + "{}", "claims 18446744073709551615 bytes"},
      {with_header("{}", "").substr(0, 9), "claims 2 bytes"},
      {with_header("[]", ""), "not a JSON object"},
      {with_header("{", ""), "invalid JSON"},
      {with_header("{\"\xFF\":1}", ""), "invalid UTF-8"},
      {with_header("{}", "x"), "has 1 bytes"},
      {with_header(R"({"a":1})", ""), "expected dtype"},
      {with_header(R"({"a":{}})", ""), "expected dtype"},
      {with_header(R"({"a":)" + whole + R"(,"a":)" + whole + "}", eight), "duplicate key"},
      {with_header(R"({"a":)" + entry("F33", "[2]", "[0,8]") + "}", eight), "unknown dtype \"F33\""},
      {with_header(R"({"a":)" + entry("F32", "[-2]", "[0,8]") + "}", eight), "whole numbers"},
      {with_header(R"({"a":)" + entry("F32", "[2.0]", "[0,8]") + "}", eight), "whole numbers"},
      {with_header(R"({"a":)" + entry("F32", "[\"2\"]", "[0,8]") + "}", eight), "whole numbers"},
      {with_header(R"({"a":)" + entry("F32", "[2]", "[-8,0]") + "}", eight), "whole numbers"},
      {with_header(R"({"a":)" + entry("F32", "[2]", "[8]") + "}", eight), "expected dtype"},
      {with_header(R"({"a":)" + entry("F32", "[2]", "[0,9]") + "}", eight), "outside"},
      {with_header(R"({"a":)" + entry("F32", "[2]", "[8,0]") + "}", eight), "outside"},
      {with_header(R"({"a":)" + entry("F32", "[3]", "[0,8]") + "}", eight), "12 bytes"},
      {with_header(R"({"a":)" + entry("F16", "[2]", "[0,8]") + "}", eight), "4 bytes"},
      // 2^31 x 2^31 x 4 bytes wraps to 0 in 64 bits.
      {with_header(R"({"a":)" + entry("F32", "[2147483648,2147483648]", "[0,0]") + "}", ""), "larger than any file"},
      {with_header(R"({"a":)" + entry("F32", "[0,9223372036854775807,9223372036854775807]", "[0,0]") + "}", ""),
       "larger"},
      {with_header(R"({"a":)" + entry("U8", "[5]", "[0,5]") + R"(,"b":)" + entry("U8", "[4]", "[4,8]") + "}", eight),
       "overlap"},
      {with_header(R"({"a":)" + entry("U8", "[3]", "[0,3]") + R"(,"b":)" + entry("U8", "[4]", "[4,8]") + "}", eight),
       "overlap"},
      {with_header(R"({"a":)" + entry("U8", "[3]", "[0,3]") + "}", eight), "end at byte 3"},
      {with_header(R"({"__metadata__":1})", ""), "__metadata__"},
      {with_header(R"({"__metadata__":{"a":1}})", ""), "__metadata__"},
  };
  for (const auto& [bytes, expected] : bad) {
    const std::string reason = expected;
    write_text(dir / "bad.safetensors", bytes);
    const std::string message = message_of<WeightsError>([&] { read_safetensors(dir / "bad.safetensors"); });
    CAPTURE(message);
    CAPTURE(reason);
    CHECK(contains(message, reason));
    CHECK(contains(message, "bad.safetensors"));
  }
  CHECK(contains(message_of<WeightsError>([&] { read_safetensors(dir / "absent"); }), "No such file"));
  CHECK(contains(message_of<WeightsError>([&] { read_safetensors(dir.path); }), "regular file"));
}

TEST_CASE("safetensors: every truncation is an error, no byte change crashes") {
  TemporaryDirectory dir;
  const std::string path = dir / "a.safetensors";
  write_safetensors(path, {{"x", bytes_tensor(DType::kBF16, {2, 2}, 1)}, {"y", bytes_tensor(DType::kU8, {3}, 9)}},
                    {{"k", "v"}});
  std::ifstream in(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_text(dir / "cut", whole.substr(0, size));
    CHECK_THROWS_AS(read_safetensors(dir / "cut"), WeightsError);
  }
  unsigned state = 1;
  for (int round = 0; round < 1500; ++round) {
    std::string changed = whole;
    for (int n = 0; n < 1 + round % 3; ++n) {
      state = state * 1664525U + 1013904223U;
      changed[(state >> 8) % changed.size()] = static_cast<char>(state >> 24);
    }
    write_text(dir / "changed", changed);
    try {
      for (const auto& [name, tensor] : read_safetensors(dir / "changed").tensors) {
        CHECK(tensor.nbytes() <= whole.size());
      }
    } catch (const WeightsError&) {
    }
  }
}

TEST_CASE("safetensors: misaligned data is copied") {
  TemporaryDirectory dir;
  const std::string header = R"({"a":)" + entry("U8", "[1]", "[0,1]") + R"(,"b":)" + entry("F32", "[1]", "[1,5]") + "}";
  write_text(dir / "odd", with_header(header, std::string("\x01\x00\x00\x80\x3F", 5)));
  const Safetensors file = read_safetensors(dir / "odd");
  const TensorView& b = file.tensors.at("b");
  CHECK(reinterpret_cast<std::uintptr_t>(b.data) % 8 == 0);
  CHECK(*reinterpret_cast<const float*>(b.data) == 1.0F);
}

TEST_CASE("tensor: rows share the owner and check their range") {
  const TensorView t = bytes_tensor(DType::kBF16, {4, 3}, 0);
  const TensorView slice = rows(t, 1, 3);
  CHECK(slice.shape == std::vector<std::int64_t>{2, 3});
  CHECK(slice.data == t.data + 6);
  CHECK(slice.owner == t.owner);
  CHECK_THROWS_AS(rows(t, 3, 5), std::invalid_argument);
  CHECK_THROWS_AS(rows(t, -1, 1), std::invalid_argument);
  CHECK_THROWS_AS(rows(TensorView{}, 0, 0), std::invalid_argument);
  CHECK_THROWS_AS(allocate_tensor(DType::kF32, {std::int64_t{1} << 40, std::int64_t{1} << 40}), std::invalid_argument);
  CHECK_THROWS_AS(allocate_tensor(DType::kF32, {-1}), std::invalid_argument);
  CHECK(shape_string({12288, 512}) == "[12288, 512]");
}
