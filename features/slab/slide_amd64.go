package slab

//go:noescape
func slide(windows *Sliding, n, rows int, d *int64, stride, last int, times *int64, step int)
