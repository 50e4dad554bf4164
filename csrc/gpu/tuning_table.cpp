// csrc/gpu/tuning_table.cpp: tables of tuning.h: their text, and which one a GPU gets.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "checkpoint/json.h"
#include "checkpoint/problems.h"
#include "gpu/tuning.h"

namespace personaplex::gpu {

namespace {

constexpr const char* kVariable = "PERSONAPLEX_TUNING";
constexpr std::int64_t kMostSize = std::int64_t{1} << 24;

std::string shown(const Json& value) {
  if (const std::string* s = value.string()) return json_quote(*s);
  if (const std::int64_t* i = value.integer()) return std::to_string(*i);
  return value.real() != nullptr ? std::to_string(*value.real()) : "something else";
}

/// One object of "jobs".
class Line {
 public:
  Line(const Json& line, std::string name, Problems& problems)
      : line_(line), name_(std::move(name)), problems_(problems) {}

  void expected(const std::string& key, const std::string& what) const {
    const Json* value = line_.find(key);
    problems_.add(name_ + "." + key + ": expected " + what + (value == nullptr ? "" : ", got " + shown(*value)));
  }
  bool has(const char* key) const { return line_.find(key) != nullptr; }
  std::optional<int> number(const char* key, std::int64_t most) const {
    const Json* value = line_.find(key);
    const std::int64_t* found = value == nullptr ? nullptr : value->integer();
    if (found != nullptr && *found >= 1 && *found <= most) return static_cast<int>(*found);
    expected(key, "a whole number from 1 to " + std::to_string(most));
    return {};
  }
  const std::string* text(const char* key) const {
    const Json* value = line_.find(key);
    if (value == nullptr || value->string() == nullptr) expected(key, "a string");
    return value == nullptr ? nullptr : value->string();
  }
  /// Everything else that a line has is for people, and a misspelt key is none of it.
  void check_keys() const {
    constexpr const char* kKeys[] = {"op",         "bits",  "n",      "k",  "columns", "whole",   "tile",
                                     "simdgroups", "split", "passes", "us", "rule_us", "worst_us"};
    for (const JsonMember& member : *line_.object()) {
      bool known = false;
      for (const char* key : kKeys) known = known || member.key == key;
      if (!known) problems_.add(name_ + "." + member.key + ": expected no such key");
    }
  }

 private:
  const Json& line_;
  std::string name_;
  Problems& problems_;
};

bool find_op(const std::string& name, ops::Op& found) {
  for (const TileKind& kind : tile_kinds()) {
    for (unsigned i = 0; i < 32; ++i) {
      const auto op = static_cast<ops::Op>(i);
      if ((kind.ops >> i & 1U) == 0 || ops::name_of(op) != name) continue;
      found = op;
      return true;
    }
  }
  return false;
}

const TileKind* kind_of(ops::Op op, const std::string& name, std::string& all) {
  for (const TileKind& kind : tile_kinds()) {
    if ((kind.ops >> static_cast<unsigned>(op) & 1U) == 0) continue;
    if (kind.name == name) return &kind;
    all += (all.empty() ? "" : ", ") + json_quote(kind.name);
  }
  return nullptr;
}

void read_line(const Line& line, std::vector<TunedJob>& out) {
  line.check_keys();
  const std::string* name = line.text("op");
  ops::Op op = ops::Op::kProject;
  const bool known = name != nullptr && find_op(*name, op);
  if (name != nullptr && !known) line.expected("op", "an operation that has tiles");
  const auto bits = line.number("bits", 32), n = line.number("n", kMostSize), k = line.number("k", kMostSize);
  const auto columns = line.number("columns", kMostSize);
  const auto simdgroups = line.number("simdgroups", 32), split = line.number("split", 64);
  const auto passes = line.number("passes", 64);
  const auto whole = line.has("whole") ? line.number("whole", kMostSize) : 1;
  const std::string* tile = line.text("tile");
  if (!known || tile == nullptr || !bits || !n || !k || !columns || !whole || !simdgroups || !split || !passes) return;
  std::string all;
  const TileKind* kind = kind_of(op, *tile, all);
  if (kind == nullptr) return line.expected("tile", "one of " + all);
  const TunedJob job{op, *bits, *n, *k, *columns, *whole, {kind, *simdgroups, *split, *passes}};
  const Job like{.op = op, .kernel = "", .bits = *bits, .n = *n, .k = *k, .columns = *columns, .whole = *whole};
  if (!fits(like, job.tile)) {
    return line.expected("simdgroups", "what this tile can have with this split and these passes: at most " +
                                           std::to_string(kind->most_simdgroups) +
                                           ", a multiple of the split, slots that make whole heads");
  }
  out.push_back(job);
}

std::string table_of(const std::string& family) {
  std::string hopper;
  for (const auto& [name, text] : tuning_tables()) {
    if (name == family) return text;
    if (name == "hopper") hopper = text;
  }
  return hopper;  // the nearest to other NVIDIA GPUs that was measured
}

}  // namespace

std::vector<TunedJob> parse_tuning(std::string_view text, const std::string& where) {
  const Json table = parse_json(text, "[Tuning] " + where);
  Problems problems;
  std::vector<TunedJob> out;
  const Json* jobs = table.find("jobs");
  if (jobs == nullptr || jobs->array() == nullptr) {
    problems.add("jobs: expected a list of objects");
  } else {
    for (std::size_t i = 0; i < jobs->array()->size(); ++i) {
      const Json& line = (*jobs->array())[i];
      const std::string name = "jobs[" + std::to_string(i) + "]";
      if (line.object() == nullptr) {
        problems.add(name + ": expected an object, got " + shown(line));
      } else {
        read_line(Line(line, name, problems), out);
      }
    }
  }
  problems.raise("[Tuning] " + where + " is no table of tiles:",
                 "`python bench/kernels.py --autotune` writes one; kernels/README.md says what its keys mean.");
  return out;
}

ChooseTile choose_for(const Queue& queue) {
  const char* const path = std::getenv(kVariable);
  if (path == nullptr || *path == '\0') {
    const std::string family = family_of(queue.device_name());
    return choose_by(parse_tuning(table_of(family), "the table for " + family), queue);
  }
  std::error_code error;
  std::ifstream file(path, std::ios::binary);
  if (!std::filesystem::is_regular_file(path, error) || !file.is_open()) {
    throw WeightsError(std::string("[Tuning] expected a file that can be read in ") + kVariable + ", got " + path +
                       ". Name a table that `python bench/kernels.py --autotune` wrote, or unset the variable.");
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return choose_by(parse_tuning(text, path), queue);
}

}  // namespace personaplex::gpu
