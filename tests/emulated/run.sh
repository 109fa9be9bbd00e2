#!/usr/bin/env bash
# The C++ core on processors that this machine is not, under qemu's user-mode emulation: aarch64, and
# x86-64 without AVX and without AVX-512. Needs cmake and ninja, and of Debian:
#   apt-get install g++-aarch64-linux-gnu qemu-user-static
set -euo pipefail
cd "$(dirname "$0")/../.."
out=build/emulated
mkdir -p "$out"
: >"$out/log"

build() { # folder, options of cmake
  cmake -G Ninja -S tests/core -B "$out/$1" -DCMAKE_BUILD_TYPE=Release "${@:2}" >"$out/$1.log" ||
    { cat "$out/$1.log"; exit 1; }
  cmake --build "$out/$1" --target core_check
}

build aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
qemu-aarch64-static -L /usr/aarch64-linux-gnu "$out/aarch64/core_check" | tee -a "$out/log"
build x86_64
for cpu in Nehalem Haswell; do
  qemu-x86_64-static -cpu "$cpu" "$out/x86_64/core_check" | tee -a "$out/log"
done
for expected in 'aarch64, chosen entry ref' 'x86_64, chosen entry ref' 'x86_64, chosen entry avx2'; do
  grep -q "$expected: .* 0 failures" "$out/log" || { echo "expected $expected; got $out/log"; exit 1; }
done
