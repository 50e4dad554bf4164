// csrc/ops/ops.h: Ops, the short list of fused operations that the model is written against, one contract each.
//
// Conventions
//  - A pass does T columns (1..kMaxColumns) at once. Activations are float32, row-contiguous [T, dim].
//  - Every argument that changes from frame to frame lives in memory of the device and is named by its Place, never
//    passed by value: an implementation may record the calls of a frame once and repeat them, see run(). Shapes,
//    weights and places are fixed.
//  - No call allocates. Calls of one thread take effect in the order they are made. Outputs overlap inputs only where
//    said.
//  - Sums are float32. Where an operation multiplies by a weight matrix of the language model, x may be rounded to
//    bfloat16 or to integers with a scale for some values of it (cpu/matmul.h: 15 bits; 8 bits in passes of several
//    columns): tolerance 8e-3 of ||y|| per call. The codec's operations keep x in float32 and hold weights in 16 bits:
//    tolerance 2e-4 of ||y|| per call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "checkpoint/weights.h"
#include "engine/engine.h"

namespace personaplex::ops {

/// Who uses memory besides the operations.
enum class Use : std::uint8_t {
  kScratch,  // nobody: what operations leave to each other
  kInput,    // the host writes it before a run
  kOutput,   // the host reads it after a run
  kState,    // it belongs to one conversation
};

/// Memory of the device, zero at first; pages that nobody has touched cost nothing.
struct Memory {
  virtual ~Memory() = default;
  std::byte* base = nullptr;  // its address on the device
  std::size_t bytes = 0;
  std::byte* host = nullptr;  // where the host finds inputs and outputs, between runs; null for other uses

  /// Copies between the host and any memory of the device, between runs.
  virtual void read(std::size_t offset, std::size_t count, void* to) const = 0;
  virtual void write(std::size_t offset, std::size_t count, const void* from) = 0;
  virtual void copy_from(const Memory& other) = 0;  // of the same size
};

/// A place in memory of the device.
struct Place {
  const Memory* memory = nullptr;
  std::size_t offset = 0;

  Place operator+(std::size_t more) const { return {memory, offset + more}; }
  bool operator==(const Place&) const = default;
  explicit operator bool() const { return memory != nullptr; }
  /// Where it is, on a device whose memory the host shares.
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(memory->base + offset);
  }
};

/// What a run is: a name and a number of columns. Runs of one program call the same operations, with the same weights,
/// shapes and places; only the block of the conversation differs.
struct Program {
  const char* name = nullptr;  // null: of no program, nothing to be kept
  int columns = 1;
};

/// Weights as an implementation wants them, made once at load.
struct Weight {
  virtual ~Weight() = default;
};
using WeightPtr = std::unique_ptr<const Weight>;

/// One column of a pass: where its key and value go, and what it sees. In device memory. The columns of a pass have
/// positions that follow each other.
struct Column {
  std::int64_t position = 0;
  std::int64_t first_visible = 0;  // oldest position that it attends to, >= 0
  std::int32_t kv_slot = 0;        // position modulo the ring's slots
  std::int32_t unused = 0;
};

/// Slots of one page of a ring.
inline constexpr int kRingPage = 32;

/// The keys and values of one layer. Rings are made of pages, each of which holds kRingPage slots of all layers, so
/// that conversations can share the pages of a common past. From `offset` on, a page has this layer's keys, then its
/// values, each [heads, kRingPage, head_dim]; where bits is 8 the scales follow, keys then values, each [heads,
/// kRingPage] float32.
struct Ring {
  Place pages;  // std::byte* [slots / kRingPage]; a page that holds no visible position may be null
  std::size_t offset = 0;
  int bits = 16;  // 32: float32; 16: bfloat16; 8: int8 with a scale per slot and head
  int heads = 0, head_dim = 0;
  int slots = 0;    // a multiple of kRingPage
  int visible = 0;  // positions that a column sees at most

  /// Of this layer in one page.
  std::size_t page_bytes() const {
    const auto cells = static_cast<std::size_t>(heads) * kRingPage;
    return 2 * cells * (static_cast<std::size_t>(head_dim) * static_cast<std::size_t>(bits) / 8 + (bits == 8 ? 4 : 0));
  }
};

/// A norm before a product: RMS (bias absent; eps 1e-8) or layer norm (eps 1e-5).
struct Norm {
  const Weight* weight = nullptr;  // [K]; absent: no norm
  const Weight* bias = nullptr;    // [K]
};

/// What a product does besides W x.
enum class Epilogue : std::uint8_t {
  kStore,   // y = W x
  kAdd,     // y += W x; y += scale * W x where a scale is given
  kSwiglu,  // W = [gate; value], N = 2F: y [T, F] = silu(gate) * value
  kGelu,    // y = gelu(W x), with erf
};

struct Product {
  Norm norm = {};
  Epilogue epilogue = Epilogue::kStore;
  const Weight* scale = nullptr;  // [N], layer scale
};

/// Where a convolution's results go, [count, out] float32; absent: not wanted.
struct ConvOutput {
  Place residual;  // added before anything is stored; may be `raw`
  Place raw;       // the result
  Place elu;       // elu(result): the input of the convolution that follows
};

/// How one token is drawn; in device memory, written by the host before the frame.
struct Draw {
  float temperature = 0.0F;  // 0: greedy
  std::int32_t top_k = 0;    // <= 0 or >= n: no limit
  std::int32_t target = 0;   // the token where `forced`
  std::int32_t forced = 0;
  std::uint64_t seed = 0, frame = 0;  // of the noise: core/philox.h
};

/// Codes to look up, int32. A negative one, -1 - i, stands for drawn[i], of `count` that have been drawn before.
struct Codes {
  Place at;
  Place drawn = {};
  int count = 0;
};

class Ops {
 public:
  virtual ~Ops() = default;

  // At load.
  virtual std::unique_ptr<Memory> allocate(std::size_t bytes, Use use) = 0;
  /// A matrix of the language model. WeightsError for a format that it cannot read.
  virtual WeightPtr matrix(const Matrix& m) = 0;
  /// A table of embeddings, of which embed_sum() reads a row here and there.
  virtual WeightPtr table(const Matrix& m) = 0;
  virtual WeightPtr vector(const TensorView& t) = 0;  // float32, any shape
  /// A linear layer of the codec [N, K], or a 1x1 convolution [N, K, 1].
  virtual WeightPtr linear(const TensorView& t) = 0;
  virtual WeightPtr conv(const Conv& c, int stride, int dilation) = 0;
  /// Transposed convolution of kernel 2 * stride.
  virtual WeightPtr conv_transpose(const Conv& c, int stride) = 0;
  /// Depthwise transposed convolution [C, 1, 2 * stride].
  virtual WeightPtr upsample(const Conv& c, int stride) = 0;
  virtual WeightPtr codebook(const RvqLevel& level) = 0;

  /// Runs the operations that calls() calls, and waits for them. `state`: the block of the conversation whose frame it
  /// is (null: of none); other kState memory is reached through addresses in it. A device may record the operations at
  /// a program's first run, and repeat them without another call of calls(). Runs of several threads take turns.
  virtual void run(const Program& program, const Memory* state, const std::function<void()>& calls) = 0;

  /// Calls both, within a run. Neither uses what the other makes, so a device may do them at the same time. Not within
  /// each other.
  virtual void together(const std::function<void()>& one, const std::function<void()>& other) {
    one();
    other();
  }

  /// out[i] = which[i] < 0 ? given[i] : made[which[i]], n words of 32 bits, `which` int32; `made` has `count` of them.
  /// Without `which`, a copy. This is how what one part of a frame makes comes to stand among what the host gives to
  /// another.
  virtual void select(int n, Place given, Place which, Place made, int count, Place out) = 0;

  // Language model.
  /// x [T, D] = sum over tables of their row ids[r][t]; -1 adds nothing. ids [tables][kMaxColumns] int32.
  virtual void embed_sum(std::span<const Weight* const> tables, Place ids, int columns, Place x) = 0;
  /// y [T, N] (or [T, F]) from x [T, K], as `how` says; x and y do not overlap. `w` from matrix() or linear().
  virtual void project(const Weight& w, Place x, int columns, const Product& how, Place y) = 0;
  /// [q; k; v] = W norm(x): rotates q and k by their positions (theta = max_period^(-2i / head_dim), interleaved pairs;
  /// max_period 0: not at all), stores q [T, heads, head_dim] and appends k and v at the columns' slots.
  virtual void project_qkv(const Weight& w, Place x, int columns, const Norm& norm, float max_period, const Ring& ring,
                           Place at, Place q) = 0;
  /// out [T, heads * head_dim] = softmax(q k^T / sqrt(head_dim)) v of every column over the positions that it sees.
  virtual void attend(Place q, const Ring& ring, Place at, int columns, Place out) = 0;
  /// y [T, D] = norm(x). y may be x.
  virtual void norm(const Norm& norm, Place x, int columns, Place y) = 0;
  /// token int32 from logits [n] float32: forced, or the argmax of p / q over the top_k largest logits, p =
  /// softmax(logits / temperature), q = exponential_noise of `stream`. All ties go to the lowest index.
  virtual void sample(Place logits, int n, Place draw, int stream, Place token) = 0;

  // Codec.
  /// `count` outputs of a streaming convolution. `window`: [carried, then new columns][in] float32, time-major: (kernel
  /// - 1) * dilation + 1 - stride carried columns (1 for a transposed convolution), then count * stride (count) new
  /// ones. Output m of a transposed convolution is its `stride` columns. Afterwards the last columns of the window are
  /// carried to its front.
  virtual void conv(const Weight& w, Place window, int count, const ConvOutput& out) = 0;
  /// y [count * stride, C] of a depthwise transposed convolution; window as for conv().
  virtual void upsample(const Weight& w, Place window, int count, Place y) = 0;
  /// Before a stream's first call: fills the carried columns of a window by repeating the first new one.
  virtual void replicate(const Weight& w, Place window, Place is_first) = 0;
  /// codes int32 [levels] of x [d]: the nearest codeword (ties to the lowest index), subtract, next level. x is used
  /// up.
  virtual void quantize(std::span<const Weight* const> levels, Place x, Place codes) = 0;
  /// x [d] = sum of the levels' codewords.
  virtual void dequantize(std::span<const Weight* const> levels, const Codes& codes, Place x) = 0;

  /// Calls so far: what a GPU would dispatch.
  virtual std::uint64_t calls() const = 0;
};

}  // namespace personaplex::ops
