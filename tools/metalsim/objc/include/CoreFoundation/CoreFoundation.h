// tools/metalsim/objc/include/CoreFoundation/CoreFoundation.h: types that metal-cpp's headers name.
#pragma once
#include <math.h>

typedef double CFTimeInterval;
typedef double CFAbsoluteTime;
typedef const void* CFTypeRef;
typedef unsigned long CFOptionFlags;
