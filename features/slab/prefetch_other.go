//go:build !amd64

package slab

import "unsafe"

func prefetch(unsafe.Pointer) {}

func prefetchTwo(unsafe.Pointer) {}
