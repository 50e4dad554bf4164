// csrc/checkpoint/json.h: a small strict JSON reader (RFC 8259), and the escaping that a writer needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace personaplex {

struct JsonMember;

/// A JSON value. Objects keep the order of the text. Integers that fit are int64, every other number is a double.
struct Json {
  using Array = std::vector<Json>;
  using Object = std::vector<JsonMember>;
  // Behind pointers, because a variant wants complete types; shared, because a value never changes.
  std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, std::shared_ptr<const Array>,
               std::shared_ptr<const Object>>
      value;

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value); }
  const bool* boolean() const { return std::get_if<bool>(&value); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&value); }
  const double* real() const { return std::get_if<double>(&value); }
  const std::string* string() const { return std::get_if<std::string>(&value); }
  const Array* array() const { return pointee<Array>(); }
  const Object* object() const { return pointee<Object>(); }

  /// The member of an object; nullptr when this is no object or has no such key.
  const Json* find(std::string_view key) const;

 private:
  template <typename T>
  const T* pointee() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&value);
    return pointer == nullptr ? nullptr : pointer->get();
  }
};

struct JsonMember {
  std::string key;
  Json value;
};

/// Parses the whole text as one value. Rejects duplicate keys, nesting over 64, invalid UTF-8, lone surrogates, and
/// anything after the value. Throws WeightsError `where: reason at byte N`.
Json parse_json(std::string_view text, const std::string& where);

/// `text` (UTF-8) as a JSON string, quotes included.
std::string json_quote(std::string_view text);

}  // namespace personaplex
