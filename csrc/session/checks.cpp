// csrc/session/checks.cpp: arguments are checked here, before any state moves.
#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "session/session.h"

namespace personaplex {

namespace {

void check_codes_in(const char* where, const char* what, std::span<const int> codes, int bins) {
  const auto bad = std::find_if(codes.begin(), codes.end(), [bins](int c) { return c < 0 || c >= bins; });
  if (bad != codes.end()) {
    bad_argument(where, std::string("expected ") + what + " from 0 to " + std::to_string(bins - 1) + ", got " +
                            std::to_string(*bad) + ".");
  }
}

// A preset of V embeddings is followed by frame t = V + 1. Column t - 1 is read then, and so are the cells of columns
// t, t + 1, ... that delays have already filled. All others may be empty.
void check_voice_cache(const Prompt& prompt, const Config& config) {
  const TokenGrid grid(config);
  const auto next = static_cast<std::int64_t>(prompt.voice_embeddings.size()) / config.dim + 1;
  for (int row = 0; row < grid.rows(); ++row) {
    const std::int64_t filled = next + config.delays[static_cast<std::size_t>(row)];  // columns t - 1 to filled - 1
    for (std::int64_t column = next - 1; column < next - 1 + grid.depth(); ++column) {
      const std::int64_t token = prompt.voice_cache[grid.cell(row, column)];
      const int lowest = column < filled ? TokenGrid::kZero : TokenGrid::kUngenerated;
      if (token < lowest || token > grid.highest(row)) {
        bad_argument("Session.prompt", "voice_cache holds token " + std::to_string(token) + " in row " +
                                           std::to_string(row) + ", column " + std::to_string(column % grid.depth()) +
                                           ", expected " + std::to_string(lowest) + " to " +
                                           std::to_string(grid.highest(row)) + ".");
      }
    }
  }
}

}  // namespace

void Session::check_step(const char* where) const {
  model_->check(where);
  const std::string at = "[" + std::string(where) + "] ";
  if (poisoned_) {
    throw StreamError(at +
                      "an earlier step failed half way, so the state is not trustworthy. Call reset() or restore().");
  }
  if (!ready_) throw StreamError(at + "the session has not been prompted. Call prompt() first.");
}

void Session::check_pcm(std::span<const float> pcm) const {
  const auto frame = static_cast<std::size_t>(model_->config().mimi.frame_samples());
  if (pcm.size() != frame) {
    bad_argument("Session.step",
                 "expected " + std::to_string(frame) + " float32 samples, got " + std::to_string(pcm.size()) + ".");
  }
  check_finite("Session.step", pcm);
}

void Session::check_codes(std::span<const int> codes) const {
  const auto expected = static_cast<std::size_t>(model_->config().codebooks());
  if (codes.size() != expected) {
    bad_argument("Session.step_codes",
                 "expected " + std::to_string(expected) + " codes, got " + std::to_string(codes.size()) + ".");
  }
  check_codes_in("Session.step_codes", "codes", codes, model_->config().card);
}

void Session::check_text(std::optional<int> text) const {
  if (text && (*text < 0 || *text >= model_->config().text_card)) {
    bad_argument("Session.step", "expected a text token from 0 to " + std::to_string(model_->config().text_card - 1) +
                                     ", got " + std::to_string(*text) + ".");
  }
}

void Session::check_prompt(const Prompt& prompt) const {
  const char* where = "Session.prompt";
  const Config& config = model_->config();
  model_->check(where);
  check_chunk(where, prompt.chunk);
  const std::size_t dim = static_cast<std::size_t>(config.dim);
  const std::size_t ring = static_cast<std::size_t>(config.rows() * (config.max_delay() + 3));
  if (prompt.voice_embeddings.empty() != prompt.voice_cache.empty()) {
    bad_argument(where, "voice_embeddings and voice_cache belong together; got only one of them.");
  }
  if (!prompt.voice_embeddings.empty() && !prompt.voice_frames.empty()) {
    bad_argument(where, "expected either a preset (voice_embeddings, voice_cache) or voice_codes, got both.");
  }
  if (prompt.voice_embeddings.size() % dim != 0) {
    bad_argument(where, "expected voice_embeddings of shape [V, " + std::to_string(dim) + "], got " +
                            std::to_string(prompt.voice_embeddings.size()) + " values.");
  }
  if (std::any_of(prompt.voice_embeddings.begin(), prompt.voice_embeddings.end(),
                  [](float x) { return !std::isfinite(x); })) {
    bad_argument(where, "expected finite voice_embeddings, got NaN or infinity.");
  }
  if (!prompt.voice_cache.empty() && prompt.voice_cache.size() != ring) {
    bad_argument(where, "expected voice_cache of shape [" + std::to_string(config.rows()) + ", " +
                            std::to_string(config.max_delay() + 3) + "], got " +
                            std::to_string(prompt.voice_cache.size()) + " values.");
  }
  if (!prompt.voice_cache.empty()) check_voice_cache(prompt, config);
  for (const auto& codes : prompt.voice_frames) {
    check_codes_in(where, "voice codes", codes, config.card);
  }
  for (const int token : prompt.text) {
    if (token < 0 || token >= config.text_card) {
      bad_argument(where, "expected text tokens from 0 to " + std::to_string(config.text_card - 1) + ", got " +
                              std::to_string(token) + ".");
    }
  }
  // The first step puts one more frame, and an output wants max_delay + 2.
  const auto least = static_cast<std::size_t>(config.max_delay()) + 1;
  if (prompt.frames(config) < least) {
    bad_argument(where, "expected a prompt of at least " + std::to_string(least) +
                            " frames, because the model delays " + "streams by up to " +
                            std::to_string(config.max_delay()) + " frames; got " +
                            std::to_string(prompt.frames(config)) + ". Give a longer voice or more text tokens.");
  }
}

void check_chunk(const char* where, int chunk) {
  if (chunk < 1 || chunk > kMaxColumns) {
    bad_argument(where,
                 "expected chunk from 1 to " + std::to_string(kMaxColumns) + ", got " + std::to_string(chunk) + ".");
  }
}

void check_finite(const char* where, std::span<const float> pcm) {
  const auto bad = std::find_if(pcm.begin(), pcm.end(), [](float x) { return !std::isfinite(x); });
  if (bad != pcm.end()) {
    bad_argument(where,
                 "expected finite samples, got NaN or infinity at sample " + std::to_string(bad - pcm.begin()) + ".");
  }
}

void check_sampling(const SamplingOptions& sampling) {
  for (const auto& [name, s] : {std::pair{"text", sampling.text}, std::pair{"audio", sampling.audio}}) {
    if (!std::isfinite(s.temperature) || s.temperature < 0.0F) {
      bad_argument("Sampling", std::string("expected ") + name + "_temperature of 0 (greedy) or more, got " +
                                   std::to_string(s.temperature) + ".");
    }
    if (s.top_k < 0) {
      bad_argument("Sampling", std::string("expected ") + name + "_top_k of 0 (no limit) or more, got " +
                                   std::to_string(s.top_k) + ".");
    }
  }
}

}  // namespace personaplex
