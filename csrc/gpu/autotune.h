// csrc/gpu/autotune.h: what one operation takes with each of the tiles that it could have.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gpu/gpu_ops.h"
#include "ops/case_run.h"

namespace personaplex::gpu {

/// One case on a GPU, with so many equal sets of its weights (keys and values) that together they are more than 4 times
/// the GPU's cache: calls with one after the other find none there. Very small ones, up to 512 of them.
class CaseTuner {
 public:
  /// The queue must outlive it.
  CaseTuner(Queue& queue, const ops::Case& what);
  CaseTuner(const CaseTuner&) = delete;
  CaseTuner& operator=(const CaseTuner&) = delete;

  /// What is shared out; nothing for an operation that has no choice.
  const std::optional<Job>& job() const { return job_; }
  /// Those that it could have; the rule's comes first.
  const std::vector<Tile>& tiles() const { return tiles_; }
  /// What the GPU's table chooses.
  std::optional<Tile> chosen() const { return job_ ? std::optional(table_(*job_)) : std::nullopt; }
  int copies() const { return copies_; }

  /// Microseconds of a call with this tile (nothing: what the table chooses), once for each of up to `repeats` runs
  /// of a list of many calls, after one that does not count; fewer where that takes long. Throws std::invalid_argument
  /// for a tile that the GPU cannot run.
  std::vector<double> time(const std::optional<Tile>& tile, int repeats);
  /// How far its result is from that with the rule's tile: ||a - b|| / ||b||.
  double distance(const Tile& tile);

 private:
  std::vector<float> results(const Tile& tile);

  ChooseTile table_;
  std::optional<Tile> forced_;
  std::optional<Job> job_;
  std::vector<Tile> tiles_;
  GpuOps ops_;
  int copies_, rounds_ = 0;
  std::optional<ops::CaseRun> run_;
  std::vector<float> expected_;
  int programs_ = 0;
};

/// The language model's kernels that tiles are chosen among, for weights of these bits: compiled at once, which is
/// faster than one by one.
void prepare_candidates(Queue& queue, const std::vector<int>& bits);

}  // namespace personaplex::gpu
