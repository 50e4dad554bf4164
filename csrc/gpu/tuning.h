// csrc/gpu/tuning.h: how operations are shared out among the threadgroups of a GPU: by a table for its family
// (kernels/tuning/*.json), and where that says nothing by a rule. Every choice is right; some are slow.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gpu/queue.h"
#include "ops/cases.h"

namespace personaplex::gpu {

/// How a threadgroup keeps the heads that it puts into an int8 ring.
enum class Heads : std::uint8_t {
  kAll,    // up to 1024 values, of all passes and columns
  kRound,  // those of all passes, which are at most 32 / simdgroups
  kPass    // those of a pass
};

/// A kind of tile that kernels are made for.
struct TileKind {
  std::string_view name;  // the end of their host_names; "" where an operation has one kind
  std::uint32_t ops;      // of which operations: a bit 1 << ops::Op each
  int rows;               // outputs of a simdgroup
  int columns;            // of a threadgroup, at most
  int most_simdgroups;
  int lanes;            // that share a row
  bool splits;          // whether simdgroups can share a row
  bool passes;          // whether a threadgroup can go through x several times
  bool tensor = false;  // on tensor cores: K is a multiple of 4 blocks of 16 bytes, groups are of 64 values
  Heads heads = Heads::kAll;
};
std::span<const TileKind> tile_kinds();

/// A kind with how many simdgroups do it.
struct Tile {
  const TileKind* kind = nullptr;
  int simdgroups = 1;  // of a threadgroup
  int split = 1;       // simdgroups that share a row; of an attention: threadgroups that share a head
  int passes = 1;

  std::int64_t slots() const { return std::int64_t{simdgroups} / split * kind->rows; }  // of a pass
  std::uint32_t groups_x(std::int64_t n) const;
  std::uint32_t groups_y(std::int64_t columns) const;
  std::uint32_t threads() const { return static_cast<std::uint32_t>(32 * simdgroups); }
  std::string name() const { return std::string(kind->name); }
  bool operator==(const Tile&) const = default;
};

/// A dispatch to be shared out: a product with a matrix [n, k], also one of the codec (a convolution is one with as
/// many columns as positions); or an attention of n heads over a ring of k slots.
struct Job {
  ops::Op op = ops::Op::kProject;
  std::string kernel;  // its host_name up to the tile
  int bits = 16;       // of the matrix; of keys and values
  std::int64_t n = 0, k = 0;
  std::int64_t columns = 1;
  int group = 0;             // weights that share a scale; 0: there are none
  int even = 1;              // the slots of a pass are a multiple of this
  int whole = 1;             // those of a threadgroup are a multiple of this (heads for an int8 ring), and kept there
  int least_simdgroups = 1;  // for a norm
};

/// Whether the kernel does this job right with this tile.
bool fits(const Job& job, const Tile& tile);
/// The tile for a job of which no table says anything.
Tile rule_for(const Job& job, const Queue& queue);
/// All that fit and are not plainly wasteful, of the kinds whose kernels the queue has. The rule's comes first.
std::vector<Tile> candidates(const Job& job, const Queue& queue);

/// "apple", "hopper", or "nvidia" for every other one.
std::string family_of(const std::string& device_name);

/// One line of a table. It holds for jobs of about that size too.
struct TunedJob {
  ops::Op op = ops::Op::kProject;
  int bits = 16;
  std::int64_t n = 0, k = 0, columns = 1;
  int whole = 1;
  Tile tile;
};

/// A table's text (JSON, see kernels/README.md). WeightsError, with `where` and every key that is wrong.
std::vector<TunedJob> parse_tuning(std::string_view text, const std::string& where);

/// The choice of the operations.
using ChooseTile = std::function<Tile(const Job&)>;

/// The choice by this table. The queue must outlive it.
ChooseTile choose_by(std::vector<TunedJob> table, const Queue& queue);
/// The choice by the table of this GPU's family, or by the file that the environment variable PERSONAPLEX_TUNING names.
/// WeightsError where that cannot be read. The queue must outlive it.
ChooseTile choose_for(const Queue& queue);

/// Tables as the build embedded them: family, text.
std::vector<std::pair<std::string, std::string>> tuning_tables();

}  // namespace personaplex::gpu
