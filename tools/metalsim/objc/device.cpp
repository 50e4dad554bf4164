// tools/metalsim/objc/device.cpp: the one device: an M1 with 8 GiB, on paper.
#include <cstdint>

#include "commands.h"
#include "foundation.h"

namespace metalsim::objc {
namespace {

constexpr std::uint64_t kWorkingSet = std::uint64_t{8} << 30, kMaxBuffer = std::uint64_t{4} << 30;
constexpr long kApple7 = 1007, kApple1 = 1001;  // families of Apple's GPUs

Buffer* new_buffer(Object*, Selector, unsigned long length, unsigned long) {
  return length == 0 || length > kMaxBuffer ? nullptr : new Buffer(length);
}

const bool kMethods = [] {
  const char* d = "MTLDevice";
  method(d, "name", [](Object*, Selector) { return autoreleased(new String("metalsim")); });
  method(d, "hasUnifiedMemory", [](Object*, Selector) { return true; });
  method(d, "supportsFamily:", [](Object*, Selector, long family) { return family >= kApple1 && family <= kApple7; });
  method(d, "recommendedMaxWorkingSetSize", [](Object*, Selector) { return kWorkingSet; });
  method(d, "currentAllocatedSize", [](Object*, Selector) { return static_cast<unsigned long>(allocated_bytes()); });
  method(d, "maxBufferLength", [](Object*, Selector) { return static_cast<unsigned long>(kMaxBuffer); });
  method(d, "newBufferWithLength:options:", new_buffer);
  method(d, "newCommandQueue", [](Object*, Selector) { return new CommandQueue; });
  method(d, "newSharedEvent", [](Object*, Selector) { return new SharedEvent; });
  method(d,
         "newResidencySetWithDescriptor:error:", [](Object*, Selector, Object*, Error**) { return new ResidencySet; });
  return true;
}();

}  // namespace
}  // namespace metalsim::objc

extern "C" metalsim::objc::Object* MTLCreateSystemDefaultDevice() { return new metalsim::objc::Object("MTLDevice"); }
