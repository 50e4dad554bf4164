// csrc/model/fused_engine.cpp: the frame: the host writes a block of numbers, the device runs, the host reads tokens.
#include "model/fused_engine.h"

#include <algorithm>
#include <cstddef>
#include <functional>

#include "core/stopwatch.h"
#include "cpu/cpu_ops.h"
#include "model/depformer.h"
#include "model/fused_state.h"
#include "model/probes.h"
#include "model/temporal.h"

namespace personaplex {

namespace {

constexpr std::size_t kDrawWords = sizeof(ops::Draw) / sizeof(std::int32_t);
constexpr std::size_t kTargetWord = offsetof(ops::Draw, target) / sizeof(std::int32_t);

FusedState& fused(EngineState& state) { return static_cast<FusedState&>(state); }

class FusedEngine : public Engine {
 public:
  FusedEngine(const Weights& weights, std::unique_ptr<ops::Ops> ops, int kv_bits);

  const Config& config() const override { return config_; }
  int depformer_steps() const override { return depformer_.steps(); }
  std::uint64_t calls() const override { return ops_->calls(); }
  std::unique_ptr<EngineState> new_state() const override { return std::make_unique<FusedState>(*ops_, layout_); }

  void prefill_tokens(EngineState& state, std::span<const std::vector<int>> columns) override;
  void prefill_embeddings(EngineState& state, std::span<const float> embeddings) override;
  FrameTokens step(EngineState& state, const FrameInput& input, const SamplingOptions& sampling, Probe* probe,
                   StepTiming* timing) override;
  std::vector<float> embed(std::span<const std::vector<int>> columns) override;
  void reset_mimi(EngineState& state) override;
  std::vector<int> encode(EngineState& state, std::span<const float> pcm, Probe* probe) override;
  std::vector<float> decode(EngineState& state, std::span<const int> codes, Probe* probe) override;
  FrameOutput frame(EngineState& state, std::span<const float> pcm, const FrameInput& input, std::span<const int> codes,
                    const SamplingOptions& sampling, Probe* probe, StepTiming* timing) override;
  Probe probe_temporal(std::span<const std::vector<int>> columns, int chunk) override;
  Probe probe_depformer(std::span<const float> hidden, std::span<const int> text,
                        std::span<const std::vector<int>> given) override;

 private:
  /// Fills ids_ with up to kMaxColumns columns.
  void put_ids(std::span<const std::vector<int>> columns);
  // The host's part of the language model's frame, and the device's, with its draws at `draws`.
  void put_question(FusedState& state, const FrameInput& input, const SamplingOptions& sampling);
  void temporal_step(const FusedState& state, ops::Place draws);
  void depformer_step(ops::Place draws);
  /// Whether what a frame hears matters to what it draws: the user's rows are among those that are drawn, or rather
  /// given. It reaches the columns that are embedded in later frames only.
  bool draws_depend_on_user() const { return depformer_.steps() > config_.codebooks(); }
  /// The draws with what the encoder has heard.
  ops::Place resolved_draws();
  FrameTokens tokens() const { return {tokens_.data(), tokens_.data() + tokens_.size()}; }
  std::vector<int> user_codes() const { return {user_codes_.data(), user_codes_.data() + user_codes_.size()}; }
  std::vector<float> pcm() const { return {pcm_.data(), pcm_.data() + pcm_.size()}; }
  /// Calls pass(begin, count) for the stretches of `total` columns that go through together.
  static void in_passes(std::size_t total, int largest, const std::function<void(std::size_t begin, int count)>& pass);
  std::size_t dim() const { return static_cast<std::size_t>(config_.dim); }

  Config config_;
  std::unique_ptr<ops::Ops> ops_;  // outlives what it has made
  StateLayout layout_;
  Temporal temporal_;
  Depformer depformer_;
  Rvq rvq_;
  MimiEncoder mimi_encoder_;
  MimiDecoder mimi_decoder_;
  // Written by the host before a frame.
  Buffer<std::int32_t> ids_;          // [rows][kMaxColumns]
  Buffer<ops::Column> columns_;       // [kMaxColumns]
  Buffer<ops::Draw> draws_;           // [1 + steps]
  Buffer<std::int32_t> heard_;        // [1 + steps] draws: which words of them are codes just heard
  Buffer<std::int32_t> agent_codes_;  // [Q] to decode: ops::Codes, of tokens_
  // Read by the host after it.
  Buffer<std::int32_t> tokens_;      // [1 + steps]
  Buffer<std::int32_t> user_codes_;  // [Q]
  Buffer<float> pcm_;                // [1920]
  // In between.
  Buffer<ops::Draw> resolved_draws_;  // [1 + steps]
  Buffer<float> x_, hidden_;          // [kMaxColumns, D]
  Buffer<float> text_logits_;         // [kMaxColumns, text_card]
  Buffer<float> audio_logits_;        // [steps, card]
};

FusedEngine::FusedEngine(const Weights& weights, std::unique_ptr<ops::Ops> ops, int kv_bits)
    : config_(weights.config),
      ops_(std::move(ops)),
      temporal_(*ops_, weights),
      depformer_(*ops_, weights),
      rvq_(*ops_, weights.mimi.rvq_first, weights.mimi.rvq_rest),
      mimi_encoder_(*ops_, weights.mimi, weights.config.mimi, rvq_, layout_.block),
      mimi_decoder_(*ops_, weights.mimi, weights.config.mimi, rvq_, layout_.block),
      ids_(*ops_, static_cast<std::size_t>(config_.rows()) * kMaxColumns, ops::Use::kInput),
      columns_(*ops_, kMaxColumns, ops::Use::kInput),
      draws_(*ops_, static_cast<std::size_t>(1 + depformer_.steps()), ops::Use::kInput),
      heard_(*ops_, draws_.size() * kDrawWords, ops::Use::kInput),
      agent_codes_(*ops_, static_cast<std::size_t>(config_.codebooks()), ops::Use::kInput),
      tokens_(*ops_, draws_.size(), ops::Use::kOutput),
      user_codes_(*ops_, agent_codes_.size(), ops::Use::kOutput),
      pcm_(*ops_, static_cast<std::size_t>(config_.mimi.frame_samples()), ops::Use::kOutput),
      resolved_draws_(*ops_, draws_.size()),
      x_(*ops_, kMaxColumns * dim()),
      hidden_(*ops_, x_.size()),
      text_logits_(*ops_, kMaxColumns * static_cast<std::size_t>(config_.text_card)),
      audio_logits_(*ops_, static_cast<std::size_t>(depformer_.steps()) * static_cast<std::size_t>(config_.card)) {
  std::fill_n(heard_.data(), heard_.size(), -1);
  layout_.temporal = temporal_.ring_shape(kv_bits);
  layout_.temporal_pages = KvRings::table_for(layout_.temporal, layout_.block);
  layout_.encoder = &mimi_encoder_.layout();
  layout_.decoder = &mimi_decoder_.layout();
}

void FusedEngine::put_ids(std::span<const std::vector<int>> columns) {
  for (int i = 0; i < config_.rows(); ++i) {
    const auto row = static_cast<std::size_t>(temporal_.id_row(i));
    for (std::size_t t = 0; t < columns.size(); ++t) {
      ids_[static_cast<std::size_t>(i) * kMaxColumns + t] = columns[t].at(row);
    }
  }
}

void FusedEngine::in_passes(std::size_t total, int largest,
                            const std::function<void(std::size_t begin, int count)>& pass) {
  for (std::size_t done = 0; done < total;) {
    const auto count = static_cast<int>(std::min(total - done, static_cast<std::size_t>(largest)));
    pass(done, count);
    done += static_cast<std::size_t>(count);
  }
}

void FusedEngine::prefill_tokens(EngineState& state, std::span<const std::vector<int>> columns) {
  KvRings& rings = fused(state).temporal;
  in_passes(columns.size(), kMaxColumns, [&](std::size_t begin, int count) {
    put_ids(columns.subspan(begin, static_cast<std::size_t>(count)));
    rings.advance(count, columns_.data());
    ops_->run({"prefill of tokens", count}, fused(state).block.get(), [&] {
      temporal_.embed(ids_.at(), count, x_.at());
      temporal_.prefill(x_.at(), rings, columns_.at(), count);
    });
  });
}

void FusedEngine::prefill_embeddings(EngineState& state, std::span<const float> embeddings) {
  KvRings& rings = fused(state).temporal;
  in_passes(embeddings.size() / dim(), kMaxColumns, [&](std::size_t begin, int count) {
    x_.memory().write(0, static_cast<std::size_t>(count) * dim() * sizeof(float), embeddings.data() + begin * dim());
    rings.advance(count, columns_.data());
    ops_->run({"prefill of embeddings", count}, fused(state).block.get(),
              [&] { temporal_.prefill(x_.at(), rings, columns_.at(), count); });
  });
}

void FusedEngine::put_question(FusedState& state, const FrameInput& input, const SamplingOptions& sampling) {
  put_ids({&input.column, 1});
  for (std::size_t i = 0; i < draws_.size(); ++i) {
    const Sampling& how = i == 0 ? sampling.text : sampling.audio;
    const int target = input.target[i];
    draws_[i] = {.temperature = how.temperature,
                 .top_k = how.top_k,
                 .target = is_later(target) ? 0 : target,
                 .forced = input.forced[i],
                 .seed = input.seed,
                 .frame = input.frame};
    heard_[i * kDrawWords + kTargetWord] = is_later(target) ? index_of_later(target) : -1;
  }
  state.temporal.advance(1, columns_.data());
}

void FusedEngine::temporal_step(const FusedState& state, ops::Place draws) {
  temporal_.embed(ids_.at(), 1, x_.at());
  temporal_.forward(x_.at(), state.temporal, columns_.at(), 1);
  temporal_.head(x_.at(), 1, hidden_.at(), text_logits_.at());
  ops_->sample(text_logits_.at(), config_.text_card, draws, 0, tokens_.at());
}

void FusedEngine::depformer_step(ops::Place draws) {
  depformer_.frame(hidden_.at(), tokens_.at(), draws, audio_logits_.at());
}

FrameTokens FusedEngine::step(EngineState& state, const FrameInput& input, const SamplingOptions& sampling,
                              Probe* probe, StepTiming* timing) {
  const Stopwatch stopwatch;
  put_question(fused(state), input, sampling);
  const ops::Memory* block = fused(state).block.get();
  const auto temporal = [&] { temporal_step(fused(state), draws_.at()); };
  const auto depformer = [&] { depformer_step(draws_.at()); };
  if (timing == nullptr) {
    ops_->run({"language model"}, block, [&] {
      temporal();
      depformer();
    });
  } else {
    ops_->run({"temporal"}, block, temporal);
    timing->temporal_ms = stopwatch.ms();
    ops_->run({"depformer"}, block, depformer);
    timing->depformer_ms = stopwatch.ms() - timing->temporal_ms;
  }
  if (probe != nullptr) {
    (*probe)["hidden"] = copy_floats(hidden_.at(), {config_.dim});
    (*probe)["text_logits"] = copy_floats(text_logits_.at(), {config_.text_card});
    (*probe)["audio_logits"] = copy_floats(audio_logits_.at(), {depformer_.steps(), config_.card});
  }
  return tokens();
}

ops::Place FusedEngine::resolved_draws() {
  if (!draws_depend_on_user()) return draws_.at();
  ops_->select(static_cast<int>(heard_.size()), draws_.at(), heard_.at(), user_codes_.at(), config_.codebooks(),
               resolved_draws_.at());
  return resolved_draws_.at();
}

FrameOutput FusedEngine::frame(EngineState& engine_state, std::span<const float> pcm, const FrameInput& input,
                               std::span<const int> codes, const SamplingOptions& sampling, Probe* probe,
                               StepTiming* timing) {
  if (probe != nullptr || timing != nullptr) {
    return Engine::frame(engine_state, pcm, input, codes, sampling, probe, timing);
  }
  FusedState& state = fused(engine_state);
  mimi_encoder_.put(state.encoder, pcm);
  put_question(state, input, sampling);
  for (std::size_t k = 0; k < codes.size(); ++k) {
    agent_codes_[k] = is_later(codes[k]) ? -1 - index_of_later(codes[k]) : codes[k];
  }
  mimi_decoder_.put(state.decoder);
  ops_->run({"frame"}, state.block.get(), [&] {
    const auto hear = [&] { call_all(mimi_encoder_.stages(state.encoder, user_codes_.at())); };
    const auto think = [&] {
      const ops::Place draws = resolved_draws();
      temporal_step(state, draws);
      depformer_step(draws);
    };
    if (draws_depend_on_user()) {
      hear();
      think();
    } else {
      ops_->together(hear, think);
    }
    call_all(mimi_decoder_.stages(state.decoder, {agent_codes_.at(), tokens_.at(), 1 + depformer_.steps()}, pcm_.at()));
  });
  return {user_codes(), tokens(), this->pcm()};
}

std::vector<float> FusedEngine::embed(std::span<const std::vector<int>> columns) {
  std::vector<float> out(columns.size() * dim());
  in_passes(columns.size(), kMaxColumns, [&](std::size_t begin, int count) {
    put_ids(columns.subspan(begin, static_cast<std::size_t>(count)));
    ops_->run({"embeddings", count}, nullptr, [&] { temporal_.embed(ids_.at(), count, x_.at()); });
    x_.memory().read(0, static_cast<std::size_t>(count) * dim() * sizeof(float), out.data() + begin * dim());
  });
  return out;
}

void FusedEngine::reset_mimi(EngineState& state) {
  fused(state).encoder.reset();
  fused(state).decoder.reset();
}

std::vector<int> FusedEngine::encode(EngineState& state, std::span<const float> pcm, Probe* probe) {
  CodecState& encoder = fused(state).encoder;
  mimi_encoder_.put(encoder, pcm);
  run_stages(*ops_, {"encode"}, *encoder.block, probe, mimi_encoder_.stages(encoder, user_codes_.at()));
  return user_codes();
}

std::vector<float> FusedEngine::decode(EngineState& state, std::span<const int> codes, Probe* probe) {
  CodecState& decoder = fused(state).decoder;
  std::copy(codes.begin(), codes.end(), agent_codes_.data());
  mimi_decoder_.put(decoder);
  run_stages(*ops_, {"decode"}, *decoder.block, probe, mimi_decoder_.stages(decoder, {agent_codes_.at()}, pcm_.at()));
  return pcm();
}

Probe FusedEngine::probe_temporal(std::span<const std::vector<int>> columns, int chunk) {
  FusedState state(*ops_, layout_);
  KvRings& rings = state.temporal;
  const auto total = static_cast<std::int64_t>(columns.size());
  OwnedTensor embeddings = allocate_tensor(DType::kF32, {total, config_.dim});
  OwnedTensor hidden = allocate_tensor(DType::kF32, {total, config_.dim});
  OwnedTensor logits = allocate_tensor(DType::kF32, {total, config_.text_card});
  in_passes(columns.size(), chunk, [&](std::size_t begin, int count) {
    const auto keep = [&](const OwnedTensor& all, const Buffer<float>& part) {
      const auto row = static_cast<std::size_t>(all.view.dim(1)) * sizeof(float);
      part.memory().read(0, static_cast<std::size_t>(count) * row, all.mutable_data + begin * row);
    };
    put_ids(columns.subspan(begin, static_cast<std::size_t>(count)));
    rings.advance(count, columns_.data());
    ops_->run({}, state.block.get(), [&] { temporal_.embed(ids_.at(), count, x_.at()); });
    keep(embeddings, x_);
    ops_->run({}, state.block.get(), [&] {
      temporal_.forward(x_.at(), rings, columns_.at(), count);
      temporal_.head(x_.at(), count, hidden_.at(), text_logits_.at());
    });
    keep(hidden, hidden_);
    keep(logits, text_logits_);
  });
  return {{"embeddings", embeddings.view}, {"hidden", hidden.view}, {"text_logits", logits.view}};
}

Probe FusedEngine::probe_depformer(std::span<const float> hidden, std::span<const int> text,
                                   std::span<const std::vector<int>> given) {
  const auto rows = static_cast<std::int64_t>(text.size());
  OwnedTensor logits = allocate_tensor(DType::kF32, {rows, depformer_.steps(), config_.card});
  for (std::size_t i = 0; i < text.size(); ++i) {
    hidden_.memory().write(0, dim() * sizeof(float), hidden.data() + i * dim());
    tokens_.memory().write(0, sizeof(std::int32_t), &text[i]);
    for (std::size_t k = 0; k < given[i].size(); ++k) draws_[k + 1] = {.target = given[i][k], .forced = 1};
    ops_->run({"depformer"}, nullptr,
              [&] { depformer_.frame(hidden_.at(), tokens_.at(), draws_.at(), audio_logits_.at()); });
    const std::size_t bytes = audio_logits_.size() * sizeof(float);
    audio_logits_.memory().read(0, bytes, logits.mutable_data + i * bytes);
  }
  return {{"logits", logits.view}};
}

}  // namespace

std::string fused_obstacle(const Weights& weights) {
  std::string obstacle;
  for_each_matrix(weights, [&](Component, const Matrix& m) {
    if (obstacle.empty() && !cpu::supports(m)) {
      obstacle =
          "it reads weights in bfloat16, or quantized to 4 or 8 bits in groups of 32 or 64 with 16-bit scales, and "
          "this model has a matrix " +
          shape_string({m.n, m.k}) + " of another kind (" +
          (m.quantized() ? std::to_string(m.bits) + " bits, " + name_of(m.scales.dtype) + " scales"
                         : std::string(name_of(m.weight.dtype))) +
          ")";
    }
  });
  const int head_dim = std::max({weights.config.head_dim(), weights.config.depformer_head_dim(),
                                 weights.config.mimi.dimension / weights.config.mimi.num_heads});
  if (obstacle.empty() && head_dim > cpu::kMaxHeadDim) {
    obstacle = "its attention heads have at most " + std::to_string(cpu::kMaxHeadDim) +
               " values, and this model's have " + std::to_string(head_dim);
  }
  return obstacle;
}

std::unique_ptr<Engine> make_fused_engine(const Weights& weights, std::unique_ptr<ops::Ops> ops, int kv_bits) {
  return std::make_unique<FusedEngine>(weights, std::move(ops), kv_bits);
}

std::unique_ptr<Engine> make_fused_cpu_engine(const Weights& weights, const FusedOptions& options) {
  return make_fused_engine(weights, cpu::make_cpu_ops(options.threads), options.kv_bits);
}

}  // namespace personaplex
