//go:build !amd64

package slab

func slide(dst *int32, rows int, d *int64, stride, last int, times *int64, step int, span int64, lo int) int {
	return slidePortable(dst, rows, d, stride, last, times, step, span, lo)
}
