// csrc/session/token_grid.cpp: the arithmetic of delays on a ring of columns.
#include "session/token_grid.h"

#include <algorithm>

#include "engine/engine.h"

namespace personaplex {

TokenGrid::TokenGrid(const Config& config)
    : rows_(config.rows()),
      codebooks_(config.codebooks()),
      depth_(config.max_delay() + 3),
      max_delay_(config.max_delay()),
      delays_(config.delays),
      start_(static_cast<std::size_t>(rows_), config.card),
      tokens_(static_cast<std::size_t>(rows_ * depth_), kUngenerated),
      forced_(tokens_.size(), 0) {
  start_[0] = config.text_card;
}

std::size_t TokenGrid::cell(int row, std::int64_t column) const {
  return static_cast<std::size_t>(row * depth_ + static_cast<int>(column % depth_));
}

void TokenGrid::force(int row, std::int64_t column, int token) {
  tokens_[cell(row, column)] = token;
  forced_[cell(row, column)] = 1;
}

void TokenGrid::put(std::span<const int> user, std::span<const int> agent, std::optional<int> text) {
  const std::int64_t t = frames_;
  const auto delay = [this](int row) { return delays_[static_cast<std::size_t>(row)]; };
  for (int k = 0; k < codebooks_; ++k) {
    const auto at = static_cast<std::size_t>(k);
    const int agent_row = 1 + k;
    const int user_row = 1 + codebooks_ + k;
    if (!user.empty()) force(user_row, t + delay(user_row), user[at]);
    if (!agent.empty()) force(agent_row, t + delay(agent_row), agent[at]);
  }
  if (text) force(0, t + delay(0), *text);
  for (int row = 0; row < rows_; ++row) {
    if (t <= delay(row)) force(row, t, start_[static_cast<std::size_t>(row)]);
  }
  ++frames_;
}

void TokenGrid::hear(std::span<const int> user) {
  for (int k = 0; k < codebooks_; ++k) {
    const int row = 1 + codebooks_ + k;
    int& token = tokens_[cell(row, frames_ - 1 + delays_[static_cast<std::size_t>(row)])];
    if (token == later(k)) token = user[static_cast<std::size_t>(k)];
  }
}

std::vector<int> TokenGrid::column() const {
  std::vector<int> out;
  for (int row = 0; row < rows_; ++row) out.push_back(tokens_[cell(row, frames_ - 2)]);
  return out;
}

std::vector<int> TokenGrid::target() const {
  std::vector<int> out;
  for (int row = 0; row < rows_; ++row) out.push_back(tokens_[cell(row, frames_ - 1)]);
  return out;
}

std::vector<std::uint8_t> TokenGrid::forced() const {
  std::vector<std::uint8_t> out;
  for (int row = 0; row < rows_; ++row) out.push_back(forced_[cell(row, frames_ - 1)]);
  return out;
}

bool TokenGrid::all_forced() const {
  const auto flags = forced();
  return std::all_of(flags.begin(), flags.end(), [](std::uint8_t f) { return f != 0; });
}

void TokenGrid::commit(std::span<const int> drawn) {
  for (int row = 0; row < rows_; ++row) {
    forced_[cell(row, frames_ - 2)] = 0;
    const auto at = cell(row, frames_ - 1);
    if (static_cast<std::size_t>(row) < drawn.size() && forced_[at] == 0) {
      tokens_[at] = drawn[static_cast<std::size_t>(row)];
    }
  }
}

std::optional<std::vector<int>> TokenGrid::output() const {
  if (frames_ < max_delay_ + 2) return std::nullopt;
  std::vector<int> out;
  for (int row = 0; row < rows_; ++row) {
    out.push_back(tokens_[cell(row, output_column(row))]);
  }
  return out;
}

std::vector<int> TokenGrid::agent() const {
  std::vector<int> out;
  for (int row = 1; row <= codebooks_; ++row) {
    const std::int64_t column = output_column(row);
    const bool is_drawn = column == frames_ - 1 && forced_[cell(row, column)] == 0;
    out.push_back(is_drawn ? later(row) : tokens_[cell(row, column)]);
  }
  return out;
}

void TokenGrid::load_ring(std::span<const std::int64_t> tokens) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = static_cast<int>(tokens[i]);
}

void TokenGrid::restore(std::int64_t frames, std::span<const std::int64_t> tokens,
                        std::span<const std::uint8_t> forced) {
  frames_ = frames;
  load_ring(tokens);
  std::copy(forced.begin(), forced.end(), forced_.begin());
}

}  // namespace personaplex
