package slab

import "unsafe"

// Prefetch tells the processor that the word is wanted soon. It waits for nothing and changes nothing.
func Prefetch(w *int64) { prefetch(unsafe.Pointer(w)) }
