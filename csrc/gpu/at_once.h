// csrc/gpu/at_once.h: independent pieces of work, such as compiling kernels, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace personaplex::gpu {

/// Calls f(0) to f(count - 1), all of them, on up to 8 threads: compilers take a few hundred MB each. Throws what the
/// first that threw has thrown.
template <typename Function>
void at_once(std::size_t count, const Function& f) {
  constexpr std::size_t kMaxThreads = 8;
  std::atomic<std::size_t> next{0};
  std::vector<std::exception_ptr> errors(count);
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        f(i);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  std::vector<std::thread> threads;
  const std::size_t most = std::min<std::size_t>({count, std::thread::hardware_concurrency(), kMaxThreads});
  try {
    for (std::size_t i = 1; i < most; ++i) threads.emplace_back(work);
  } catch (const std::system_error&) {  // those that there are will do
  }
  work();
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error != nullptr) std::rethrow_exception(error);
  }
}

}  // namespace personaplex::gpu
