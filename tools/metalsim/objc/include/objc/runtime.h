// tools/metalsim/objc/include/objc/runtime.h: what metal-cpp's headers name of the Objective-C runtime.
#pragma once
#include <cstddef>

#define OBJC_EXPORT extern "C"

typedef struct objc_class* Class;
struct objc_object {
  Class isa;
};
typedef struct objc_object* id;
typedef struct objc_selector* SEL;
typedef struct objc_protocol Protocol;
typedef signed char BOOL;

extern "C" {
SEL sel_registerName(const char* name);
Class objc_lookUpClass(const char* name);
Class objc_getClass(const char* name);
Protocol* objc_getProtocol(const char* name);
}
