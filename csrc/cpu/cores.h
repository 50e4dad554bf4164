// csrc/cpu/cores.h: how many cores this process may use.
#pragma once

#include <filesystem>

namespace personaplex::cpu {

/// The most threads that anybody may ask for.
inline constexpr int kMaxThreads = 1024;

/// Cores that this process may use: affinity mask of the calling thread and cgroup quotas, at least 1.
int usable_cores();

/// CPUs that the quotas of this process's control groups (v1 and v2, its own and those around it) amount to, rounded
/// up, at least 1; a large number without one. `root` is where proc and sys lie.
int quota_cores(const std::filesystem::path& root);

}  // namespace personaplex::cpu
