// tests/cpp/test_metal_queue.cpp: the Metal queue in front of a simulated Mac (tools/metalsim/objc), which runs its
// kernels: results, the conversation's block, barriers, addresses, lists that are encoded ahead, and every error's
// words.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "gpu/metal_queue.h"
#include "metalsim_objc.h"
#include "words.h"

using namespace personaplex;
using namespace personaplex::gpu;

namespace {

constexpr char kText[] = R"~(#include <metal_stdlib>
using namespace metal;

struct AddParams {
  int n;
  float factor;
};

/// y[i] += factor * x[i]
[[kernel]] void add_f32(device const float* x [[buffer(0)]], device float* y [[buffer(1)]],
                    constant AddParams& p [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  if (int(i) < p.n) y[i] += p.factor * x[i];
}

/// y[i] = sum over pages of page[i]
[[kernel]] void gather_f32(device const float* const device* pages [[buffer(0)]], device float* y [[buffer(1)]],
                       constant AddParams& p [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  if (i >= 4) return;
  float sum = 0.0f;
  for (int page = 0; page < p.n; ++page) sum += pages[page][i];
  y[i] = sum;
}

/// Writes behind its buffer.
[[kernel]] void wild_f32(device float* y [[buffer(0)]], constant AddParams& p [[buffer(1)]],
                     uint i [[thread_position_in_grid]]) {
  y[i + uint(p.n)] = 1.0f;
}
)~";

struct AddParams {
  std::int32_t n;
  float factor;
};

MetalOptions options() {
  MetalOptions o;
  o.sources = {{"test.metal", kText, {"add_f32", "gather_f32", "wild_f32", "absent_f32"}},
               {"broken.metal", "#include <metal_stdlib>\n[[kernel]] void broken(undeclared x) {}\n", {"broken"}}};
  return o;
}

/// Checks at its end that everything has been given back.
struct Mac {
  Mac() {
    setenv("METALSIM_CHECK", "1", 1);
    CHECK(metalsim::objc::alive_classes() == "");
  }
  ~Mac() { CHECK(metalsim::objc::alive_classes() == ""); }
};

Dispatch make(Queue& queue, const std::string& kernel, std::vector<Argument> arguments, AddParams params,
              bool barrier = true) {
  Dispatch d;
  d.kernel = &queue.kernel(kernel);
  d.arguments = std::move(arguments);
  d.params.resize(sizeof params);
  std::memcpy(d.params.data(), &params, sizeof params);
  d.threads = 64;
  d.barrier = barrier;
  return d;
}

using MemoryPtr = std::unique_ptr<ops::Memory>;

Argument reads(const MemoryPtr& memory, std::size_t offset = 0) {
  return {memory.get(), offset, memory->bytes - offset, false};
}
Argument writes(const MemoryPtr& memory, std::size_t offset = 0) {
  return {memory.get(), offset, memory->bytes - offset, true};
}
float* floats(const MemoryPtr& memory) { return reinterpret_cast<float*>(memory->host); }

std::vector<float> values(const MemoryPtr& memory, std::size_t count) {
  std::vector<float> out(count);
  memory->read(0, count * sizeof(float), out.data());
  return out;
}

}  // namespace

TEST_CASE("metal: memory is zero, reads what was written, copies between kinds") {
  const Mac mac;
  const auto queue = make_metal_queue(options());
  CHECK(metal_is_available());
  CHECK(queue->device_name() == "metalsim");
  const std::size_t free = queue->free_bytes();
  std::vector<char> got(100), put(100);
  std::iota(put.begin(), put.end(), 1);
  for (const auto use : {ops::Use::kScratch, ops::Use::kInput, ops::Use::kOutput, ops::Use::kState}) {
    const auto memory = queue->allocate(100, use);
    CHECK(queue->free_bytes() == free - 100);
    CHECK(memory->bytes == 100);
    CHECK((memory->host != nullptr) == (use == ops::Use::kInput || use == ops::Use::kOutput));
    memory->read(0, 100, got.data());
    CHECK(got == std::vector<char>(100, 0));
    memory->write(16, 84, put.data());
    const auto copy = queue->allocate(100, ops::Use::kScratch);
    copy->copy_from(*memory);
    copy->read(0, 100, got.data());
    CHECK(std::all_of(got.begin(), got.begin() + 16, [](char c) { return c == 0; }));
    CHECK(std::equal(got.begin() + 16, got.end(), put.begin()));
    const auto larger = queue->allocate(101, ops::Use::kScratch);
    CHECK(has(words_of([&] { memory->copy_from(*larger); }), "expected memory of the same size, 100 bytes, got 101"));
    CHECK(has(words_of([&] { memory->read(90, 11, got.data()); }), "invalid: [Memory.read] expected a range within"));
  }
  CHECK(queue->free_bytes() == free);
  CHECK(has(words_of([&] { queue->allocate(std::size_t{5} << 30, ops::Use::kScratch); }),
            "[MetalQueue.allocate] expected 5.00 GiB of memory on the GPU, got none of 8.00 GiB that are free, at most "
            "4.00 GiB at once."));
}

TEST_CASE("metal: a list runs again and again, on what its inputs hold then") {
  const Mac mac;
  const auto queue = make_metal_queue(options());
  const auto x = queue->allocate(256, ops::Use::kInput), y = queue->allocate(512, ops::Use::kOutput);
  const auto list = queue->record({make(*queue, "add_f32", {reads(x), writes(y, 256)}, {64, 2.0F}),
                                   make(*queue, "add_f32", {reads(x, 16), writes(y, 256)}, {60, 1.0F})});
  float expected = 0;
  for (int round = 1; round <= 3; ++round) {
    std::fill_n(floats(x), 64, static_cast<float>(round));
    queue->run(*list, nullptr);
    expected += 3 * static_cast<float>(round);
    CHECK(floats(y)[63] == 0);
    CHECK(floats(y)[64] == expected);
    CHECK(floats(y)[123] == expected);
    CHECK(floats(y)[127] == expected / 3 * 2);
  }
}

TEST_CASE("metal: a list runs for whichever conversation") {
  const Mac mac;
  const auto queue = make_metal_queue(options());
  const auto x = queue->allocate(64, ops::Use::kInput);
  const auto first = queue->allocate(128, ops::Use::kState), second = queue->allocate(128, ops::Use::kState);
  const auto small = queue->allocate(64, ops::Use::kState);
  const auto list = queue->record({make(*queue, "add_f32", {reads(x), {nullptr, 64, 64, true}}, {16, 1.0F})});
  std::fill_n(floats(x), 16, 5.0F);
  queue->run(*list, first.get());
  queue->run(*list, second.get());
  queue->run(*list, first.get());
  CHECK(values(first, 17)[15] == 0);
  CHECK(values(first, 17)[16] == 10);
  CHECK(values(second, 17)[16] == 5);
  CHECK(has(words_of([&] { queue->run(*list, nullptr); }),
            "invalid: [MetalQueue.run] expected a conversation's block of at least 128 bytes, got none."));
  CHECK(has(words_of([&] { queue->run(*list, small.get()); }), "at least 128 bytes, got 64."));
  queue->run(*list, second.get());
  CHECK(values(second, 17)[16] == 10);
}

TEST_CASE("metal: a barrier that is missing is found") {
  const Mac mac;
  for (const bool barrier : {true, false}) {
    const auto queue = make_metal_queue(options());
    const auto x = queue->allocate(256, ops::Use::kInput), z = queue->allocate(256, ops::Use::kOutput);
    const auto y = queue->allocate(512, ops::Use::kScratch);
    std::fill_n(floats(x), 64, 1.0F);
    const auto chain = queue->record({make(*queue, "add_f32", {reads(x), writes(y, 128)}, {64, 3.0F}),
                                      make(*queue, "add_f32", {reads(y, 128), writes(z)}, {64, 2.0F}, barrier)});
    const std::string words = words_of([&] { queue->run(*chain, nullptr); });
    if (barrier) {
      CHECK(words == "(nothing thrown)");
      CHECK(floats(z)[63] == 6);
      continue;
    }
    CHECK(has(words,
              "[MetalQueue.run] the GPU failed: no barrier between add_f32, which writes, and add_f32, which reads "
              "byte 128 of a buffer of 512 bytes."));
    CHECK(has(words_of([&] { queue->run(*chain, nullptr); }),
              "[MetalQueue.run] the GPU failed earlier (no barrier between"));
    CHECK(has(words_of([&] { queue->allocate(1, ops::Use::kInput); }), "[MetalQueue.allocate] the GPU failed earlier"));
  }
  SUBCASE("a write after a read") {
    const auto queue = make_metal_queue(options());
    const auto x = queue->allocate(256, ops::Use::kScratch), y = queue->allocate(256, ops::Use::kScratch),
               z = queue->allocate(256, ops::Use::kScratch);
    const auto list = queue->record({make(*queue, "add_f32", {reads(y), writes(z)}, {64, 1.0F}),
                                     make(*queue, "add_f32", {reads(x), writes(y)}, {64, 1.0F}, false)});
    CHECK(has(words_of([&] { queue->run(*list, nullptr); }), "which reads, and add_f32, which writes byte 0 of a"));
  }
  SUBCASE("neighbours need none") {
    const auto queue = make_metal_queue(options());
    const auto x = queue->allocate(256, ops::Use::kScratch), y = queue->allocate(512, ops::Use::kScratch);
    const auto list = queue->record({make(*queue, "add_f32", {reads(x), writes(y)}, {64, 1.0F}),
                                     make(*queue, "add_f32", {reads(x), writes(y, 256)}, {64, 1.0F}, false)});
    queue->run(*list, nullptr);
  }
}

TEST_CASE("metal: kernels follow addresses into memory that came after the list") {
  const Mac mac;
  const auto queue = make_metal_queue(options());
  const auto table = queue->allocate(64, ops::Use::kState);
  const auto y = queue->allocate(64, ops::Use::kOutput);
  const auto list = queue->record({make(*queue, "gather_f32", {{nullptr, 0, 64, false}, writes(y)}, {2, 0.0F})});
  queue->prepare_next(*list, table.get());
  auto first = queue->allocate(16, ops::Use::kState);
  const auto second = queue->allocate(16, ops::Use::kState);
  const float ones[] = {1, 1, 1, 1}, numbers[] = {1, 2, 3, 4};
  first->write(0, 16, ones);
  second->write(0, 16, numbers);
  const std::byte* const addresses[] = {first->base, second->base};
  table->write(0, sizeof addresses, addresses);
  queue->run(*list, table.get());
  CHECK(floats(y)[3] == 5);

  first.reset();
  CHECK(has(words_of([&] { queue->run(*list, table.get()); }), "[MetalQueue.run] the GPU failed: gather_f32"));
}

TEST_CASE("metal: a list that was encoded ahead runs once, for its block, with the inputs of the run") {
  const Mac mac;
  const auto queue = make_metal_queue(options());
  const auto x = queue->allocate(64, ops::Use::kInput);
  const auto first = queue->allocate(64, ops::Use::kState), second = queue->allocate(64, ops::Use::kState);
  const Argument state{nullptr, 0, 64, true};
  auto list = queue->record({make(*queue, "add_f32", {reads(x), state}, {16, 1.0F})});
  const auto other = queue->record({make(*queue, "add_f32", {reads(x), state}, {16, 10.0F})});
  queue->prepare_next(*list, first.get());
  floats(x)[0] = 1;
  CHECK(values(first, 1)[0] == 0);
  queue->run(*other, first.get());
  CHECK(values(first, 1)[0] == 10);
  queue->run(*list, first.get());
  queue->run(*list, first.get());
  CHECK(values(first, 1)[0] == 12);
  queue->prepare_next(*list, first.get());
  queue->run(*list, second.get());
  CHECK(values(first, 1)[0] == 12);
  CHECK(values(second, 1)[0] == 1);
  queue->prepare_next(*list, first.get());
  list = queue->record({make(*queue, "add_f32", {reads(x), state}, {16, 100.0F})});
  queue->run(*list, first.get());
  CHECK(values(first, 1)[0] == 112);
  queue->run(*list, first.get(), /* again = */ true);
  CHECK(values(first, 1)[0] == 212);
  floats(x)[0] = 2;
  queue->run(*list, first.get(), true);
  CHECK(values(first, 1)[0] == 412);
}

TEST_CASE("metal: errors of kernels and dispatches") {
  const Mac mac;
  const auto queue = make_metal_queue(options());
  CHECK(has(words_of([&] { queue->kernel("unknown"); }),
            "[MetalQueue.kernel] expected a kernel's host_name, got unknown."));
  CHECK(has(words_of([&] { queue->kernel("absent_f32"); }), "expected a kernel absent_f32 in test.metal, got none."));
  const std::string broken = words_of([&] { queue->kernel("broken"); });
  CHECK(has(broken, "[MetalQueue.kernel] broken.metal does not compile: "));
  CHECK(has(broken, "undeclared"));

  const auto x = queue->allocate(64, ops::Use::kInput), y = queue->allocate(64, ops::Use::kOutput);
  const auto refused = [&](const std::function<void(Dispatch&)>& change, const std::string& words) {
    Dispatch d = make(*queue, "add_f32", {reads(x), writes(y)}, {16, 1.0F});
    change(d);
    CHECK(has(words_of([&] { queue->record({d}); }), "invalid: [MetalQueue.record] " + words));
  };
  refused([](Dispatch& d) { d.kernel = nullptr; }, "expected a kernel of this queue in every dispatch.");
  refused([](Dispatch& d) { d.threads = 33; },
          "add_f32: expected a multiple of 32 up to 1024 threads in a threadgroup, got 33.");
  refused([](Dispatch& d) { d.threads = 1056; }, "add_f32: expected a multiple of 32 up to 1024");
  refused([](Dispatch& d) { d.groups[2] = 0; }, "add_f32: expected at least one threadgroup.");
  refused([](Dispatch& d) { d.params.resize(4100); }, "add_f32: expected at most 30 arguments and 4096 bytes");
  refused([](Dispatch& d) { d.arguments[1].offset = 6; }, "add_f32: argument 1: expected an offset");
  refused([](Dispatch& d) { d.arguments[1].bytes = 65; },
          "add_f32: argument 1: expected a range within its memory of 64 bytes, got 65 from 0.");
  refused([](Dispatch& d) { d.arguments[0].written = true; },
          "add_f32: argument 0: expected no kernel to write an input");
  const auto elsewhere = make_metal_queue(options());
  const auto foreign = elsewhere->allocate(64, ops::Use::kInput);
  refused([&](Dispatch& d) { d.arguments[0] = reads(foreign); }, "add_f32: argument 0: expected memory of this queue.");
  const auto list = elsewhere->record({});
  CHECK(has(words_of([&] { queue->run(*list, nullptr); }), "invalid: [MetalQueue.run] expected a list of this queue."));

  const auto wild = queue->record({make(*queue, "wild_f32", {writes(y)}, {16, 0.0F})});
  const std::string fault = words_of([&] { queue->run(*wild, nullptr); });
  CHECK(has(fault, "[MetalQueue.run] the GPU failed: wild_f32: "));
  CHECK(has(words_of([&] { queue->run(*wild, nullptr); }), "the GPU failed earlier (wild_f32: "));
  CHECK(has(words_of([&] { queue->kernel("add_f32"); }), "[MetalQueue.kernel] the GPU failed earlier"));
  elsewhere->run(*list, nullptr);
}

TEST_CASE("metal: memory and lists may outlive their queue; a GPU that is kept warm works") {
  const Mac mac;
  MetalOptions o = options();
  o.keep_warm = std::chrono::milliseconds(1);
  auto queue = make_metal_queue(o);
  const auto x = queue->allocate(64, ops::Use::kInput), y = queue->allocate(64, ops::Use::kOutput);
  const auto list = queue->record({make(*queue, "add_f32", {reads(x), writes(y)}, {16, 1.0F})});
  floats(x)[0] = 1;
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    queue->run(*list, nullptr);
  }
  CHECK(floats(y)[0] == 5);
  queue.reset();
  CHECK(values(y, 1)[0] == 5);
}

TEST_CASE("metal: a GPU that is not used any more is left to sleep") {
  const Mac mac;
  using std::chrono::milliseconds;
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + std::chrono::seconds(30);
  const auto wait = [&] {
    REQUIRE(Clock::now() < end);
    std::this_thread::sleep_for(milliseconds(1));
  };
  MetalOptions o = options();
  o.keep_warm = milliseconds(1);
  o.rest_after = milliseconds(100);
  const auto queue = make_metal_queue(o);
  const auto x = queue->allocate(64, ops::Use::kInput), y = queue->allocate(64, ops::Use::kOutput);
  const auto list = queue->record({make(*queue, "add_f32", {reads(x), writes(y)}, {16, 1.0F})});
  const std::size_t before = metalsim::objc::dispatches();
  for (int i = 0; i < 50; ++i) wait();
  CHECK(metalsim::objc::dispatches() == before);  // nothing has run yet
  for (int round = 0; round < 2; ++round) {
    queue->run(*list, nullptr);
    const std::size_t ran = metalsim::objc::dispatches();
    while (metalsim::objc::dispatches() < ran + 3) wait();
    std::size_t seen = 0;
    for (int still = 0; still < 150; ++still) {
      wait();
      if (std::exchange(seen, metalsim::objc::dispatches()) != seen) still = 0;
    }
  }
}

TEST_CASE("metal: a forked child is told so") {
  const Mac mac;
  const auto queue = make_metal_queue(options());
  const pid_t child = fork();
  if (child == 0) {
    const std::string words = words_of([&] { queue->allocate(1, ops::Use::kInput); });
    _exit(words.find("[MetalQueue.allocate] expected the process that opened the GPU") == 0 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}
