// csrc/checkpoint/problems.h: collects everything that is wrong with a file, so that one error can name it all.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/error.h"

namespace personaplex {

class Problems {
 public:
  void add(std::string line) { lines_.push_back(std::move(line)); }
  bool none() const { return lines_.empty(); }

  /// Throws WeightsError `head` followed by the problems, one a line (the first 40), and `advice`; does nothing without
  /// problems.
  void raise(const std::string& head, const std::string& advice = "") const {
    if (lines_.empty()) return;
    constexpr std::size_t kMost = 40;
    std::string text = head;
    for (std::size_t i = 0; i < lines_.size() && i < kMost; ++i) text += "\n  " + lines_[i];
    if (lines_.size() > kMost) text += "\n  and " + std::to_string(lines_.size() - kMost) + " more";
    if (!advice.empty()) text += "\n" + advice;
    throw WeightsError(text);
  }

 private:
  std::vector<std::string> lines_;
};

}  // namespace personaplex
