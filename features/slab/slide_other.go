//go:build !amd64

package slab

func slide(windows *Sliding, n, rows int, d *int64, stride, last int, times *int64, step int) {
	slidePortable(windows, n, rows, d, stride, last, times, step)
}
