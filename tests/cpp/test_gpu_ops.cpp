// tests/cpp/test_gpu_ops.cpp: what the operations record for a GPU: how many dispatches, of which kernels, with which
// arguments and barriers. What kernels compute is tested elsewhere.
#include <set>

#include "checkpoint/weights.h"
#include "engine/engine.h"
#include "gpu/gpu_codec_weights.h"
#include "gpu/gpu_ops.h"
#include "gpu/self_check.h"
#include "model/fused_engine.h"
#include "recording_queue.h"
#include "twins.h"

using namespace personaplex;
using namespace personaplex::gpu;

namespace {

using Lists = std::vector<std::vector<std::string>>;

/// The model as large as it is where that decides how operations are shared out, small elsewhere.
Config full_depth() {
  Config config;
  config.dim = 256;
  config.num_heads = 4;
  config.text_card = 512;
  config.depformer_dim = 128;
  config.depformer_num_heads = 2;
  config.depformer_dim_feedforward = 288;
  return config;
}

FrameInput any_frame(const Config& config) {
  FrameInput input;
  input.column.assign(static_cast<std::size_t>(config.rows()), 0);
  input.target.assign(static_cast<std::size_t>(config.rows()), 0);
  input.forced.assign(static_cast<std::size_t>(config.rows()), 0);
  return input;
}

/// A frame of a model whose dispatches are checked as they are recorded: those of encode, decode and step, and of the
/// frame as one list.
struct Frame {
  std::size_t encode = 0, decode = 0, step = 0, whole = 0;

  explicit Frame(const Config& config, Lists& lists, int kv_bits = 16) {
    const Weights weights = random_weights(config, 3, {});
    const auto engine =
        make_fused_engine(weights, std::make_unique<GpuOps>(std::make_unique<RecordingQueue>(lists)), kv_bits);
    const auto state = engine->new_state();
    auto calls = [&, before = std::uint64_t{0}]() mutable {
      return static_cast<std::size_t>(engine->calls() - std::exchange(before, engine->calls()));
    };
    const std::vector<float> pcm(static_cast<std::size_t>(config.mimi.frame_samples()));
    const std::vector<int> codes(static_cast<std::size_t>(config.codebooks()));
    engine->encode(*state, pcm, nullptr);
    encode = calls();
    engine->decode(*state, codes, nullptr);
    decode = calls();
    engine->step(*state, any_frame(config), {}, nullptr, nullptr);
    step = calls();
    // What is recorded is repeated.
    const std::size_t recorded = lists.size();
    engine->encode(*state, pcm, nullptr);
    engine->decode(*state, codes, nullptr);
    engine->step(*state, any_frame(config), {}, nullptr, nullptr);
    CHECK(lists.size() == recorded);
    CHECK(calls() == encode + decode + step);
    FrameInput input = any_frame(config);
    for (int k = 0; k < config.codebooks(); ++k) {
      input.target[static_cast<std::size_t>(1 + config.codebooks() + k)] = later(k);
    }
    for (int i = 0; i < 2; ++i) {
      engine->frame(*state, pcm, input, std::vector<int>(codes.size(), later(1)), {});
      CHECK(lists.size() == recorded + 1);
      whole = calls();
    }
    // The windows of both halves of the codec carry at once; and where the user's rows are predicted too, what is heard
    // goes into the draws.
    CHECK(whole == encode + step + decode - 1 + (engine->depformer_steps() > config.codebooks() ? 1 : 0));
    // Stage by stage, nothing is kept.
    Probe probe;
    engine->encode(*state, pcm, &probe);
    engine->decode(*state, codes, &probe);
    CHECK(lists.size() > recorded + 1);
  }
};

/// Operations on small memories, and the kernels that they become.
struct Bench {
  Lists lists;
  GpuOps ops{std::make_unique<RecordingQueue>(lists)};
  std::vector<std::unique_ptr<ops::Memory>> memories;
  std::vector<ops::WeightPtr> weights;

  ops::Place place(std::size_t floats, ops::Use use = ops::Use::kState) {
    memories.push_back(ops.allocate(floats * sizeof(float), use));
    return {memories.back().get(), 0};
  }
  static TensorView ones(std::vector<std::int64_t> shape) {
    OwnedTensor t = allocate_tensor(DType::kF32, std::move(shape));
    std::fill_n(reinterpret_cast<float*>(t.mutable_data), t.view.size(), 1.0F);
    return t.view;
  }
  const ops::Weight& keep(ops::WeightPtr w) { return *weights.emplace_back(std::move(w)); }
  std::vector<std::string> run(const std::function<void()>& calls) {
    ops.run({}, nullptr, calls);
    return lists.back();
  }
};

constexpr int kWidth = 16;

/// A layer of a codec's transformer, its operations one by one.
struct Layer : Bench {
  const ops::Weight& scale = keep(ops.vector(ones({kWidth})));
  const ops::Weight& bias = keep(ops.vector(ones({kWidth})));
  const ops::Weight& out_proj = keep(ops.linear(ones({kWidth, kWidth})));
  const ops::Weight& linear1 = keep(ops.linear(ones({24, kWidth})));
  const ops::Weight& linear2 = keep(ops.linear(ones({kWidth, 24})));
  ops::Place q = place(2 * kWidth), seen = place(2 * kWidth), x = place(2 * kWidth), inner = place(2 * 24);
  ops::Place at = place(12, ops::Use::kInput);
  ops::Ring ring = {.pages = place(4), .offset = 0, .bits = 32, .heads = 2, .head_dim = 8, .slots = 64, .visible = 20};

  void attend() { ops.attend(q, ring, at, 2, seen); }
  void project_out() { ops.project(out_proj, seen, 2, {{}, ops::Epilogue::kAdd, &scale}, x); }
  void widen() { ops.project(linear1, x, 2, {{&scale, &bias}, ops::Epilogue::kGelu, nullptr}, inner); }
  void narrow() { ops.project(linear2, inner, 2, {{}, ops::Epilogue::kAdd, nullptr}, x); }
};

}  // namespace

TEST_CASE("gpu: a GPU that computes nothing is found out") {
  Lists lists;
  RecordingQueue queue(lists);
  const std::string reason = self_check(queue);
  CAPTURE(reason);
  CHECK(reason.starts_with("its result of project is "));
  CHECK(reason.ends_with(" away from the CPU's"));
}

TEST_CASE("gpu: a frame of the full depth is few dispatches") {
  Lists lists;
  const Frame frame(full_depth(), lists);
  CHECK(frame.step <= 420);
  CHECK(frame.whole - frame.step <= 100);
  CHECK(frame.encode + frame.decode <= 101);
  std::multiset<std::string> used;
  for (const std::string& name : lists.at(0)) used.insert(name);
  for (const std::string& name : lists.at(1)) used.insert(name);
  CHECK(used.count("codec_carry") == 2);
  CHECK(used.count("codec_qkv") == 16);
  CHECK(used.count("codec_attend") == 16);
  CHECK(used.count("codec_linear_norm_gelu") == 16);
  CHECK(used.count("codec_linear_add") == 16);
  CHECK(used.count("codec_residual_p8") + used.count("codec_residual_p4") + used.count("codec_residual_p2") == 6);
  CHECK(used.count("codec_linear_store") == 1);
  CHECK(used.count("codec_quantize") == 8);
  CHECK(used.count("codec_dequantize") == 1);
  CHECK(lists.at(0).back() == "codec_carry");
  CHECK(lists.at(1).back() == "codec_carry");
}

TEST_CASE("gpu: frames of other shapes") {
  Lists lists;
  Config one_codebook = random_config("tiny");
  one_codebook.n_q = one_codebook.dep_q = 2;
  one_codebook.delays.resize(3);
  one_codebook.silence_codes.resize(1);
  one_codebook.sine_codes.resize(1);
  for (const Config& config : {random_config("tiny"), odd_config(), one_codebook}) {
    const Frame frame(config, lists);
    CHECK(frame.encode > 0);
    CHECK(frame.decode > 0);
  }
  const Frame frame(random_config("tiny"), lists, 8);
  CHECK(frame.step > 0);
}

TEST_CASE("gpu: products on tensor cores, where there are kernels for it and matrices for them") {
  for (const int kv_bits : {16, 8}) {
    CAPTURE(kv_bits);
    Lists lists;
    const Config config = full_depth();
    const auto engine = make_fused_engine(random_weights(config, 3, {}),
                                          std::make_unique<GpuOps>(std::make_unique<RecordingQueue>(lists)), kv_bits);
    const auto state = engine->new_state();
    engine->step(*state, any_frame(config), {}, nullptr, nullptr);
    const std::multiset<std::string> step(lists.back().begin(), lists.back().end());
    const auto layers = static_cast<std::size_t>(config.num_layers);
    const auto all = static_cast<std::size_t>(config.codebooks() * config.depformer_num_layers);
    CHECK(step.count("qkv_bf16_mma_c1") >= layers);
    CHECK(step.count("attend_project_bf16_mma_c1") == all);
    CHECK(step.count("qmv_bf16_mma_c1") >= 3 * layers);
    for (const auto& [columns, tile] : {std::pair<std::size_t, std::string>{7, "c8"}, {32, "c32"}}) {
      engine->prefill_tokens(*state, std::vector<std::vector<int>>(columns, any_frame(config).column));
      const std::multiset<std::string> prefill(lists.back().begin(), lists.back().end());
      CHECK(prefill.count("qkv_bf16_mma_" + tile) == layers);
      CHECK(prefill.count("qmv_bf16_mma_" + tile) == 3 * (layers - 1));  // nobody asks for the last one's result
    }
  }
  // Groups of 32, and a K that is no multiple of what a lane reads at once.
  Lists lists;
  const Frame frame(odd_config(), lists);
  for (const auto& list : lists) {
    for (const std::string& name : list) CHECK(name.find("mma") == std::string::npos);
  }
}

TEST_CASE("gpu: x of an attention is whole for everyone but the layer's own products") {
  using Names = std::vector<std::string>;
  const Names fused = {"codec_attend", "codec_linear_norm_gelu", "codec_linear_add"};
  {
    Layer layer;
    const Names got = layer.run([&] {
      layer.attend();
      layer.project_out();
      layer.widen();
      layer.narrow();
    });
    CHECK(got == fused);
  }
  {  // somebody reads x before the layer has ended
    Layer layer;
    const ops::Place other = layer.place(2 * kWidth);
    const Names got = layer.run([&] {
      layer.attend();
      layer.project_out();
      layer.widen();
      layer.ops.project(layer.out_proj, layer.x, 2, {}, other);
      layer.narrow();
    });
    CHECK(got == Names{"attend_f32_d0", "codec_linear_add", "codec_linear_norm_gelu", "codec_linear_store",
                       "codec_linear_add"});
  }
  {  // nobody adds to x again
    Layer layer;
    const Names got = layer.run([&] {
      layer.attend();
      layer.project_out();
      layer.widen();
    });
    CHECK(got == Names{"attend_f32_d0", "codec_linear_add", "codec_linear_norm_gelu"});
  }
  {  // more positions than the fused kernel takes
    Layer layer;
    layer.ring.visible = 600;
    layer.ring.slots = 640;
    layer.ring.pages = layer.place(40);
    const Names got = layer.run([&] {
      layer.attend();
      layer.project_out();
      layer.widen();
      layer.narrow();
    });
    CHECK(got == Names{"attend_f32_d0", "codec_linear_add", "codec_linear_norm_gelu", "codec_linear_add"});
  }
}

TEST_CASE("gpu: what is called together has nothing to do with each other") {
  Layer layer;
  const ops::Place one = layer.place(16), other = layer.place(16), third = layer.place(16);
  const auto copy = [&](ops::Place from, ops::Place to) { layer.ops.select(16, from, {}, {}, 0, to); };
  const auto names = layer.run([&] {
    copy(one, other);
    layer.ops.together([&] { copy(other, one); }, [&] { copy(other, third); });
    copy(one, third);
  });
  CHECK(names.size() == 4);
  CHECK_THROWS_AS(layer.run([&] { layer.ops.together([&] { copy(one, other); }, [&] { copy(other, third); }); }),
                  std::logic_error);
  CHECK_THROWS_AS(layer.run([&] { layer.ops.together([&] { copy(one, other); }, [&] { copy(third, one); }); }),
                  std::logic_error);
  CHECK_THROWS_AS(layer.run([&] { layer.ops.together([&] { layer.attend(); }, [&] { copy(one, layer.seen); }); }),
                  std::logic_error);
  CHECK(layer.run([&] { copy(one, third); }).size() == 1);
}

TEST_CASE("gpu: windows carry before they are used again, and once at the end") {
  Bench bench;
  const Conv three{Bench::ones({8, 8, 3}), {}};
  const ops::Weight& conv = bench.keep(bench.ops.conv(three, 1, 1));
  const ops::Place window = bench.place((2 + 4) * 8), other = bench.place((2 + 4) * 8), y = bench.place(4 * 8);
  CHECK(bench.run([&] {
    bench.ops.conv(conv, window, 4, {{}, {}, other + 2 * 8 * sizeof(float)});
    bench.ops.conv(conv, other, 4, {{}, y, {}});
  }) == std::vector<std::string>{"codec_conv_p8_o8", "codec_conv_p8_o8", "codec_carry", "codec_carry"});
  CHECK(bench.run([&] {
    bench.ops.conv(conv, window, 4, {{}, y, {}});
    bench.ops.conv(conv, window, 4, {{}, y, {}});
  }) == std::vector<std::string>{"codec_conv_p8_o8", "codec_carry", "codec_conv_p8_o8", "codec_carry"});

  const ops::Place is_first = bench.place(1, ops::Use::kInput);
  CHECK(bench.run([&] {
    bench.ops.replicate(conv, window, is_first);
    bench.ops.conv(conv, window, 4, {{}, y, {}});
  }) == std::vector<std::string>{"codec_conv_p8_o8", "codec_carry"});
  CHECK_THROWS_AS(bench.run([&] { bench.ops.replicate(conv, window, is_first); }), std::invalid_argument);
  CHECK(bench.run([&] { bench.ops.conv(conv, window, 4, {{}, y, {}}); }).size() == 2);
}

TEST_CASE("gpu: residual blocks by one kernel where nobody else wants what lies between") {
  Bench bench;
  const ops::Weight& conv1 = bench.keep(bench.ops.conv({Bench::ones({8, 16, 3}), Bench::ones({8})}, 1, 2));
  const ops::Weight& conv2 = bench.keep(bench.ops.conv({Bench::ones({16, 8, 1}), {}}, 1, 1));
  const ops::Place window = bench.place((4 + 6) * 16), hidden = bench.place(6 * 8), x = bench.place(6 * 16);
  const ops::Place raw = bench.place(6 * 8);
  CHECK(bench.run([&] {
    bench.ops.conv(conv1, window, 6, {{}, {}, hidden});
    bench.ops.conv(conv2, hidden, 6, {x, x, {}});
  }) == std::vector<std::string>{"codec_residual_p8", "codec_carry"});
  CHECK(bench.run([&] {
    bench.ops.conv(conv1, window, 6, {{}, raw, hidden});
    bench.ops.conv(conv2, hidden, 6, {x, x, {}});
  }) == std::vector<std::string>{"codec_conv_p8_o8", "codec_conv_p8_o8", "codec_carry"});
}

TEST_CASE("gpu: weights of the codec as the kernels read them") {
  Lists lists;
  RecordingQueue queue(lists);
  WeightMemory memory(queue);
  // Transposed, 3 inputs, 2 filters, stride 2: value (c, o, i) is 100 c + 10 o + i.
  OwnedTensor t = allocate_tensor(DType::kF32, {3, 2, 4});
  auto* values = reinterpret_cast<float*>(t.mutable_data);
  for (int c = 0; c < 3; ++c) {
    for (int o = 0; o < 2; ++o) {
      for (int i = 0; i < 4; ++i) *values++ = static_cast<float>(100 * c + 10 * o + i);
    }
  }
  const auto w = put_conv_transpose(memory, {t.view, {}}, 2);
  CHECK(w->outputs == 4);
  CHECK(w->octets() == 1);
  std::vector<std::int16_t> panel(64);
  std::vector<float> scales(4);
  REQUIRE(w->value_bytes() == 128);
  w->values.memory->read(w->values.offset, 128, panel.data());
  w->scales.memory->read(w->scales.offset, 16, scales.data());
  for (int s = 0; s < 2; ++s) {
    for (int o = 0; o < 2; ++o) {
      for (int j = 0; j < 6; ++j) {  // the column before, then this one
        const float want = static_cast<float>(100 * (j % 3) + 10 * o + (j < 3 ? 2 + s : s));
        const auto n = static_cast<std::size_t>(2 * s + o);
        CHECK(std::abs(scales[n] * panel[n * 8 + static_cast<std::size_t>(j)] - want) <= 0.51F * scales[n]);
      }
    }
  }
  for (const std::size_t padding : {6U, 7U, 32U, 63U}) CHECK(panel[padding] == 0);

  // A dilated convolution has its taps apart: [2 outputs, 3 inputs, 2 taps].
  OwnedTensor dilated = allocate_tensor(DType::kF32, {2, 3, 2});
  values = reinterpret_cast<float*>(dilated.mutable_data);
  for (int i = 0; i < 12; ++i) values[i] = static_cast<float>(i + 1);
  const auto v = put_conv(memory, {dilated.view, {}}, 1, 3);
  CHECK(v->carried == 3);
  CHECK(v->groups == 2);
  REQUIRE(v->value_bytes() == 256);
  std::vector<std::int16_t> two(128);
  v->values.memory->read(v->values.offset, 256, two.data());
  CHECK(two[64 + 8 + 2] == 32767);  // tap 1, output 1, input 2: the largest
  CHECK(two[8 + 2] == doctest::Approx(32767.0 * 11 / 12).epsilon(1e-3));
  CHECK(two[3] == 0);
}
