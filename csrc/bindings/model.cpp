// csrc/bindings/model.cpp: the Python class Model.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/handles.h"
#include "session/device.h"

namespace personaplex::bindings {

namespace {

using Frames = std::vector<std::vector<int>>;

// [rows, T] from Python -> T columns of `rows` ints, each value within [low, high].
Frames to_columns(const char* where, const char* what, const AnyArray& a, int rows, int low, int high) {
  check_rank(where, what, a, 2, ("[" + std::to_string(rows) + ", T]").c_str());
  if (a.shape(0) != static_cast<std::size_t>(rows)) {
    bad_argument(where, std::string("expected ") + what + " of shape [" + std::to_string(rows) + ", T], got " +
                            describe(a) + ".");
  }
  const auto values = to_integers(where, what, a);
  const std::size_t count = a.shape(1);
  Frames out(count, std::vector<int>(static_cast<std::size_t>(rows)));
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
    for (std::size_t t = 0; t < count; ++t) {
      const std::int64_t v = values[r * count + t];
      if (v < low || v > high) {
        bad_argument(where, std::string("expected ") + what + " from " + std::to_string(low) + " to " +
                                std::to_string(high) + ", got " + std::to_string(v) + ".");
      }
      out[t][r] = static_cast<int>(v);
    }
  }
  return out;
}

// Whole frames of finite samples.
struct Pcm {
  std::vector<float> samples;
  std::size_t frame_samples;
  std::size_t frames() const { return samples.size() / frame_samples; }
  std::span<const float> frame(std::size_t t) const {
    return std::span(samples).subspan(t * frame_samples, frame_samples);
  }
};

Pcm to_pcm(const char* where, const Model& model, const AnyArray& pcm) {
  check_rank(where, "pcm", pcm, 1, "[n * 1920]");
  const auto frame = static_cast<std::size_t>(model.config().mimi.frame_samples());
  if (pcm.shape(0) == 0 || pcm.shape(0) % frame != 0) {
    bad_argument(where, "expected a multiple of " + std::to_string(frame) + " samples, got " +
                            std::to_string(pcm.shape(0)) + ".");
  }
  std::vector<float> samples = to_floats(where, "pcm", pcm);
  check_finite(where, samples);
  return {std::move(samples), frame};
}

// Calls `one` for each of `count` frames of a fresh state, on the model's thread. Ctrl-C ends it after the frame in
// progress.
void for_each_frame(Model& model, std::size_t count, const std::function<void(EngineState&, std::size_t)>& one) {
  std::atomic<bool> cancelled{false};
  call_cancellable(
      model.worker(),
      [&] {
        const auto state = model.engine().new_state();
        for (std::size_t t = 0; t < count && !cancelled; ++t) one(*state, t);
      },
      [&] { cancelled = true; }, [] {});
}

nb::object encode(Model& model, const AnyArray& pcm) {
  model.check("Model.encode");
  const Pcm heard = to_pcm("Model.encode", model, pcm);
  const std::size_t count = heard.frames();
  const auto codebooks = static_cast<std::size_t>(model.config().codebooks());
  std::vector<std::int32_t> codes(codebooks * count);
  for_each_frame(model, count, [&](EngineState& state, std::size_t t) {
    const auto column = model.engine().encode(state, heard.frame(t));
    for (std::size_t k = 0; k < codebooks; ++k) codes[k * count + t] = column[k];
  });
  return to_numpy(codes, {codebooks, count});
}

nb::object decode(Model& model, const AnyArray& codes) {
  model.check("Model.decode");
  const Frames frames =
      to_columns("Model.decode", "codes", codes, model.config().codebooks(), 0, model.config().mimi.bins - 1);
  std::vector<float> pcm;
  for_each_frame(model, frames.size(), [&](EngineState& state, std::size_t t) {
    const auto part = model.engine().decode(state, frames[t]);
    pcm.insert(pcm.end(), part.begin(), part.end());
  });
  return to_numpy(pcm, {pcm.size()});
}

nb::dict config_dict(const Model& model) {
  const Config& c = model.config();
  nb::dict d;
  d["dim"] = c.dim;
  d["num_layers"] = c.num_layers;
  d["num_heads"] = c.num_heads;
  d["n_q"] = c.n_q;
  d["codebooks"] = c.codebooks();
  d["rows"] = c.rows();
  d["card"] = c.card;
  d["text_card"] = c.text_card;
  d["context"] = c.context;
  d["delays"] = c.delays;
  d["text_padding_id"] = c.text_padding_id;
  d["depformer_steps"] = model.depformer_steps();
  d["frame_samples"] = c.mimi.frame_samples();
  d["mimi_context"] = c.mimi.context;
  d["silence_codes"] = c.silence_codes;
  d["sine_codes"] = c.sine_codes;
  d["spacer_frames"] = c.spacer_frames;
  return d;
}

nb::dict frame_bytes_dict(const FrameBytes& bytes) {
  nb::dict d;
  d["mimi_encode"] = bytes.mimi_encode;
  d["temporal"] = bytes.temporal;
  d["depformer"] = bytes.depformer;
  d["mimi_decode"] = bytes.mimi_decode;
  d["temporal_kv"] = bytes.temporal_kv;
  d["mimi_kv"] = bytes.mimi_kv;
  return d;
}

std::optional<std::uint64_t> calls(Model& model) {
  model.check("Model.calls");
  const std::uint64_t count = call(model.worker(), [&] { return model.engine().calls(); });
  return count == 0 ? std::nullopt : std::optional(count);
}

nb::dict info_dict(const Model& model) {
  const ModelInfo& i = model.info();
  nb::dict d;
  d["source"] = i.source;
  d["device"] = i.device;
  d["device_name"] = i.device_name;
  d["engine"] = i.engine;
  d["device_note"] = i.device_note;
  d["engine_note"] = i.engine_note;
  d["instruction_set"] = i.instruction_set;
  d["threads"] = i.threads > 0 ? nb::cast(i.threads) : nb::none();
  d["dtype"] = i.dtype;
  d["kv_dtype"] = i.kv_dtype;
  d["weights_seed"] = i.weights_seed;
  d["bits"] = i.bits;
  d["group_size"] = i.group_size;
  d["weight_bytes"] = i.weight_bytes;
  d["frame_bytes"] = frame_bytes_dict(i.frame_bytes);
  d["kept_16bit"] = i.kept_16bit;
  d["compiled"] = i.compiled;
  d["compile_note"] = i.compile_note;
  d["mlx_version"] = i.mlx_version;
  return d;
}

// Stages of all frames side by side: [L, D] a frame -> [D, T * L].
nb::object stage_to_numpy(const std::vector<TensorView>& frames) {
  const auto length = static_cast<std::size_t>(frames[0].dim(0));
  const auto dim = static_cast<std::size_t>(frames[0].dim(1));
  const std::size_t total = frames.size() * length;
  std::vector<float> out(dim * total);
  for (std::size_t f = 0; f < frames.size(); ++f) {
    const auto* data = reinterpret_cast<const float*>(frames[f].data);
    for (std::size_t l = 0; l < length; ++l) {
      for (std::size_t d = 0; d < dim; ++d) out[d * total + f * length + l] = data[l * dim + d];
    }
  }
  return to_numpy(out, {dim, total});
}

nb::dict probe_mimi(Model& model, const AnyArray& pcm) {
  model.check("Model.probe_mimi");
  const Pcm heard = to_pcm("Model.probe_mimi", model, pcm);
  const std::size_t count = heard.frames();
  const auto codebooks = static_cast<std::size_t>(model.config().codebooks());
  std::map<std::string, std::vector<TensorView>> stages;
  std::vector<float> codes(codebooks * count);
  std::vector<float> decoded;
  for_each_frame(model, count, [&](EngineState& state, std::size_t t) {
    Engine& engine = model.engine();
    Probe probe;
    const auto column = engine.encode(state, heard.frame(t), &probe);
    for (std::size_t k = 0; k < codebooks; ++k) codes[k * count + t] = static_cast<float>(column[k]);
    const auto part = engine.decode(state, column, &probe);
    decoded.insert(decoded.end(), part.begin(), part.end());
    for (const auto& [name, tensor] : probe) stages[name].push_back(tensor);
  });
  nb::dict out;
  for (const auto& [name, frames] : stages) out[name.c_str()] = stage_to_numpy(frames);
  out["codes"] = to_numpy(codes, {codebooks, count});
  out["decoded"] = to_numpy(decoded, {decoded.size()});
  return out;
}

nb::dict probe_temporal(Model& model, const AnyArray& tokens, int chunk) {
  const char* where = "Model.probe_temporal";
  model.check(where);
  check_chunk(where, chunk);
  const Config& c = model.config();
  Frames columns = to_columns(where, "tokens", tokens, c.rows(), -1, std::max(c.text_card, c.card));
  for (const auto& column : columns) {
    for (std::size_t r = 1; r < column.size(); ++r) {
      if (column[r] > c.card) bad_argument(where, "audio token " + std::to_string(column[r]) + " is over card.");
    }
    if (column[0] > c.text_card) bad_argument(where, "text token " + std::to_string(column[0]) + " is over text_card.");
  }
  if (columns.empty()) bad_argument(where, "expected at least one column, got none.");
  return to_dict(call(model.worker(), [&] { return model.engine().probe_temporal(columns, chunk); }));
}

nb::object probe_depformer(Model& model, const AnyArray& hidden, const AnyArray& text, const AnyArray& given) {
  const char* where = "Model.probe_depformer";
  model.check(where);
  const Config& c = model.config();
  check_rank(where, "hidden", hidden, 2, "[n, dim]");
  check_rank(where, "text", text, 1, "[n]");
  check_rank(where, "given", given, 2, "[n, steps]");
  const std::size_t n = hidden.shape(0);
  const auto steps = static_cast<std::size_t>(model.depformer_steps());
  if (n == 0 || hidden.shape(1) != static_cast<std::size_t>(c.dim) || text.shape(0) != n || given.shape(0) != n ||
      given.shape(1) + 1 < steps) {
    bad_argument(where, "expected hidden [n, dim], text [n] and given [n, >= steps - 1] that fit the model.");
  }
  const auto states = to_floats(where, "hidden", hidden);
  const auto first = to_integers(where, "text", text);
  const auto tokens = to_integers(where, "given", given);
  std::vector<int> texts;
  Frames rows(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (first[i] < -1 || first[i] > c.text_card) bad_argument(where, "a text token is out of range.");
    texts.push_back(static_cast<int>(first[i]));
    for (std::size_t k = 0; k < steps; ++k) {
      const std::int64_t token = k < given.shape(1) ? tokens[i * given.shape(1) + k] : 0;
      if (token < -1 || token > c.card) bad_argument(where, "a given token is out of range.");
      rows[i].push_back(static_cast<int>(token));
    }
  }
  const Probe probe = call(model.worker(), [&] { return model.engine().probe_depformer(states, texts, rows); });
  return tensor_to_numpy(probe.at("logits"));
}

}  // namespace

void register_model(nb::module_& m) {
  nb::class_<Model>(m, "Model")
      .def(
          "__init__",
          [](Model* self, const std::string& source, const std::string& device, const std::string& engine,
             const std::string& dtype, int temporal_bits, int depformer_bits, int head_bits, int embedding_bits,
             int group_size, int depformer_steps, int context, int kv_bits, int threads, bool compile, bool dequantize,
             std::uint64_t weights_seed, const std::string& nvrtc, const std::string& kernel_cache) {
            ModelOptions options;
            options.source = source;
            options.device = device;
            options.engine = engine;
            options.dtype = dtype;
            options.load = {temporal_bits, depformer_bits,  head_bits, embedding_bits,
                            group_size,    depformer_steps, dequantize};
            options.context = context;
            options.kv_bits = kv_bits;
            options.threads = threads;
            options.compile = compile;
            options.weights_seed = weights_seed;
            options.cuda.nvrtc = nvrtc;
            options.cuda.cache = kernel_cache;
            const Unlocked unlocked;
            new (self) Model(options);
          },
          nb::arg("source"), nb::kw_only(), nb::arg("device") = "auto", nb::arg("engine") = "auto",
          nb::arg("dtype") = "auto", nb::arg("temporal_bits") = 0, nb::arg("depformer_bits") = 0,
          nb::arg("head_bits") = 0, nb::arg("embedding_bits") = 0, nb::arg("group_size") = 0,
          nb::arg("depformer_steps") = 0, nb::arg("context") = 0, nb::arg("kv_bits") = 0, nb::arg("threads") = 0,
          nb::arg("compile") = false, nb::arg("dequantize") = false, nb::arg("weights_seed") = 0, nb::arg("nvrtc") = "",
          nb::arg("kernel_cache") = "")
      .def_prop_ro("config", &config_dict)
      .def_prop_ro("info", &info_dict)
      .def_prop_ro("calls", &calls)
      .def_prop_ro("loaded", &Model::loaded)
      .def(
          "session",
          [](std::shared_ptr<Model> self, std::optional<SamplingOptions> sampling, std::uint64_t seed) {
            self->check("Model.session");
            const SamplingOptions how = sampling.value_or(SamplingOptions{});
            check_sampling(how);
            auto session = std::make_shared<Session>(self, how, seed);
            self->adopt(session);
            return std::make_unique<SessionHandle>(std::move(session));
          },
          nb::arg("sampling") = nb::none(), nb::arg("seed") = 0)
      .def("load_snapshot",
           [](std::shared_ptr<Model> self, const std::string& path, const std::string& key) {
             self->check("Model.load_snapshot");
             auto snapshot = call(self->worker(), [&] { return load_snapshot(self, path, key); });
             self->adopt(snapshot);
             return std::make_unique<SnapshotHandle>(std::move(snapshot));
           })
      .def("encode", &encode, nb::arg("pcm"))
      .def("decode", &decode, nb::arg("codes"))
      .def("unload", &Model::unload, nb::call_guard<Unlocked>())
      .def("probe_mimi", &probe_mimi, nb::arg("pcm"))
      .def("probe_temporal", &probe_temporal, nb::arg("tokens"), nb::arg("chunk") = 1)
      .def("probe_depformer", &probe_depformer, nb::arg("hidden"), nb::arg("text"), nb::arg("given"));
  m.def("devices", &available_devices);
}

}  // namespace personaplex::bindings
