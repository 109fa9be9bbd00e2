// The one exception of the core: what was expected, what came, what to try.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace trimoe {

class Error : public std::runtime_error {
 public:
  Error(const std::string& expected, const std::string& got, const std::string& hint)
      : std::runtime_error("trimoe: expected " + expected + "; got " + got + "; try " + hint) {}
};

// For API edges only: inner loops trust what the edge has checked.
inline void check(bool ok, const char* expected, const std::string& got, const char* hint) {
  if (!ok) [[unlikely]]
    throw Error(expected, got, hint);
}

inline void check(bool ok, const char* expected, int64_t got, const char* hint) {
  if (!ok) [[unlikely]]
    throw Error(expected, std::to_string(got), hint);
}

}  // namespace trimoe
