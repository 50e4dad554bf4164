// tools/metalsim/runtime/library.cpp: loads compiled kernels and finds the source lines of their code.
#include "library.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
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
  char address[32];
  std::snprintf(address, sizeof address, " 0x%zx", reinterpret_cast<std::uintptr_t>(pc) - 1 - kernel.code);
  for (const char* tool : {"llvm-symbolizer-19 --inlines --functions=none", "addr2line -i",
                           "llvm-symbolizer --inlines --functions=none"}) {
    FILE* pipe = popen((std::string(tool) + " -e '" + kernel.library + "'" + address + " 2>/dev/null").c_str(), "r");
    if (!pipe) continue;
    std::string place;
    char line[1024];
    while (std::fgets(line, sizeof line, pipe)) {  // innermost first
      std::string file = line;
      const auto colon = file.find(':');
      if (!place.empty() || colon == std::string::npos) continue;
      const int number = std::atoi(file.c_str() + colon + 1);
      file.resize(colon);
      const bool shim = file.find("/shim/") != std::string::npos;
      if (number > 0 && !shim) place = file.substr(file.rfind('/') + 1) + ":" + std::to_string(number);
    }
    pclose(pipe);
    if (!place.empty()) return place;
  }
  return {};
}

}  // namespace metalsim
