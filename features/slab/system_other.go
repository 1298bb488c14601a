//go:build !linux

package slab

import "errors"

// system is where chunks come from: here the Go heap.
type system struct {
	anonymous int64 // bytes of chunks that are mapped without a file
	err       error
}

func newSystem(budget bool, _ string) *system {
	s := &system{}
	if budget {
		s.err = errors.New("a memory budget for the state needs Linux: leave the budget out, the state then stays in memory")
	}
	return s
}

func (s *system) chunk(bool) ([]int64, kind) { return make([]int64, chunkWords), kind{place: heap} }

func (s *system) big(words int, _ bool) ([]int64, kind) {
	return make([]int64, words), kind{place: heap}
}

func (s *system) enlarge([]int64, int) ([]int64, bool) { return nil, false }

func (s *system) release([]int64, kind) {}

func (s *system) close() {}

// Trim does nothing here but say why a budget cannot be kept.
func (a *Arena) Trim() error { return a.Err() }
