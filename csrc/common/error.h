// The one exception of the core: what was expected, what came, what to try.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

namespace trimoe {

class Error : public std::runtime_error {
 public:
  Error(const std::string& what_expected, const std::string& what_came, const std::string& what_to_try)
      : std::runtime_error("trimoe: expected " + what_expected + "; got " + what_came + "; try " +
                           what_to_try),
        expected(what_expected),
        got(what_came),
        hint(what_to_try) {}

  const std::string expected, got, hint;
};

// For API edges only: inner loops trust what the edge has checked. `got` is text, a number, or a
// callable that makes the text, so that a check that holds costs one branch.
template <typename Got>
void check(bool ok, const char* expected, const Got& got, const char* hint) {
  if (ok) [[likely]]
    return;
  if constexpr (std::is_invocable_v<Got>)
    throw Error(expected, got(), hint);
  else if constexpr (std::is_arithmetic_v<Got>)
    throw Error(expected, std::to_string(got), hint);
  else
    throw Error(expected, got, hint);
}

}  // namespace trimoe
