// tools/metalsim/objc/include/mach/mach.h: types that metal-cpp's headers name.
#pragma once
typedef int kern_return_t;
typedef unsigned mach_port_t;
typedef unsigned task_id_token_t;
