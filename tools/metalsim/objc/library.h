// tools/metalsim/objc/library.h: kernel libraries, their functions, pipelines.
#pragma once

#include <memory>
#include <string>

#include "../runtime/metalsim.h"
#include "runtime.h"

namespace metalsim::objc {

struct KernelLibrary : Object {
  KernelLibrary() : Object("MTLLibrary") {}
  std::unique_ptr<metalsim::Library> kernels;
};

struct Function : Object {
  Function(KernelLibrary* from, const Kernel* of, std::string host_name)
      : Object("MTLFunction"), library(from), kernel(of), name(std::move(host_name)) {}
  Ref<KernelLibrary> library;
  const Kernel* kernel;
  std::string name;
};

struct Pipeline : Object {
  explicit Pipeline(Function* of) : Object("MTLComputePipelineState"), function(of) {}
  Ref<Function> function;
};

/// Compiles kernel source. Null, and why in `error`, when it is wrong.
KernelLibrary* compile(const std::string& text, std::string& error);

}  // namespace metalsim::objc
