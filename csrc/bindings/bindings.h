// csrc/bindings/bindings.h: what the binding files share: the register functions, numpy conversions, waiting without
// the GIL.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/worker.h"
#include "engine/engine.h"

namespace personaplex::bindings {

namespace nb = nanobind;

void register_errors(nb::module_& m);
void register_bench(nb::module_& m);
void register_model(nb::module_& m);
void register_session(nb::module_& m);
void register_tools(nb::module_& m);

/// Any numpy array; its dtype and shape are checked by hand so that the error can name both.
using AnyArray = nb::ndarray<nb::ro, nb::device::cpu>;

/// A fresh numpy array that owns a copy of `values`.
template <typename T>
nb::object to_numpy(const std::vector<T>& values, const std::vector<std::size_t>& shape) {
  auto* copy = new T[values.size()];
  if (!values.empty()) std::memcpy(copy, values.data(), values.size() * sizeof(T));
  nb::capsule owner(copy, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, T>(copy, shape.size(), shape.data(), owner));
}

/// The array as float32 values, row by row. ValueError unless its dtype is float32.
std::vector<float> to_floats(const char* where, const char* what, const AnyArray& a);
/// The array as integers (int32 or int64), row by row. ValueError otherwise.
std::vector<std::int64_t> to_integers(const char* where, const char* what, const AnyArray& a);
/// "[2, 1920] float32", for messages.
std::string describe(const AnyArray& a);
void check_rank(const char* where, const char* what, const AnyArray& a, std::size_t rank, const char* expected);

nb::dict to_dict(const Probe& probe);
nb::object tensor_to_numpy(const TensorView& t);

/// The GIL, released. In an interpreter that is shutting down it is never taken again: CPython before 3.14 would end
/// the thread by unwinding it, through frames that must not throw. The thread waits for the end of the process instead.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() {
    if (shutting_down && std::this_thread::get_id() != finalizer) wait_forever();
    PyEval_RestoreThread(state_);
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

  /// From now on only the calling thread takes the GIL again; for atexit.
  static void shut_down();

 private:
  [[noreturn]] static void wait_forever();
  static inline std::atomic<bool> shutting_down{false};
  static inline std::thread::id finalizer;
  PyThreadState* state_;
};

/// Waits for `f` on the model's thread with the GIL released. Python's signals are handled afterwards.
template <typename F>
auto call(Worker& worker, F f) {
  const Unlocked unlocked;
  return worker.run(std::move(f));
}

/// The same for work that can be cancelled: every 50 ms `poll` runs with the GIL held, and may throw. A pending Ctrl-C
/// or an exception from `poll` sets `cancel`, waits for the work to stop, and is raised.
void call_cancellable(Worker& worker, std::function<void()> f, const std::function<void()>& cancel,
                      const std::function<void()>& poll);

}  // namespace personaplex::bindings
