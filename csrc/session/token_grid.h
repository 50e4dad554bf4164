// csrc/session/token_grid.h: which token stands where: rows of streams, columns of time, delays between them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "checkpoint/config.h"

namespace personaplex {

/// The grid is a ring of max_delay + 3 columns. Row 0 is text, then Q rows of the agent, then Q rows of the user.
/// Frame t of row k stands in column t + delay[k]; columns up to delay[k] hold the row's start token, so whatever is
/// given for frame 0 is lost. Frame t is put, then (from t = 1 on) column t - 1 is read to predict column t.
class TokenGrid {
 public:
  static constexpr int kZero = -1;         // contributes an exact zero embedding
  static constexpr int kUngenerated = -2;  // not drawn yet

  explicit TokenGrid(const Config& config);

  /// Forces what is given of the next frame: user [Q], agent [Q] or empty, text or nothing. User codes that the frame
  /// itself brings forth are later(k) (engine.h) until hear().
  void put(std::span<const int> user, std::span<const int> agent, std::optional<int> text);
  /// The user's codes [Q] of the frame that was put last, in place of later(k).
  void hear(std::span<const int> user);

  /// False after the first put: there is no column to read yet.
  bool readable() const { return frames_ >= 2; }
  std::vector<int> column() const;           // [rows] the tokens to embed
  std::vector<int> target() const;           // [rows] the cells that are predicted from them
  std::vector<std::uint8_t> forced() const;  // [rows] 1 where the target is given
  bool all_forced() const;

  /// Writes the first n cells of the target column, except forced ones, and is done with the column that was read.
  void commit(std::span<const int> drawn);

  /// The newest frame whose rows are all there, with the delays undone; nothing in the first frames.
  std::optional<std::vector<int>> output() const;  // [rows]

  /// The agent's part of what output() will be after commit(), [Q]: later(row) where the token is still to be drawn.
  std::vector<int> agent() const;

  /// Replaces the ring's tokens (not the forced flags), as a voice preset does. [rows * depth], row by row.
  void load_ring(std::span<const std::int64_t> tokens);
  /// Where a cell stands in the ring, for columns from 0 on.
  std::size_t cell(int row, std::int64_t column) const;
  int highest(int row) const { return start_[static_cast<std::size_t>(row)]; }  // token that the row can hold
  std::span<const int> ring() const { return tokens_; }
  std::span<const std::uint8_t> ring_forced() const { return forced_; }

  int rows() const { return rows_; }
  int depth() const { return depth_; }
  std::int64_t frames() const { return frames_; }  // frames put so far

  /// For snapshots.
  void restore(std::int64_t frames, std::span<const std::int64_t> tokens, std::span<const std::uint8_t> forced);

 private:
  void force(int row, std::int64_t column, int token);
  /// The column of a row in the newest frame that is complete once the target column is.
  std::int64_t output_column(int row) const {
    return frames_ - 1 - max_delay_ + delays_[static_cast<std::size_t>(row)];
  }

  int rows_, codebooks_, depth_, max_delay_;
  std::vector<int> delays_, start_;
  std::vector<int> tokens_;           // [rows, depth]
  std::vector<std::uint8_t> forced_;  // [rows, depth]
  std::int64_t frames_ = 0;
};

}  // namespace personaplex
