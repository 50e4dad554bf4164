// tests/cpp/test_cpu_cores.cpp: quotas in made-up trees of control groups, and affinity.
#include "cpu/cores.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <fstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

using namespace personaplex::cpu;

namespace {

/// A root directory of files that a test writes.
class Tree {
 public:
  Tree() {
    std::string name = (std::filesystem::temp_directory_path() / "personaplex-cgroup-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  ~Tree() { std::filesystem::remove_all(root_); }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  int cores() const { return quota_cores(root_); }

 private:
  std::filesystem::path root_;
};

constexpr int kMany = 1 << 20;

}  // namespace

TEST_CASE("a quota of version 2: of the own group, or of one around it") {
  const Tree tree;
  CHECK(tree.cores() == kMany);
  tree.write("proc/self/cgroup", "0::/user.slice/app\n");
  CHECK(tree.cores() == kMany);
  tree.write("sys/fs/cgroup/user.slice/app/cpu.max", "max 100000\n");
  CHECK(tree.cores() == kMany);
  tree.write("sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n");
  CHECK(tree.cores() == 3);
  tree.write("sys/fs/cgroup/user.slice/app/cpu.max", "50000 100000\n");
  CHECK(tree.cores() == 1);
  tree.write("sys/fs/cgroup/user.slice/app/cpu.max", "400000 100000\n");
  CHECK(tree.cores() == 3);
}

TEST_CASE("a quota of version 2 in a container: the mount is the group") {
  const Tree tree;
  tree.write("sys/fs/cgroup/cpu.max", "150000 100000\n");
  for (const char* group : {"0::/\n", "0::/../../pod/one\n", "0::/docker/0123\n"}) {
    tree.write("proc/self/cgroup", group);
    CHECK(tree.cores() == 2);
  }
}

TEST_CASE("a quota of version 1") {
  const Tree tree;
  tree.write("proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/docker/0123\n3:cpuset:/s\n0::/\n");
  CHECK(tree.cores() == kMany);
  tree.write("sys/fs/cgroup/cpu,cpuacct/docker/0123/cpu.cfs_quota_us", "-1\n");
  tree.write("sys/fs/cgroup/cpu,cpuacct/docker/0123/cpu.cfs_period_us", "100000\n");
  CHECK(tree.cores() == kMany);
  tree.write("sys/fs/cgroup/cpu,cpuacct/docker/0123/cpu.cfs_quota_us", "600000\n");
  CHECK(tree.cores() == 6);
  tree.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100001\n");
  tree.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000\n");
  CHECK(tree.cores() == 3);
  tree.write("sys/fs/cgroup/cpuset/s/cpu.cfs_quota_us", "1\n");  // another controller's
  tree.write("sys/fs/cgroup/cpuset/s/cpu.cfs_period_us", "100000\n");
  CHECK(tree.cores() == 3);
}

TEST_CASE("quotas that make no sense are none") {
  const Tree tree;
  tree.write("proc/self/cgroup", "nonsense\n0::/\n");
  for (const char* text : {"", "max", "0 100000", "-5 100000", "many 100000", "100000 0", "100000 -1", "nan 100000"}) {
    CAPTURE(text);
    tree.write("sys/fs/cgroup/cpu.max", text);
    CHECK(tree.cores() == kMany);
  }
}

#if defined(__linux__)
TEST_CASE("the affinity mask counts") {
  CHECK(usable_cores() >= 1);
  std::thread([] {  // the mask of a thread of its own
    cpu_set_t mine, one;
    REQUIRE(sched_getaffinity(0, sizeof mine, &mine) == 0);
    CHECK(usable_cores() <= CPU_COUNT(&mine));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &mine)) CPU_SET(cpu, &one);
    }
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(usable_cores() == 1);
  })
      .join();
}
#endif
