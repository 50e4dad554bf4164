// tools/metalsim/runtime/library.cpp: loads compiled kernels and finds the source lines of their code.
#include "library.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <vector>

namespace metalsim {

extern const msl::Host kHost;  // executor.cpp

namespace {

struct Extent {
  std::uintptr_t inside, begin = 0, end = 0;
};

int find_extent(dl_phdr_info* info, std::size_t, void* data) {
  auto& extent = *static_cast<Extent*>(data);
  std::uintptr_t begin = ~std::uintptr_t{0}, end = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    const std::uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    begin = std::min(begin, at);
    end = std::max(end, at + info->dlpi_phdr[i].p_memsz);
  }
  if (extent.inside < begin || extent.inside >= end) return 0;
  extent.begin = begin;
  extent.end = end;
  return 1;
}

class SharedObject : public Library {
 public:
  explicit SharedObject(const std::string& path) : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (!handle_) throw std::runtime_error("[metalsim.load] " + std::string(dlerror()));
    const auto open = reinterpret_cast<msl::Exports (*)(const msl::Host*)>(dlsym(handle_, "msl_library"));
    if (!open) throw std::runtime_error("[metalsim.load] " + path + " is not a compiled kernel library.");
    const msl::Exports exports = open(&kHost);
    if (exports.version != msl::kAbiVersion) {
      throw std::runtime_error("[metalsim.load] " + path + " was built for another version: build it again.");
    }
    checked_ = exports.checked;
    Extent extent{reinterpret_cast<std::uintptr_t>(open)};
    dl_iterate_phdr(find_extent, &extent);
    for (int i = 0; i < exports.kernel_count; i++) {
      const auto& entry = exports.kernels[i];
      kernels_[entry.name] = {entry, checked_, path, extent.begin, extent.end};
      names_.push_back(entry.name);
    }
  }
  ~SharedObject() override {
    if (handle_) dlclose(handle_);
  }
  std::vector<std::string> names() const override { return names_; }
  const Kernel* find(const std::string& name) const override {
    const auto found = kernels_.find(name);
    return found == kernels_.end() ? nullptr : &found->second;
  }
  bool checked() const override { return checked_; }

 private:
  void* handle_;
  bool checked_ = false;
  std::map<std::string, Kernel> kernels_;
  std::vector<std::string> names_;
};

}  // namespace

std::unique_ptr<Library> load(const std::string& path) { return std::make_unique<SharedObject>(path); }

std::string source_of(const Kernel& kernel, const void* pc) {
  const std::uintptr_t offset = reinterpret_cast<std::uintptr_t>(pc) - 1 - kernel.code;
  for (const char* tool : {"llvm-symbolizer-19 --no-inlines --functions=none", "addr2line",
                           "llvm-symbolizer --no-inlines --functions=none"}) {
    char address[32];
    std::snprintf(address, sizeof address, "0x%zx", static_cast<std::size_t>(offset));
    const std::string command = std::string(tool) + " -e '" + kernel.library + "' " + address + " 2>/dev/null";
    FILE* pipe = popen(command.c_str(), "r");
    if (!pipe) continue;
    char line[1024] = "";
    const char* got = std::fgets(line, sizeof line, pipe);
    pclose(pipe);
    if (!got || line[0] == '?' || !line[0] || line[0] == '\n') continue;
    std::string text = line;
    while (!text.empty() && (text.back() == '\n')) text.pop_back();
    if (const auto note = text.find(" ("); note != std::string::npos) text.resize(note);  // " (discriminator 2)"
    // llvm-symbolizer adds the column.
    const auto last = text.rfind(':'), before = last ? text.rfind(':', last - 1) : std::string::npos;
    if (before != std::string::npos && text.find_first_not_of("0123456789", before + 1) == last) text.resize(last);
    return text.substr(text.rfind('/') + 1);
  }
  return {};
}

}  // namespace metalsim
