// csrc/graph/rvq.cpp: nearest codeword, subtract, next level.
#include "graph/rvq.h"

#include "graph/arrays.h"

namespace personaplex::graph {

namespace {

array projection(const TensorView& t) {  // torch's 1x1 convolution [out, in, 1] -> [in, out]
  const array w = wrap(t);
  array out = op::contiguous(op::astype(op::transpose(op::reshape(w, {w.shape(0), w.shape(1)}), {1, 0}), mx::float32));
  mx::eval(out);
  return out;
}

}  // namespace

Rvq::Part::Part(const RvqPart& weights)
    : input_proj(projection(weights.input_proj)), output_proj(projection(weights.output_proj)) {
  for (const RvqLevel& level : weights.levels) {
    const array usage = converted(level.cluster_usage, mx::float32, stream());
    const array sum = converted(level.embedding_sum, mx::float32, stream());
    array codeword = op::div(sum, op::expand_dims(op::maximum(usage, array(1e-5F)), 1));
    mx::eval(codeword);
    codewords.push_back(codeword);
  }
}

void Rvq::Part::encode(const array& latent, std::vector<array>& codes) const {
  array residual = op::matmul(latent, input_proj);  // [1, d]
  for (const array& table : codewords) {
    // Squared differences, not |x|^2 - 2xe + |e|^2: near ties must fall as they do in exact arithmetic.
    const array distance = op::sum(op::square(op::sub(table, residual)), 1);  // [bins]
    const array code = op::reshape(op::astype(op::argmin(distance, 0), mx::int32), {1});
    residual = op::sub(residual, op::take(table, code, 0));
    codes.push_back(code);
  }
}

array Rvq::Part::decode(const array& codes, int begin) const {
  array sum = op::take(codewords[0], op::narrow(codes, 0, begin, begin + 1), 0);
  for (std::size_t i = 1; i < codewords.size(); ++i) {
    const int at = begin + static_cast<int>(i);
    sum = op::add(sum, op::take(codewords[i], op::narrow(codes, 0, at, at + 1), 0));
  }
  return op::matmul(sum, output_proj);
}

Rvq::Rvq(const RvqPart& first, const RvqPart& rest) : first_(first), rest_(rest) {}

array Rvq::encode(const array& latent) const {
  std::vector<array> codes;
  first_.encode(latent, codes);
  rest_.encode(latent, codes);
  return op::concatenate(codes, 0);
}

array Rvq::decode(const array& codes) const {
  const array semantic = first_.decode(codes, 0);
  if (rest_.codewords.empty()) return semantic;
  return op::add(semantic, rest_.decode(codes, static_cast<int>(first_.codewords.size())));
}

}  // namespace personaplex::graph
