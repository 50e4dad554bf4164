// csrc/cpu/pointwise.h: what is done value by value: norms, activations, rotation, embedding rows; one implementation
// per instruction set. All float32; exp is within 2 units in the last place, results never depend on the caller's
// split.
#pragma once

#include <cstdint>

#include "checkpoint/weights.h"
#include "cpu/isa.h"

namespace personaplex::cpu {

struct PointwiseKernels {
  /// out [n] = x * rsqrt(mean(x^2) + 1e-8) * alpha. out may be x.
  void (*rms_norm)(const float* x, const float* alpha, std::int64_t n, float* out);
  /// out [n] = (x - mean) * rsqrt(variance + 1e-5) * weight + bias. out may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, std::int64_t n, float* out);
  /// out [n] = silu(gate) * value. out may be gate.
  void (*swiglu)(const float* gate, const float* value, std::int64_t n, float* out);
  /// out [n] = x / 2 * (1 + erf(x / sqrt 2)), within 1e-6 absolute. out may be x.
  void (*gelu)(const float* x, std::int64_t n, float* out);
  /// out [n] = x for x > 0, exp(x) - 1 otherwise. out may be x.
  void (*elu)(const float* x, std::int64_t n, float* out);
  /// Rotates interleaved pairs (2i, 2i + 1) of x [2 * half] in place: cos, sin [half].
  void (*rope)(float* x, const float* cos, const float* sin, int half);
  /// x [K] += row `row` of a bfloat16, 4-bit or 8-bit table (as matmul.h's supports()).
  void (*add_row)(const Matrix& table, std::int64_t row, float* x);
  /// x [n] += y, or x += scale * y where scale [n] is given.
  void (*add)(float* x, const float* y, const float* scale, std::int64_t n);
};

/// Kernels of an instruction set that this machine supports.
const PointwiseKernels& pointwise_kernels(Isa isa);

}  // namespace personaplex::cpu
