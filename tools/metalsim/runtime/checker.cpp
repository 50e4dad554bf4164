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

DeviceChecker::DeviceChecker(const std::vector<Span>& spans, Record* record) : known_(regions()), record_(record) {
  for (const Span& span : spans) {
    bool written = false;
    for (const Span& other : spans) {
      if (other.writable && other.begin < span.end && span.begin < other.end) written = true;
    }
    spans_.push_back({span, written});
  }
  if (!known_->empty()) {
    known_begin_ = known_->begin()->second.begin;
    known_bytes_ = known_->rbegin()->second.end - known_begin_;
  }
}

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
  for (; bytes >= 8; address += 8, bytes -= 8) {
    std::uintptr_t value;
    std::memcpy(&value, reinterpret_cast<const void*>(address), 8);
    if (value - known_begin_ >= known_bytes_) continue;
    const Region* region = find_region(*known_, value);
    if (!region || !reached_.emplace(region->begin, *region).second || region->read_only) continue;
    for (Bound& span : spans_) {  // the same memory, bound as well
      if (span.begin < region->end && region->begin < span.end) span.written = true;
    }
  }
}

const char* DeviceChecker::outside(std::uintptr_t address, std::size_t bytes, bool write) {
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
  const char* what = write ? "write" : "read";
  const auto put = [&](const char* format, auto... values) {
    std::snprintf(fault_, sizeof fault_, format, what, bytes, values...);
    return fault_;
  };
  const auto after = reached_.upper_bound(address);
  const Region* before = after == reached_.begin() ? nullptr : &std::prev(after)->second;
  if (before && address - before->end < 4096) {
    return put("out-of-bounds %s of %zu bytes: byte offset %zu of memory reached through a pointer, which has %zu",
               address - before->begin, before->end - before->begin);
  }
  if (find_region(*known_, address)) return put("out-of-bounds %s of %zu bytes: in a region that no pointer led to");
  if (after != reached_.end() && after->first - address < 4096) {
    return put("out-of-bounds %s of %zu bytes: %zu bytes before memory reached through a pointer",
               after->first - address);
  }
  if (!nearest || nearest_distance > (64l << 20)) return put("out-of-bounds %s of %zu bytes far from every buffer");
  return put("out-of-bounds %s of %zu bytes: byte offset %ld of buffer(%d) `%s`, which has %zu",
             static_cast<long>(address - nearest->begin), nearest->index, nearest->name,
             static_cast<std::size_t>(nearest->end - nearest->begin));
}

const char* DeviceChecker::touch_slowly(std::uintptr_t address, std::size_t bytes, msl::Access access,
                                        const Accessor& by, const void* site) {
  const bool write = access == msl::Access::write || access == msl::Access::atomic_write;
  const bool atomic = access == msl::Access::atomic_read || access == msl::Access::atomic_write;
  const Bound* in = nullptr;
  for (const Bound& span : spans_) {
    if (span.holds(address, bytes) && (!in || (span.writable && !in->writable))) in = &span;
  }
  const Region* region = reached_.empty() ? nullptr : find_region(reached_, address);
  if (region && address + bytes > region->end) region = nullptr;
  if (!in && !region) return outside(address, bytes, write);
  if (in) sites_[site_number(site)] = in;

  if (write && !(in && in->writable) && (!region || region->read_only)) {
    if (region) return "write to read-only memory reached through a pointer";
    std::snprintf(fault_, sizeof fault_, "write to read-only buffer(%d) `%s` at byte %zu", in->index, in->name,
                  static_cast<std::size_t>(address - in->begin));
    return fault_;
  }
  if ((in && in->written) || (region && !region->read_only)) {
    for (std::size_t i = 0; i < bytes; i++) {
      const char* wrong = cell(address + i).touch(by, write, atomic);
      if (!wrong) continue;
      const char* how = atomic ? "atomic " : "";
      const char* what = write ? "write" : "read";
      if (in) {
        std::snprintf(fault_, sizeof fault_, "data race on device memory: %s%s of buffer(%d) `%s` byte %zu: %s", how,
                      what, in->index, in->name, static_cast<std::size_t>(address + i - in->begin), wrong);
      } else {
        std::snprintf(fault_, sizeof fault_, "data race on device memory reached through a pointer: %s%s: %s", how,
                      what, wrong);
      }
      return fault_;
    }
  }
  if (record_) {
    note(address, bytes, write);
    if (access == msl::Access::atomic_write) note(address, bytes, false);
  }
  if (!write && bytes % 8 == 0) follow_pointers(address, bytes);
  return nullptr;
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
