// tools/metalsim/objc/include/IOSurface/IOSurfaceRef.h: types that metal-cpp's headers name.
#pragma once
typedef struct __IOSurface* IOSurfaceRef;
