// csrc/checkpoint/config_check.cpp: the contradictions that single keys cannot show.
#include "checkpoint/config_check.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/problems.h"

namespace personaplex {

namespace {

void check_config(const Config& config, Problems& problems) {
  auto require = [&](bool holds, const std::string& line) {
    if (!holds) problems.add(line);
  };
  auto text = [](auto number) { return std::to_string(number); };
  auto codes_in_range = [&](const std::vector<int>& codes) {
    return std::all_of(codes.begin(), codes.end(), [&](int c) { return c >= 0 && c < config.card; });
  };
  const auto q = static_cast<std::size_t>(config.codebooks());
  require(config.n_q >= 2 && config.n_q % 2 == 0,
          "n_q: expected an even number (agent, then user), got " + text(config.n_q));
  require(config.dep_q == config.codebooks() || config.dep_q == config.n_q,
          "dep_q: expected n_q / 2 or n_q with n_q = " + text(config.n_q) + ", got " + text(config.dep_q));
  require(config.dim % config.num_heads == 0 && config.head_dim() % 2 == 0,
          "dim, num_heads: expected heads of an even size, got " + text(config.dim) + " / " + text(config.num_heads));
  require(config.depformer_dim % config.depformer_num_heads == 0,
          "depformer_dim, depformer_num_heads: expected heads of a whole size, got " + text(config.depformer_dim) +
              " / " + text(config.depformer_num_heads));
  require(config.hidden_scale * config.dim <= kMaxConfigSize && config.ffn_hidden() >= 1,
          "hidden_scale: the feed-forward size it gives cannot be built");
  require(config.depformer_ffn_hidden() >= 1, "depformer_dim_feedforward: expected 2 at least");
  require(config.context >= 2 && config.context <= kMaxContext,
          "context: expected 2 to " + text(kMaxContext) + " positions, got " + text(config.context));
  require(config.delays.size() == static_cast<std::size_t>(config.rows()),
          "delays: expected n_q + 1 = " + text(config.rows()) + " numbers, got " + text(config.delays.size()));
  require(std::all_of(config.delays.begin(), config.delays.end(), [](int d) { return d >= 0 && d <= 64; }),
          "delays: expected frames from 0 to 64");
  require(config.text_padding_id >= 0 && config.text_padding_id < config.text_card,
          "existing_text_padding_id: expected an id below text_card, got " + text(config.text_padding_id));
  require(config.silence_codes.size() == q && codes_in_range(config.silence_codes),
          "silence_codes: expected " + text(q) + " codes below card = " + text(config.card));
  require(config.sine_codes.size() == q && codes_in_range(config.sine_codes),
          "sine_codes: expected " + text(q) + " codes below card = " + text(config.card));

  const MimiConfig& mimi = config.mimi;
  require(mimi.bins == config.card,
          "mimi.quantizer.bins: expected card = " + text(config.card) + ", got " + text(mimi.bins));
  require(mimi.quantizer_n_q >= config.codebooks(),
          "mimi.quantizer.n_q: expected n_q / 2 = " + text(config.codebooks()) + " levels at least, got " +
              text(mimi.quantizer_n_q));
  require(mimi.dimension % mimi.num_heads == 0 && mimi.dimension / mimi.num_heads % 2 == 0,
          "mimi.transformer.num_heads: expected heads of an even size, got " + text(mimi.dimension) + " / " +
              text(mimi.num_heads));
  // Four positions: the two that a frame appends, and a past for the first of them.
  require(mimi.context >= 4 && mimi.context <= kMaxContext,
          "mimi.transformer.context: expected 4 to " + text(kMaxContext) + " positions, got " + text(mimi.context));
  require(mimi.n_filters % mimi.compress == 0, "mimi.seanet.compress: expected a divisor of n_filters = " +
                                                   text(mimi.n_filters) + ", got " + text(mimi.compress));
  double hop = 1.0;
  for (const int ratio : mimi.ratios) hop *= ratio;
  require(!mimi.ratios.empty() && mimi.ratios.size() <= 8 && hop <= 1e6, "mimi.seanet.ratios: expected 1 to 8 strides");
  require(mimi.n_filters * std::pow(2.0, static_cast<double>(mimi.ratios.size())) <= kMaxConfigSize,
          "mimi.seanet.n_filters: too many channels, got " + text(mimi.n_filters));

  require(config.file_bits == 4 || config.file_bits == 8 || config.file_bits == 16,
          "quantization.bits: expected 4 or 8, got " + text(config.file_bits));
  require(config.file_group_size == 32 || config.file_group_size == 64,
          "quantization.group_size: expected 32 or 64, got " + text(config.file_group_size));
}

}  // namespace

void validate_config(const Config& config, const std::string& where) {
  Problems problems;
  const auto positive = {config.dim,
                         config.num_heads,
                         config.num_layers,
                         config.card,
                         config.text_card,
                         config.depformer_dim,
                         config.depformer_num_heads,
                         config.depformer_num_layers,
                         config.depformer_dim_feedforward,
                         config.mimi.dimension,
                         config.mimi.n_filters,
                         config.mimi.compress,
                         config.mimi.num_heads,
                         config.mimi.bins,
                         config.mimi.quantizer_dimension};
  if (std::any_of(positive.begin(), positive.end(), [](int size) { return size < 1 || size > kMaxConfigSize; })) {
    problems.add("every size: expected a whole number from 1 to " + std::to_string(kMaxConfigSize));
  } else {
    check_config(config, problems);
  }
  problems.raise("[validate_config] " + where + ":");
}

}  // namespace personaplex
