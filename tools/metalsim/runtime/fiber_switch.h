// tools/metalsim/runtime/fiber_switch.h: from one stack to another; of one source file in a library, also in cudasim.
#pragma once

#if !defined(__x86_64__) || !defined(__linux__)
#error "fibers are written for Linux on x86-64"
#endif

asm(R"(
.text
.globl fiber_switch
.hidden fiber_switch
.type fiber_switch,@function
fiber_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp,(%rdi)
  mov %rsi,%rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
.size fiber_switch,.-fiber_switch
)");
/// Keeps where this stack is at `save` and goes on with what was kept of another one.
extern "C" void fiber_switch(void** save, void* load);
