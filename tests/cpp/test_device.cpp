// tests/cpp/test_device.cpp: which device a model takes where there is an NVIDIA GPU, in front of a fake driver, and
// what is said of one that cannot be used.
#include <doctest/doctest.h>
#include <mlx/backend/cuda/cuda.h>
#include <mlx/backend/metal/metal.h>
#include <mlx/mlx.h>

#include <cstdlib>
#include <functional>
#include <string>

#include "checkpoint/weights.h"
#include "core/error.h"
#include "gpu/kernel_source.h"
#include "gpu/obstacle.h"
#include "graph/op.h"
#include "load_fake_cuda.h"
#include "session/choose_engine.h"
#include "session/device.h"
#include "session/model.h"
#include "words.h"

using namespace personaplex;

namespace {

ModelOptions options(const std::string& device) {
  ModelOptions o;
  o.source = "random:tiny";
  o.device = device;
  o.cuda.driver = o.cuda.nvrtc = kFake;
  return o;
}

/// No NVRTC, whatever this machine has.
struct NoNvrtc {
  NoNvrtc() { setenv("PERSONAPLEX_NVRTC", "/nowhere", 1); }
  ~NoNvrtc() { unsetenv("PERSONAPLEX_NVRTC"); }
};

/// Then "auto" and "gpu" may mean that one.
bool mlx_has_a_gpu() { return mlx::core::metal::is_available() || mlx::core::cu::is_available(); }

}  // namespace

TEST_CASE("device: auto takes a GPU for the fused engine, with every kernel's text") {
  if (mlx_has_a_gpu()) return;
  new_fake();
  for (const char* name : {"auto", "gpu", "cuda"}) {
    const Device device = open_device(options(name));
    CHECK(device.kind == "cuda");
    CHECK(device.queue != nullptr);
    CHECK(device.name() == "Fake GPU");
    CHECK(device.against_fused.empty());
    CHECK(device.note.empty());
  }
  CHECK(open_device(options("cpu")).queue == nullptr);
  auto with_threads = options("auto");
  with_threads.threads = 2;
  CHECK(open_device(with_threads).kind == "cpu");
}

TEST_CASE("device: what the kernels cannot run is known before the upload") {
  CHECK(gpu::obstacle(Config{}, 8).empty());
  const auto of = [](const std::function<void(Config&)>& change) {
    Config c;
    change(c);
    return gpu::obstacle(c, 8);
  };
  CHECK(of([](Config& c) { c.mimi.dimension = 1024; }) ==
        "its GPU kernels take a Mimi dimension of at most 512, and this model's is 1024");
  CHECK(has(of([](Config& c) { c.mimi.quantizer_dimension = 513; }), "codewords of at most 512"));
  CHECK(has(of([](Config& c) { c.mimi.num_heads = 2; }), "a head size in Mimi of at most 128"));
  CHECK(has(of([](Config& c) { c.mimi.num_heads = 256; }), "a multiple of 4 values, and this model's have 2"));
  CHECK(has(of([](Config& c) { c.mimi.context = 512; }), "a Mimi context of at most 511"));
  CHECK(has(of([](Config& c) { c.depformer_num_heads = 1024; }), "in the depformer of an even size"));
  CHECK(has(of([](Config& c) { c.dim = 80 * c.num_heads; }), "int8 keys and values of heads of 32"));
  CHECK(has(of([](Config& c) { c.depformer_dim = 1020; }), "a depformer_dim that is a multiple of 8"));
}

TEST_CASE("device: without NVRTC auto takes the CPU and says why") {
  if (mlx_has_a_gpu()) return;
  new_fake();
  const NoNvrtc none;
  const Device device = open_device(options("auto"));
  CHECK(device.kind == "cpu");
  CHECK(has(device.note, "expected NVRTC"));
  CHECK(device.note.find('\n') == std::string::npos);
  CHECK(has(words_of([] { open_device(options("cuda")); }),
            "[load] device 'cuda' is not available: expected NVRTC, CUDA's compiler"));
  const Model model(options("auto"));
  CHECK(model.info().device == "cpu");
  CHECK(model.info().engine == "fused");
  CHECK(model.info().device_note == device.note);
}

TEST_CASE("device: a machine without a GPU has no note, and an error where one is asked for") {
  if (mlx_has_a_gpu()) return;
  new_fake().devices = 0;
  CHECK(open_device(options("auto")).kind == "cpu");
  CHECK(open_device(options("auto")).note.empty());
  CHECK(has(words_of([] { open_device(options("cuda")); }), "[load] device 'cuda' is not available: "));
  CHECK(words_of([] { open_device(options("gpu")); }) ==
        "[load] device 'gpu' is not available: this machine offers cpu.");
  auto no_driver = options("cuda");
  no_driver.cuda.driver = "/nowhere/libcuda.so.1";
  CHECK(has(words_of([&] { open_device(no_driver); }), "expected NVIDIA's driver library"));
}

TEST_CASE("device: a model that does not fit is refused before it is copied") {
  FakeCuda& fake = new_fake();
  fake.free_bytes = std::size_t{100} << 20;
  const std::string words = words_of([] { Model model(options("cuda")); });
  CHECK(has(words, "[load] expected 0."));
  CHECK(has(words, "of free memory on Fake GPU (weights 0."));
  CHECK(has(words, "got 0.10 GB"));
  CHECK(fake.compiles == 0);
  CHECK(fake.alive == 0);
}

TEST_CASE("device: where the fused engine cannot run a model, auto takes the CPU and nothing else is left open") {
  if (mlx_has_a_gpu()) return;
  FakeCuda& fake = new_fake();
  Weights weights = random_weights(random_config("tiny"), 1, {});
  weights.temporal.text_linear.weight.dtype = DType::kF16;
  ModelInfo info;
  const ModelOptions named = options("cuda"), any = options("auto");
  Device cuda = open_device(named), found = open_device(any);
  CHECK_THROWS_WITH_AS(choose_engine(weights, named, cuda, info), doctest::Contains("cannot run this model: it reads"),
                       WeightsError);
  graph::use_device(mlx::core::Device::cpu);
  const auto engine = choose_engine(weights, any, found, info);
  CHECK(engine != nullptr);
  CHECK(info.engine == "graph");
  CHECK(found.kind == "cpu");
  CHECK(found.note == info.engine_note);
  CHECK(fake.alive == 0);
}

TEST_CASE("device: options of the CPU are refused on a GPU") {
  new_fake();
  auto o = options("cuda");
  o.threads = 2;
  CHECK(has(words_of([&] { Model model(o); }), "invalid: [load] threads=2 is of the CPU"));
  CHECK(words_of([] { Model model(options("tpu")); }) ==
        "invalid: [load] expected device auto, cpu, gpu, metal or cuda, got 'tpu'.");
}

TEST_CASE("device: kernels are in the binary, as Metal and as CUDA, under the same names; CUDA has more") {
  const auto metal = gpu::metal_sources();
  const auto cuda = gpu::cuda_sources();
  REQUIRE(metal.size() < cuda.size());
  CHECK(metal.size() > 10);
  for (std::size_t i = metal.size(); i < cuda.size(); ++i) {
    CHECK(cuda[i].capability >= 80);
    CHECK(cuda[i].text.find("#include") == std::string::npos);
    CHECK_FALSE(cuda[i].kernels.empty());
  }
  for (std::size_t i = 0; i < metal.size(); ++i) {
    CHECK(metal[i].file == cuda[i].file);
    CHECK(has(metal[i].text, "#include <metal_stdlib>"));
    CHECK(cuda[i].text.find("metal_stdlib") == std::string::npos);
    REQUIRE(metal[i].kernels.size() == cuda[i].kernels.size());
    for (std::size_t k = 0; k < metal[i].kernels.size(); ++k) {
      CHECK(metal[i].kernels[k] == cuda[i].kernels[k].first);
      CHECK(has(cuda[i].kernels[k].second, "extern \"C\" __global__"));
    }
  }
}
