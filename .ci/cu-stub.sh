#!/usr/bin/env bash
# cu-stub.sh INCLUDE OUT [LIBRARY]: makes OUT/libcuda.so(.1), to which gorgonia.org/cu links where there is no driver.
# It has every entry point that INCLUDE/cuda.h declares, under the names its macros choose. Those of LIBRARY, such as
# the emulated driver, work; without LIBRARY, those of cuda/testdata/fakecuda.c show one device. Every other
# answers CUDA_ERROR_NO_DEVICE (100). To run what was linked, put OUT in LD_LIBRARY_PATH.
set -euo pipefail
include=$1 out=$2 library=${3:-}
if (($# > 2)) && [[ ! -f $library ]]; then echo "cu-stub.sh: no library at '$library'" >&2; exit 1; fi
fake=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/cuda/testdata/fakecuda.c
mkdir -p "$out"
gcc -E -I"$include" -x c - <<<'#include <cuda.h>' | grep -oE '\bcu[A-Z][A-Za-z0-9_]*[[:space:]]*\(' | tr -d ' (' | sort -u >"$out/declared"
if [[ -n $library ]]; then
	nm -D --defined-only "$library" | awk '{print $3}' | { grep -E '^cu[A-Z]' || true; } | sort -u >"$out/there"
else
	grep -oE '^int cu[A-Za-z0-9_]+' "$fake" | sed 's/^int //' | sort -u >"$out/there"
fi
comm -23 "$out/declared" "$out/there" | sed 's/.*/int &(void) { return 100; }/' >"$out/stub.c"
rm -f "$out"/libcuda*.so*
if [[ -n $library ]]; then
	gcc -shared -fPIC -w -fno-builtin -Wl,-soname,libcuda-stub.so -o "$out/libcuda-stub.so" "$out/stub.c"
	cp "$library" "$out/libcuda.so.1"
	echo "INPUT($out/libcuda.so.1 $out/libcuda-stub.so)" >"$out/libcuda.so" # a linker script: -lcuda is both
	echo "$(wc -l <"$out/stub.c") entry points answer 100, $(wc -l <"$out/there") are those of $library"
else
	gcc -shared -fPIC -w -fno-builtin -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" "$out/stub.c" "$fake"
	ln -sf libcuda.so.1 "$out/libcuda.so"
	echo "$(wc -l <"$out/stub.c") entry points answer 100, $(wc -l <"$out/there") show a device"
fi
