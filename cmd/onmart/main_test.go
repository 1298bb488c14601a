package main

import (
	"math"
	"runtime/debug"
	"testing"
)

// TestHeapFloor: who has set how the collector works gets that.
func TestHeapFloor(t *testing.T) {
	t.Setenv("GOGC", "")
	if n := len(floor()); n != heapFloor {
		t.Errorf("%d bytes, want %d", n, heapFloor)
	}
	t.Setenv("GOGC", "50")
	if floor() != nil {
		t.Error("beside GOGC")
	}
	t.Setenv("GOGC", "")
	debug.SetMemoryLimit(1 << 40)
	defer debug.SetMemoryLimit(math.MaxInt64)
	if floor() != nil {
		t.Error("beside GOMEMLIMIT")
	}
}
