// csrc/checkpoint/json.cpp: recursive descent over the bytes, one function per JSON production.
#include "checkpoint/json.h"

#include <charconv>
#include <locale>
#include <set>
#include <sstream>
#include <utility>

#include "core/error.h"

namespace personaplex {

namespace {

constexpr int kMaxDepth = 64;

/// Length of the valid UTF-8 sequence at `at`, 0 when there is none (overlong, surrogate, above U+10FFFF, cut off).
std::size_t utf8_length(std::string_view text, std::size_t at) {
  auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
  };
  auto continues = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned lead = byte(0);
  if (lead < 0x80U) return 1;
  if (lead >= 0xC2U && lead <= 0xDFU) return continues(1) ? 2 : 0;
  if (lead >= 0xE0U && lead <= 0xEFU) {
    if (!continues(1) || !continues(2)) return 0;
    if (lead == 0xE0U && byte(1) < 0xA0U) return 0;
    if (lead == 0xEDU && byte(1) > 0x9FU) return 0;
    return 3;
  }
  if (lead >= 0xF0U && lead <= 0xF4U) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (lead == 0xF0U && byte(1) < 0x90U) return 0;
    if (lead == 0xF4U && byte(1) > 0x8FU) return 0;
    return 4;
  }
  return 0;
}

void append_utf8(std::string& out, unsigned code) {
  auto put = [&](unsigned byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80U) {
    put(code);
  } else if (code < 0x800U) {
    put(0xC0U | (code >> 6));
    put(0x80U | (code & 0x3FU));
  } else if (code < 0x10000U) {
    put(0xE0U | (code >> 12));
    put(0x80U | ((code >> 6) & 0x3FU));
    put(0x80U | (code & 0x3FU));
  } else {
    put(0xF0U | (code >> 18));
    put(0x80U | ((code >> 12) & 0x3FU));
    put(0x80U | ((code >> 6) & 0x3FU));
    put(0x80U | (code & 0x3FU));
  }
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Json document() {
    Json result = value(0);
    skip_space();
    if (at_ != text_.size()) fail("expected the end of the text");
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const {
    throw WeightsError(where_ + ": invalid JSON: " + reason + " at byte " + std::to_string(at_) + ".");
  }

  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }

  void skip_space() {
    while (more() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }

  bool take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!take(c)) fail(std::string("expected '") + c + "'");
  }

  void word(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) fail("expected a value");
    at_ += expected.size();
  }

  Json value(int depth) {
    if (depth > kMaxDepth) fail("nesting deeper than " + std::to_string(kMaxDepth));
    skip_space();
    switch (peek()) {
      case '{':
        return Json{std::make_shared<const Json::Object>(object(depth))};
      case '[':
        return Json{std::make_shared<const Json::Array>(array(depth))};
      case '"':
        return Json{string()};
      case 't':
        word("true");
        return Json{true};
      case 'f':
        word("false");
        return Json{false};
      case 'n':
        word("null");
        return Json{nullptr};
      default:
        return number();
    }
  }

  Json::Object object(int depth) {
    Json::Object members;
    std::set<std::string> keys;
    expect('{');
    skip_space();
    if (take('}')) return members;
    do {
      skip_space();
      if (peek() != '"') fail("expected a key");
      const std::size_t start = at_;
      std::string key = string();
      if (!keys.insert(key).second) {
        at_ = start;
        fail("duplicate key " + json_quote(key));
      }
      skip_space();
      expect(':');
      members.push_back({std::move(key), value(depth + 1)});
      skip_space();
    } while (take(','));
    expect('}');
    return members;
  }

  Json::Array array(int depth) {
    Json::Array items;
    expect('[');
    skip_space();
    if (take(']')) return items;
    do {
      items.push_back(value(depth + 1));
      skip_space();
    } while (take(','));
    expect(']');
    return items;
  }

  std::string string() {
    std::string out;
    expect('"');
    for (;;) {
      if (!more()) fail("string without end");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return out;
      }
      if (static_cast<unsigned char>(c) < 0x20U) fail("control character in a string");
      if (c == '\\') {
        ++at_;
        escape(out);
        continue;
      }
      const std::size_t length = utf8_length(text_, at_);
      if (length == 0) fail("invalid UTF-8");
      out.append(text_.substr(at_, length));
      at_ += length;
    }
  }

  void escape(std::string& out) {
    const char c = peek();
    ++at_;
    switch (c) {
      case '"':
        out.push_back('"');
        return;
      case '\\':
        out.push_back('\\');
        return;
      case '/':
        out.push_back('/');
        return;
      case 'b':
        out.push_back('\b');
        return;
      case 'f':
        out.push_back('\f');
        return;
      case 'n':
        out.push_back('\n');
        return;
      case 'r':
        out.push_back('\r');
        return;
      case 't':
        out.push_back('\t');
        return;
      case 'u':
        append_utf8(out, escaped_code_point());
        return;
      default:
        --at_;
        fail("unknown escape");
    }
  }

  unsigned escaped_code_point() {
    const unsigned first = hex4();
    if (first >= 0xDC00U && first <= 0xDFFFU) fail("lone surrogate");
    if (first < 0xD800U || first > 0xDBFFU) return first;
    if (!take('\\') || !take('u')) fail("lone surrogate");
    const unsigned second = hex4();
    if (second < 0xDC00U || second > 0xDFFFU) fail("lone surrogate");
    return 0x10000U + ((first - 0xD800U) << 10) + (second - 0xDC00U);
  }

  unsigned hex4() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = peek();
      unsigned digit = 0;
      if (c >= '0' && c <= '9') {
        digit = static_cast<unsigned>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        digit = static_cast<unsigned>(c - 'a') + 10U;
      } else if (c >= 'A' && c <= 'F') {
        digit = static_cast<unsigned>(c - 'A') + 10U;
      } else {
        fail("expected four hexadecimal digits");
      }
      code = code * 16U + digit;
      ++at_;
    }
    return code;
  }

  void digits() {
    if (peek() < '0' || peek() > '9') fail("expected a value");
    while (peek() >= '0' && peek() <= '9') ++at_;
  }

  Json number() {
    const std::size_t start = at_;
    bool whole = true;
    take('-');
    if (!take('0')) digits();
    if (take('.')) {
      whole = false;
      digits();
    }
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) take('-');
      digits();
    }
    const std::string_view digits_text = text_.substr(start, at_ - start);
    if (whole) {
      std::int64_t integer = 0;
      const char* end = digits_text.data() + digits_text.size();
      if (std::from_chars(digits_text.data(), end, integer).ec == std::errc()) return Json{integer};
    }
    // A stream in the classic locale: strtod follows the process's locale, and not every libc++ has from_chars for
    // double.
    std::istringstream stream{std::string(digits_text)};
    stream.imbue(std::locale::classic());
    double real = 0.0;
    if (!(stream >> real)) {
      at_ = start;
      fail("number out of range");
    }
    return Json{real};
  }

  std::string_view text_;
  const std::string& where_;
  std::size_t at_ = 0;
};

}  // namespace

const Json* Json::find(std::string_view key) const {
  if (const Object* members = object()) {
    for (const JsonMember& member : *members) {
      if (member.key == key) return &member.value;
    }
  }
  return nullptr;
}

Json parse_json(std::string_view text, const std::string& where) { return Parser(text, where).document(); }

std::string json_quote(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte < 0x20U) {
      out += "\\u00";
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 0xFU]);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

}  // namespace personaplex
