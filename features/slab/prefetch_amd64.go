package slab

import "unsafe"

//go:noescape
func prefetch(p unsafe.Pointer)

// prefetchTwo fetches the line behind it too.
//
//go:noescape
func prefetchTwo(p unsafe.Pointer)
