// Package kerneltest opens the device that tests of kernels and of what runs them use: the emulator, or with
// ONMART_TEST_CUDA=1 the GPU of this machine. Tests enter; nothing of the product may import this package.
package kerneltest

import (
	"errors"
	"os"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels/emulator"
)

// hardware is the variable that takes the tests to a real GPU.
const hardware = "ONMART_TEST_CUDA"

// Hardware tells whether the tests run on a GPU.
func Hardware() bool { return os.Getenv(hardware) != "" }

// Library is the path of the driver library to test on; "" is the system's. The test is skipped where the emulator cannot
// be built for want of a compiler.
func Library(t testing.TB) string {
	t.Helper()
	if Hardware() {
		return ""
	}
	library, err := emulator.Build()
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skipf("the CUDA emulator is not tested: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return library
}

// Driver opens the driver library.
func Driver(t testing.TB) cuda.Driver {
	t.Helper()
	d, err := cuda.OpenDriver(Library(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Open opens the device with these options, on Library where they have no Driver, and closes it when the test ends. NoCache
// makes an access past a buffer an error, see cuda.Options.
func Open(t testing.TB, o cuda.Options) *cuda.Device {
	t.Helper()
	if o.Driver == nil {
		o.Library = Library(t)
	}
	d, err := cuda.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !cuda.Lost(err) {
			t.Errorf("closing the device: %v", err)
		}
	})
	return d
}
