// tools/metalsim/shim/abi.h: what a compiled kernel library and the executor know of each other. No symbol is shared:
// the executor hands the library a table of functions, so that the library can be loaded into any program.
#pragma once
#include <cstddef>
#include <cstdint>

namespace msl {

constexpr int kAbiVersion = 1;

/// What the lanes of a simdgroup put in at a rendezvous, and what came of it.
struct LaneBuffer {
  alignas(16) unsigned char slot[32][16];
  alignas(16) unsigned char result[16];
  std::uint32_t mask;  // lanes that took part
};

struct Triple {
  unsigned x, y, z;
};

/// Everything that a kernel's parameters can be made from, under the names that MSL gives its attributes.
struct ThreadContext {
  Triple thread_position_in_grid, thread_position_in_threadgroup, threadgroup_position_in_grid;
  Triple threads_per_threadgroup, threads_per_grid, threadgroups_per_grid;
  unsigned thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
  unsigned simdgroups_per_threadgroup, threads_per_simdgroup, quadgroup_index_in_threadgroup, thread_index_in_quadgroup;
  void* const* buffers;
  void* const* threadgroup_buffers;
};

/// Where in the source something happens. line = line << 9 | column: two operations may share a line.
struct Site {
  const char* file;
  int line;
};

enum class Access { read, write, atomic_read, atomic_write };

/// What the executor offers to the kernels.
struct Host {
  const LaneBuffer* (*collective)(int kind, const void* value, std::size_t bytes, void (*finish)(LaneBuffer*), Site);
  void (*threadgroup_barrier)(int flags, Site);
  void (*simdgroup_barrier)(int flags, Site);
  void (*inactive_lane)(unsigned lane, Site);
  unsigned (*lane)();
  const ThreadContext* (*context)();
  void* (*threadgroup_variable)(const void* identity, std::size_t bytes, const char* name);
  void (*access)(const void* address, std::size_t bytes, Access, const void* pc);
  void (*undefined)(const char* what, long value, Site);
};

using Thunk = void (*)(const ThreadContext&);

/// One [[buffer(n)]] or [[threadgroup(n)]] parameter. `bytes`: of what a reference refers to, 0 for pointers.
struct Parameter {
  const char* name;
  int index;
  bool threadgroup, read_only;
  std::size_t bytes;
};

struct KernelEntry {
  const char* name;
  Thunk thunk;
  const Parameter* parameters;
  int parameter_count;
};

/// What a library exports, as the C symbol msl_library.
struct Exports {
  int version;
  bool checked;  // compiled with the sanitizers' hooks
  const KernelEntry* kernels;
  int kernel_count;
};

}  // namespace msl
