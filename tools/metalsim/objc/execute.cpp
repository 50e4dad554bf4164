// tools/metalsim/objc/execute.cpp: runs command buffers, and finds dispatches that lack a barrier between them.
//
//   METALSIM_CHECK=1        records what every dispatch touches: faults of kernels, hazards, memory that is not
//   resident METALSIM_ORDER=reverse  runs what lies between two barriers backwards (forward is the default)
//   METALSIM_LOG=1          lists the dispatches
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <utility>

#include "commands.h"
#include "metalsim_objc.h"

namespace metalsim::objc {
namespace {

std::atomic<std::size_t> run{0};  // dispatches

/// What a dispatch did to memory.
struct Trace {
  const Dispatch* dispatch;
  Record record;
};

const std::string& name(const Dispatch& d) { return d.pipeline->function->name; }

std::string place(std::uintptr_t address) {
  const Buffer* buffer = buffer_at(address);
  if (!buffer) return "memory that is no buffer's";
  return "byte " + std::to_string(address - reinterpret_cast<std::uintptr_t>(buffer->bytes)) + " of a buffer of " +
         std::to_string(buffer->length) + " bytes";
}

/// The first byte that both have, or 0. Ranges are sorted.
std::uintptr_t meet(const std::vector<Range>& a, const std::vector<Range>& b) {
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const std::uintptr_t begin = std::max(a[i].begin, b[j].begin);
    if (begin < std::min(a[i].end, b[j].end)) return begin;
    a[i].end < b[j].end ? ++i : ++j;
  }
  return 0;
}

/// `first` was encoded before `second`, and no barrier comes between them.
std::string hazard(const Trace& first, const Trace& second) {
  const struct {
    const std::vector<Range>&a, &b;
    const char *did, *does;
  } kinds[] = {{first.record.written, second.record.read, "writes", "reads"},
               {first.record.read, second.record.written, "reads", "writes"},
               {first.record.written, second.record.written, "writes", "writes"}};
  for (const auto& kind : kinds) {
    if (const std::uintptr_t at = meet(kind.a, kind.b)) {
      return "no barrier between " + name(*first.dispatch) + ", which " + kind.did + ", and " + name(*second.dispatch) +
             ", which " + kind.does + " " + place(at);
    }
  }
  return {};
}

/// That of any two dispatches of which one was encoded before the other.
std::string hazard(const std::vector<Trace>& before, const std::vector<Trace>& after) {
  for (const Trace& first : before) {
    for (const Trace& second : after) {
      if (std::string found = hazard(first, second); !found.empty()) return found;
    }
  }
  return {};
}

/// For take_barriers().
struct Seen {
  std::mutex mutex;
  bool wanted = false;
  std::vector<Barrier> barriers;
};
Seen& seen() {
  static auto* it = new Seen;
  return *it;
}

/// Notes a barrier of which both sides have run.
void note_barrier(const std::vector<Dispatch>& before, const std::vector<Trace>& did,
                  const std::vector<Dispatch>& after, const std::vector<Trace>& does) {
  const std::lock_guard<std::mutex> lock(seen().mutex);
  if (!seen().wanted) return;
  seen().barriers.push_back(
      {before.empty() ? "" : name(before.back()), after.empty() ? "" : name(after.front()), hazard(did, does)});
}

/// A buffer that a dispatch touched and the GPU may not have had.
std::string not_resident(const Trace& trace, const Pass& pass, const CommandQueue& queue) {
  const auto reachable = [&](Buffer* buffer) {
    if (pass.used.contains(buffer)) return true;
    for (const auto& [index, binding] : trace.dispatch->bindings) {
      if (binding.buffer == buffer) return true;
    }
    return std::any_of(queue.residency.begin(), queue.residency.end(),
                       [&](const auto& set) { return set->resident.contains(buffer); });
  };
  for (const auto* ranges : {&trace.record.read, &trace.record.written}) {
    for (const Range& range : *ranges) {
      Buffer* buffer = buffer_at(range.begin);
      if (buffer && !reachable(buffer)) {
        return name(*trace.dispatch) + " follows an address to " + place(range.begin) + ", which is not resident";
      }
    }
  }
  return {};
}

std::string launch_one(const Dispatch& d, bool reverse, Record* record) {
  Launch how;
  for (const auto& [index, binding] : d.bindings) {
    how.buffers.resize(std::max<std::size_t>(how.buffers.size(), index + 1));
    how.buffers[index] = binding.copy ? metalsim::Buffer{binding.copy->data(), binding.copy->size(), true}
                                      : metalsim::Buffer{binding.buffer->bytes + binding.offset,
                                                         binding.buffer->length - binding.offset, false};
  }
  const Size* sizes[] = {&d.grid, &d.group};
  unsigned* into[] = {how.groups, how.threads};
  for (int i = 0; i < 2; ++i) {
    into[i][0] = static_cast<unsigned>(sizes[i]->width);
    into[i][1] = static_cast<unsigned>(sizes[i]->height);
    into[i][2] = static_cast<unsigned>(sizes[i]->depth);
  }
  how.threadgroup_bytes.assign(d.threadgroup_bytes.begin(), d.threadgroup_bytes.end());
  how.order = reverse ? Launch::Order::kReverse : Launch::Order::kForward;
  how.checks = record != nullptr;
  if (std::getenv("METALSIM_LOG")) {
    std::fprintf(stderr, "metalsim: %s <%u %u %u> x <%u %u %u>\n", name(d).c_str(), how.groups[0], how.groups[1],
                 how.groups[2], how.threads[0], how.threads[1], how.threads[2]);
  }
  ++run;
  return launch(*d.pipeline->function->kernel, how, record);
}

}  // namespace

std::string execute(const CommandBuffer& commands) {
  for (const Object* object : commands.used) {
    if (is_dead(object)) return "a command buffer without references uses a released " + class_of(object);
  }
  const bool check = std::getenv("METALSIM_CHECK") != nullptr;
  const char* order = std::getenv("METALSIM_ORDER");
  const bool reverse = order && std::string_view(order) == "reverse";
  for (const Pass& pass : commands.passes) {
    const std::vector<Dispatch>* before = nullptr;
    std::vector<Trace> did;
    for (const auto& interval : pass.intervals) {
      std::vector<Trace> traces;
      for (std::size_t i = 0; i < interval.size(); ++i) {
        Trace now{&interval[reverse ? interval.size() - 1 - i : i], {}};
        std::string fault = launch_one(*now.dispatch, reverse, check ? &now.record : nullptr);
        if (fault.empty()) fault = not_resident(now, pass, *commands.queue.get());
        for (const Trace& other : traces) {
          if (fault.empty()) fault = reverse ? hazard(now, other) : hazard(other, now);
        }
        if (!fault.empty()) return fault;
        traces.push_back(std::move(now));
      }
      if (check && before) note_barrier(*before, did, interval, traces);
      before = &interval;
      did = std::move(traces);
    }
  }
  return {};
}

std::size_t dispatches() { return run; }

std::vector<Barrier> take_barriers() {
  const std::lock_guard<std::mutex> lock(seen().mutex);
  seen().wanted = true;
  return std::exchange(seen().barriers, {});
}

}  // namespace metalsim::objc
