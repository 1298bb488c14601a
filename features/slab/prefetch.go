package slab

import "unsafe"

// Prefetch tells the processor that the word is wanted soon. It waits for nothing and changes nothing.
func Prefetch(w *int64) { prefetch(unsafe.Pointer(w)) }

// Prefetch does it for the first 128 bytes of a block; 0 is none.
func (a *Arena) Prefetch(r Ref) {
	if r != 0 {
		prefetchTwo(unsafe.Pointer(&a.from(r)[0]))
	}
}
