// tests/cpp/test_checkpoint_json.cpp: what the JSON reader accepts, and where it says an error is.
#include <doctest/doctest.h>

#include "checkpoint/json.h"
#include "test_checkpoint_files.h"

using namespace personaplex;
using personaplex::testing::contains;
using personaplex::testing::message_of;

TEST_CASE("json: values, order and number types") {
  const Json json =
      parse_json(R"( {"b": [1, -2.5, 1e3, true, false, null], "a": {"x": "y"}, "big": 9223372036854775808} )", "t");
  REQUIRE(json.object() != nullptr);
  CHECK(json.object()->at(0).key == "b");
  CHECK(json.object()->at(1).key == "a");
  const Json::Array& list = *json.find("b")->array();
  CHECK(*list[0].integer() == 1);
  CHECK(*list[1].real() == -2.5);
  CHECK(*list[2].real() == 1000.0);
  CHECK(*list[3].boolean());
  CHECK_FALSE(*list[4].boolean());
  CHECK(list[5].is_null());
  CHECK(*json.find("a")->find("x")->string() == "y");
  CHECK(*json.find("big")->real() == 9223372036854775808.0);
  CHECK(json.find("absent") == nullptr);
  CHECK(list[0].find("key of a number") == nullptr);
}

TEST_CASE("json: escapes and UTF-8 survive quoting") {
  const Json json = parse_json(R"("\u0041\u00e9\u20ac\ud83d\ude00\n\"\\\/ é")", "t");
  CHECK(*json.string() == "Aé€\xF0\x9F\x98\x80\n\"\\/ é");
  const std::string odd = "tab\t quote\" slash\\ nul" + std::string(1, '\0') + " é";
  CHECK(*parse_json(json_quote(odd), "t").string() == odd);
}

TEST_CASE("json: malformed texts are refused") {
  const std::vector<std::string> bad = {"",
                                        " ",
                                        "{",
                                        "[1,]",
                                        "[1 2]",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{\"a\":1,}",
                                        "{a:1}",
                                        "'a'",
                                        "01",
                                        "1.",
                                        ".5",
                                        "-",
                                        "1e",
                                        "+1",
                                        "nul",
                                        "truee",
                                        "NaN",
                                        "Infinity",
                                        "\"",
                                        "\"\\x\"",
                                        "\"\\u12g4\"",
                                        "\"\\ud800\"",
                                        "\"\\udc00\"",
                                        "\"\\ud800\\u0041\"",
                                        "\"\t\"",
                                        "\"\xC3\"",
                                        "\"\xC0\xAF\"",
                                        "\"\xED\xA0\x80\"",
                                        "\"\xF4\x90\x80\x80\"",
                                        "\"\xFF\"",
                                        "1 1",
                                        "1e999",
                                        "\xEF\xBB\xBF{}",
                                        std::string("{}\0", 3),
                                        "{\"a\":1,\"a\":2}",
                                        "{\"a\":1,\"\\u0061\":2}"};
  for (const std::string& text : bad) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_json(text, "t"), WeightsError);
  }
  CHECK(contains(message_of<WeightsError>([] { parse_json("{\"a\": 1, \"a\": 2}", "file.json"); }),
                 "file.json: invalid JSON: duplicate key \"a\" at byte 9"));
}

TEST_CASE("json: nesting is limited, not the stack") {
  CHECK_NOTHROW(parse_json(std::string(64, '[') + std::string(64, ']'), "t"));
  CHECK_THROWS_AS(parse_json(std::string(66, '[') + std::string(66, ']'), "t"), WeightsError);
  CHECK_THROWS_AS(parse_json(std::string(1'000'000, '['), "t"), WeightsError);
}

TEST_CASE("json: every prefix and every single-byte change either parses or throws WeightsError") {
  const std::string text = R"({"k":[1,-2.5e3,"é\u20ac",{"n":null}],"t":true})";
  for (std::size_t i = 0; i < text.size(); ++i) {
    CHECK_THROWS_AS(parse_json(text.substr(0, i), "t"), WeightsError);
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = text;
      changed[i] = static_cast<char>(byte);
      try {
        parse_json(changed, "t");
      } catch (const WeightsError&) {
      }
    }
  }
}
