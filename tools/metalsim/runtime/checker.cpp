// tools/metalsim/runtime/checker.cpp: bounds, permissions and data races, byte by byte.
#include "checker.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace metalsim {
namespace {

// Marks in Cell::Last::who beside thread + 1.
constexpr std::uint16_t kSimdgroup = 0x8000;  // | its index: several of its lanes
constexpr std::uint16_t kMany = 0xffff;       // threads of several simdgroups
constexpr std::uint32_t kManyGroups = 0xffffffff;

constexpr int kCellShift = 10, kBitShift = 12;

}  // namespace

bool Cell::Last::one_simdgroup(int simdgroup) const {
  if (who == kMany) return false;
  return (who & kSimdgroup ? who & ~kSimdgroup : (who - 1) / 32) == simdgroup;
}

bool Cell::Last::ordered_before(const Accessor& by) const {
  if (who == 0) return true;
  if (group != by.group) return false;
  if (who == by.thread + 1 || epoch != by.epoch) return true;
  return one_simdgroup(by.simdgroup()) && simd_epoch != by.simd_epoch;
}

const char* Cell::touch(const Accessor& by, bool write, bool atomic) {
  const std::uint16_t me = by.thread + 1;
  const bool both_atomic = atomic && atomic_;
  const bool after_write = write_.ordered_before(by);
  if (!after_write && !both_atomic) {
    if (write_.group != by.group) return "another threadgroup of the same dispatch wrote it";
    return "another thread wrote it, with no barrier in between";
  }
  if (write) {
    if (!read_.ordered_before(by)) {
      if (read_.group != by.group) return "another threadgroup of the same dispatch reads it";
      return "another thread read it, with no barrier in between";
    }
    const bool several = both_atomic && !after_write;
    write_ = {several && write_.group != by.group ? kManyGroups : by.group, by.epoch, several ? kMany : me,
              by.simd_epoch};
    atomic_ = atomic;
  } else if (!atomic) {
    if (read_.who == 0 || (read_.group == by.group && (read_.epoch != by.epoch || read_.who == me))) {
      read_ = {by.group, by.epoch, me, by.simd_epoch};
    } else if (read_.group != by.group) {
      read_ = {kManyGroups, by.epoch, kMany, by.simd_epoch};
    } else if (read_.one_simdgroup(by.simdgroup())) {
      read_.who = kSimdgroup | by.simdgroup();
      read_.simd_epoch = by.simd_epoch;
    } else {
      read_.who = kMany;
    }
  }
  return nullptr;
}

DeviceChecker::DeviceChecker(std::vector<Span> spans, Record* record)
    : spans_(std::move(spans)), known_(regions()), record_(record) {}

Cell& DeviceChecker::cell(std::uintptr_t address) {
  const std::uintptr_t page = address >> kCellShift;
  if (!cells_here_ || page != cells_at_) {
    auto& slot = cells_[page];
    if (!slot) slot = std::make_unique<Cells>();
    cells_here_ = slot.get();
    cells_at_ = page;
  }
  return cells_here_->cell[address & ((1 << kCellShift) - 1)];
}

void DeviceChecker::note(std::uintptr_t address, std::size_t bytes, bool write) {
  while (bytes) {
    const std::uintptr_t page = address >> kBitShift;
    if (!bits_here_ || page != bits_at_) {
      auto& slot = bits_[page];
      if (!slot) slot = std::make_unique<Bits>();
      bits_here_ = slot.get();
      bits_at_ = page;
    }
    const unsigned bit = address & 63;
    const std::size_t n = std::min<std::size_t>(bytes, 64 - bit);
    const std::uint64_t mask = (n == 64 ? ~0ull : (1ull << n) - 1) << bit;
    (write ? bits_here_->written : bits_here_->read)[(address & ((1 << kBitShift) - 1)) >> 6] |= mask;
    address += n;
    bytes -= n;
  }
}

void DeviceChecker::follow_pointers(std::uintptr_t address, std::size_t bytes) {
  if (known_.empty() || (address | bytes) & 7) return;
  for (; bytes; address += 8, bytes -= 8) {
    std::uintptr_t value;
    std::memcpy(&value, reinterpret_cast<const void*>(address), 8);
    if (const Region* region = find_region(known_, value)) reached_.emplace(region->begin, *region);
  }
}

std::string DeviceChecker::outside(std::uintptr_t address, std::size_t bytes, bool write) const {
  const Span* nearest = nullptr;
  long nearest_distance = 0;
  for (const Span& span : spans_) {
    const auto distance = address < span.begin ? static_cast<long>(span.begin - address)
                                               : std::max<long>(0, static_cast<long>(address + bytes - span.end));
    if (!nearest || distance < nearest_distance) {
      nearest = &span;
      nearest_distance = distance;
    }
  }
  char text[300];
  const char* what = write ? "write" : "read";
  const Region* region = find_region(known_, address);
  if (!nearest || nearest_distance > (64l << 20) || region) {
    std::snprintf(
        text, sizeof text,
        region ? "out-of-bounds %s of %zu bytes: in a registered region that no pointer led to, or beyond its end"
               : "out-of-bounds %s of %zu bytes far from every buffer",
        what, bytes);
  } else {
    std::snprintf(text, sizeof text, "out-of-bounds %s of %zu bytes: byte offset %ld of buffer(%d) `%s`, which has %zu",
                  what, bytes, static_cast<long>(address - nearest->begin), nearest->index, nearest->name,
                  static_cast<std::size_t>(nearest->end - nearest->begin));
  }
  return text;
}

std::string DeviceChecker::touch(std::uintptr_t address, std::size_t bytes, msl::Access access, const Accessor& by) {
  const bool write = access == msl::Access::write || access == msl::Access::atomic_write;
  const bool atomic = access == msl::Access::atomic_read || access == msl::Access::atomic_write;
  bool inside = false, may_write = false, written_by_someone = false;
  const Span* refusing = nullptr;
  for (const Span& span : spans_) {
    if (span.writable && address < span.end && address + bytes > span.begin) written_by_someone = true;
    if (address >= span.begin && address + bytes <= span.end) {
      inside = true;
      if (span.writable) may_write = true;
      if (!span.writable) refusing = &span;
    }
  }
  if (!reached_.empty() && (!inside || !written_by_someone)) {
    const Region* region = find_region(reached_, address);
    if (region && address + bytes <= region->end) {
      inside = true;
      if (!region->read_only) may_write = written_by_someone = true;
    }
  }
  if (!inside) return outside(address, bytes, write);
  if (write && !may_write) {
    if (!refusing) return "write to read-only memory reached through a pointer";
    char text[200];
    std::snprintf(text, sizeof text, "write to read-only buffer(%d) `%s` at byte %zu", refusing->index, refusing->name,
                  static_cast<std::size_t>(address - refusing->begin));
    return text;
  }
  if (written_by_someone) {
    for (std::size_t i = 0; i < bytes; i++) {
      if (const char* wrong = cell(address + i).touch(by, write, atomic)) {
        char text[300];
        const Span* at = nullptr;
        for (const Span& span : spans_) {
          if (address >= span.begin && address + bytes <= span.end) at = &span;
        }
        std::snprintf(text, sizeof text, "data race on device memory: %s%s of buffer(%d) `%s` byte %zu: %s",
                      atomic ? "atomic " : "", write ? "write" : "read", at ? at->index : -1,
                      at ? at->name : "(through a pointer)",
                      static_cast<std::size_t>(address + i - (at ? at->begin : 0)), wrong);
        return text;
      }
    }
  }
  if (record_) {
    note(address, bytes, write);
    if (access == msl::Access::atomic_write) note(address, bytes, false);
  }
  if (!write) follow_pointers(address, bytes);
  return {};
}

void DeviceChecker::finish() {
  if (!record_) return;
  std::vector<std::uintptr_t> pages;
  for (const auto& page : bits_) pages.push_back(page.first);
  std::sort(pages.begin(), pages.end());
  for (const bool write : {false, true}) {
    auto& ranges = write ? record_->written : record_->read;
    ranges.clear();
    for (const std::uintptr_t page : pages) {
      const Bits& bits = *bits_[page];
      for (int word = 0; word < 64; word++) {
        const std::uint64_t set = (write ? bits.written : bits.read)[word];
        for (int bit = 0; bit < 64 && set >> bit;) {
          bit += __builtin_ctzll(set >> bit);
          const std::uint64_t rest = ~(set >> bit);
          const int n = std::min(64 - bit, rest ? __builtin_ctzll(rest) : 64);
          const std::uintptr_t begin = (page << kBitShift) + word * 64 + bit;
          if (!ranges.empty() && ranges.back().end == begin) {
            ranges.back().end += n;
          } else {
            ranges.push_back({begin, begin + n});
          }
          bit += n;
        }
      }
    }
  }
}

}  // namespace metalsim
