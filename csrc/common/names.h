// Values that have names, by their place in a list.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/error.h"

namespace trimoe {

// Where the one of that name is; UnknownName where none is. what: the list is of, with an article; name_of:
// of an element.
template <typename List, typename NameOf = std::identity>
size_t index_of(const List& list, std::string_view name, const char* what, const NameOf& name_of = {}) {
  std::vector<std::string> names;
  for (const auto& one : list) {
    names.emplace_back(std::invoke(name_of, one));
    if (names.back() == name) return names.size() - 1;
  }
  throw UnknownName(what, std::string(name), std::move(names));
}

}  // namespace trimoe
