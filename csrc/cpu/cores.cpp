// csrc/cpu/cores.cpp: affinity masks, and quotas as Linux's control groups write them down.
#include "cpu/cores.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace personaplex::cpu {

namespace {

namespace fs = std::filesystem;

constexpr int kUnlimited = 1 << 20;

/// Of "max", "-1" or microseconds in each `period`.
int quota(const std::string& limit, double period) {
  char* end = nullptr;
  const double microseconds = std::strtod(limit.c_str(), &end);
  if (end == limit.c_str() || !(microseconds > 0) || !(period > 0)) return kUnlimited;
  return static_cast<int>(std::clamp(std::ceil(microseconds / period), 1.0, double{kUnlimited}));
}

int quota_v2(const fs::path& group) {
  std::ifstream file(group / "cpu.max");
  std::string limit;
  double period = 0;
  file >> limit >> period;
  return file ? quota(limit, period) : kUnlimited;
}

int quota_v1(const fs::path& group) {
  std::ifstream quota_file(group / "cpu.cfs_quota_us"), period_file(group / "cpu.cfs_period_us");
  std::string limit;
  double period = 0;
  return quota_file >> limit && period_file >> period ? quota(limit, period) : kUnlimited;
}

/// The least of a group and those around it, up to the mount. In a container the mount often is the group itself, and
/// only the last of these paths is there.
int least(const fs::path& mount, fs::path group, int (*quota_of)(const fs::path&)) {
  int cores = quota_of(mount);
  for (; !group.empty(); group = group.parent_path()) cores = std::min(cores, quota_of(mount / group));
  return cores;
}

}  // namespace

int quota_cores(const fs::path& root) {
  int cores = kUnlimited;
  const fs::path mounts = root / "sys/fs/cgroup";
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path, no controllers in v2
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = fs::path(line.substr(second + 1)).lexically_normal().relative_path();
    if (controllers.empty()) {
      cores = std::min(cores, least(mounts, group, quota_v2));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      for (const std::string& mount : {controllers, std::string("cpu")}) {
        cores = std::min(cores, least(mounts / mount, group, quota_v1));
      }
    }
  }
  return cores;
}

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  cores = std::min(cores, quota_cores("/"));
#endif
  return std::max(1, cores);
}

}  // namespace personaplex::cpu
