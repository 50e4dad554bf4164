// csrc/bindings/tools.cpp: functions without a model: tensor files, and the sampling rule for its tests.
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <map>
#include <tuple>

#include "bindings/bindings.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/to_floats.h"
#include "core/philox.h"
#include "graph/arrays.h"
#include "graph/sampling.h"
#include "session/session.h"

namespace personaplex::bindings {

namespace {

template <typename T, typename To>
std::vector<To> read_as(const TensorView& t) {
  std::vector<To> out(static_cast<std::size_t>(t.size()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, t.data + i * sizeof(T), sizeof(T));
    out[i] = static_cast<To>(value);
  }
  return out;
}

nb::object read_tensor(const TensorView& t) {
  std::vector<std::size_t> shape;
  for (const auto d : t.shape) shape.push_back(static_cast<std::size_t>(d));
  switch (t.dtype) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
      return to_numpy(to_floats(t), shape);
    case DType::kF64:
      return to_numpy(read_as<double, float>(t), shape);
    case DType::kBool:
    case DType::kU8:
      return to_numpy(read_as<std::uint8_t, std::int64_t>(t), shape);
    case DType::kI8:
      return to_numpy(read_as<std::int8_t, std::int64_t>(t), shape);
    case DType::kI16:
      return to_numpy(read_as<std::int16_t, std::int64_t>(t), shape);
    case DType::kU16:
      return to_numpy(read_as<std::uint16_t, std::int64_t>(t), shape);
    case DType::kI32:
      return to_numpy(read_as<std::int32_t, std::int64_t>(t), shape);
    case DType::kU32:
      return to_numpy(read_as<std::uint32_t, std::int64_t>(t), shape);
    case DType::kI64:
      return to_numpy(read_as<std::int64_t, std::int64_t>(t), shape);
    case DType::kU64:
      return to_numpy(read_as<std::uint64_t, std::int64_t>(t), shape);
  }
  throw WeightsError("[read_tensors] unknown dtype.");
}

nb::dict read_tensors(const std::string& path) {
  const Safetensors file = read_safetensors(path);
  nb::dict out;
  for (const auto& [name, tensor] : file.tensors) out[name.c_str()] = read_tensor(tensor);
  return out;
}

void write_tensors(const std::string& path, const std::map<std::string, AnyArray>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<NamedTensor> named;
  for (const auto& [name, a] : tensors) {
    std::vector<std::int64_t> shape;
    for (std::size_t i = 0; i < a.ndim(); ++i) shape.push_back(static_cast<std::int64_t>(a.shape(i)));
    const bool is_float = a.dtype() == nb::dtype<float>();
    OwnedTensor tensor = allocate_tensor(is_float ? DType::kF32 : DType::kI64, shape);
    if (is_float) {
      const auto values = to_floats("write_tensors", name.c_str(), a);
      if (!values.empty()) std::memcpy(tensor.mutable_data, values.data(), values.size() * sizeof(float));
    } else {
      const auto values = to_integers("write_tensors", name.c_str(), a);
      if (!values.empty()) std::memcpy(tensor.mutable_data, values.data(), values.size() * sizeof(std::int64_t));
    }
    named.push_back({name, tensor.view});
  }
  const Unlocked unlocked;
  write_safetensors(path, named, metadata);
}

// Sampling outside a model needs an MLX thread too; it lives as long as the process.
Worker& tools_worker() {
  static auto* worker = new Worker([] {});
  worker->check("sample");
  return *worker;
}

int sample_with(const std::vector<float>& logits, const std::vector<float>& noise, float temperature, int top_k) {
  const Sampling sampling{temperature, top_k};
  check_sampling({sampling, sampling});
  return call(tools_worker(), [&] {
    graph::use_device(graph::mx::Device::cpu);
    const auto n = static_cast<int>(logits.size());
    return graph::to_ints(graph::sample(graph::from_host(logits, {n}), graph::from_host(noise, {n}), sampling)).at(0);
  });
}

std::vector<float> to_logits(const char* where, const AnyArray& a) {
  check_rank(where, "logits", a, 1, "[n]");
  if (a.size() == 0) bad_argument(where, "expected at least one logit, got none.");
  return to_floats(where, "logits", a);
}

}  // namespace

void register_tools(nb::module_& m) {
  m.def("read_tensors", &read_tensors, nb::arg("path"));
  m.def("write_tensors", &write_tensors, nb::arg("path"), nb::arg("tensors"), nb::arg("metadata"));
  m.def(
      "sample",
      [](const AnyArray& logits, float temperature, int top_k, std::uint64_t seed, std::uint32_t stream,
         std::uint64_t frame) {
        const auto values = to_logits("sample", logits);
        std::vector<float> noise(values.size());
        exponential_noise(seed, frame, stream, noise.data(), static_cast<int>(noise.size()));
        return sample_with(values, noise, temperature, top_k);
      },
      nb::arg("logits"), nb::arg("temperature"), nb::arg("top_k"), nb::arg("seed"), nb::arg("stream"),
      nb::arg("frame"));
  m.def(
      "sample_with_noise",
      [](const AnyArray& logits, const AnyArray& noise, float temperature, int top_k) {
        const auto values = to_logits("sample_with_noise", logits);
        const auto q = to_logits("sample_with_noise", noise);
        if (q.size() != values.size()) bad_argument("sample_with_noise", "expected as much noise as logits.");
        return sample_with(values, q, temperature, top_k);
      },
      nb::arg("logits"), nb::arg("noise"), nb::arg("temperature"), nb::arg("top_k"));
  m.def(
      "philox",
      [](const std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>& counter,
         const std::tuple<std::uint32_t, std::uint32_t>& key) {
        const auto [a, b, c, d] = counter;
        const auto words = philox4x32({a, b, c, d}, {std::get<0>(key), std::get<1>(key)});
        return std::tuple(words[0], words[1], words[2], words[3]);
      },
      nb::arg("counter"), nb::arg("key"));
}

}  // namespace personaplex::bindings
