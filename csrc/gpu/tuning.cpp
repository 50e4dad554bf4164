// csrc/gpu/tuning.cpp: the kinds of tiles, the rule, and the choice by a table.
#include "gpu/tuning.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "gpu/operands.h"

namespace personaplex::gpu {

namespace {

using ops::Op;

constexpr std::uint32_t bit(Op op) { return 1U << static_cast<unsigned>(op); }
constexpr std::uint32_t kProducts = bit(Op::kProject) | bit(Op::kProjectQkv);

// A line adds a kind. A queue need not have its kernels: what it has not is not chosen. mma_*: kernels/cuda.
constexpr TileKind kKinds[] = {
    // name, of, rows, columns, most simdgroups, lanes of a row, splits, passes
    {"r1_c1", bit(Op::kProject) | bit(Op::kAttendProject), 1, 1, 32, 32, true, true},
    {"r2_c1", kProducts | bit(Op::kAttendProject), 2, 1, 32, 32, true, true},
    {"r4_c1", kProducts, 4, 1, 16, 32, true, true},
    {"mma_c1", kProducts | bit(Op::kAttendProject), 16, 1, 16, 8, true, true, true, Heads::kRound},
    {"mma_c8", kProducts, 16, 8, 16, 8, true, true, true, Heads::kPass},
    {"mma_c32", kProducts, 16, 32, 16, 8, true, true, true, Heads::kPass},
    {"c8", kProducts, 4, 8, 16, 16, false, true},
    {"", bit(Op::kAttend), 1, 1, 8, 32, true, false},
    {"", bit(Op::kLinear), 8, 2, 8, 4, true, false},
    {"p2_o8", bit(Op::kConv), 8, 2, 8, 4, true, false},
    {"p8_o8", bit(Op::kConv), 8, 8, 8, 4, true, false},
    {"p8_o32", bit(Op::kConv), 32, 8, 8, 1, true, false},
};

constexpr int kKept = 1024;      // values of whole heads in a threadgroup: Heads::kAll
constexpr int kRound = 32;       // passes times simdgroups: Heads::kRound
constexpr int kMostParts = 32;   // of an attention
constexpr int kMostPasses = 64;  // that whole heads may ask for

bool is_product(Op op) { return (bit(op) & kProducts) != 0; }

const TileKind& kind_of(Op op, std::string_view name) {
  for (const TileKind& kind : kKinds) {
    if ((kind.ops & bit(op)) != 0 && kind.name == name) return kind;
  }
  std::abort();  // the rule names kinds of this file only
}

Tile tile(const Job& job, std::string_view kind, int simdgroups, int split, int passes) {
  return {&kind_of(job.op, kind), simdgroups, split, passes};
}

/// Steps in which the lanes of a simdgroup go through a row, 16 bytes each.
std::int64_t steps(const Job& job, const TileKind& kind) {
  return count(job.k, std::int64_t{kind.lanes} * 128 / job.bits);
}

/// Until a threadgroup has whole heads.
Tile whole_heads(const Job& job, Tile tile) {
  while (job.whole > 1 && tile.passes < kMostPasses && tile.slots() * tile.passes % job.whole != 0) ++tile.passes;
  return tile;
}

/// The fastest of those that were timed on an H200 with matrices of this kind.
Tile product_rule(const Job& job) {
  if (job.whole > 1) return whole_heads(job, job.columns > 1 ? tile(job, "c8", 8, 1, 1) : tile(job, "r4_c1", 16, 1, 1));
  if (job.columns > 1) return tile(job, "c8", 8, 1, 1);
  const bool long_rows = job.k >= 2048;
  if (job.n >= 8192) {
    if (job.bits == 16) return tile(job, "r4_c1", 8, 4, 1);
    if (job.n < 20000) return tile(job, "r2_c1", 8, 1, 2);
    return job.bits == 4 ? tile(job, "r4_c1", 4, 1, 3) : tile(job, "r2_c1", 8, 1, 3);
  }
  if (job.n >= 2048) {
    if (!long_rows) return tile(job, "r2_c1", 8, 1, 1);
    return job.bits == 16 ? tile(job, "r4_c1", 16, 4, 1) : tile(job, "r4_c1", 8, 2, 1);
  }
  return tile(job, "r2_c1", 8, long_rows ? 4 : 1, 1);
}

/// Steps of a chunk of x that many columns have on tensor cores: more simdgroups than that find no work in it.
std::int64_t chunk_steps(const Job& job, const TileKind& kind) {
  constexpr std::int64_t kStaged = 16384;  // values, of all columns
  return kStaged / kind.columns / (std::int64_t{kind.lanes} * 128 / job.bits);
}

/// On tensor cores: two threadgroups for each multiprocessor (one with many columns), with as many passes, or
/// simdgroups, as that takes.
std::optional<Tile> tensor_rule(const Job& job, const Queue& queue) {
  const bool one = job.columns == 1 || job.op == Op::kAttendProject;
  const TileKind& kind = kind_of(job.op, one ? "mma_c1" : job.columns <= 8 ? "mma_c8" : "mma_c32");
  if (!queue.has(job.kernel + std::string(kind.name))) return {};
  const std::int64_t cores = std::max(1, queue.cores()), rows = count(job.n, kind.rows);
  if (one) {
    const bool long_rows = job.k >= 2048;
    const bool wide = rows <= 2 * cores || (long_rows && rows <= 8 * cores && job.whole == 1);
    const int most = rows <= cores ? (long_rows ? 16 : 8) : wide ? 8 : 4;
    const auto split = static_cast<int>(std::min<std::int64_t>(steps(job, kind), most));
    Tile tile{&kind, split * std::max(1, 8 / split), split, 1};
    if (job.op == Op::kAttendProject) return tile;
    tile.passes = static_cast<int>(count(job.n, 2 * cores * tile.slots()));
    return whole_heads(job, tile);
  }
  auto tiles = static_cast<int>(std::min<std::int64_t>(count(rows, cores), kind.most_simdgroups));
  while (tiles * kind.rows % job.whole != 0) ++tiles;
  if (tiles > kind.most_simdgroups) return {};
  const auto most = static_cast<int>(std::clamp<std::int64_t>(chunk_steps(job, kind), 1, 8));
  const int split = std::clamp(kind.most_simdgroups / tiles, 1, most);
  return Tile{&kind, tiles * split, split, 1};
}

/// How many simdgroups share a sum over `octets` of values, where there are `sums` of them: `enough` of them to fill a
/// large GPU, each with work enough.
int codec_split(std::int64_t sums, std::int64_t octets, std::int64_t enough = 1024) {
  int split = 1;
  while (split < 8 && sums * split < enough && octets >= 16 * split) split *= 2;
  return split;
}

Tile linear_rule(const Job& job) {
  return tile(job, "", 8, codec_split(std::int64_t{count(job.n, 8)} * count(job.columns, 2), job.k / 8), 1);
}

Tile conv_rule(const Job& job) {
  constexpr std::int64_t kMany = 64;
  const std::int64_t sums = count(job.columns, job.columns <= 2 ? 2 : 8);
  const bool wide = job.columns > 2 && job.n > 8 && sums * count(job.n, 32) >= kMany;
  const std::int64_t of_outputs = count(job.n, wide ? 32 : 8);
  const int split = codec_split(sums * of_outputs, job.k / 8, job.columns <= 2 ? 4096 : 1024);
  const auto sets = static_cast<int>(std::min<std::int64_t>(std::max(1, 4 / split), of_outputs));
  return tile(job, job.columns <= 2 ? "p2_o8" : wide ? "p8_o32" : "p8_o8", split * sets, split, 1);
}

/// How far a job is from one of a table, in doublings; nothing where the table's says nothing of it.
std::optional<double> distance(const Job& job, const TunedJob& tuned) {
  constexpr double kNear = 1.0, kNearColumns = 3.0;
  const bool same = job.op == tuned.op && job.bits == tuned.bits && job.whole == tuned.whole;
  if (!same || (job.columns == 1) != (tuned.columns == 1)) return {};
  const auto doublings = [](std::int64_t a, std::int64_t b) {
    return std::abs(std::log2(static_cast<double>(a) / static_cast<double>(b)));
  };
  const double n = doublings(job.n, tuned.n), k = doublings(job.k, tuned.k);
  const double columns = doublings(job.columns, tuned.columns);
  if (n > kNear || k > kNear || columns > kNearColumns) return {};
  return n + k + columns;
}

}  // namespace

std::span<const TileKind> tile_kinds() { return kKinds; }

std::uint32_t Tile::groups_x(std::int64_t n) const { return count(n, slots() * passes); }
std::uint32_t Tile::groups_y(std::int64_t columns) const { return count(columns, kind->columns); }

bool fits(const Job& job, const Tile& tile) {
  const TileKind& kind = *tile.kind;
  if ((kind.ops & bit(job.op)) == 0 || tile.simdgroups < 1 || tile.simdgroups > kind.most_simdgroups ||
      tile.simdgroups < job.least_simdgroups || tile.split < 1 || tile.passes < 1) {
    return false;
  }
  if ((tile.split > 1 && !kind.splits) || (tile.passes > 1 && !kind.passes)) return false;
  if (job.op == Op::kAttendProject && tile.passes > 1) return false;
  if (job.op == Op::kAttend) return tile.split <= kMostParts;
  if (job.op == Op::kLinear && (tile.split & (tile.split - 1)) != 0) return false;  // see codec_linear.metal
  const std::int64_t all = tile.slots() * tile.passes;
  if (kind.tensor && (job.k % (4 * 128 / job.bits) != 0 || (job.group != 0 && job.group != 64))) return false;
  if (tile.simdgroups % tile.split != 0 || tile.slots() % job.even != 0 || all % job.whole != 0) return false;
  if (job.whole == 1) return true;
  switch (kind.heads) {
    case Heads::kAll:
      return all * kind.columns <= kKept;
    case Heads::kRound:
      return tile.simdgroups * tile.passes <= kRound;
    case Heads::kPass:
      return tile.slots() % job.whole == 0;
  }
  return false;
}

Tile rule_for(const Job& job, const Queue& queue) {
  if (is_product(job.op) || job.op == Op::kAttendProject) {
    const auto tile = tensor_rule(job, queue);
    if (tile && fits(job, *tile)) return *tile;
  }
  switch (job.op) {
    case Op::kAttend:  // at least 8 parts of a full context for each head; prefill has columns enough
      return tile(job, "", 4, job.columns > 1 ? 1 : static_cast<int>(std::clamp<std::int64_t>(job.k / 256, 1, 16)), 1);
    case Op::kAttendProject:
      return tile(job, "r2_c1", 8, 1, 1);
    case Op::kLinear:
      return linear_rule(job);
    case Op::kConv:
      return conv_rule(job);
    default:
      break;
  }
  const Tile out = product_rule(job);
  if (!fits(job, out)) {
    bad_argument("GpuOps", "no kernel takes " + job.kernel + "* with [" + std::to_string(job.n) + ", " +
                               std::to_string(job.k) + "] in whole heads of " + std::to_string(job.whole) + " rows.");
  }
  return out;
}

std::vector<Tile> candidates(const Job& job, const Queue& queue) {
  constexpr std::uint32_t kFewGroups = 64;  // of so few none goes through x twice
  std::vector<Tile> out = {rule_for(job, queue)};
  const auto add = [&](const Tile& tile) {
    if (fits(job, tile) && std::find(out.begin(), out.end(), tile) == out.end()) out.push_back(tile);
  };
  for (const TileKind& kind : kKinds) {
    if ((kind.ops & bit(job.op)) == 0 || !queue.has(job.kernel + std::string(kind.name))) continue;
    if (is_product(job.op) && (job.columns == 1) != (kind.columns == 1)) continue;
    const bool attends = job.op == Op::kAttend;
    const bool once = !kind.passes || job.op == Op::kAttendProject;
    std::int64_t most_split = attends ? (job.columns > 1 ? 4 : 32) : steps(job, kind);
    if (kind.tensor && kind.columns > 1) most_split = std::min(most_split, chunk_steps(job, kind));
    for (int simdgroups = 1; simdgroups <= kind.most_simdgroups; simdgroups *= 2) {
      for (int split = 1; split <= most_split && (attends || split <= simdgroups); split *= 2) {
        // A threadgroup with 16 slots for each of 132 multiprocessors has a frame's matrices in 2 to 16 passes.
        for (const int passes : {1, 2, 3, 4, 6, 8, 11, 16}) {
          if (passes > 4 && kind.rows < 16) break;
          const Tile tile = whole_heads(job, {&kind, simdgroups, split, passes});
          if (passes > 1 && (once || tile.groups_x(job.n) < kFewGroups)) break;
          if (!attends && simdgroups > split && tile.slots() / 2 >= job.n) break;  // half of the threads have no work
          add(tile);
        }
      }
    }
  }
  return out;
}

std::string family_of(const std::string& device_name) {
  const auto says = [&](const char* word) { return device_name.find(word) != std::string::npos; };
  if (says("Apple")) return "apple";
  if (says("H100") || says("H200") || says("H800") || says("H20")) return "hopper";
  return "nvidia";
}

ChooseTile choose_by(std::vector<TunedJob> table, const Queue& queue) {
  return [table = std::move(table), &queue](const Job& job) {
    std::vector<std::pair<double, Tile>> near;
    for (const TunedJob& tuned : table) {
      if (const auto far = distance(job, tuned)) near.emplace_back(*far, tuned.tile);
    }
    std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [far, tile] : near) {
      if (fits(job, tile) && queue.has(job.kernel + tile.name())) return tile;
    }
    return rule_for(job, queue);
  };
}

}  // namespace personaplex::gpu
