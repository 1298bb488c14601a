//go:build (linux || darwin) && !nocuda && !cu

package cuda

import "testing"

// FakeLibrary builds a driver library that has what Probe asks.
func FakeLibrary(t testing.TB) string { return fake(t) }
