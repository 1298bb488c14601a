package slab

import "testing"

func TestSizeWithIsTheSizeAfterAdd(t *testing.T) {
	a := New(0, "")
	var s Set
	for i := range int64(3 * SetExact) {
		v := i * i % 1777 * (i%3 - 1)
		want := s.SizeWith(a, v)
		s.Add(a, v)
		if got := s.Size(a); got != want {
			t.Fatalf("value %d: %v, then %v", i, want, got)
		}
	}
	for i := range int64(9000) {
		v := i * 7919
		want := s.SizeWith(a, v)
		s.Add(a, v)
		if got := s.Size(a); got != want {
			t.Fatalf("sketch, value %d: %v, then %v", i, want, got)
		}
	}
}
