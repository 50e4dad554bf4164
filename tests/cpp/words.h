// tests/cpp/words.h: what an error says, and what a text has to hold.
#pragma once

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

#include "core/error.h"

namespace personaplex {

/// The message of the DeviceError or std::invalid_argument ("invalid: ...") that f throws.
template <typename Function>
std::string words_of(const Function& f) {
  try {
    f();
  } catch (const DeviceError& e) {
    return e.what();
  } catch (const std::invalid_argument& e) {
    return std::string("invalid: ") + e.what();
  }
  return "(nothing thrown)";
}

/// Shows the text where the part is missing.
inline bool has(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE(text);
  return found;
}

}  // namespace personaplex
