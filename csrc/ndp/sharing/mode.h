// Who may use a rank.
#pragma once

#include <array>
#include <string_view>

#include "ndp/sharing/refresh.h"

namespace trimoe::ndp {

// The host alone, the NDP core alone for a window, or both, served by the NDP's controller.
enum class Mode : uint8_t { kHost, kExclusive, kConcurrent };
inline constexpr std::array<std::string_view, 3> kModeNames = {"host", "exclusive", "concurrent"};

// Throws Error for a name that is none.
Mode mode_named(std::string_view name);

// Who refreshes the rank then.
constexpr Owner owner_in(Mode mode) { return mode == Mode::kHost ? Owner::kHost : Owner::kNdp; }

}  // namespace trimoe::ndp
