#!/usr/bin/env bash
# cu-stub.sh INCLUDE OUT: makes OUT/libcuda.so(.1), to which gorgonia.org/cu links where there is no driver.
# It has every entry point that INCLUDE/cuda.h declares, under the names its macros choose. Those of
# cuda/testdata/fakecuda.c show one device; every other answers CUDA_ERROR_NO_DEVICE (100).
set -euo pipefail
include=$1 out=$2
fake=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/cuda/testdata/fakecuda.c
mkdir -p "$out"
gcc -E -I"$include" -x c - <<<'#include <cuda.h>' | grep -oE '\bcu[A-Z][A-Za-z0-9_]*[[:space:]]*\(' | tr -d ' (' | sort -u >"$out/declared"
grep -oE '^int cu[A-Za-z0-9_]+' "$fake" | sed 's/^int //' | sort -u >"$out/faked"
comm -23 "$out/declared" "$out/faked" | sed 's/.*/int &(void) { return 100; }/' >"$out/stub.c"
gcc -shared -fPIC -w -fno-builtin -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" "$out/stub.c" "$fake"
ln -sf libcuda.so.1 "$out/libcuda.so"
echo "$(wc -l <"$out/stub.c") entry points answer 100, $(wc -l <"$out/faked") show a device"
