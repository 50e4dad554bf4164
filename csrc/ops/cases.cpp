// csrc/ops/cases.cpp: the table, from the sizes in config.h.
#include "ops/cases.h"

#include <algorithm>

#include "checkpoint/config.h"
#include "ops/ops.h"

namespace personaplex::ops {

namespace {

constexpr int kGroup = 64;

class Table {
 public:
  std::vector<Case> cases;

  void product(const std::string& name, int per_frame, int columns, int n, int k, int bits, Epilogue epilogue) {
    Case c = matrix(Op::kProject, name, per_frame, columns, n, k, bits);
    c.epilogue = static_cast<int>(epilogue);
    cases.push_back(c);
  }
  void qkv(const std::string& name, int per_frame, int columns, int heads, int head_dim, int bits, int kv_positions,
           int kv_bits = 16) {
    Case c = matrix(Op::kProjectQkv, name, per_frame, columns, 3 * heads * head_dim, heads * head_dim, bits);
    c.heads = heads;
    c.head_dim = head_dim;
    c.positions = kv_positions;
    c.kv_bits = kv_bits;
    cases.push_back(c);
  }
  void attend_project(const std::string& name, int per_frame, int heads, int head_dim, int bits, int positions) {
    Case c = matrix(Op::kAttendProject, name, per_frame, 1, heads * head_dim, heads * head_dim, bits);
    c.epilogue = static_cast<int>(Epilogue::kAdd);
    c.heads = heads;
    c.head_dim = head_dim;
    c.positions = positions;
    cases.push_back(c);
  }
  void linear(const std::string& name, int per_frame, int columns, int n, int k, Epilogue epilogue) {
    Case c = matrix(Op::kLinear, name, per_frame, columns, n, k, 16);
    c.epilogue = static_cast<int>(epilogue);
    cases.push_back(c);
  }
  void attend(const std::string& name, int per_frame, int columns, int heads, int head_dim, int positions, int bits) {
    Case c;
    c.op = Op::kAttend;
    c.name = name;
    c.per_frame = per_frame;
    c.columns = columns;
    c.heads = heads;
    c.head_dim = head_dim;
    c.positions = positions;
    c.bits = bits;
    cases.push_back(c);
  }
  void conv(Op op, const std::string& name, int columns, int in, int out, int kernel, int stride, int dilation = 1) {
    Case c;
    c.op = op;
    c.name = name;
    c.per_frame = name == "ragged" ? 0 : 1;
    c.columns = columns;
    c.in = in;
    c.out = out;
    c.kernel = kernel;
    c.stride = stride;
    c.dilation = dilation;
    cases.push_back(c);
  }
  void plain(Op op, const std::string& name, int per_frame, int n, int k) {
    cases.push_back(matrix(op, name, per_frame, 1, n, k, 16));
  }

 private:
  static Case matrix(Op op, const std::string& name, int per_frame, int columns, int n, int k, int bits) {
    Case c;
    c.op = op;
    c.name = name;
    c.per_frame = per_frame;
    c.columns = columns;
    c.n = n;
    c.k = k;
    c.bits = bits;
    c.group = bits == 16 ? 0 : k % kGroup == 0 ? kGroup : kGroup / 2;
    return c;
  }
};

void language_model(Table& t, const Config& c, int bits, int kv_bits, int context, int columns) {
  const int layers = c.num_layers;
  t.qkv("temporal in_proj", layers, columns, c.num_heads, c.head_dim(), bits, context, kv_bits);
  t.attend("temporal attention", layers, columns, c.num_heads, c.head_dim(), context, kv_bits);
  t.product("temporal out_proj", layers, columns, c.dim, c.dim, bits, Epilogue::kAdd);
  t.product("temporal linear_in", layers, columns, 2 * c.ffn_hidden(), c.dim, bits, Epilogue::kSwiglu);
  t.product("temporal linear_out", layers, columns, c.dim, c.ffn_hidden(), bits, Epilogue::kAdd);
  if (columns > 1) return;  // a prefill has no heads
  t.product("text head", 1, 1, c.text_card, c.dim, 16, Epilogue::kStore);
  t.plain(Op::kSample, "text token", 1, c.text_card, 25);
  const int steps = c.codebooks(), d = c.depformer_dim, all = steps * c.depformer_num_layers;
  t.product("depformer in", steps, 1, d, c.dim, bits, Epilogue::kAdd);
  t.qkv("depformer in_proj", all, 1, c.depformer_num_heads, c.depformer_head_dim(), bits, steps);
  t.attend("depformer attention", all, 1, c.depformer_num_heads, c.depformer_head_dim(), steps, 16);
  t.product("depformer out_proj", all, 1, d, d, bits, Epilogue::kAdd);
  t.product("depformer linear_in", all, 1, 2 * c.depformer_ffn_hidden(), d, bits, Epilogue::kSwiglu);
  t.product("depformer linear_out", all, 1, d, c.depformer_ffn_hidden(), bits, Epilogue::kAdd);
  t.product("depformer head", steps, 1, c.card, d, 16, Epilogue::kStore);
  t.plain(Op::kSample, "audio token", steps, c.card, 250);
}

void codec(Table& t, const Config& config) {
  const MimiConfig& m = config.mimi;
  int channels = m.n_filters, columns = m.frame_samples();
  t.conv(Op::kConv, "encoder first", columns, 1, channels, m.kernel_size, 1);
  for (auto ratio = m.ratios.rbegin(); ratio != m.ratios.rend(); ++ratio) {
    const std::string stage = "encoder " + std::to_string(channels) + " ";
    t.conv(Op::kConv, stage + "residual 1", columns, channels, channels / m.compress, m.residual_kernel_size, 1);
    t.conv(Op::kConv, stage + "residual 2", columns, channels / m.compress, channels, 1, 1);
    columns /= *ratio;
    t.conv(Op::kConv, stage + "down", columns, channels, 2 * channels, 2 * *ratio, *ratio);
    channels *= 2;
  }
  t.conv(Op::kConv, "encoder last", columns, channels, m.dimension, m.last_kernel_size, 1);
  const int both = 2 * m.num_layers, head_dim = m.dimension / m.num_heads;
  t.linear("codec in_proj", both, columns, 3 * m.dimension, m.dimension, Epilogue::kStore);
  t.attend("codec attention", both, columns, m.num_heads, head_dim, m.context, 32);
  t.linear("codec out_proj", both, columns, m.dimension, m.dimension, Epilogue::kAdd);
  t.linear("codec linear1", both, columns, m.dim_feedforward, m.dimension, Epilogue::kGelu);
  t.linear("codec linear2", both, columns, m.dimension, m.dim_feedforward, Epilogue::kAdd);
  t.conv(Op::kConv, "downsample", 1, m.dimension, m.dimension, 4, 2);
  t.plain(Op::kQuantize, "first codeword", 1, 1, m.quantizer_dimension);
  t.plain(Op::kQuantize, "other codewords", 1, config.codebooks() - 1, m.quantizer_dimension);
  t.conv(Op::kConv, "decoder first", columns, m.dimension, channels, m.kernel_size, 1);
  for (const int ratio : m.ratios) {
    const std::string stage = "decoder " + std::to_string(channels) + " ";
    t.conv(Op::kConvTranspose, stage + "up", columns, channels, channels / 2, 2 * ratio, ratio);
    columns *= ratio;
    channels /= 2;
    t.conv(Op::kConv, stage + "residual 1", columns, channels, channels / m.compress, m.residual_kernel_size, 1);
    t.conv(Op::kConv, stage + "residual 2", columns, channels / m.compress, channels, 1, 1);
  }
  t.conv(Op::kConv, "decoder last", columns, channels, 1, m.last_kernel_size, 1);
}

}  // namespace

const char* name_of(Op op) {
  constexpr const char* kNames[] = {"project", "project_qkv",    "attend_project", "linear", "attend",
                                    "conv",    "conv_transpose", "quantize",       "sample", "select"};
  return kNames[static_cast<std::size_t>(op)];
}

std::vector<Case> frame_cases(int bits, int kv_bits, int context, int columns) {
  const Config config;
  Table t;
  language_model(t, config, bits, kv_bits, context, columns);
  if (columns == 1) codec(t, config);
  return t.cases;
}

std::vector<Case> tuning_cases(int bits, int kv_bits, int context, int columns) {
  const Config config;
  Table t;
  language_model(t, config, bits, kv_bits, context, columns);
  if (columns == 1) {
    t.attend_project("depformer attention", config.codebooks() * config.depformer_num_layers,
                     config.depformer_num_heads, config.depformer_head_dim(), bits, config.codebooks());
    codec(t, config);
  }
  const auto same = [](const Case& a, const Case& b) {
    return a.op == b.op && a.columns == b.columns && a.n == b.n && a.k == b.k && a.bits == b.bits &&
           a.heads == b.heads && a.positions == b.positions && a.in == b.in && a.out == b.out && a.kernel == b.kernel &&
           a.stride == b.stride && a.kv_bits == b.kv_bits;
  };
  std::vector<Case> out;
  for (const Case& c : t.cases) {
    const bool tuned = c.op != Op::kQuantize && c.op != Op::kSample;
    // A ring of the depformer's goes with the projection, one of the codec's with its own kernel.
    const bool apart = c.op != Op::kAttend || (c.positions > config.codebooks() && c.bits != 32);
    const auto found = std::find_if(out.begin(), out.end(), [&](const Case& other) { return same(c, other); });
    if (tuned && apart && found == out.end()) out.push_back(c);
  }
  return out;
}

std::vector<Case> ragged_cases() {
  Table t;
  for (const int columns : {1, 3, 8, 19}) {
    for (const int bits : {4, 8, 16}) {
      t.product("ragged", 0, columns, 13, 96, bits, Epilogue::kStore);
      t.product("ragged", 0, columns, 301, 704, bits, Epilogue::kAdd);
      t.product("ragged", 0, columns, 2 * 37, 576, bits, Epilogue::kSwiglu);
      t.product("ragged", 0, columns, 7, 1088, bits, Epilogue::kGelu);
      t.qkv("ragged", 0, columns, 3, 32, bits, 21);
      t.qkv("ragged", 0, columns, 5, 64, bits, 8);
      t.qkv("ragged", 0, columns, 3, 64, bits, 21, 8);
    }
    for (const int bits : {8, 16, 32}) {
      t.attend("ragged", 0, columns, 3, 6, 11, bits);
      t.attend("ragged", 0, columns, 5, 64, 77, bits);
      t.attend("ragged", 0, columns, 2, 130, 400, bits);
    }
    t.linear("ragged", 0, columns, 35, 20, Epilogue::kStore);
    t.linear("ragged", 0, columns, 70, 33, Epilogue::kGelu);
    t.linear("ragged", 0, columns, 66, 130, Epilogue::kAdd);
  }
  for (const int bits : {4, 8, 16}) {
    t.attend_project("ragged", 0, 4, 24, bits, 9);
    t.attend_project("ragged", 0, 3, 64, bits, 32);
  }
  t.product("ragged", 0, 2, 7, 101, 16, Epilogue::kStore);  // a K that no group divides stays at 16 bits
  for (const int columns : {1, 5, 30}) {
    t.conv(Op::kConv, "ragged", columns, 1, 9, 7, 1);
    t.conv(Op::kConv, "ragged", columns, 20, 33, 3, 1, 2);
    t.conv(Op::kConv, "ragged", columns, 12, 5, 6, 3);
    t.conv(Op::kConv, "ragged", columns, 10, 1, 3, 1);
    t.conv(Op::kConvTranspose, "ragged", columns, 7, 5, 6, 3);
    t.conv(Op::kConvTranspose, "ragged", columns, 33, 16, 10, 5);
  }
  t.plain(Op::kQuantize, "ragged", 0, 3, 17);
  t.plain(Op::kSample, "ragged", 0, 77, 5);
  t.plain(Op::kSample, "ragged", 0, 1001, 0);
  t.plain(Op::kSelect, "ragged", 0, 301, 7);
  t.plain(Op::kSelect, "ragged", 0, 1921, 0);  // a copy
  return t.cases;
}

}  // namespace personaplex::ops
