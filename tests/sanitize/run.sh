#!/usr/bin/env bash
# The core under the compiler's sanitizers: memory and undefined behaviour in one build, data races in
# another. Every kernel that this machine can run computes every format. Needs cmake and ninja.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/sanitize
for kind in address,undefined thread; do
  tree=build/sanitize/${kind%%,*}
  # -O1: checked code of the unrolled kernels takes the compiler four times as long at -O3.
  cmake -G Ninja -S tests/core -B "$tree" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTRIMOE_KERNEL_OPTIMIZATION=-O1 \
    -DCMAKE_CXX_FLAGS="-fsanitize=$kind -fno-sanitize-recover=all -fno-omit-frame-pointer -g1" >"$tree.log" ||
    { cat "$tree.log"; exit 1; }
  cmake --build "$tree" --target core_check race_check runtime_check
  "$tree/core_check"
  "$tree/race_check"
  "$tree/runtime_check"
done
