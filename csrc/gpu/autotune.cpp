// csrc/gpu/autotune.cpp: lists of calls, timed by the host.
#include "gpu/autotune.h"

#include <algorithm>
#include <cmath>

#include "core/stopwatch.h"
#include "gpu/borrowed_queue.h"

namespace personaplex::gpu {

namespace {

constexpr double kEnoughMs = 10.0;  // of runs
constexpr double kListMs = 1.0;     // beside which starting a list hardly counts
constexpr double kWarmMs = 100.0;   // in which a GPU that has waited finds its clock again
constexpr int kMostCopies = 512;    // of weights
constexpr int kMostCalls = 1024;    // of a list
constexpr double kCachesOfCopies = 4.25;

int copies_for(const Queue& queue, const ops::Case& what) {
  const double all = kCachesOfCopies * static_cast<double>(queue.cache_bytes());
  return static_cast<int>(std::clamp(std::ceil(all / static_cast<double>(ops::CaseRun::bytes(what))), 2.0,
                                     static_cast<double>(kMostCopies)));
}

}  // namespace

CaseTuner::CaseTuner(Queue& queue, const ops::Case& what)
    : table_(choose_for(queue)),
      ops_(std::make_unique<BorrowedQueue>(queue),
           [this](const Job& job) {
             job_ = job;
             return forced_ ? *forced_ : table_(job);
           }),
      copies_(copies_for(queue, what)) {
  run_.emplace(ops_, what, 1, copies_);
  run_->run();
  if (job_) tiles_ = candidates(*job_, queue);
}

std::vector<double> CaseTuner::time(const std::optional<Tile>& tile, int repeats) {
  forced_ = tile;
  const auto run_for_ms = [&](const std::string& program, int rounds) {
    const Stopwatch watch;
    run_->run_all(program.c_str(), rounds);
    return watch.ms();
  };
  if (rounds_ == 0) {
    for (double spent = 0; spent < kWarmMs;) spent += run_for_ms("once", 1);
    const double once = run_for_ms("once", 1);
    rounds_ =
        static_cast<int>(std::clamp(kListMs / std::max(once, 1e-3), 1.0, std::max(1.0, 1.0 * kMostCalls / copies_)));
  }
  const std::string program = "tile " + std::to_string(programs_++);
  run_for_ms(program, rounds_);
  std::vector<double> out;
  double spent = 0;
  do {
    const double ms = run_for_ms(program, rounds_);
    spent += ms;
    out.push_back(1e3 * ms / rounds_ / copies_);
  } while (static_cast<int>(out.size()) < repeats && spent < kEnoughMs);
  return out;
}

std::vector<float> CaseTuner::results(const Tile& tile) {
  forced_ = tile;
  run_->reset();
  run_->run();
  return run_->results();
}

double CaseTuner::distance(const Tile& tile) {
  if (expected_.empty()) expected_ = results(tiles_.front());
  return ops::distance(results(tile), expected_);
}

void prepare_candidates(Queue& queue, const std::vector<int>& bits) {
  std::vector<std::string> names;
  for (const int b : bits) {
    const std::string format = b == 16 ? "bf16" : "b" + std::to_string(b) + "_bf16";
    for (const char* kernel : {"qmv_", "qkv_", "attend_project_"}) {
      for (const TileKind& kind : tile_kinds()) {
        const std::string name = kernel + format + "_" + std::string(kind.name);
        if (queue.has(name)) names.push_back(name);
      }
    }
  }
  queue.prepare(names);
}

}  // namespace personaplex::gpu
