// csrc/bindings/module.cpp: the Python module _core: a list of what is registered, and conversions that all share.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <thread>

#include "bindings/bindings.h"
#include "mlx/version.h"

#define PERSONAPLEX_TEXT_(x) #x
#define PERSONAPLEX_TEXT(x) PERSONAPLEX_TEXT_(x)

namespace personaplex::bindings {

void register_errors(nb::module_& m) {
  // Later registrations are asked first, so the base comes first.
  auto base = nb::exception<Error>(m, "PersonaplexError");
  nb::exception<WeightsError>(m, "WeightsError", base.ptr());
  nb::exception<StreamError>(m, "StreamError", base.ptr());
  nb::exception<DeviceError>(m, "DeviceError", base.ptr());
  nb::exception<Cancelled>(m, "CancelledError", base.ptr());
}

std::string describe(const AnyArray& a) {
  std::string out = "[";
  for (std::size_t i = 0; i < a.ndim(); ++i) out += (i > 0 ? ", " : "") + std::to_string(a.shape(i));
  out += "] ";
  const auto dtype = a.dtype();
  switch (static_cast<nb::dlpack::dtype_code>(dtype.code)) {
    case nb::dlpack::dtype_code::Float:
      out += "float";
      break;
    case nb::dlpack::dtype_code::Int:
      out += "int";
      break;
    case nb::dlpack::dtype_code::UInt:
      out += "uint";
      break;
    case nb::dlpack::dtype_code::Complex:
      out += "complex";
      break;
    case nb::dlpack::dtype_code::Bool:
      return out + "bool";
    default:
      out += "other";
      break;
  }
  return out + std::to_string(dtype.bits);
}

namespace {

// Copies any strided array, row by row.
template <typename From, typename To>
std::vector<To> copy_strided(const AnyArray& a) {
  std::vector<To> out;
  out.reserve(a.size());
  std::vector<std::size_t> index(a.ndim(), 0);
  const auto* data = static_cast<const From*>(a.data());
  for (std::size_t n = 0; n < a.size(); ++n) {
    std::int64_t offset = 0;
    for (std::size_t d = 0; d < a.ndim(); ++d) offset += static_cast<std::int64_t>(index[d]) * a.stride(d);
    out.push_back(static_cast<To>(data[offset]));
    for (std::size_t d = a.ndim(); d-- > 0;) {
      if (++index[d] < a.shape(d)) break;
      index[d] = 0;
    }
  }
  return out;
}

}  // namespace

std::vector<float> to_floats(const char* where, const char* what, const AnyArray& a) {
  if (a.dtype() != nb::dtype<float>()) {
    bad_argument(where, std::string("expected float32 ") + what + ", got " + describe(a) + ".");
  }
  return copy_strided<float, float>(a);
}

std::vector<std::int64_t> to_integers(const char* where, const char* what, const AnyArray& a) {
  if (a.dtype() == nb::dtype<std::int32_t>()) return copy_strided<std::int32_t, std::int64_t>(a);
  if (a.dtype() == nb::dtype<std::int64_t>()) return copy_strided<std::int64_t, std::int64_t>(a);
  bad_argument(where, std::string("expected int32 or int64 ") + what + ", got " + describe(a) + ".");
}

void check_rank(const char* where, const char* what, const AnyArray& a, std::size_t rank, const char* expected) {
  if (a.ndim() != rank) {
    bad_argument(where, std::string("expected ") + what + " of shape " + expected + ", got " + describe(a) + ".");
  }
}

nb::object tensor_to_numpy(const TensorView& t) {
  std::vector<std::size_t> shape;
  for (const auto d : t.shape) shape.push_back(static_cast<std::size_t>(d));
  const auto n = static_cast<std::size_t>(t.size());
  const auto* data = reinterpret_cast<const float*>(t.data);
  return to_numpy(std::vector<float>(data, data + n), shape);
}

nb::dict to_dict(const Probe& probe) {
  nb::dict out;
  for (const auto& [name, tensor] : probe) out[name.c_str()] = tensor_to_numpy(tensor);
  return out;
}

void Unlocked::shut_down() {
  finalizer = std::this_thread::get_id();
  shutting_down = true;
}

void Unlocked::wait_forever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

void call_cancellable(Worker& worker, std::function<void()> f, const std::function<void()>& cancel,
                      const std::function<void()>& poll) {
  auto done = worker.submit(std::move(f));
  for (;;) {
    {
      const Unlocked unlocked;
      if (done.wait_for(std::chrono::milliseconds(50)) == std::future_status::ready) break;
    }
    try {
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      poll();
    } catch (...) {
      cancel();
      const Unlocked unlocked;
      done.wait();
      throw;
    }
  }
  done.get();
  poll();
}

}  // namespace personaplex::bindings

NB_MODULE(_core, m) {
  namespace b = personaplex::bindings;
  // Sessions of daemon threads and of forked children are left alone on purpose.
  b::nb::set_leak_warnings(false);
  b::nb::module_::import_("atexit").attr("register")(b::nb::cpp_function(&b::Unlocked::shut_down));
  m.doc() = "The C++ core of personaplex. Use the personaplex package instead.";
  m.attr("MLX_VERSION") = PERSONAPLEX_TEXT(MLX_VERSION_MAJOR) "." PERSONAPLEX_TEXT(
      MLX_VERSION_MINOR) "." PERSONAPLEX_TEXT(MLX_VERSION_PATCH);
  b::register_errors(m);
  b::register_model(m);
  b::register_session(m);
  b::register_tools(m);
  b::register_bench(m);
}
