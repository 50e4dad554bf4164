// tests/cpp/test_cpu_pool.cpp: the thread pool: every chunk once, steps in turns, denormals flushed inside them only.
#include "cpu/pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

using namespace personaplex::cpu;

TEST_CASE("the pool runs every chunk once, whatever the number of threads and chunks") {
  for (const int threads : {1, 2, 3, 5}) {
    Pool pool(threads);
    CHECK(pool.threads() == threads);
    for (int round = 0; round < 300; ++round) {
      const int chunks = round % 37;
      std::vector<std::atomic<int>> hits(static_cast<std::size_t>(chunks) + 1);
      pool.run(chunks, [&](int i) { hits[static_cast<std::size_t>(i)].fetch_add(1); });
      for (int i = 0; i < chunks; ++i) REQUIRE(hits[static_cast<std::size_t>(i)] == 1);
    }
  }
}

TEST_CASE("steps of several threads take turns") {
  Pool pool(2);
  int inside = 0;
  int steps = 0;
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const Pool::Step step(pool);
        CHECK(++inside == 1);
        std::atomic<int> sum{0};
        pool.run(8, [&](int chunk) { sum += chunk; });
        CHECK(sum == 28);
        --inside;
        ++steps;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(steps == 200);
}

#if defined(__x86_64__) || defined(__aarch64__)
TEST_CASE("denormals are flushed inside a step, on every thread, and kept outside") {
  volatile float tiny = 1e-40F;
  const auto flushed = [&] { return tiny * 1.0F == 0.0F; };
  Pool pool(3);
  CHECK_FALSE(flushed());
  {
    const Pool::Step step(pool);
    std::atomic<int> count{0};
    pool.run(64, [&](int) {
      if (flushed()) ++count;
      std::this_thread::yield();  // so that the others get some
    });
    CHECK(count == 64);
  }
  CHECK_FALSE(flushed());
}
#endif
