// csrc/graph/conv.cpp: convolutions as one matrix product over the windows of the input.
#include "graph/conv.h"

#include "graph/arrays.h"

namespace personaplex::graph {

namespace {

std::optional<array> bias_of(const Conv& weights) {
  if (weights.bias.empty()) return std::nullopt;
  return converted(weights.bias, mx::float32, stream());
}

array prepared(const array& a) {
  array out = op::contiguous(a);
  mx::eval(out);
  return out;
}

}  // namespace

array elu(const array& x) {
  const array zero(0.0F);
  return op::where(op::greater(x, zero), x, op::expm1(op::minimum(x, zero)));
}

Conv1d::Conv1d(const Conv& weights, int stride, int dilation, Padding padding)
    : weight_(op::transpose(converted(weights.weight, mx::float32, stream()),
                            {2, 1, 0})),  // torch [out, in, kernel] -> [kernel, in, out]
      bias_(bias_of(weights)),
      kernel_(weight_.shape(0)),
      stride_(stride),
      dilation_(dilation),
      padding_(padding) {
  weight_ = prepared(op::reshape(weight_, {kernel_ * weight_.shape(1), weight_.shape(2)}));
}

array Conv1d::operator()(const array& x, Carry& carry) const {
  const int channels = x.shape(1);
  const int span = (kernel_ - 1) * dilation_ + 1;
  const int pad = span - stride_;
  array input = x;
  if (pad > 0) {
    if (!carry) {
      carry = padding_ == Padding::kZero ? op::zeros({pad, channels}, x.dtype())
                                         : mx::broadcast_to(op::narrow(x, 0, 0, 1), {pad, channels}, stream());
    }
    input = op::concatenate({*carry, x}, 0);
    carry = op::contiguous(op::narrow(input, 0, input.shape(0) - pad, input.shape(0)));
  }
  const int count = x.shape(0) / stride_;
  array windows = input;
  if (kernel_ > 1 || stride_ > 1) {
    windows = mx::as_strided(
        op::contiguous(input), {count, kernel_, channels},
        {static_cast<std::int64_t>(stride_) * channels, static_cast<std::int64_t>(dilation_) * channels, 1}, 0,
        stream());
    windows = op::reshape(op::contiguous(windows), {count, kernel_ * channels});
  }
  const array y = op::matmul(windows, weight_);
  return bias_ ? op::add(y, *bias_) : y;
}

ConvTranspose1d::ConvTranspose1d(const Conv& weights, int stride)
    : weight_(converted(weights.weight, mx::float32, stream())),
      bias_(bias_of(weights)),
      stride_(stride),
      out_(weight_.shape(1)),
      depthwise_(weight_.shape(1) == 1 && weight_.shape(0) > 1) {
  const int in = weight_.shape(0);
  const int kernel = weight_.shape(2);
  if (depthwise_) {
    out_ = in;
    weight_ = prepared(op::transpose(op::reshape(weight_, {in, kernel}), {1, 0}));
  } else {
    weight_ = prepared(op::reshape(op::transpose(weight_, {0, 2, 1}), {in, kernel * out_}));
  }
}

array ConvTranspose1d::operator()(const array& x, Carry& carry) const {
  const int count = x.shape(0);
  const array taps = depthwise_ ? op::mul(op::expand_dims(x, 1), op::expand_dims(weight_, 0))
                                : op::reshape(op::matmul(x, weight_), {count, 2 * stride_, out_});
  const array own = op::narrow(taps, 1, 0, stride_);  // [L, stride, out]
  const array next = op::narrow(taps, 1, stride_, 2 * stride_);
  const array before = carry ? *carry : op::zeros({1, stride_, out_}, x.dtype());
  carry = op::contiguous(op::narrow(next, 0, count - 1, count));
  const array late = count == 1 ? before : op::concatenate({before, op::narrow(next, 0, 0, count - 1)}, 0);
  const array y = op::reshape(op::add(own, late), {count * stride_, out_});
  return bias_ ? op::add(y, *bias_) : y;
}

}  // namespace personaplex::graph
