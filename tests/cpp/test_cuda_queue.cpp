// tests/cpp/test_cuda_queue.cpp: the CUDA queue in front of a fake driver and compiler: what is copied when, what
// depends on what, the conversation's block, the cache, and every error's words.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "gpu/cuda_compiler.h"
#include "gpu/cuda_queue.h"
#include "gpu/read_bandwidth.h"
#include "load_fake_cuda.h"
#include "words.h"

using namespace personaplex;
using namespace personaplex::gpu;
namespace fs = std::filesystem;

namespace {

struct AddParams {
  std::int32_t n;
  float factor;
};

/// y[i] += factor * x[i]
void add_body(void** params, const unsigned* groups, unsigned threads) {
  const auto* x = *static_cast<const float**>(params[0]);
  auto* y = *static_cast<float**>(params[1]);
  AddParams p;
  std::memcpy(&p, params[2], sizeof p);
  for (int i = 0; i < std::min<int>(p.n, static_cast<int>(groups[0] * threads)); ++i) y[i] += p.factor * x[i];
}

/// A fake GPU as new, with one kernel.
FakeCuda& fresh() {
  FakeCuda& fake = new_fake();
  fake.kernels["add_f32"] = {{8, 8, sizeof(AddParams)}, add_body};
  fake.kernels["plain"] = {{8}, [](void**, const unsigned*, unsigned) {}};
  return fake;
}

struct Folder {
  fs::path path = fs::temp_directory_path() / ("personaplex-cuda-" + std::to_string(getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

CudaOptions options() {
  CudaOptions o;
  o.driver = o.nvrtc = kFake;
  o.sources = {{"one.metal", "text one", {{"add_f32", "add<float>"}, {"plain", "plain"}}}};
  return o;
}

Dispatch add(Queue& queue, Argument x, Argument y, int n, float factor, bool barrier = true) {
  Dispatch d;
  d.kernel = &queue.kernel("add_f32");
  y.written = true;
  d.arguments = {x, y};
  d.params.resize(sizeof(AddParams));
  const AddParams params{n, factor};
  std::memcpy(d.params.data(), &params, sizeof params);
  d.threads = 64;
  d.barrier = barrier;
  return d;
}

Argument all(const std::unique_ptr<ops::Memory>& memory) { return {memory.get(), 0, memory->bytes, false}; }
float* floats(const std::unique_ptr<ops::Memory>& memory) { return reinterpret_cast<float*>(memory->host); }

}  // namespace

TEST_CASE("cuda: memory is zero, reads what was written, copies between kinds") {
  FakeCuda& fake = fresh();
  {
    const auto queue = make_cuda_queue(options());
    CHECK(queue->device_name() == "Fake GPU");
    CHECK(queue->free_bytes() == fake.free_bytes);
    CHECK(queue->cache_bytes() == static_cast<std::size_t>(fake.cache_bytes));
    CHECK_FALSE(queue->has("no such kernel"));
    std::vector<char> got(100), put(100);
    std::iota(put.begin(), put.end(), 1);
    for (const auto use : {ops::Use::kScratch, ops::Use::kInput, ops::Use::kOutput, ops::Use::kState}) {
      const auto memory = queue->allocate(100, use);
      CHECK(memory->bytes == 100);
      CHECK((memory->host != nullptr) == (use == ops::Use::kInput || use == ops::Use::kOutput));
      memory->read(0, 100, got.data());
      CHECK(got == std::vector<char>(100, 0));
      memory->write(16, 84, put.data());
      for (const auto other : {ops::Use::kScratch, ops::Use::kInput, ops::Use::kOutput}) {
        const auto copy = queue->allocate(100, other);
        copy->copy_from(*memory);
        copy->read(0, 100, got.data());
        CHECK(std::all_of(got.begin(), got.begin() + 16, [](char c) { return c == 0; }));
        CHECK(std::equal(got.begin() + 16, got.end(), put.begin()));
      }
      const auto larger = queue->allocate(101, ops::Use::kScratch);
      CHECK(has(words_of([&] { memory->copy_from(*larger); }), "expected memory of the same size, 100 bytes, got 101"));
      CHECK(has(words_of([&] { memory->read(90, 11, got.data()); }), "invalid: [Memory.read] expected a range within"));
    }
    CHECK(has(words_of([&] { queue->allocate(std::size_t{3} << 30, ops::Use::kScratch); }),
              "[CudaQueue.allocate] expected 3.00 GiB of free memory on the GPU, got 1.00 GiB"));
  }
  CHECK(fake.alive == 0);
}

TEST_CASE("cuda: inputs and outputs share a stretch of memory each, aligned") {
  fresh();
  const auto queue = make_cuda_queue(options());
  const auto a = queue->allocate(10, ops::Use::kInput);
  const auto b = queue->allocate(10, ops::Use::kInput);
  CHECK(b->base - a->base == 256);
  CHECK(b->host - a->host == 256);
  const auto large = queue->allocate(5 << 20, ops::Use::kInput);  // more than is left
  const auto c = queue->allocate(10, ops::Use::kOutput);
  large->host[(5 << 20) - 1] = std::byte{1};
  c->host[9] = std::byte{1};
}

TEST_CASE("cuda: a list copies in what it reads, runs in order, copies out what it writes") {
  FakeCuda& fake = fresh();
  {
    const auto queue = make_cuda_queue(options());
    const auto unused = queue->allocate(4, ops::Use::kInput);
    const auto x = queue->allocate(16, ops::Use::kInput);
    const auto w = queue->allocate(16, ops::Use::kInput);
    const auto middle = queue->allocate(16, ops::Use::kScratch);
    const auto y = queue->allocate(16, ops::Use::kOutput);
    const auto list = queue->record({add(*queue, all(x), all(middle), 4, 1), add(*queue, all(w), all(y), 4, 1, false),
                                     add(*queue, all(middle), all(y), 4, 10)});
    CHECK(fake.nodes == std::vector<std::string>{"in 272 after", "kernel add_f32 after 0", "kernel add_f32 after 0",
                                                 "kernel add_f32 after 1 2", "out 16 after 3"});
    for (const float start : {1.0F, 7.0F}) {
      const std::vector<float> zeros(4, 0);
      middle->write(0, 16, zeros.data());
      y->write(0, 16, zeros.data());
      std::iota(floats(x), floats(x) + 4, start);
      std::fill(floats(w), floats(w) + 4, 0.5F);
      queue->run(*list, nullptr);
      for (int i = 0; i < 4; ++i) CHECK(floats(y)[i] == 10 * (start + static_cast<float>(i)) + 0.5F);
    }
    CHECK(fake.set_kernels == 0);
    queue->record({add(*queue, all(y), all(middle), 4, 1)});  // what is only read of an output stays there
    CHECK(fake.nodes == std::vector<std::string>{"kernel add_f32 after"});
    queue->run(*queue->record({}), nullptr);
    CHECK(fake.nodes.empty());
  }
  CHECK(fake.alive == 0);
}

TEST_CASE("cuda: a list runs for the block of a conversation, and is changed only when that changes") {
  FakeCuda& fake = fresh();
  const auto queue = make_cuda_queue(options());
  const auto x = queue->allocate(8, ops::Use::kInput);
  const auto one = queue->allocate(64, ops::Use::kState), two = queue->allocate(64, ops::Use::kState);
  const auto list =
      queue->record({add(*queue, all(x), {nullptr, 0, 8, true}, 2, 1),
                     add(*queue, all(x), {nullptr, 32, 8, true}, 2, 100), add(*queue, all(x), all(two), 0, 1)});
  floats(x)[0] = 1;
  floats(x)[1] = 2;
  int changes = 0;
  for (const auto* state : {&one, &one, &two, &one}) {
    changes += fake.set_kernels;
    fake.set_kernels = 0;
    queue->run(*list, state->get());
  }
  CHECK(changes + fake.set_kernels == 3 * 2);  // two launches have it
  float got[16];
  one->read(0, sizeof got, got);
  CHECK((got[0] == 3 && got[1] == 6 && got[8] == 300 && got[9] == 600));
  two->read(0, sizeof got, got);
  CHECK((got[0] == 1 && got[1] == 2 && got[8] == 100 && got[9] == 200));

  CHECK(has(words_of([&] { queue->run(*list, nullptr); }),
            "expected a conversation's block of at least 40 bytes, got none"));
  const auto small = queue->allocate(32, ops::Use::kState);
  CHECK(has(words_of([&] { queue->run(*list, small.get()); }), "got 32"));
}

TEST_CASE("cuda: a kernel that waits by itself starts early after another one, where both are alone") {
  FakeCuda& fake = fresh();
  const auto nodes = [&](const CudaOptions& o) {
    const auto queue = make_cuda_queue(o);
    const auto x = queue->allocate(16, ops::Use::kInput);
    const auto y = queue->allocate(16, ops::Use::kOutput), z = queue->allocate(16, ops::Use::kScratch);
    const auto list =
        queue->record({add(*queue, all(x), all(y), 4, 1), add(*queue, all(x), all(y), 4, 1),
                       add(*queue, all(x), {nullptr, 0, 16, true}, 4, 1), add(*queue, all(x), all(z), 4, 1, false),
                       add(*queue, all(x), all(y), 4, 1), add(*queue, all(x), all(y), 4, 1)});
    const auto out = fake.nodes;
    const auto block = queue->allocate(16, ops::Use::kState), other = queue->allocate(16, ops::Use::kState);
    floats(x)[0] = 3;
    queue->run(*list, block.get());
    queue->run(*list, other.get());
    CHECK(floats(y)[0] == 8 * 3);
    float got = 0;
    other->read(0, sizeof got, &got);
    CHECK(got == 3);
    return out;
  };
  const std::vector<std::string> plain = {"in 16 after",
                                          "kernel add_f32 after 0",
                                          "kernel add_f32 after 1",
                                          "kernel add_f32 after 2",
                                          "kernel add_f32 after 2",
                                          "kernel add_f32 after 3 4",
                                          "kernel add_f32 after 5",
                                          "out 16 after 6"};
  CudaOptions waits = options();
  waits.sources[0].text = "asm griddepcontrol.wait";
  auto early = plain;
  early[2] = "kernel add_f32 after early 1";
  early[6] = "kernel add_f32 after early 5";
  CHECK(nodes(options()) == plain);  // its kernels do not wait
  CHECK(nodes(waits) == early);
  CudaOptions off = waits;
  off.overlap = false;
  CHECK(nodes(off) == plain);
  fake.major = 8;
  CHECK(nodes(waits) == plain);
}

TEST_CASE("cuda: lanes are branches of the graph") {
  FakeCuda& fake = fresh();
  CudaOptions o = options();
  o.sources[0].text = "asm griddepcontrol.wait";
  const auto queue = make_cuda_queue(o);
  const auto x = queue->allocate(16, ops::Use::kInput);
  const auto y = queue->allocate(16, ops::Use::kOutput);
  const auto in_lane = [&](int lane) {
    Dispatch d = add(*queue, all(x), all(y), 4, 1);
    d.lane = lane;
    return d;
  };
  const auto nodes = [&](const std::vector<int>& lanes) {
    std::vector<Dispatch> dispatches;
    for (const int lane : lanes) dispatches.push_back(in_lane(lane));
    queue->record(dispatches);
    std::vector<std::string> out;
    for (const std::string& node : fake.nodes) out.push_back(node.substr(node.find("after")));
    return out;
  };
  CHECK(nodes({0, 1, 1, 2, 2, 2, 0, 0}) == std::vector<std::string>{"after", "after 0", "after 1", "after early 2",
                                                                    "after 1", "after early 4", "after early 5",
                                                                    "after 3 6", "after early 7", "after 8"});
  CHECK(nodes({1, 2}) == std::vector<std::string>{"after", "after 0", "after 0", "after 1 2"});
  CHECK(nodes({1, 1, 0}) == std::vector<std::string>{"after", "after 0", "after early 1", "after 2", "after 3"});
  CHECK(nodes({0, 2, 0}) == std::vector<std::string>{"after", "after 0", "after 1", "after 2", "after 3"});
}

TEST_CASE("cuda: a list may outlive its queue, and memory may") {
  FakeCuda& fake = fresh();
  {
    auto queue = make_cuda_queue(options());
    const auto x = queue->allocate(8, ops::Use::kInput);
    const auto y = queue->allocate(8, ops::Use::kOutput);
    const auto list = queue->record({add(*queue, all(x), all(y), 2, 1)});
    queue.reset();
    CHECK(fake.alive > 0);
  }
  CHECK(fake.alive == 0);
}

TEST_CASE("cuda: a wrong dispatch is refused while a list is made") {
  fresh().max_threads = 512;
  const auto queue = make_cuda_queue(options());
  const auto x = queue->allocate(64, ops::Use::kInput);
  const auto y = queue->allocate(64, ops::Use::kOutput);
  const auto refused = [&](const std::function<void(Dispatch&)>& change) {
    Dispatch d = add(*queue, all(x), all(y), 2, 1);
    change(d);
    return words_of([&] { queue->record({d}); });
  };
  CHECK(refused([](Dispatch&) {}) == "(nothing thrown)");
  CHECK(has(refused([](Dispatch& d) { d.threads = 48; }), "add_f32: expected a multiple of 32 up to 512 threads"));
  CHECK(has(refused([](Dispatch& d) { d.threads = 544; }), "got 544"));
  CHECK(has(refused([](Dispatch& d) { d.groups[1] = 70000; }), "65535 threadgroups"));
  CHECK(has(refused([](Dispatch& d) { d.groups[0] = 0; }), "at least 1 in x"));
  CHECK(has(refused([](Dispatch& d) { d.arguments.pop_back(); }), "expected 3 arguments, params included, got 2"));
  CHECK(has(refused([](Dispatch& d) { d.params.pop_back(); }), "expected params of 8 bytes, got 7"));
  CHECK(has(refused([](Dispatch& d) { d.arguments[1].offset = 2; }), "multiple of 4"));
  CHECK(has(refused([](Dispatch& d) { d.arguments[1].offset = 16; }), "within its memory of 64 bytes, got 64 from 16"));
  CHECK(has(refused([&](Dispatch& d) { d.arguments[1].memory = x.get(); }), "expected no kernel to write an input"));
  CHECK(has(refused([](Dispatch& d) { d.kernel = nullptr; }), "expected a kernel of this queue"));
}

TEST_CASE("cuda: waits a little by asking, then asleep; a fault is remembered") {
  FakeCuda& fake = fresh();
  const auto queue = make_cuda_queue(options());
  const auto list = queue->record({});
  fake.not_ready = 3;
  queue->run(*list, nullptr);
  CHECK(fake.blocked == 0);
  fake.not_ready = 1 << 30;
  queue->run(*list, nullptr);
  CHECK(fake.blocked == 1);

  fake.launch_fault = 700;
  CHECK(
      has(words_of([&] { queue->run(*list, nullptr); }), "[CudaQueue.run] the GPU failed: CUDA_ERROR_ILLEGAL_ADDRESS"));
  fake.launch_fault = 0;
  const std::string later = "the GPU failed earlier (CUDA_ERROR_ILLEGAL_ADDRESS";
  CHECK(has(words_of([&] { queue->run(*list, nullptr); }), "[CudaQueue.run] " + later));
  CHECK(has(words_of([&] { queue->record({}); }), later));
  CHECK(has(words_of([&] { queue->allocate(1, ops::Use::kInput); }), later));
}

TEST_CASE("cuda: a forked child is told so, and frees nothing") {
  FakeCuda& fake = fresh();
  auto queue = make_cuda_queue(options());
  auto memory = queue->allocate(4, ops::Use::kScratch);
  const int alive = fake.alive;
  const pid_t child = fork();
  if (child == 0) {
    const bool told = words_of([&] { queue->allocate(4, ops::Use::kScratch); }).find("forked") != std::string::npos;
    memory.reset();
    queue.reset();
    _exit(told && fake.alive == alive ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("cuda: a kernel is compiled once, cached, and compiled again where its file is damaged") {
  FakeCuda& fake = fresh();
  const Folder folder;
  CudaOptions o = options();
  o.cache = folder.path / "new" / "kernels";
  const auto load = [&] {
    fake.compiles = 0;
    const auto queue = make_cuda_queue(o);
    CHECK(queue->kernel("add_f32").name == "add_f32");
    CHECK(&queue->kernel("add_f32") == &queue->kernel("add_f32"));
    return fake.compiles;
  };
  const auto files = [&] {
    std::vector<fs::path> out;
    for (const auto& entry : fs::directory_iterator(o.cache)) out.push_back(entry.path());
    return out;
  };
  CHECK(load() == 1);
  CHECK(std::find(fake.options.begin(), fake.options.end(), "--gpu-architecture=sm_90") != fake.options.end());
  REQUIRE(files().size() == 1);
  const fs::path path = files()[0];
  CHECK(path.extension() == ".cubin");
  CHECK(load() == 0);

  std::ifstream in(path, std::ios::binary);
  const std::string sound{std::istreambuf_iterator<char>(in), {}};
  const auto put = [&](const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; };
  for (std::size_t at = 0; at < sound.size(); at += 7) {
    std::string damaged = sound;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    put(damaged);
    CHECK(load() == 1);
    put(sound.substr(0, at));
    CHECK(load() == 1);
  }
  CHECK(load() == 0);
  CHECK(files().size() == 1);

  SUBCASE("another text, compiler or GPU") {
    o.sources[0].text += " ";
    CHECK(load() == 1);
    o.sources[0].kernels[0].second += " ";
    CHECK(load() == 1);
    fake.nvrtc_major = 12;
    CHECK(load() == 1);
    fake.major = 8;
    fake.minor = 9;
    CHECK(load() == 1);
    CHECK(std::find(fake.options.begin(), fake.options.end(), "--gpu-architecture=sm_86") != fake.options.end());
    CHECK(files().size() == 5);
  }
  SUBCASE("a cache that cannot be written") {
    put("x");
    o.cache = path / "below a file";
    CHECK(load() == 1);
    CHECK(load() == 1);
  }
}

TEST_CASE("cuda: many kernels are made ready at once, each once") {
  FakeCuda& fake = fresh();
  CudaOptions o = options();
  std::vector<std::string> names;
  for (int i = 0; i < 40; ++i) {
    names.push_back("k" + std::to_string(i));
    o.sources[0].kernels.emplace_back(names.back(), "function " + names.back());
    fake.kernels[names.back()] = {{8}, nullptr};
  }
  const auto queue = make_cuda_queue(o);
  queue->kernel("k7");
  names.push_back("k3");
  queue->prepare(names);
  CHECK(fake.compiles == 40);
  for (const std::string& name : names) CHECK(queue->kernel(name).name == name);
  CHECK(fake.compiles == 40);
  names.push_back("none");
  CHECK(has(words_of([&] { queue->prepare(names); }), "expected a kernel's host_name, got none"));
}

TEST_CASE("cuda: kernels of newer GPUs") {
  for (const int major : {7, 8}) {
    FakeCuda& fake = fresh();
    fake.major = major;
    fake.minor = 5;
    fake.kernels["newer"] = {{8}, [](void**, const unsigned*, unsigned) {}};
    CudaOptions with = options();
    with.sources.push_back({"newer.cu", "text two", {{"newer", "newer"}}, 80});
    const auto queue = make_cuda_queue(std::move(with));
    CHECK(queue->cores() == 4);
    CHECK(queue->has("plain"));
    CHECK(queue->has("newer") == (major == 8));
    if (major == 8) {
      CHECK(queue->kernel("newer").name == "newer");
    } else {
      CHECK(words_of([&] { queue->kernel("newer"); }).find("expected a kernel's host_name") != std::string::npos);
    }
  }
}

TEST_CASE("cuda: a kernel that does not compile, or does not exist") {
  fresh();
  CudaOptions o = options();
  o.sources.push_back({"two.metal", "text two", {{"bad", "a mistake"}, {"good", "no error"}}});
  const auto queue = make_cuda_queue(o);
  CHECK(has(words_of([&] { queue->kernel("bad"); }),
            "expected bad of two.metal to compile for sm_90, but NVRTC 13.0 says \n"
            "one.metal(7): error: identifier \"mistake\" is undefined"));
  CHECK(has(words_of([&] { queue->kernel("none"); }), "expected a kernel's host_name, got none"));
  fake_at(kFake).kernels["good"] = {{8}, nullptr};
  CHECK(queue->kernel("good").name == "good");
}

TEST_CASE("cuda: what a machine may lack") {
  FakeCuda& fake = fresh();
  const auto refused = [&](const CudaOptions& o) { return words_of([&] { make_cuda_queue(o); }); };
  CudaOptions o = options();

  o.driver = "libno-such-driver.so.1";
  CHECK(has(refused(o), "expected NVIDIA's driver library libno-such-driver.so.1"));
  CHECK(cuda_device_count(o.driver) == 0);
  CHECK(!cuda_is_here(o.driver));
  o.driver = "libm.so.6";
  CHECK(has(refused(o), "libm.so.6 has no cuInit"));
  CHECK(cuda_is_here(o.driver));  // something is, and make_cuda_queue() says what is wrong with it
  o = options();
  CHECK(cuda_device_count(kFake) == 1);
  CHECK(cuda_is_here(kFake));

  o.device = 1;
  CHECK(has(refused(o), "expected an NVIDIA GPU number 1, found 1"));
  o.device = 0;
  fake.devices = 0;
  CHECK(has(refused(o), "expected an NVIDIA GPU number 0, found 0"));
  CHECK(cuda_device_count(kFake) == 0);
  CHECK(!cuda_is_here(kFake));
  fake.devices = 1;
  fake.major = 6;
  fake.minor = 1;
  CHECK(has(refused(o), "expected a GPU of compute capability 7.0 or higher, got 6.1"));
  fake.major = 7;
  fake.minor = 0;
  CHECK(has(refused(o), "NVRTC 13.0 cannot compile for this GPU, compute capability 7.0; it knows 75 to 100"));
  fake.major = 9;

  fake.driver_version = 12040;
  CHECK(has(refused(o), "NVRTC 13.0 makes programs for drivers of CUDA 13 or newer, and this driver is for CUDA 12.4"));
  CHECK(has(refused(o), "pip install nvidia-cuda-nvrtc-cu12"));

  const Folder folder;
  const fs::path older = folder.path / "libnvrtc.so.12";
  fs::copy_file(kFake, older);
  fake_at(older.string()).nvrtc_major = 12;
  o.nvrtc = std::string(kFake) + ":" + older.string();
  CHECK_NOTHROW(make_cuda_queue(o));
  o.nvrtc = kFake;
  fake.driver_version = 13000;

  const fs::path old = folder.path / "libcuda-old.so";
  fs::copy_file(kFake, old);
  fake_at(old.string()).driver_version = 11080;
  o.driver = old.string();
  CHECK(has(refused(o), "expected a driver for CUDA 12.0 or newer (525.60), got one for CUDA 11.8"));
}

TEST_CASE("cuda: where NVRTC is looked for") {
  FakeCuda& fake = fresh();
  const Folder folder;
  CudaOptions o = options();
  o.nvrtc = folder.path.string();
  setenv("PERSONAPLEX_NVRTC", (folder.path / "absent").c_str(), 1);
  const std::string words = words_of([&] { make_cuda_queue(o); });
  CHECK(has(words, "expected NVRTC, CUDA's compiler"));
  CHECK(has(words, "pip install 'personaplex[cuda]'"));
  CHECK(has(words, (folder.path / "absent").string()));

  setenv("PERSONAPLEX_NVRTC", folder.path.c_str(), 1);
  CHECK(has(words_of([&] { make_cuda_queue(o); }), "which has no libnvrtc.so"));
  fs::create_directories(folder.path / "lib");
  fs::copy_file(kFake, folder.path / "lib" / "libnvrtc.so.13");
  CHECK(words_of([&] { make_cuda_queue(o); }) == "(nothing thrown)");
  unsetenv("PERSONAPLEX_NVRTC");
  CHECK(words_of([&] { make_cuda_queue(o); }) == "(nothing thrown)");  // the option's folder
  CHECK(fake.alive == 0);
}

TEST_CASE("cuda: the memory's speed is measured by every reading kernel, over all of it, several times a list") {
  FakeCuda& fake = fresh();
  int readings = 0;
  CudaOptions o = options();
  o.sources = {{"read_memory.metal", "text", {}}};
  for (const char* name : {"read_memory_u1", "read_memory_u4", "read_memory_u8"}) {
    o.sources[0].kernels.emplace_back(name, name);
    fake.kernels[name] = {{8, 8, 4}, [&](void** params, const unsigned* groups, unsigned threads) {
                            std::uint32_t count = 0;
                            std::memcpy(&count, params[2], sizeof count);
                            CHECK(count == 1'000'000 / 16);
                            CHECK(groups[0] * threads > 32768);
                            ++readings;
                          }};
  }
  {
    const auto queue = make_cuda_queue(o);
    const auto speeds = read_bandwidth(*queue, 1'000'007, 3);
    REQUIRE(speeds.size() == 3);
    for (const auto& [name, passes] : speeds) {
      CHECK(fake.kernels.contains(name));
      REQUIRE(passes.size() == 3);
      for (const double speed : passes) CHECK(speed > 0.0);
    }
    CHECK(readings == 3 * 8 * (1 + 3));
  }
  CHECK(fake.alive == 0);
}
