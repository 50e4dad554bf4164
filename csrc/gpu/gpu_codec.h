// csrc/gpu/gpu_codec.h: the codec's operations on a GPU: collected as they are called, then dispatched, several of them
// at once where kernels/codec_*.metal have a kernel for a sequence.
//
// What the operations of such a sequence hand to each other is not stored: what attend() gives to the projection after
// it, what the first convolution of a residual block gives to the second, and what the projections of a quantizer give
// to quantize() or take from dequantize(). Only a sequence that is complete, consecutive and of the same places is
// taken at once; all other calls are dispatched one by one, and what they give is stored.
#pragma once

#include <initializer_list>
#include <string>
#include <variant>
#include <vector>

#include "gpu/gpu_codec_weights.h"
#include "gpu/recorder.h"

namespace personaplex::gpu {

class GpuOps;

// Calls, with the arguments of the operation.
struct Project {
  const GpuPanels* w;
  ops::Place x;
  int columns;
  ops::Product how;
  ops::Place y;
};
struct ProjectQkv {
  const GpuPanels* w;
  ops::Place x;
  int columns;
  ops::Norm norm;
  float max_period;
  ops::Ring ring;
  ops::Place at, q;
};
struct Attend {
  ops::Place q;
  ops::Ring ring;
  ops::Place at;
  int columns;
  ops::Place out;
};
struct Convolve {
  const GpuPanels* w;
  ops::Place window;
  int count;
  ops::ConvOutput out;
};
struct Upsample {
  const GpuUpsample* w;
  ops::Place window;
  int count;
  ops::Place y;
};
struct Replicate {
  const GpuPanels* w;
  ops::Place window, is_first;
};
using Levels = std::vector<const GpuCodebook*>;
struct Quantize {
  Levels levels;
  ops::Place x, codes;
};
struct Dequantize {
  Levels levels;
  ops::Codes codes;
  ops::Place x;
};

class GpuCodec {
 public:
  explicit GpuCodec(GpuOps& ops);

  using Call = std::variant<Project, ProjectQkv, Attend, Convolve, Upsample, Replicate, Quantize, Dequantize>;

  /// Forgets what was called.
  void begin();
  void call(Call call) { calls_.push_back(std::move(call)); }
  /// Dispatches what was called.
  void finish();
  /// At the end of a run: moves what the windows carry to their fronts.
  void carry();
  /// For whoever else dispatches something that may touch a window.
  void carry_before(std::initializer_list<Operand> operands);

 private:
  /// What of a window outlives a frame: `bytes` that lie `fresh` bytes after its front.
  struct Carried {
    ops::Place window;
    std::size_t bytes, fresh;
  };

  /// Call i if there is one and it is a T.
  template <typename T>
  const T* at(std::size_t i) const {
    return i < calls_.size() ? std::get_if<T>(&calls_[i]) : nullptr;
  }
  // Sequences from call i on: how many calls were dispatched, 0 where it is none.
  std::size_t attention_block(std::size_t i);
  std::size_t residual_block(std::size_t i);
  std::size_t replicated_convolution(std::size_t i);
  std::size_t encoded_parts(std::size_t i);
  std::size_t decoded_parts(std::size_t i);

  // One call.
  void dispatch(const Project& call) { linear(call, {}, 0); }
  void dispatch(const ProjectQkv& call);
  void dispatch(const Attend& call);
  void dispatch(const Convolve& call) { convolution(call, {}); }
  void dispatch(const Upsample& call);
  void dispatch(const Replicate& call);
  void dispatch(const Quantize& call);
  void dispatch(const Dequantize& call);

  /// Whether the kernel of the product does the norm.
  static bool normalizes_itself(const Project& call);
  /// `partials` [parts][columns][width]: what an attention still adds to x, counted in where x is normalized, or to y.
  void linear(const Project& call, ops::Place partials, int parts);
  /// With `is_first` (absent: without), carried columns are replicated.
  void convolution(const Convolve& call, ops::Place is_first);
  /// Of two parts, of which the second may have no levels; their residuals [2][d] are at `work`.
  void quantize_parts(const Levels& first, const Levels& second, ops::Place work, ops::Place codes);
  /// y = the sum of what two parts' codewords give through their projections.
  void dequantize_parts(const Levels& first, const Levels& second, const ops::Codes& codes,
                        const GpuPanels& first_projection, const GpuPanels& second_projection, ops::Place y);
  /// The levels' codewords, one behind the other.
  ops::Place codebooks(const Levels& first, const Levels& second);
  /// What quantize_parts() works on.
  ops::Place quantizer_memory(const GpuCodebook& level);
  /// Outputs of both; one weight where the first has whole panels.
  GpuPanels joined(const GpuPanels& first, const GpuPanels& second);
  const GpuPanels& identity(int d);

  /// Every dispatch that may touch a window.
  template <typename Params>
  void add(const std::string& kernel, std::initializer_list<Operand> operands, const Params& params,
           std::initializer_list<std::uint32_t> groups, std::uint32_t threads,
           std::initializer_list<Operand> reached = {}) {
    carry_before(operands);
    recorder_.add(kernel, operands, params, groups, threads, reached);
  }
  /// Whether what a window carries must have moved before this is touched.
  bool waits_for_carry(const Operand& operand) const;

  GpuOps& ops_;
  Recorder& recorder_;
  std::vector<Call> calls_;
  std::vector<Carried> carried_;
  std::vector<std::unique_ptr<GpuPanels>> identities_;
};

}  // namespace personaplex::gpu
