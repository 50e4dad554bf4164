// tools/metalsim/objc/foundation.cpp: strings, errors, and what metal-cpp's inline code names but never reaches.
#include "foundation.h"

namespace metalsim::objc {
namespace {

const bool kMethods = [] {
  method("+NSString", "stringWithCString:encoding:", [](Object*, Selector, const char* text, unsigned long) {
    return autoreleased(new String(text));
  });
  method("NSString", "UTF8String", [](String* self, Selector) { return self->text.c_str(); });
  method("NSError", "localizedDescription", [](Error* self, Selector) { return autoreleased(new String(self->text)); });
  return true;
}();

}  // namespace
}  // namespace metalsim::objc

using metalsim::objc::misuse;

extern "C" {
void* _NSConcreteStackBlock[32];
void* _NSConcreteGlobalBlock[32];
void _Block_object_assign(void*, const void*, int) { misuse("blocks are not implemented"); }
void _Block_object_dispose(const void*, int) {}
void* MTLCopyAllDevices() { misuse("MTLCopyAllDevices is not implemented"); }
void* MTLCopyAllDevicesWithObserver(void*, void*) { misuse("MTLCopyAllDevicesWithObserver is not implemented"); }
void MTLRemoveDeviceObserver(const void*) {}
}
