// tools/metalsim/objc/metalsim_objc.h: what a test can ask of the simulated Mac, besides what a real one says.
#pragma once

#include <cstddef>
#include <string>

namespace metalsim::objc {

/// How many objects have not been released for good; nothing is left of a well-behaved program.
std::size_t alive_objects();
/// The same by class, "2 MTLBuffer, 1 NSString"; empty when there are none.
std::string alive_classes();

}  // namespace metalsim::objc
