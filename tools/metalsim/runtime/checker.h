// tools/metalsim/runtime/checker.h: what a checked launch may touch, and which accesses of different threads are
// ordered by a barrier. Every load and store of the kernel comes here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "../shim/abi.h"
#include "metalsim.h"
#include "regions.h"

namespace metalsim {

/// Which thread makes an access, and how many barriers lie behind it: of its threadgroup and of its simdgroup.
struct Accessor {
  std::uint32_t group;
  std::uint16_t thread;
  std::uint32_t epoch;
  std::uint16_t simd_epoch;
  int simdgroup() const { return thread / 32; }
};

/// The last accesses to one byte.
class Cell {
 public:
  /// Null, or what is wrong with this access, which is then not recorded.
  const char* touch(const Accessor& by, bool write, bool atomic);
  bool written() const { return write_.who != 0; }

 private:
  struct Last {
    std::uint32_t group, epoch;
    std::uint16_t who, simd_epoch;  // who: thread + 1, or a mark for several threads
    bool ordered_before(const Accessor& by) const;
    bool one_simdgroup(int simdgroup) const;
  };
  Last write_{}, read_{};
  bool atomic_ = false;  // the write
};

/// The memory of one launch, shared by its threadgroups.
class DeviceChecker {
 public:
  /// A buffer of the launch, as bound. `writable`: by the kernel's own types too.
  struct Span {
    std::uintptr_t begin, end;
    int index;
    const char* name;
    bool writable;
  };
  DeviceChecker(const std::vector<Span>& spans, Record* record);

  /// Null, or what is wrong. site: the place in the program, which mostly touches the same buffer again.
  const char* touch(std::uintptr_t address, std::size_t bytes, msl::Access access, const Accessor& by,
                    const void* site) {
    const Bound* last = sites_[site_number(site)];
    if (access != msl::Access::read || !last || last->written || !last->holds(address, bytes)) {
      return touch_slowly(address, bytes, access, by, site);
    }
    if (record_) note(address, bytes, false);
    if (bytes % 8 == 0) follow_pointers(address, bytes);
    return nullptr;
  }
  /// Completes the launch's record.
  void finish();

 private:
  struct Bound : Span {
    bool written;  // perhaps, by way of this or another buffer
    bool holds(std::uintptr_t address, std::size_t bytes) const { return address >= begin && address + bytes <= end; }
  };
  static std::size_t site_number(const void* site) { return reinterpret_cast<std::uintptr_t>(site) / 2 % 512; }
  const char* touch_slowly(std::uintptr_t address, std::size_t bytes, msl::Access access, const Accessor& by,
                           const void* site);
  const char* outside(std::uintptr_t address, std::size_t bytes, bool write);
  void follow_pointers(std::uintptr_t address, std::size_t bytes);
  Cell& cell(std::uintptr_t address);
  void note(std::uintptr_t address, std::size_t bytes, bool write);

  struct Cells {
    Cell cell[1024];
  };
  struct Bits {
    std::uint64_t read[64], written[64];
  };
  std::vector<Bound> spans_;
  const Bound* sites_[512] = {};
  std::shared_ptr<const Regions> known_;  // registered
  std::uintptr_t known_begin_ = 0, known_bytes_ = 0;
  Regions reached_;  // those whose address the kernel has loaded
  std::unordered_map<std::uintptr_t, std::unique_ptr<Cells>> cells_;
  std::unordered_map<std::uintptr_t, std::unique_ptr<Bits>> bits_;
  std::uintptr_t cells_at_ = 0, bits_at_ = 0;  // the page found last, by number
  Cells* cells_here_ = nullptr;
  Bits* bits_here_ = nullptr;
  Record* record_;
  char fault_[300];
};

}  // namespace metalsim
