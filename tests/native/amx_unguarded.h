#pragma once

namespace trimoe::test {

// Loads a configuration of `rows` rows for all tiles, the naive way: without the barrier of amx/tile.h.
void load_config_unguarded(int rows);

}  // namespace trimoe::test
