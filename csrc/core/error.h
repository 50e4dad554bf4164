// csrc/core/error.h: the typed errors of the library; every message reads `[Where] what was expected, what came.`
#pragma once

#include <stdexcept>
#include <string>

namespace personaplex {

/// Base of every error of this library that is not a plain bad argument.
/// Bad arguments throw std::invalid_argument (ValueError in Python).
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A checkpoint, voice, snapshot or tuning file is missing, malformed, or does not fit the model.
struct WeightsError : Error {
  using Error::Error;
};

/// A session is used in a state that does not allow it: poisoned, closed, unprompted, or busy in another thread.
struct StreamError : Error {
  using Error::Error;
};

/// A device is absent or cannot be used from here: no GPU, unloaded model, forked child.
struct DeviceError : Error {
  using Error::Error;
};

/// Work was cancelled by the caller (Ctrl-C or a cancellation token); no result exists.
struct Cancelled : Error {
  using Error::Error;
};

[[noreturn]] inline void bad_argument(const std::string& where, const std::string& what) {
  throw std::invalid_argument("[" + where + "] " + what);
}

}  // namespace personaplex
