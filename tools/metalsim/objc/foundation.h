// tools/metalsim/objc/foundation.h: NSString and NSError.
#pragma once

#include <string>

#include "runtime.h"

namespace metalsim::objc {

struct String : Object {
  explicit String(std::string of) : Object("NSString"), text(std::move(of)) {}
  std::string text;
};

struct Error : Object {
  explicit Error(std::string of) : Object("NSError"), text(std::move(of)) {}
  std::string text;
};

template <typename T>
T* autoreleased(T* object) {
  autorelease(object);
  return object;
}

}  // namespace metalsim::objc
