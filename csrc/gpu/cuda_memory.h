// csrc/gpu/cuda_memory.h: one GPU as the driver sees it, and the memory of a CUDA queue.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "gpu/cuda_driver.h"
#include "ops/ops.h"

namespace personaplex::gpu::cuda {

/// The GPU's primary context and the one stream on which everything happens. Whatever lives on the GPU holds it.
struct Gpu {
  Gpu(const Driver& found, int ordinal);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  /// Makes the GPU the calling thread's. DeviceError after a fault, or in a forked child.
  void use(const char* where);
  /// The same for destructors: false where nothing can be freed any more.
  bool usable() noexcept;
  /// Waits until the stream is idle. What fails here is a fault: DeviceError, now and from now on.
  void wait(const char* where);
  /// The same for what a list left behind; sleeps when it takes long.
  void wait_for_list(const char* where);
  std::size_t free_bytes();

  const Driver& driver;
  Device device = 0;
  Context context = nullptr;
  Stream stream = nullptr;
  Event done = nullptr;
  int capability = 0;  // 90 for 9.0
  int cores = 0;       // multiprocessors

 private:
  [[noreturn]] void fail(Result result, const char* where);

  pid_t owner_;
  std::mutex mutex_;
  std::string fault_;
};

/// Device memory and its twin on the host, from which inputs (or outputs) are cut.
struct Twin {
  Twin(std::shared_ptr<Gpu> on, std::size_t size);
  ~Twin();
  Twin(const Twin&) = delete;
  Twin& operator=(const Twin&) = delete;

  std::shared_ptr<Gpu> gpu;
  Address device = 0;
  std::byte* host = nullptr;
  std::size_t bytes = 0, used = 0;
};

/// Scratch and state: the host reaches it by copies only.
struct DeviceMemory final : ops::Memory {
  DeviceMemory(std::shared_ptr<Gpu> on, std::size_t size);
  ~DeviceMemory() override;
  void read(std::size_t offset, std::size_t count, void* to) const override;
  void write(std::size_t offset, std::size_t count, const void* from) override;
  void copy_from(const ops::Memory& other) override;

  std::shared_ptr<Gpu> gpu;
};

/// An input or output: `host` is its twin. The host's copy of an input is the one that counts: kernels must not write
/// it. Of an output it is the GPU's.
struct TwinMemory final : ops::Memory {
  TwinMemory(std::shared_ptr<Twin> part_of, ops::Use how, std::size_t at, std::size_t size);
  void read(std::size_t offset, std::size_t count, void* to) const override;
  void write(std::size_t offset, std::size_t count, const void* from) override;
  void copy_from(const ops::Memory& other) override;

  std::shared_ptr<Twin> twin;
  ops::Use use;
  std::size_t at;  // in the twin
};

inline Address address(const std::byte* base) { return reinterpret_cast<Address>(base); }

}  // namespace personaplex::gpu::cuda
