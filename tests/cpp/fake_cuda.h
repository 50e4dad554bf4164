// tests/cpp/fake_cuda.h: what a test sets in the fake libcuda and NVRTC of fake_cuda.cpp, and what it reads off them.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

/// One library plays both: a GPU whose memory is the host's and whose kernels are C++ functions.
struct FakeCuda {
  struct Kernel {
    std::vector<std::size_t> param_bytes;
    std::function<void(void** params, const unsigned* groups, unsigned threads)> body;
  };

  // What it is.
  int driver_version = 13000;
  int devices = 1;
  int major = 9, minor = 0;
  int cache_bytes = 1 << 20;
  int nvrtc_major = 13;
  std::vector<int> archs = {75, 80, 86, 90, 100};
  std::size_t free_bytes = std::size_t{1} << 30;
  int max_threads = 1024;
  std::map<std::string, Kernel> kernels;
  int not_ready = 0;     // queries of an event that say so
  int launch_fault = 0;  // of the list in flight, found when it is waited for

  // What happened.
  int compiles = 0;
  int blocked = 0;                   // waits that slept
  int set_kernels = 0;               // launches whose parameters were changed
  int alive = 0;                     // allocations, streams, events, modules and graphs not yet released
  std::vector<std::string> nodes;    // of the graph made last: "kernel a after 0 1", "kernel b after early 2"
  std::vector<std::string> options;  // of the program compiled last
};

extern "C" using FakeCudaGetter = FakeCuda * (*)();
