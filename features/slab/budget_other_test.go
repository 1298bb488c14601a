//go:build !linux

package slab

import "testing"

func mappedBytes() (int64, bool) { return 0, false }

func TestBudgetNeedsLinux(t *testing.T) {
	a := New(1<<20, "")
	defer a.Close()
	if a.Err() == nil || a.Trim() == nil {
		t.Error("a budget is taken that cannot be kept")
	}
}
