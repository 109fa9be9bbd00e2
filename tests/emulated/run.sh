#!/usr/bin/env bash
# The C++ core on processors that this machine is not, under qemu's user-mode emulation: aarch64, and
# x86-64 without AVX and without AVX-512. Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static
set -euo pipefail
cd "$(dirname "$0")/../.."
out=build/emulated
mkdir -p "$out"
common=(-std=c++20 -O2 -static -pthread -Icsrc csrc/common/*.cpp csrc/cpu/*.cpp csrc/cpu/ref/*.cpp tests/emulated/core_check.cpp)
aarch64-linux-gnu-g++ "${common[@]}" -o "$out/aarch64"
qemu-aarch64-static "$out/aarch64" | tee "$out/log"
avx512=(-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma)
compile() { g++ -std=c++20 -O3 -w -Icsrc -c "$1" -o "$out/$2.o" "${@:3}"; }
compile csrc/cpu/avx2/kernels.cpp avx2 -mavx2 -mfma
compile csrc/cpu/avx512/kernels.cpp avx512 "${avx512[@]}"
compile csrc/cpu/avx512/kernels_bf16_dot.cpp avx512_bf16 "${avx512[@]}" -mavx512bf16
compile csrc/amx/gemm_bf16.cpp amx "${avx512[@]}" -mamx-tile -mamx-bf16
g++ "${common[@]}" csrc/cpu/x86/*.cpp "$out"/*.o -o "$out/x86_64"
for cpu in Nehalem Haswell; do qemu-x86_64-static -cpu "$cpu" "$out/x86_64" | tee -a "$out/log"; done
grep -q 'aarch64, entry ref' "$out/log"
grep -q 'x86_64, entry ref' "$out/log"
grep -q 'x86_64, entry avx2' "$out/log"
