// csrc/bindings/session.cpp: the Python classes Sampling, StepOutput, Snapshot and Session.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bindings/bindings.h"
#include "bindings/handles.h"

namespace personaplex::bindings {

namespace {

// 100,000 frames are over two hours; the bound keeps arrays that only claim a size from being copied.
constexpr std::size_t kMaxVoiceFrames = 100'000;

void check_voice_frames(const char* where, const char* what, std::size_t frames) {
  if (frames > kMaxVoiceFrames) {
    bad_argument(where, std::string("expected ") + what + " of at most " + std::to_string(kMaxVoiceFrames) +
                            " frames, got " + std::to_string(frames) + ".");
  }
}

std::vector<int> to_ints(const std::vector<std::int64_t>& values) {
  std::vector<int> out;
  for (const auto v : values) {
    out.push_back(static_cast<int>(std::clamp<std::int64_t>(v, INT32_MIN, INT32_MAX)));
  }
  return out;
}

void prompt(SessionHandle& self, const std::optional<AnyArray>& embeddings, const std::optional<AnyArray>& cache,
            const std::optional<AnyArray>& codes, const std::vector<int>& text, int chunk, const nb::object& progress) {
  const char* where = "Session.prompt";
  Session& session = self.get(where);
  const Claim claim(self, where);
  const Config& config = session.model()->config();
  Prompt p;
  p.chunk = chunk;
  p.text = text;
  if (embeddings) {
    check_rank(where, "voice_embeddings", *embeddings, 2, "[V, dim]");
    if (embeddings->shape(0) == 0 || embeddings->shape(1) != static_cast<std::size_t>(config.dim)) {
      bad_argument(where, "expected voice_embeddings of shape [V, " + std::to_string(config.dim) + "], got " +
                              describe(*embeddings) + ".");
    }
    check_voice_frames(where, "voice_embeddings", embeddings->shape(0));
    p.voice_embeddings = to_floats(where, "voice_embeddings", *embeddings);
  }
  if (cache) {
    const auto depth = static_cast<std::size_t>(config.max_delay() + 3);
    if (cache->ndim() != 2 || cache->shape(0) != static_cast<std::size_t>(config.rows()) || cache->shape(1) != depth) {
      bad_argument(where, "expected voice_cache of shape [" + std::to_string(config.rows()) + ", " +
                              std::to_string(depth) + "], got " + describe(*cache) + ".");
    }
    p.voice_cache = to_integers(where, "voice_cache", *cache);
  }
  if (codes) {
    check_rank(where, "voice_codes", *codes, 2, "[Q, frames]");
    const auto codebooks = static_cast<std::size_t>(config.codebooks());
    if (codes->shape(0) != codebooks || codes->shape(1) < 2) {
      bad_argument(where, "expected voice_codes of shape [" + std::to_string(codebooks) +
                              ", frames] with at least 2 frames, got " + describe(*codes) + ".");
    }
    check_voice_frames(where, "voice_codes", codes->shape(1));
    const auto values = to_ints(to_integers(where, "voice_codes", *codes));
    p.voice_frames.assign(codes->shape(1), std::vector<int>(codebooks));
    for (std::size_t k = 0; k < codebooks; ++k) {
      for (std::size_t t = 0; t < codes->shape(1); ++t) p.voice_frames[t][k] = values[k * codes->shape(1) + t];
    }
  }
  session.check_prompt(p);

  PromptProgress state;
  int told = -1;
  call_cancellable(
      session.model()->worker(), [&] { session.prompt(p, state); }, [&] { state.cancel = true; },
      [&] {
        const int done = state.done;
        if (progress.is_none() || done == told || state.total == 0) return;
        told = done;
        progress(done, state.total.load());
      });
}

StepOutput step(SessionHandle& self, const AnyArray& pcm, std::optional<int> text) {
  const char* where = "Session.step";
  Session& session = self.get(where);
  const Claim claim(self, where);
  session.check_step(where);
  const auto frame = static_cast<std::size_t>(session.model()->config().mimi.frame_samples());
  if (pcm.ndim() != 1 || pcm.shape(0) != frame) {  // before it is copied
    bad_argument(where, "expected " + std::to_string(frame) + " float32 samples, got " +
                            (pcm.ndim() == 1 ? std::to_string(pcm.shape(0)) : describe(pcm)) + ".");
  }
  const auto samples = to_floats(where, "samples", pcm);
  session.check_pcm(samples);
  session.check_text(text);
  return call(session.model()->worker(), [&] { return session.step(samples, text); });
}

StepOutput step_codes(SessionHandle& self, const AnyArray& user_codes, bool decode) {
  const char* where = "Session.step_codes";
  Session& session = self.get(where);
  const Claim claim(self, where);
  session.check_step(where);
  const auto codebooks = static_cast<std::size_t>(session.model()->config().codebooks());
  if (user_codes.ndim() != 1 || user_codes.shape(0) != codebooks) {  // before it is copied
    bad_argument(where,
                 "expected user_codes of shape [" + std::to_string(codebooks) + "], got " + describe(user_codes) + ".");
  }
  const auto codes = to_ints(to_integers(where, "user_codes", user_codes));
  session.check_codes(codes);
  return call(session.model()->worker(), [&] { return session.step_codes(codes, std::nullopt, decode); });
}

std::optional<double> part_ms(const StepOutput& out, double StepTiming::* part) {
  return out.timing ? std::optional((*out.timing).*part) : std::nullopt;
}

// Runs f(session) on the model's thread, for this caller alone.
template <typename F>
auto on_session(SessionHandle& self, const char* where, F f) {
  Session& session = self.get(where);
  const Claim claim(self, where);
  return call(session.model()->worker(), [&] { return f(session); });
}

}  // namespace

void register_session(nb::module_& m) {
  nb::class_<SamplingOptions>(m, "Sampling")
      .def(
          "__init__",
          [](SamplingOptions* self, float text_temperature, int text_top_k, float audio_temperature, int audio_top_k) {
            const SamplingOptions options{{text_temperature, text_top_k}, {audio_temperature, audio_top_k}};
            check_sampling(options);
            new (self) SamplingOptions(options);
          },
          nb::arg("text_temperature") = 0.7F, nb::arg("text_top_k") = 25, nb::arg("audio_temperature") = 0.8F,
          nb::arg("audio_top_k") = 250)
      .def_prop_ro("text_temperature", [](const SamplingOptions& s) { return s.text.temperature; })
      .def_prop_ro("text_top_k", [](const SamplingOptions& s) { return s.text.top_k; })
      .def_prop_ro("audio_temperature", [](const SamplingOptions& s) { return s.audio.temperature; })
      .def_prop_ro("audio_top_k", [](const SamplingOptions& s) { return s.audio.top_k; });

  nb::class_<StepOutput>(m, "StepOutput")
      .def_prop_ro("audio", [](const StepOutput& o) { return to_numpy(o.audio, {o.audio.size()}); })
      .def_prop_ro("text_token", [](const StepOutput& o) { return o.tokens.at(0); })
      .def_prop_ro("tokens", [](const StepOutput& o) { return to_numpy(o.tokens, {o.tokens.size()}); })
      .def_prop_ro("index", [](const StepOutput& o) { return o.index; })
      .def_prop_ro("step_ms", [](const StepOutput& o) { return o.step_ms; })
      .def_prop_ro("encode_ms", [](const StepOutput& o) { return part_ms(o, &StepTiming::encode_ms); })
      .def_prop_ro("temporal_ms", [](const StepOutput& o) { return part_ms(o, &StepTiming::temporal_ms); })
      .def_prop_ro("depformer_ms", [](const StepOutput& o) { return part_ms(o, &StepTiming::depformer_ms); })
      .def_prop_ro("decode_ms", [](const StepOutput& o) { return part_ms(o, &StepTiming::decode_ms); });

  nb::class_<SnapshotHandle>(m, "Snapshot")
      .def_prop_ro("nbytes", [](const SnapshotHandle& s) { return (*s).nbytes; })
      .def(
          "save",
          [](const SnapshotHandle& self, const std::string& path, const std::string& key) {
            (*self).model->check("Snapshot.save");
            call((*self).model->worker(), [&] { save_snapshot(*self, path, key); });
          },
          nb::arg("path"), nb::arg("key"));

  nb::class_<SessionHandle>(m, "Session")
      .def_prop_ro("ready", [](const SessionHandle& s) { return s.open() && s.get("Session.ready").ready(); })
      .def_prop_ro("poisoned", [](const SessionHandle& s) { return s.open() && s.get("Session.poisoned").poisoned(); })
      .def_prop_ro(
          "frames",
          [](SessionHandle& s) { return on_session(s, "Session.frames", [](Session& x) { return x.frames(); }); })
      .def_prop_ro(
          "position",
          [](SessionHandle& s) { return on_session(s, "Session.position", [](Session& x) { return x.position(); }); })
      .def_prop_rw(
          "sampling", [](SessionHandle& s) { return s.get("Session.sampling").sampling; },
          [](SessionHandle& s, const SamplingOptions& sampling) {
            Session& session = s.get("Session.sampling");
            const Claim claim(s, "Session.sampling");
            session.sampling = sampling;
          })
      .def_prop_rw(
          "seed", [](SessionHandle& s) { return s.get("Session.seed").seed; },
          [](SessionHandle& s, std::uint64_t seed) {
            Session& session = s.get("Session.seed");
            const Claim claim(s, "Session.seed");
            session.seed = seed;
          })
      .def("prompt", &prompt, nb::arg("voice_embeddings") = nb::none(), nb::arg("voice_cache") = nb::none(),
           nb::arg("voice_codes") = nb::none(), nb::arg("text_tokens") = nb::tuple(), nb::arg("chunk") = kMaxColumns,
           nb::arg("progress") = nb::none())
      .def("step", &step, nb::arg("pcm"), nb::arg("text_token") = nb::none())
      .def("step_codes", &step_codes, nb::arg("user_codes"), nb::arg("decode") = true)
      .def(
          "reset",
          [](SessionHandle& self, std::optional<std::uint64_t> seed) {
            on_session(self, "Session.reset", [&](Session& s) {
              s.reset();
              if (seed) s.seed = *seed;
            });
          },
          nb::arg("seed") = nb::none())
      .def(
          "clone",
          [](SessionHandle& self, std::optional<std::uint64_t> seed) {
            auto copy = on_session(self, "Session.clone", [&](Session& s) {
              auto out = s.clone();
              if (seed) out->seed = *seed;
              return out;
            });
            copy->model()->adopt(copy);
            return std::make_unique<SessionHandle>(std::move(copy));
          },
          nb::arg("seed") = nb::none())
      .def("snapshot",
           [](SessionHandle& self) {
             auto snapshot = on_session(self, "Session.snapshot", [](Session& s) { return s.snapshot(); });
             snapshot->model->adopt(snapshot);
             return std::make_unique<SnapshotHandle>(std::move(snapshot));
           })
      .def("restore",
           [](SessionHandle& self, const SnapshotHandle& snapshot) {
             if ((*snapshot).model != self.get("Session.restore").model()) {
               bad_argument("Session.restore", "the snapshot belongs to another model.");
             }
             on_session(self, "Session.restore", [&](Session& s) { s.restore(*snapshot); });
           })
      .def("close",
           [](SessionHandle& self) {
             if (!self.open()) return;
             const Claim claim(self, "Session.close");
             self.close();
           })
      .def("voice_preset",
           [](SessionHandle& self) {
             const Config config = self.get("Session.voice_preset").model()->config();
             const auto [embeddings, ring] =
                 on_session(self, "Session.voice_preset", [](Session& s) { return s.voice_preset(); });
             const auto dim = static_cast<std::size_t>(config.dim);
             return nb::make_tuple(to_numpy(embeddings, {embeddings.size() / dim, dim}),
                                   to_numpy(ring, {static_cast<std::size_t>(config.rows()),
                                                   static_cast<std::size_t>(config.max_delay() + 3)}));
           })
      .def("grid_ring",
           [](SessionHandle& self) {
             const TokenGrid grid = on_session(self, "Session.grid_ring", [](Session& s) { return s.grid(); });
             const std::vector<std::size_t> shape = {static_cast<std::size_t>(grid.rows()),
                                                     static_cast<std::size_t>(grid.depth())};
             return nb::make_tuple(
                 to_numpy(std::vector<int>(grid.ring().begin(), grid.ring().end()), shape),
                 to_numpy(std::vector<std::uint8_t>(grid.ring_forced().begin(), grid.ring_forced().end()), shape));
           })
      .def(
          "set_timing",
          [](SessionHandle& self, bool on) {
            on_session(self, "Session.set_timing", [on](Session& s) { s.timing = on; });
          },
          nb::arg("on"))
      .def("set_probing",
           [](SessionHandle& self, bool on) {
             on_session(self, "Session.set_probing", [on](Session& s) { s.probing = on; });
           })
      .def("probe", [](SessionHandle& self) {
        return to_dict(on_session(self, "Session.probe", [](Session& s) { return s.probe(); }));
      });
}

}  // namespace personaplex::bindings
