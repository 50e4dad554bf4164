// tools/metalsim/objc/metalsim_objc.h: what a test can ask of the simulated Mac, besides what a real one says.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace metalsim::objc {

/// How many objects have not been released for good; nothing is left of a well-behaved program.
std::size_t alive_objects();
/// The same by class, "2 MTLBuffer, 1 NSString"; empty when there are none.
std::string alive_classes();

/// How many dispatches have been run.
std::size_t dispatches();

/// A barrier between dispatches that ran with METALSIM_CHECK.
struct Barrier {
  std::string before, after;  // the kernels next to it
  /// What the dispatches since the barrier before it and those up to the barrier after it would do without it, in the
  /// words of a missing barrier. Empty: nothing, by what they touched in this run.
  std::string hazard;
};
/// The barriers that have been run since the last call, from the first call on.
std::vector<Barrier> take_barriers();

}  // namespace metalsim::objc
