// csrc/ops/case_run.h: one case of cases.h on an implementation of Ops: its weights, its inputs, one call, its results.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ops/cases.h"
#include "ops/ops.h"

namespace personaplex::ops {

class CaseRun {
 public:
  /// Inputs and weights depend on the case and the seed only. `copies` equal sets of weights (of keys and values), so
  /// that a loop over them finds none in a cache.
  CaseRun(Ops& ops, const Case& what, std::uint64_t seed, int copies = 1);
  ~CaseRun();

  /// One run of one call.
  void run(int copy = 0);
  /// One run of `rounds` calls with each copy in turn, as a program of this name.
  void run_all(const char* program, int rounds);
  /// What calls change is as it was at first.
  void reset();
  /// What the calls so far have made, as floats: results, then what was appended to the ring.
  std::vector<float> results() const;
  /// Bytes of weights, keys and values that one call reads.
  static std::size_t bytes(const Case& what);

 private:
  void call(int copy);
  struct Parts;
  Ops& ops_;
  Case case_;
  int copies_;
  std::unique_ptr<Parts> parts_;
};

/// ||a - b|| / ||b||; infinite for other sizes and for what is not finite.
double distance(std::span<const float> a, std::span<const float> b);
/// What two implementations' results of a case may be apart, by the contracts in ops.h: 0 for tokens and codes.
double tolerance(const Case& what);

}  // namespace personaplex::ops
