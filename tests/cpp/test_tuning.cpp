// tests/cpp/test_tuning.cpp: which tile an operation gets: the rule, tables, their errors; and what the autotuner
// tries.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/error.h"
#include "gpu/autotune.h"
#include "gpu/tuning.h"
#include "recording_queue.h"
#include "words.h"

using namespace personaplex;
using namespace personaplex::gpu;

namespace {

Job product(std::int64_t n, std::int64_t k, int bits = 4, std::int64_t columns = 1) {
  return {.op = ops::Op::kProject,
          .kernel = bits == 16 ? "qmv_bf16_" : "qmv_b" + std::to_string(bits) + "_bf16_",
          .bits = bits,
          .n = n,
          .k = k,
          .columns = columns};
}

std::string table(const std::string& jobs) { return R"({"family": "any", "jobs": [)" + jobs + "]}"; }

std::string line(std::int64_t n, std::int64_t k, int columns, const std::string& tile, int simdgroups, int split,
                 int passes) {
  const auto text = [](auto number) { return std::to_string(number); };
  return R"({"op": "project", "bits": 4, "n": )" + text(n) + R"(, "k": )" + text(k) + R"(, "columns": )" +
         text(columns) + R"(, "tile": ")" + tile + R"(", "simdgroups": )" + text(simdgroups) + R"(, "split": )" +
         text(split) + R"(, "passes": )" + text(passes) + R"(, "us": 1.5})";
}

std::string error_of(const std::string& text) {
  try {
    parse_tuning(text, "here.json");
  } catch (const WeightsError& error) {
    return error.what();
  }
  return "";
}

struct Variable {
  explicit Variable(const std::string& value) { setenv("PERSONAPLEX_TUNING", value.c_str(), 1); }
  ~Variable() { unsetenv("PERSONAPLEX_TUNING"); }
};

}  // namespace

TEST_CASE("tuning: the rule fits whatever it is asked for") {
  std::vector<std::vector<std::string>> lists;
  const RecordingQueue queue(lists);
  for (const std::int64_t n : {2, 74, 512, 3072, 12288, 22528, 32000}) {
    for (const std::int64_t k : {32, 96, 1024, 4096, 11264}) {
      for (const int bits : {4, 8, 16}) {
        for (const std::int64_t columns : {1, 2, 8, 19, 32}) {
          Job job = product(n, k, bits, columns);
          job.even = 2;
          CHECK(fits(job, rule_for(job, queue)));
          CHECK(queue.has(job.kernel + rule_for(job, queue).name()));
          for (const int head_dim : {32, 64, 128}) {
            job.op = ops::Op::kProjectQkv;
            job.whole = head_dim;
            CHECK(fits(job, rule_for(job, queue)));
          }
          for (const ops::Op op : {ops::Op::kAttendProject, ops::Op::kLinear, ops::Op::kConv, ops::Op::kAttend}) {
            const Job other{.op = op, .kernel = "", .bits = 16, .n = n, .k = k, .columns = columns};
            CHECK(fits(other, rule_for(other, queue)));
          }
        }
      }
    }
  }
}

TEST_CASE("tuning: a table holds for sizes near its own, the nearest first, and else the rule does") {
  std::vector<std::vector<std::string>> lists;
  const RecordingQueue queue(lists);
  const auto choose =
      choose_by(parse_tuning(table(line(4096, 4096, 1, "r1_c1", 16, 2, 3) + "," +
                                   line(6000, 4096, 1, "r2_c1", 4, 4, 1) + "," + line(4096, 4096, 8, "c8", 4, 1, 2)),
                             "here"),
                queue);
  const Tile exact = choose(product(4096, 4096));
  CHECK(exact.name() == "r1_c1");
  CHECK(exact.simdgroups == 16);
  CHECK(exact.split == 2);
  CHECK(exact.passes == 3);
  CHECK(exact.slots() == 8);
  CHECK(exact.groups_x(4096) == 171);
  CHECK(choose(product(5800, 4096)).name() == "r2_c1");
  CHECK(choose(product(2048, 8192)) == exact);
  for (const Job& far : {product(2047, 4096), product(12288, 4096), product(4096, 1024), product(4096, 4096, 8)}) {
    CHECK(choose(far) == rule_for(far, queue));
  }
  CHECK(choose(product(4096, 4096, 4, 2)).simdgroups == 4);
  CHECK(choose(product(4096, 4096, 4, 32)).passes == 2);
  CHECK(choose(product(4096, 4096, 4, 19)).groups_y(19) == 3);

  Job swiglu = product(4096, 4096);  // r1_c1 with 16 / 2 has an even number of slots; 3 / 1 would not
  swiglu.even = 2;
  CHECK(choose(swiglu) == exact);
  Job int8 = product(6000, 4096);
  int8.op = ops::Op::kProjectQkv;
  int8.whole = 64;
  CHECK(choose(int8) == rule_for(int8, queue));  // the table has no qkv
  Job unknown = product(4096, 4096);
  unknown.kernel = "qmv_b5_";
  CHECK(choose(unknown) == rule_for(unknown, queue));  // no such kernel
}

TEST_CASE("tuning: whole heads of an int8 ring get passes enough") {
  std::vector<std::vector<std::string>> lists;
  const RecordingQueue queue(lists);
  std::string text = line(12288, 4096, 1, "r2_c1", 8, 1, 1);
  text.replace(text.find("project"), 7, "project_qkv");
  const auto choose = choose_by(parse_tuning(table(text), "here"), queue);
  Job job = product(12288, 4096);
  job.op = ops::Op::kProjectQkv;
  job.kernel = "qkv_b4_bf16_";
  job.even = 2;
  CHECK(choose(job).name() == "r2_c1");
  for (const int head_dim : {128, 96}) {
    job.whole = head_dim;
    CHECK(choose(job) == rule_for(job, queue));
    for (const Tile& tile : candidates(job, queue)) CHECK(tile.slots() * tile.passes % head_dim == 0);
  }
  job.whole = 128;
  text.replace(text.find("\"tile\""), 0, "\"whole\": 128, ");
  CHECK(!error_of(table(text)).empty());  // 16 slots
  text.replace(text.find("\"passes\": 1"), 11, "\"passes\": 8");
  const auto of_heads = choose_by(parse_tuning(table(text), "here"), queue);
  CHECK(of_heads(job).name() == "r2_c1");
  CHECK(of_heads(job).passes == 8);
  job.whole = 1;
  CHECK(of_heads(job) == rule_for(job, queue));
}

TEST_CASE("tuning: what is wrong with a table is said, with file and key") {
  CHECK(error_of(table(line(4096, 4096, 1, "r1_c1", 16, 2, 3))).empty());
  CHECK(has(error_of("{"), "[Tuning] here.json"));
  CHECK(has(error_of("[]"), "[Tuning] here.json is no table of tiles:\n  jobs: expected a list of objects"));
  CHECK(has(error_of(table("7")), "jobs[0]: expected an object, got 7"));
  CHECK(has(error_of(table(line(1, 1, 1, "r9", 8, 1, 1))), "jobs[0].tile: expected one of \"r1_c1\", \"r2_c1\""));
  CHECK(has(error_of(table(line(0, 1, 1, "c8", 8, 1, 1))),
            "jobs[0].n: expected a whole number from 1 to 16777216, got 0"));
  CHECK(has(error_of(table(line(1, 1, 8, "c8", 8, 2, 1))), "jobs[0].simdgroups: expected what this tile can have"));
  CHECK(has(error_of(table(line(1, 1, 1, "r4_c1", 32, 1, 1))), "at most 16, a multiple of the split"));
  std::string odd = line(1, 1, 1, "c8", 8, 1, 1);
  odd.replace(odd.find("passes"), 6, "pases\"");
  CHECK(!error_of(table(odd)).empty());
  odd = line(1, 1, 1, "c8", 8, 1, 1);
  odd.replace(odd.find("\"us\""), 4, "\"usec\"");
  CHECK(has(error_of(table(odd)), "jobs[0].usec: expected no such key"));
  odd.replace(odd.find("project"), 7, "sample");
  CHECK(has(error_of(table(odd)), "jobs[0].op: expected an operation that has tiles, got \"sample\""));
}

TEST_CASE("tuning: the embedded tables are right, and every GPU has one") {
  std::set<std::string> families;
  for (const auto& [family, text] : tuning_tables()) {
    CAPTURE(family);
    CHECK_NOTHROW(parse_tuning(text, family));
    families.insert(family);
  }
  CHECK(families.count("apple") == 1);
  CHECK(families.count("hopper") == 1);
  CHECK(family_of("Apple M2 Max") == "apple");
  CHECK(family_of("NVIDIA H200") == "hopper");
  CHECK(family_of("NVIDIA GH200 480GB") == "hopper");
  CHECK(family_of("NVIDIA GeForce RTX 4090") == "nvidia");
}

TEST_CASE("tuning: a file that the user names goes before the family's") {
  namespace fs = std::filesystem;
  std::vector<std::vector<std::string>> lists;
  const RecordingQueue queue(lists);
  const fs::path path = fs::temp_directory_path() / ("tuning-" + std::to_string(std::rand()) + ".json");
  std::ofstream(path) << table(line(512, 640, 1, "r1_c1", 2, 1, 1));
  {
    const Variable set(path.string());
    CHECK(choose_for(queue)(product(512, 640)).simdgroups == 2);
    std::ofstream(path) << "{}";
    CHECK_THROWS_AS(choose_for(queue), WeightsError);
    CHECK_THROWS_AS(GpuOps(std::make_unique<RecordingQueue>(lists)), WeightsError);
  }
  fs::remove(path);
  const Variable set(path.string());
  CHECK_THROWS_WITH_AS(choose_for(queue), doctest::Contains("PERSONAPLEX_TUNING"), WeightsError);
}

TEST_CASE("tuning: every candidate of a frame's operations can be recorded, and fits") {
  std::vector<std::vector<std::string>> lists;
  RecordingQueue queue(lists);
  std::set<std::string> ops;
  for (const int columns : {1, 8}) {
    for (const ops::Case& what : ops::tuning_cases(4, 16, 64, columns)) {
      if (ops::CaseRun::bytes(what) > 3'000'000) continue;
      CAPTURE(what.name);
      CaseTuner tuner(queue, what);
      REQUIRE(tuner.job());
      ops.insert(ops::name_of(tuner.job()->op));
      CHECK(tuner.copies() >= 2);
      CHECK(tuner.tiles().front() == rule_for(*tuner.job(), queue));
      CHECK(tuner.tiles().size() >= 2);
      for (const Tile& tile : tuner.tiles()) {
        CHECK(fits(*tuner.job(), tile));
        CHECK(tuner.distance(tile) == 0.0);  // nothing is computed here
        REQUIRE(!lists.back().empty());
        CHECK(lists.back().front().find(tile.name()) != std::string::npos);
      }
      CHECK(!tuner.time(tuner.tiles().back(), 3).empty());
      CHECK(tuner.time({}, 1).size() == 1);
      CHECK(lists.back().size() >= static_cast<std::size_t>(tuner.copies()));
    }
  }
  CHECK(ops == std::set<std::string>{"attend", "attend_project", "conv", "linear", "project", "project_qkv"});
  const ops::Case sample{.op = ops::Op::kSample, .name = "", .n = 64, .k = 3};
  CHECK(!CaseTuner(queue, sample).job());
}
