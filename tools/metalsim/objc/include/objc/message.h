// tools/metalsim/objc/include/objc/message.h: sending messages; each function is cast to what the message needs.
#pragma once
#include <objc/runtime.h>

extern "C" {
void objc_msgSend(void);
void objc_msgSend_fpret(void);
void objc_msgSend_stret(void);
}
