package slab

//go:noescape
func slide(dst *int32, rows int, d *int64, stride, last int, times *int64, step int, span int64, lo int) int
