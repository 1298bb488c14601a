// Command libcuda makes the emulated CUDA driver and prints its path, so that the CUDA path can be tried without a GPU:
//
//	ONMART_LIBCUDA=$(go run ./cuda/kernels/emulator/libcuda) onmart devices
//
// With -o DIR it is copied to DIR/libcuda.so.1, which a program that looks for the driver in LD_LIBRARY_PATH finds.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/onmart/onmart/cuda/kernels/emulator"
)

func main() {
	dir := flag.String("o", "", "copy the library to `DIR`/libcuda.so.1 and print that path")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "libcuda: unexpected argument %q; usage: libcuda [-o DIR]\n", flag.Arg(0))
		os.Exit(2)
	}
	path, err := library(*dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "libcuda:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

func library(dir string) (string, error) {
	path, err := emulator.Build()
	if err != nil || dir == "" {
		return path, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	to := filepath.Join(dir, "libcuda.so.1")
	part := to + ".part"
	if err := os.WriteFile(part, content, 0o755); err != nil {
		return "", err
	}
	return to, os.Rename(part, to)
}
