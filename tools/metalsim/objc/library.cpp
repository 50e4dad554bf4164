// tools/metalsim/objc/library.cpp: newLibraryWithSource: by `python3 -m metalsim build`.
#include "library.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "foundation.h"

namespace metalsim::objc {
namespace {

namespace fs = std::filesystem;

/// $METALSIM_PYTHONPATH, or where the build found this package.
std::string package_folder() {
  const char* set = std::getenv("METALSIM_PYTHONPATH");
  return set ? set : METALSIM_PYTHONPATH;
}

struct Folder {
  Folder() {
    std::string pattern = fs::temp_directory_path() / "metalsim-XXXXXX";
    if (!mkdtemp(pattern.data())) misuse("no temporary folder can be made");
    path = pattern;
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

std::string quoted(const std::string& text) { return "'" + text + "'"; }

std::string contents(const fs::path& path) {
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

const bool kMethods = [] {
  method("+MTLCompileOptions", "alloc", [](Object*, Selector) { return new Object("MTLCompileOptions"); });
  method("MTLCompileOptions", "setFastMathEnabled:", [](Object*, Selector, bool) {});
  method("MTLCompileOptions", "setMathMode:", [](Object*, Selector, long) {});
  method("MTLCompileOptions", "setLanguageVersion:", [](Object*, Selector, unsigned long) {});
  method("MTLDevice",
         "newLibraryWithSource:options:error:", [](Object*, Selector, String* source, Object*, Error** error) {
           std::string why;
           KernelLibrary* library = compile(source->text, why);
           if (!library && error) *error = autoreleased(new Error(why));
           return library;
         });
  method("MTLLibrary", "newFunctionWithName:", [](KernelLibrary* self, Selector, String* name) -> Function* {
    const Kernel* kernel = self->kernels->find(name->text);
    return kernel ? new Function(self, kernel, name->text) : nullptr;
  });
  method("MTLDevice", "newComputePipelineStateWithFunction:error:", [](Object*, Selector, Function* function, Error**) {
    if (!function) misuse("a pipeline needs a function, got nil");
    return new Pipeline(function);
  });
  method("MTLComputePipelineState", "maxTotalThreadsPerThreadgroup", [](Pipeline*, Selector) { return 1024UL; });
  method("MTLComputePipelineState", "threadExecutionWidth", [](Pipeline*, Selector) { return 32UL; });
  return true;
}();

}  // namespace

KernelLibrary* compile(const std::string& text, std::string& error) {
  const Folder folder;
  const fs::path source = folder.path / "library.metal", out = folder.path / "out", err = folder.path / "err";
  std::ofstream(source) << text;
  const char* python = std::getenv("METALSIM_PYTHON");
  const std::string command = "PYTHONPATH=" + quoted(package_folder()) + " " + quoted(python ? python : "python3") +
                              " -m metalsim build" + (std::getenv("METALSIM_CHECK") ? " --check " : " ") +
                              quoted(source) + " >" + quoted(out) + " 2>" + quoted(err);
  if (std::system(command.c_str()) != 0) {
    error = contents(err);
    return nullptr;
  }
  auto* library = new KernelLibrary;
  try {
    library->kernels = load(contents(out));
  } catch (const std::runtime_error& e) {
    error = e.what();
    release(library);
    return nullptr;
  }
  return library;
}

}  // namespace metalsim::objc
