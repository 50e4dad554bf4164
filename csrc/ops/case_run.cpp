// csrc/ops/case_run.cpp: random weights in the checkpoint's formats, inputs in memory of the device.
#include "ops/case_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "checkpoint/bf16.h"
#include "core/error.h"

namespace personaplex::ops {

namespace {

constexpr int kBins = 2048;  // codewords of a level

/// SplitMix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t word() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  float uniform(float scale) { return scale * (static_cast<float>(word() >> 40) * 0x1p-23F - 1.0F); }

 private:
  std::uint64_t state_;
};

TensorView words(Random& random, std::vector<std::int64_t> shape) {
  OwnedTensor t = allocate_tensor(DType::kU32, std::move(shape));
  for (std::size_t i = 0; i < t.view.nbytes(); i += 4) {
    const auto word = static_cast<std::uint32_t>(random.word());
    std::memcpy(t.mutable_data + i, &word, 4);
  }
  return t.view;
}

/// Uniform in [centre - scale, centre + scale], bfloat16.
TensorView halves(Random& random, std::vector<std::int64_t> shape, float centre, float scale) {
  OwnedTensor t = allocate_tensor(DType::kBF16, std::move(shape));
  for (std::size_t i = 0; i < t.view.nbytes(); i += 2) {
    const std::uint16_t half = to_bf16_bits(centre + random.uniform(scale));
    std::memcpy(t.mutable_data + i, &half, 2);
  }
  return t.view;
}

TensorView floats(Random& random, std::vector<std::int64_t> shape, float centre, float scale) {
  OwnedTensor t = allocate_tensor(DType::kF32, std::move(shape));
  for (std::size_t i = 0; i < t.view.nbytes(); i += 4) {
    const float value = centre + random.uniform(scale);
    std::memcpy(t.mutable_data + i, &value, 4);
  }
  return t.view;
}

/// Rows of about unit length, as a trained matrix has behind its norm.
Matrix matrix(Random& random, const Case& c) {
  Matrix m;
  m.n = c.n;
  m.k = c.k;
  m.bits = c.bits;
  const float scale = std::sqrt(3.0F / static_cast<float>(c.k));
  if (c.bits == 16) {
    m.weight = halves(random, {c.n, c.k}, 0.0F, scale);
    return m;
  }
  m.group_size = c.group;
  m.weight = words(random, {c.n, std::int64_t{c.k} * c.bits / 32});
  const float half = static_cast<float>((1 << c.bits) - 1) / 2.0F;
  m.scales = halves(random, {c.n, c.k / c.group}, scale / half, 0.1F * scale / half);
  m.biases = halves(random, {c.n, c.k / c.group}, -scale, 0.1F * scale);
  return m;
}

std::size_t ring_bytes(const Case& c) {
  const auto row = static_cast<std::size_t>(c.head_dim) * static_cast<std::size_t>(c.bits) / 8 + (c.bits == 8 ? 4 : 0);
  return 2 * static_cast<std::size_t>(c.heads) * static_cast<std::size_t>(c.positions) * row;
}

std::size_t product_bytes(const Case& c) {
  const auto cells = static_cast<std::size_t>(c.n) * static_cast<std::size_t>(c.k);
  return cells * static_cast<std::size_t>(c.bits) / 8 +
         (c.bits == 16 ? 0 : 4 * cells / static_cast<std::size_t>(c.group));
}

/// What a page of a ring has in one layer.
std::vector<std::byte> page_of(Random& random, const Ring& ring) {
  std::vector<std::byte> page(ring.page_bytes());
  const std::size_t rows = 2 * static_cast<std::size_t>(ring.heads) * kRingPage;
  const std::size_t values = rows * static_cast<std::size_t>(ring.head_dim);
  for (std::size_t i = 0; i < values; ++i) {
    const float value = random.uniform(1.0F);
    if (ring.bits == 32) reinterpret_cast<float*>(page.data())[i] = value;
    if (ring.bits == 16) reinterpret_cast<std::uint16_t*>(page.data())[i] = to_bf16_bits(value);
    if (ring.bits == 8) page[i] = static_cast<std::byte>(std::lround(127.0F * value));
  }
  if (ring.bits == 8) {
    auto* scales = reinterpret_cast<float*>(page.data() + values);
    for (std::size_t i = 0; i < rows; ++i) scales[i] = (1.0F + random.uniform(0.2F)) / 127.0F;
  }
  return page;
}

/// What a page holds, as floats.
void append_cells(const Ring& ring, const std::vector<std::byte>& page, std::vector<float>& out) {
  const std::size_t rows = 2 * static_cast<std::size_t>(ring.heads) * kRingPage;
  const auto dim = static_cast<std::size_t>(ring.head_dim);
  for (std::size_t i = 0; i < rows * dim; ++i) {
    if (ring.bits == 8) {
      float scale = 0.0F;
      std::memcpy(&scale, page.data() + rows * dim + i / dim * sizeof scale, sizeof scale);
      out.push_back(scale * static_cast<float>(static_cast<std::int8_t>(page[i])));
    } else {
      std::uint16_t cell = 0;
      std::memcpy(&cell, page.data() + 2 * i, sizeof cell);
      out.push_back(from_bf16_bits(cell));
    }
  }
}

bool attends(const Case& c) { return c.op == Op::kAttend || c.op == Op::kAttendProject; }
bool has_ring(const Case& c) { return c.op == Op::kProjectQkv || attends(c); }
bool has_window(const Case& c) { return c.op == Op::kConv || c.op == Op::kConvTranspose; }

}  // namespace

struct CaseRun::Parts {
  std::vector<WeightPtr> weights;  // per copy, `each` of them
  std::size_t each = 1;
  WeightPtr norm;
  std::vector<Ring> rings;  // per copy
  std::vector<std::unique_ptr<Memory>> memories;
  std::vector<std::vector<Memory*>> pages;  // per ring
  Place x, y, at, made, tokens, between;
  std::vector<std::pair<Memory*, std::vector<float>>> at_first;  // of what calls change
  std::size_t results = 0;                                       // floats at y
  bool integers = false;                                         // results are int32 at tokens

  Memory& allocate(Ops& ops, std::size_t bytes, Use use = Use::kState) {
    memories.push_back(ops.allocate(std::max<std::size_t>(bytes, 64), use));
    return *memories.back();
  }
  template <typename T>
  Memory& put(Ops& ops, const std::vector<T>& values, Use use = Use::kState) {
    Memory& memory = allocate(ops, values.size() * sizeof(T), use);
    memory.write(0, values.size() * sizeof(T), values.data());
    return memory;
  }
  Place fill(Ops& ops, Random& random, std::size_t count, float scale) {
    std::vector<float> values(count);
    for (float& value : values) value = random.uniform(scale);
    return {&put(ops, values), 0};
  }
  /// In [-1, 1]; reset() fills it so again.
  Place fill_again(Ops& ops, Random& random, std::size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = random.uniform(1.0F);
    Memory& memory = put(ops, values);
    at_first.emplace_back(&memory, std::move(values));
    return {&memory, 0};
  }
};

CaseRun::CaseRun(Ops& ops, const Case& what, std::uint64_t seed, int copies)
    : ops_(ops), case_(what), copies_(copies), parts_(std::make_unique<Parts>()) {
  Random random(seed);
  Parts& p = *parts_;
  const Case& c = case_;
  const auto columns = static_cast<std::size_t>(c.columns);
  const auto size = [](int value) { return static_cast<std::size_t>(value); };

  // All copies hold the same values.
  const auto add = [&](const std::function<WeightPtr()>& make) {
    for (int copy = 0; copy < copies; ++copy) p.weights.push_back(make());
  };
  switch (c.op) {
    case Op::kProject:
    case Op::kProjectQkv:
    case Op::kAttendProject: {
      const Matrix m = matrix(random, c);
      add([&] { return ops.matrix(m); });
      break;
    }
    case Op::kLinear: {
      const TensorView m = halves(random, {c.n, c.k}, 0.0F, std::sqrt(3.0F / static_cast<float>(c.k)));
      add([&] { return ops.linear(m); });
      break;
    }
    case Op::kConv:
    case Op::kConvTranspose: {
      const float scale = std::sqrt(3.0F / static_cast<float>(c.in * c.kernel));
      const bool transposed = c.op == Op::kConvTranspose;
      const Conv conv{halves(random, {transposed ? c.in : c.out, transposed ? c.out : c.in, c.kernel}, 0.0F, scale),
                      floats(random, {c.out}, 0.0F, 0.1F)};
      add([&] { return transposed ? ops.conv_transpose(conv, c.stride) : ops.conv(conv, c.stride, c.dilation); });
      break;
    }
    case Op::kQuantize: {
      p.each = size(c.n);
      std::vector<RvqLevel> levels;
      for (int level = 0; level < c.n; ++level) {
        levels.push_back({floats(random, {kBins, c.k}, 0.0F, 1.0F), floats(random, {kBins}, 1.0F, 0.1F)});
      }
      for (int copy = 0; copy < copies; ++copy) {
        for (const RvqLevel& level : levels) p.weights.push_back(ops.codebook(level));
      }
      break;
    }
    case Op::kAttend:
    case Op::kSample:
    case Op::kSelect:
      break;
  }

  if (has_ring(c)) {
    Ring ring;
    ring.bits = c.op == Op::kAttend ? c.bits : c.kv_bits;
    ring.heads = c.heads;
    ring.head_dim = c.head_dim;
    ring.slots = (c.positions + kMaxColumns + kRingPage - 1) / kRingPage * kRingPage;
    ring.visible = c.positions;
    // The newest column is at position `first` + columns - 1, in a ring that has wrapped.
    const std::int64_t first = 2 * std::int64_t{ring.slots} + c.positions / 2;
    std::vector<Column> at(kMaxColumns);
    for (int t = 0; t < c.columns; ++t) {
      const std::int64_t position = first + t;
      at[size(t)] = {position, position + 1 - c.positions, static_cast<std::int32_t>(position % ring.slots), 0};
    }
    p.at = {&p.put(ops, at, Use::kInput), 0};
    std::vector<std::vector<std::byte>> values;
    for (int i = 0; attends(c) && i < ring.slots / kRingPage; ++i) values.push_back(page_of(random, ring));
    for (int copy = 0; copy < (attends(c) ? copies : 1); ++copy) {
      std::vector<Memory*> pages;
      std::vector<std::byte*> table;
      for (int i = 0; i < ring.slots / kRingPage; ++i) {
        pages.push_back(attends(c) ? &p.put(ops, values[size(i)]) : &p.allocate(ops, ring.page_bytes()));
        table.push_back(pages.back()->base);
      }
      ring.pages = {&p.put(ops, table), 0};
      p.pages.push_back(std::move(pages));
      p.rings.push_back(ring);
    }
  }

  if (has_window(c)) {
    const int carried = c.op == Op::kConv ? (c.kernel - 1) * c.dilation + 1 - c.stride : 1;
    const int fresh = c.op == Op::kConv ? c.columns * c.stride : c.columns;
    p.x = p.fill_again(ops, random, size(carried + fresh) * size(c.in));  // it is carried
    p.results = columns * size(c.out) * (c.op == Op::kConvTranspose ? size(c.stride) : 1);
  } else if (c.op == Op::kQuantize) {
    p.x = p.fill(ops, random, size(c.k), 1.0F);
    p.tokens = {&p.allocate(ops, size(c.n) * sizeof(std::int32_t)), 0};
    p.results = size(c.n);
    p.integers = true;
  } else if (c.op == Op::kSample) {
    p.x = p.fill(ops, random, size(c.n), 4.0F);
    p.at = {&p.put(ops, std::vector<Draw>{{0.8F, c.k, 0, 0, seed, 0}}, Use::kInput), 0};
    p.tokens = {&p.allocate(ops, sizeof(std::int32_t)), 0};
    p.results = 1;
    p.integers = true;
  } else if (c.op == Op::kSelect) {
    std::vector<std::int32_t> given(size(c.n)), which(size(c.n)), made(size(c.k));
    for (std::int32_t& word : given) word = static_cast<std::int32_t>(random.word() % 1000);
    for (std::int32_t& word : made) word = static_cast<std::int32_t>(1000 + random.word() % 1000);
    p.x = {&p.put(ops, given, Use::kInput), 0};
    if (c.k > 0) {
      for (std::int32_t& index : which) index = static_cast<std::int32_t>(random.word() % (2 * size(c.k))) - c.k;
      p.at = {&p.put(ops, which, Use::kInput), 0};
      p.made = {&p.put(ops, made), 0};
    }
    p.tokens = {&p.allocate(ops, size(c.n) * sizeof(std::int32_t)), 0};
    p.results = size(c.n);
    p.integers = true;
  } else {
    const std::size_t width = has_ring(c) ? size(c.heads) * size(c.head_dim) : size(c.n);
    p.x = p.fill(ops, random, columns * (attends(c) ? width : size(c.k)), 1.0F);
    p.results = columns * (c.epilogue == static_cast<int>(Epilogue::kSwiglu) ? width / 2 : width);
  }
  if (c.op == Op::kProject || c.op == Op::kProjectQkv) p.norm = ops.vector(floats(random, {c.k}, 1.0F, 0.2F));
  if (c.op == Op::kAttendProject) p.between = {&p.allocate(ops, size(c.k) * sizeof(float), Use::kScratch), 0};
  if (!p.integers) {
    p.y = p.fill_again(ops, random, p.results);  // kAdd adds to it
  }
}

CaseRun::~CaseRun() = default;

void CaseRun::run(int copy) {
  ops_.run({}, nullptr, [&] { call(copy); });
}

void CaseRun::run_all(const char* program, int rounds) {
  ops_.run({program, case_.columns}, nullptr, [&] {
    for (int round = 0; round < rounds; ++round) {
      for (int copy = 0; copy < copies_; ++copy) call(copy);
    }
  });
}

void CaseRun::reset() {
  Parts& p = *parts_;
  for (const auto& [memory, values] : p.at_first) memory->write(0, values.size() * sizeof(float), values.data());
  if (case_.op != Op::kProjectQkv) return;
  for (Memory* page : p.pages[0]) {
    const std::vector<std::byte> zeros(page->bytes);
    page->write(0, zeros.size(), zeros.data());
  }
}

void CaseRun::call(int copy) {
  Parts& p = *parts_;
  const Case& c = case_;
  const auto at = static_cast<std::size_t>(copy);
  switch (c.op) {
    case Op::kProject: {
      const auto epilogue = static_cast<Epilogue>(c.epilogue);
      const bool normed = epilogue == Epilogue::kSwiglu;  // as in the model
      ops_.project(*p.weights[at], p.x, c.columns, {normed ? Norm{p.norm.get(), nullptr} : Norm{}, epilogue, nullptr},
                   p.y);
      break;
    }
    case Op::kLinear:
      ops_.project(*p.weights[at], p.x, c.columns, {{}, static_cast<Epilogue>(c.epilogue), nullptr}, p.y);
      break;
    case Op::kProjectQkv:
      ops_.project_qkv(*p.weights[at], p.x, c.columns, {p.norm.get(), nullptr}, 10000.0F, p.rings[0], p.at, p.y);
      break;
    case Op::kAttend:
      ops_.attend(p.x, p.rings[at], p.at, c.columns, p.y);
      break;
    case Op::kAttendProject:
      ops_.attend(p.x, p.rings[at], p.at, c.columns, p.between);
      ops_.project(*p.weights[at], p.between, c.columns, {{}, static_cast<Epilogue>(c.epilogue), nullptr}, p.y);
      break;
    case Op::kConv:
    case Op::kConvTranspose:
      ops_.conv(*p.weights[at], p.x, c.columns, {{}, p.y, {}});
      break;
    case Op::kQuantize: {
      std::vector<const Weight*> levels;
      for (std::size_t i = 0; i < p.each; ++i) levels.push_back(p.weights[at * p.each + i].get());
      ops_.quantize(levels, p.x, p.tokens);
      break;
    }
    case Op::kSample:
      ops_.sample(p.x, c.n, p.at, 0, p.tokens);
      break;
    case Op::kSelect:
      ops_.select(c.n, p.x, p.at, p.made, c.k, p.tokens);
      break;
  }
}

std::vector<float> CaseRun::results() const {
  const Parts& p = *parts_;
  std::vector<float> out;
  if (p.integers) {
    std::vector<std::int32_t> tokens(p.results);
    p.tokens.memory->read(0, p.results * sizeof(std::int32_t), tokens.data());
    out.assign(tokens.begin(), tokens.end());
    return out;
  }
  out.resize(p.results);
  p.y.memory->read(0, p.results * sizeof(float), out.data());
  if (case_.op == Op::kProjectQkv) {
    std::vector<std::byte> bytes(p.rings[0].page_bytes());
    for (const Memory* page : p.pages[0]) {
      page->read(0, bytes.size(), bytes.data());
      append_cells(p.rings[0], bytes, out);
    }
  }
  return out;
}

std::size_t CaseRun::bytes(const Case& c) {
  const auto cells = [](std::initializer_list<int> sizes) {
    std::size_t product = 1;
    for (const int n : sizes) product *= static_cast<std::size_t>(n);
    return product;
  };
  switch (c.op) {
    case Op::kProject:
    case Op::kProjectQkv:
      return product_bytes(c);
    case Op::kAttendProject: {
      Case ring = c;
      ring.bits = 16;
      return product_bytes(c) + ring_bytes(ring);
    }
    case Op::kLinear:
      return 2 * cells({c.n, c.k});
    case Op::kAttend:
      return ring_bytes(c);
    case Op::kConv:
    case Op::kConvTranspose:
      return 2 * cells({c.in, c.out, c.kernel});
    case Op::kQuantize:
      return 2 * cells({c.n, kBins, c.k});
    case Op::kSample:
    case Op::kSelect:
      return 4 * cells({c.n});
  }
  return 0;
}

double distance(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  const double out = std::sqrt(difference / std::max(norm, 1e-30));
  return std::isfinite(out) ? out : std::numeric_limits<double>::infinity();
}

double tolerance(const Case& what) {
  switch (what.op) {
    case Op::kQuantize:
    case Op::kSample:
    case Op::kSelect:
      return 0;
    case Op::kLinear:
    case Op::kConv:
    case Op::kConvTranspose:
      return 1e-3;  // of two implementations, each with its own rounding of the weights
    default:
      return what.op == Op::kAttend && what.bits == 32 ? 1e-3 : 8e-3;
  }
}

}  // namespace personaplex::ops
