// tools/metalsim/runtime/metalsim.h: Metal kernels, compiled for this machine, run on this machine's memory. For host
// programs; Python has its own way in (c_api.cpp). A kernel library is what `python3 -m metalsim build` prints.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace metalsim {

/// Makes memory known. A checked launch may touch nothing but its buffers and registered regions whose addresses it
/// loaded from memory. Regions do not overlap. std::invalid_argument otherwise, or when `base` is not registered.
void register_region(const void* base, std::size_t bytes, bool read_only = false);
void unregister_region(const void* base);
/// The bytes from `address` to the end of the region that it lies in, 0 when it lies in none.
std::size_t bytes_to_end_of_region(const void* address);

struct Kernel;  // lives as long as its library
class Library {
 public:
  virtual ~Library() = default;
  virtual std::vector<std::string> names() const = 0;
  /// By host_name; null when there is none.
  virtual const Kernel* find(const std::string& host_name) const = 0;
  /// Whether it was compiled with checks.
  virtual bool checked() const = 0;
};
/// Loads the shared object of a compiled kernel source. std::runtime_error when it is not one.
std::unique_ptr<Library> load(const std::string& path);

/// What is bound at one [[buffer(n)]]. base may be null when the kernel has no parameter of that index.
struct Buffer {
  void* base = nullptr;
  std::size_t bytes = 0;  // 0: to the end of the registered region
  bool read_only = false;
};

struct Launch {
  std::vector<Buffer> buffers;                 // by index; parameter structs are buffers too
  unsigned groups[3] = {1, 1, 1};              // threadgroups in the grid
  unsigned threads[3] = {1, 1, 1};             // in a threadgroup, at most 1024 in all
  std::vector<std::size_t> threadgroup_bytes;  // of each [[threadgroup(n)]]
  /// The order in which threads and threadgroups are taken up; a result that depends on it is a bug of the kernel.
  enum class Order { kForward, kReverse, kShuffle } order = Order::kForward;
  unsigned seed = 0;   // of kShuffle
  bool checks = true;  // needs a checked library; without one only barriers, simd operations and limits are checked
};

/// Bytes [begin, end) of memory.
struct Range {
  std::uintptr_t begin, end;
};
/// What a checked launch read and wrote outside its threadgroups: sorted ranges that do not touch each other.
struct Record {
  std::vector<Range> read, written;
};

/// Runs a kernel to its end on the calling thread; different threads may launch at the same time. Returns what went
/// wrong ("kernel: file.metal:12: what", then which thread), or an empty string. After a fault the buffers hold
/// whatever had been written until then.
std::string launch(const Kernel& kernel, const Launch& how, Record* record = nullptr);

}  // namespace metalsim
