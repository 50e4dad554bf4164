// tools/metalsim/shim/kernel_side.h: how the compiled kernel text reaches the executor, and how a kernel's parameters
// are made from a thread's context.
#pragma once
#include <tuple>
#include <type_traits>

#include "abi.h"

namespace msl {

// convergent: clang neither duplicates nor merges the calls, so that a rendezvous stays one place in the source.
#define MSL_CONVERGENT __attribute__((convergent, noinline))
MSL_CONVERGENT const LaneBuffer* collective(int kind, const void* value, std::size_t bytes, void (*finish)(LaneBuffer*),
                                            Site site);
MSL_CONVERGENT void barrier(int flags, Site site);
MSL_CONVERGENT void simd_barrier(int flags, Site site);
void inactive_lane(unsigned lane, Site site);
unsigned lane();
const ThreadContext& context();
void* threadgroup_variable(const void* identity, std::size_t bytes, const char* name);

/// The threadgroup variable of one declaration, `Tag`, in one instantiation of its kernel.
template <class T, class Tag>
inline T& variable(const char* name) {
  static const char identity = 0;
  return *static_cast<T*>(threadgroup_variable(&identity, sizeof(T), name));
}

struct Registration {
  explicit Registration(const KernelEntry& entry);
};

template <class F>
struct Signature;
template <class... A>
struct Signature<void (*)(A...)> {
  template <int I>
  using at = std::tuple_element_t<I, std::tuple<A...>>;
};

template <class P>
constexpr Parameter describe(const char* name, int index, bool threadgroup) {
  using Target = std::remove_pointer_t<std::remove_reference_t<P>>;
  return {name, index, threadgroup, std::is_const_v<Target>, std::is_reference_v<P> ? sizeof(Target) : 0};
}

template <class P>
inline P buffer(void* memory) {
  if constexpr (std::is_reference_v<P>) {
    return (P) * static_cast<std::remove_reference_t<P>*>(memory);
  } else if constexpr (std::is_pointer_v<P>) {
    return (P)memory;
  } else {
    return *static_cast<P*>(memory);  // CUDA text: parameters by value
  }
}
template <class P>
inline P builtin(unsigned value) {
  return static_cast<P>(value);
}
template <class P>
inline P builtin(Triple value) {
  if constexpr (std::is_arithmetic_v<P>) {
    return static_cast<P>(value.x);
  } else {
    P vector;
    vector[0] = value.x;
    vector[1] = value.y;
    if constexpr (sizeof(P) / sizeof(vector[0]) > 2) vector[2] = value.z;
    return vector;
  }
}

}  // namespace msl
