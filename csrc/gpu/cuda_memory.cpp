// csrc/gpu/cuda_memory.cpp: contexts, waiting and copies.
#include "gpu/cuda_memory.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "core/error.h"

namespace personaplex::gpu::cuda {

namespace {

constexpr auto kSpin = std::chrono::microseconds(100);

std::string gigabytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / (1U << 30));
  return text;
}

Address allocate_device(Gpu& gpu, std::size_t bytes) {
  Address out = 0;
  const Result result = gpu.driver.allocate(&out, bytes);
  if (result == kOutOfMemory) {
    throw DeviceError("[CudaQueue.allocate] expected " + gigabytes(bytes) + " of free memory on the GPU, got " +
                      gigabytes(gpu.free_bytes()) + ". Close other programs on it, or load fewer bits per weight.");
  }
  gpu.driver.check(result, "allocate");
  const Result filled = gpu.driver.fill(out, 0, bytes, gpu.stream);
  if (filled != kSuccess) gpu.driver.release(out);
  gpu.driver.check(filled, "allocate");
  return out;
}

void check_range(const char* where, const ops::Memory& memory, std::size_t offset, std::size_t count) {
  if (offset > memory.bytes || count > memory.bytes - offset) {
    bad_argument(where, "expected a range within " + std::to_string(memory.bytes) + " bytes, got " +
                            std::to_string(count) + " bytes from " + std::to_string(offset) + ".");
  }
}

void check_size(const ops::Memory& to, const ops::Memory& from) {
  if (to.bytes != from.bytes) {
    bad_argument("Memory.copy_from", "expected memory of the same size, " + std::to_string(to.bytes) + " bytes, got " +
                                         std::to_string(from.bytes) + ".");
  }
}

void copy_by_host(ops::Memory& to, const ops::Memory& from) {
  check_size(to, from);
  std::vector<std::byte> through(from.bytes);
  from.read(0, through.size(), through.data());
  to.write(0, through.size(), through.data());
}

}  // namespace

Gpu::Gpu(const Driver& found, int ordinal) : driver(found), owner_(getpid()) {
  const Result result = driver.init(0);
  int count = 0;
  if (result != kNoDevice) {
    driver.check(result, "open");
    driver.check(driver.device_count(&count), "open");
  }
  if (ordinal < 0 || ordinal >= count) {
    throw DeviceError("[CudaQueue] expected an NVIDIA GPU number " + std::to_string(ordinal) + ", found " +
                      std::to_string(count) + " of them (the environment variable CUDA_VISIBLE_DEVICES hides GPUs).");
  }
  driver.check(driver.device(&device, ordinal), "open");
  int major = 0, minor = 0;
  driver.check(driver.device_attribute(&major, kMajorAttribute, device), "open");
  driver.check(driver.device_attribute(&minor, kMinorAttribute, device), "open");
  capability = 10 * major + minor;
  if (capability < 70) {
    throw DeviceError("[CudaQueue] expected a GPU of compute capability 7.0 or higher, got " + std::to_string(major) +
                      "." + std::to_string(minor) + ". Choose another device.");
  }
  driver.check(driver.device_attribute(&cores, kCoresAttribute, device), "open");
  driver.check(driver.context_retain(&context, device), "open");
  try {
    driver.check(driver.context_use(context), "open");
    driver.check(driver.stream_create(&stream, kStreamNonBlocking), "open");
    driver.check(driver.event_create(&done, kEventBlockingNoTiming), "open");
  } catch (...) {
    if (stream != nullptr) driver.stream_destroy(stream);
    driver.context_release(device);
    throw;
  }
}

Gpu::~Gpu() {
  if (!usable()) return;
  driver.event_destroy(done);
  driver.stream_destroy(stream);
  driver.context_release(device);
}

bool Gpu::usable() noexcept { return getpid() == owner_ && driver.context_use(context) == kSuccess; }

void Gpu::use(const char* where) {
  if (getpid() != owner_) {
    throw DeviceError("[CudaQueue." + std::string(where) + "] expected the process that opened the GPU, got a child " +
                      "forked from it, in which CUDA does not work. Load the model after forking.");
  }
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty()) {
      throw DeviceError("[CudaQueue." + std::string(where) + "] the GPU failed earlier (" + fault_ +
                        "), and this process cannot use it any more. Start a new one.");
    }
  }
  driver.check(driver.context_use(context), where);
}

void Gpu::fail(Result result, const char* where) {
  const std::string words = driver.words(result);
  {
    const std::lock_guard lock(mutex_);
    if (fault_.empty()) fault_ = words;
  }
  throw DeviceError("[CudaQueue." + std::string(where) + "] the GPU failed: " + words +
                    ". This process cannot use it any more: start a new one.");
}

void Gpu::wait(const char* where) {
  if (const Result result = driver.stream_synchronize(stream); result != kSuccess) fail(result, where);
}

void Gpu::wait_for_list(const char* where) {
  Result result = driver.event_record(done, stream);
  if (result == kSuccess) {
    const auto end = std::chrono::steady_clock::now() + kSpin;  // a short list is over before a sleeper wakes up
    do {
      result = driver.event_query(done);
    } while (result == kNotReady && std::chrono::steady_clock::now() < end);
    if (result == kNotReady) result = driver.event_synchronize(done);
  }
  if (result != kSuccess) fail(result, where);
}

std::size_t Gpu::free_bytes() {
  std::size_t free = 0, total = 0;
  driver.check(driver.memory_info(&free, &total), "free_bytes");
  return free;
}

Twin::Twin(std::shared_ptr<Gpu> on, std::size_t size) : gpu(std::move(on)), bytes(size) {
  void* memory = nullptr;
  gpu->driver.check(gpu->driver.allocate_host(&memory, bytes, 0), "allocate");
  host = static_cast<std::byte*>(memory);
  std::memset(host, 0, bytes);
  try {
    device = allocate_device(*gpu, bytes);
  } catch (...) {
    gpu->driver.release_host(host);
    throw;
  }
}

Twin::~Twin() {
  if (!gpu->usable()) return;
  gpu->driver.release(device);
  gpu->driver.release_host(host);
}

DeviceMemory::DeviceMemory(std::shared_ptr<Gpu> on, std::size_t size) : gpu(std::move(on)) {
  base = reinterpret_cast<std::byte*>(allocate_device(*gpu, size));
  bytes = size;
}

DeviceMemory::~DeviceMemory() {
  if (gpu->usable()) gpu->driver.release(address(base));
}

void DeviceMemory::read(std::size_t offset, std::size_t count, void* to) const {
  check_range("Memory.read", *this, offset, count);
  if (count == 0) return;
  gpu->use("read");
  gpu->driver.check(gpu->driver.copy_to_host(to, address(base + offset), count, gpu->stream), "read");
  gpu->wait("read");
}

void DeviceMemory::write(std::size_t offset, std::size_t count, const void* from) {
  check_range("Memory.write", *this, offset, count);
  if (count == 0) return;
  gpu->use("write");
  gpu->driver.check(gpu->driver.copy_to_device(address(base + offset), from, count, gpu->stream), "write");
  gpu->wait("write");
}

void DeviceMemory::copy_from(const ops::Memory& other) {
  const auto* same = dynamic_cast<const DeviceMemory*>(&other);
  if (same == nullptr || same->gpu != gpu) return copy_by_host(*this, other);
  check_size(*this, other);
  gpu->use("copy_from");
  gpu->driver.check(gpu->driver.copy_on_device(address(base), address(other.base), bytes, gpu->stream), "copy_from");
  gpu->wait("copy_from");
}

TwinMemory::TwinMemory(std::shared_ptr<Twin> part_of, ops::Use how, std::size_t from, std::size_t size)
    : twin(std::move(part_of)), use(how), at(from) {
  base = reinterpret_cast<std::byte*>(twin->device + at);
  host = twin->host + at;
  bytes = size;
}

void TwinMemory::read(std::size_t offset, std::size_t count, void* to) const {
  check_range("Memory.read", *this, offset, count);
  std::memcpy(to, host + offset, count);
}

void TwinMemory::write(std::size_t offset, std::size_t count, const void* from) {
  check_range("Memory.write", *this, offset, count);
  if (count == 0) return;
  std::memcpy(host + offset, from, count);
  if (use == ops::Use::kInput) return;  // the next list takes it along
  Gpu& gpu = *twin->gpu;
  gpu.use("write");
  gpu.driver.check(gpu.driver.copy_to_device(address(base + offset), host + offset, count, gpu.stream), "write");
  gpu.wait("write");
}

void TwinMemory::copy_from(const ops::Memory& other) { copy_by_host(*this, other); }

}  // namespace personaplex::gpu::cuda
