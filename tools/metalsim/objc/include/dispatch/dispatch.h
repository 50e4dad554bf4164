// tools/metalsim/objc/include/dispatch/dispatch.h: types that metal-cpp's headers name.
#pragma once
typedef struct dispatch_queue_s* dispatch_queue_t;
typedef struct dispatch_data_s* dispatch_data_t;
