// tools/metalsim/runtime/c_api.cpp: the runtime as C functions, for Python's ctypes. Texts live until the thread's next
// call.
#include <cstring>
#include <exception>

#include "metalsim.h"

namespace {
thread_local std::string text;
thread_local metalsim::Record record;  // of the last launch

template <class F>
const char* guarded(F function) {
  text.clear();
  try {
    function();
  } catch (const std::exception& e) {
    text = e.what();
  }
  return text.c_str();
}
}  // namespace

extern "C" {

const char* metalsim_register(const void* base, std::size_t bytes, int read_only) {
  return guarded([&] { metalsim::register_region(base, bytes, read_only != 0); });
}
const char* metalsim_unregister(const void* base) {
  return guarded([&] { metalsim::unregister_region(base); });
}
std::size_t metalsim_bytes_to_end(const void* address) { return metalsim::bytes_to_end_of_region(address); }

const char* metalsim_load(const char* path, void** library) {
  return guarded([&] { *library = metalsim::load(path).release(); });
}
/// Names, a line each.
const char* metalsim_names(void* library) {
  text.clear();
  for (const auto& name : static_cast<metalsim::Library*>(library)->names()) text += name + "\n";
  return text.c_str();
}
const char* metalsim_launch(void* library, const char* name, int count, void* const* bases, const std::size_t* bytes,
                            const int* read_only, const unsigned* groups, const unsigned* threads,
                            const std::size_t* threadgroup_bytes, int threadgroup_count, int order, unsigned seed,
                            int recorded) {
  return guarded([&] {
    const auto* kernel = static_cast<metalsim::Library*>(library)->find(name);
    metalsim::Launch how;
    for (int i = 0; i < count; i++) how.buffers.push_back({bases[i], bytes[i], read_only[i] != 0});
    std::memcpy(how.groups, groups, sizeof how.groups);
    std::memcpy(how.threads, threads, sizeof how.threads);
    how.threadgroup_bytes.assign(threadgroup_bytes, threadgroup_bytes + threadgroup_count);
    how.order = static_cast<metalsim::Launch::Order>(order);
    how.seed = seed;
    text = kernel ? metalsim::launch(*kernel, how, recorded ? &record : nullptr) : "no kernel of this name";
  });
}
/// The ranges that the thread's last recorded launch read or wrote; *count of them, begin and end each.
const metalsim::Range* metalsim_ranges(int written, std::size_t* count) {
  const auto& ranges = written ? record.written : record.read;
  *count = ranges.size();
  return ranges.data();
}

}  // extern "C"
