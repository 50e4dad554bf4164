// csrc/ops/cases.h: the sizes at which operations are tested and timed: those of a 7B frame, and small ragged ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace personaplex::ops {

enum class Op : std::uint8_t {
  kProject,
  kProjectQkv,
  kAttendProject,  // an attention over few positions, and the projection of its result
  kLinear,
  kAttend,
  kConv,
  kConvTranspose,
  kQuantize,
  kSample,
  kSelect
};

const char* name_of(Op op);  // "project", ...

/// One call of an operation. What an operation does not have is 0.
struct Case {
  Op op = Op::kProject;
  std::string name;   // where a frame does it: "temporal in_proj"; or "ragged"
  int per_frame = 0;  // how often a 7B frame does it; 0: in tests only
  int columns = 1;
  int n = 0, k = 0;  // matrix [n, k]; levels and width of quantize; logits and top_k of sample; words of select, `made`
  int bits = 16, group = 0;                                   // of the matrix; of keys and values
  int epilogue = 0;                                           // ops::Epilogue of a product
  int heads = 0, head_dim = 0, positions = 0;                 // positions: those visible
  int kv_bits = 16;                                           // of the ring that project_qkv appends to
  int in = 0, out = 0, kernel = 0, stride = 1, dilation = 1;  // convolution: `columns` outputs
};

/// The operations of a frame of the full-size model, with weights of `bits` (4, 8, 16) and keys and values of `kv_bits`
/// (16, 8), seeing `context` positions; `columns` of the language model's (1; more in a prefill).
std::vector<Case> frame_cases(int bits, int kv_bits, int context, int columns);

/// Those whose work a GPU can share out in several ways, each size once.
std::vector<Case> tuning_cases(int bits, int kv_bits, int context, int columns);

/// Small ones, with sizes that no vector and no block divides.
std::vector<Case> ragged_cases();

}  // namespace personaplex::ops
