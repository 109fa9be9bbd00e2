// The exceptions of the core: what was expected, what came and, where anything helps, what to try.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace trimoe {

// Bad input. Python's InputError.
class Error : public std::runtime_error {
 public:
  Error(const std::string& what_expected, const std::string& what_came, const std::string& what_to_try = "")
      : std::runtime_error("trimoe: expected " + what_expected + "; got " + what_came +
                           (what_to_try.empty() ? "" : "; try " + what_to_try)),
        expected(what_expected),
        got(what_came),
        hint(what_to_try) {}

  const std::string expected, got, hint;
};

// A fault of the system, a device, a policy or our own, that other input does not mend. Python's
// FailureError.
class Failure : public Error {
 public:
  using Error::Error;
};

// A name that is none of those there are. Python's InputError, whose hint is the one written most like it.
class UnknownName : public Error {
 public:
  UnknownName(const std::string& what, const std::string& name, std::vector<std::string> all)
      : Error(what + " out of " + joined(all), name), names(std::move(all)) {}

  const std::vector<std::string> names;

 private:
  static std::string joined(const std::vector<std::string>& all) {
    std::string text;
    for (const std::string& one : all) text += (text.empty() ? "" : ", ") + one;
    return text;
  }
};

// For API edges only: inner loops trust what the edge has checked. `got` is text, a number, or a
// callable that makes the text, so that a check that holds costs one branch.
template <typename Thrown = Error, typename Got>
void check(bool ok, const char* expected, const Got& got, const char* hint = "") {
  if (ok) [[likely]]
    return;
  if constexpr (std::is_invocable_v<Got>)
    throw Thrown(expected, got(), hint);
  else if constexpr (std::is_arithmetic_v<Got>)
    throw Thrown(expected, std::to_string(got), hint);
  else
    throw Thrown(expected, got, hint);
}

}  // namespace trimoe
