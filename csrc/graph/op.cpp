// csrc/graph/op.cpp: the thread's stream, and narrow().
#include "graph/op.h"

#include <optional>

namespace personaplex::graph {

namespace {
thread_local std::optional<mx::Stream> current;
}

void use_device(mx::Device device) { current = mx::default_stream(device); }

mx::Stream stream() { return current ? *current : mx::default_stream(mx::default_device()); }

namespace op {

array narrow(const array& a, int axis, int begin, int end) {
  const auto at = static_cast<std::size_t>(axis < 0 ? axis + static_cast<int>(a.ndim()) : axis);
  mx::Shape start(a.ndim(), 0);
  mx::Shape stop = a.shape();
  start[at] = begin;
  stop[at] = end;
  return slice_of(a, std::move(start), std::move(stop));
}

}  // namespace op
}  // namespace personaplex::graph
