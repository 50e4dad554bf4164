// tools/metalsim/runtime/faults.cpp: how a fault ends a launch: those that the checks find, and the processor's own.
#include <ucontext.h>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "worker.h"

namespace metalsim {

const char* file_name(Site site) {
  const char* slash = site.file ? std::strrchr(site.file, '/') : nullptr;
  return slash ? slash + 1 : site.file ? site.file : "?";
}

void Worker::fail(const void* pc, Site site, const char* format, ...) {
  char text[4096];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::string place;
  if (site.file) {
    place = std::string(file_name(site)) + ":" + std::to_string(line(site));
  } else if (pc) {
    place = source_of(*kernel_, pc);
  }
  const auto& c = current->context;
  const auto &g = c.threadgroup_position_in_grid, &t = c.thread_position_in_threadgroup;
  char who[200];
  std::snprintf(who, sizeof who, "\n    threadgroup (%u, %u, %u), thread (%u, %u, %u) = simdgroup %d, lane %d", g.x,
                g.y, g.z, t.x, t.y, t.z, current->simdgroup(), current->lane());
  fault_ = std::string(kernel_->entry.name) + ": " + (place.empty() ? "" : place + ": ") + text + who;
  leave();
}

void Worker::fail_from_signal() {
  const auto address = reinterpret_cast<std::uintptr_t>(signal_address);
  const auto stack = reinterpret_cast<std::uintptr_t>(current->stack);
  if (signal_number == SIGFPE) fail(signal_pc, {}, "integer division by zero or overflow");
  if (address - stack < kGuard) fail(signal_pc, {}, "more private memory than the simulator's %zu KiB", kStack >> 10);
  fail(signal_pc, {}, "access to memory that does not exist, at address %p", signal_address);
}

namespace {

struct sigaction before_segv, before_bus, before_fpe;

void on_signal(int number, siginfo_t* info, void* context) {
  Worker* w = running;
  if (!w || !w->current) {  // not ours
    const auto& before = number == SIGSEGV ? before_segv : number == SIGBUS ? before_bus : before_fpe;
    if (before.sa_flags & SA_SIGINFO) {
      before.sa_sigaction(number, info, context);
    } else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
      std::signal(number, SIG_DFL);  // and fault again
    } else {
      before.sa_handler(number);
    }
    return;
  }
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  w->signal_number = number;
  w->signal_address = info->si_addr;
  w->signal_pc = reinterpret_cast<const void*>(registers[REG_RIP] + 1);
  // Goes on at the top of the fiber's own stack, whose contents nobody needs any more.
  registers[REG_RIP] = reinterpret_cast<greg_t>(static_cast<void (*)()>([] { running->fail_from_signal(); }));
  registers[REG_RSP] = static_cast<greg_t>(((reinterpret_cast<std::uintptr_t>(w->stack_top()) - 1024) & ~15ull) - 8);
}

}  // namespace

void install_handlers() {
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, &before_segv);
  sigaction(SIGBUS, &action, &before_bus);
  sigaction(SIGFPE, &action, &before_fpe);
}

}  // namespace metalsim
