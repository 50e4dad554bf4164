// csrc/checkpoint/key_reader.h: the Source that reads files; every tensor that does not fit becomes a line of one
// error.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "checkpoint/problems.h"
#include "checkpoint/source.h"

namespace personaplex {

/// Tensors of one or several files under NVIDIA's (or Kyutai's Mimi) names.
struct TensorTable {
  std::map<std::string, TensorView> tensors;
  /// "file: key as the file has it", for messages; defined for absent names too.
  std::function<std::string(const std::string&)> show;
};

class KeyReader : public Source {
 public:
  KeyReader(const TensorTable& table, const Config& config, Problems& problems)
      : table_(table), config_(config), problems_(problems) {}

  bool has(const std::string& name) const override { return table_.tensors.count(name) != 0; }
  Matrix matrix(const Names& names, std::int64_t n, std::int64_t k) override;
  TensorView norm(const Names& names, std::int64_t d) override;
  TensorView tensor(const Names& names, const std::vector<std::int64_t>& shape) override;

 private:
  const std::string* first_present(const Names& names, const std::string& expected);
  void mismatch(const std::string& name, const std::string& expected);
  Matrix quantized(const std::string& name, std::int64_t n, std::int64_t k);

  const TensorTable& table_;
  const Config& config_;
  Problems& problems_;
};

/// F32 and F16 rounded to bfloat16, as the reference loader does; BF16 as it is.
TensorView to_bf16(const TensorView& t);

}  // namespace personaplex
