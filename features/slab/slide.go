package slab

import "unsafe"

// ahead is how many entries Slide compares at a time.
const ahead = 4

// Sliding is a window that moves over a ring, row by row.
type Sliding struct {
	dst  []int32
	span int64
	lo   int
}

// NewSliding is a window of a span for as many rows as dst has: Slide sets it to the number of entries with K <= t-span. lo is
// that number for the first row, or less.
func NewSliding(dst []int32, span int64, lo int) Sliding {
	return Sliding{dst, span, lo}
}

// Last is the number for the last row.
func (w *Sliding) Last() int { return w.lo }

// Slide moves windows over the entries of a ring for each of some rows. d holds n entries of stride words each, in ascending
// order of K, their first word, and a last one with K = math.MaxInt64. times are the rows' t, ascending and step words apart.
//
// From one row to the next there are none, one or a few entries more, in no order that a processor could learn: a loop that
// stops at the first greater K costs a wrong guess for each row. So a few are compared, of which the first so many are not
// greater, and how many they are is added. Each row of a window waits for the one before; the windows do not wait for each
// other, which is why they go side by side (half the time of one after the other, with three of them).
func Slide(windows []Sliding, rows int, d []int64, stride, n int, times []int64, step int) {
	if rows == 0 || len(windows) == 0 {
		return
	}
	last := times[(rows-1)*step]
	for i := range windows {
		w := &windows[i]
		_ = w.dst[rows-1]
		_ = d[w.lo*stride : n*stride+1 : len(d)] // the sentinel ends every search
		if d[n*stride] <= last-w.span {
			panic("slab: the entries have no end")
		}
	}
	slide(&windows[0], len(windows), rows, &d[0], stride*wordBytes, (n+1-ahead)*stride*wordBytes, &times[0], step*wordBytes)
}

// slidePortable is slide in Go. Strides and steps are in bytes; last is where the last entry begins that has the sentinel or an
// entry at each of the three places behind it.
func slidePortable(windows *Sliding, n, rows int, d *int64, stride, last int, times *int64, step int) {
	k := func(o int) int64 { return *(*int64)(unsafe.Add(unsafe.Pointer(d), o)) }
	ws := unsafe.Slice(windows, n)
	for j := range rows {
		t := *(*int64)(unsafe.Add(unsafe.Pointer(times), j*step))
		for i := range ws {
			w := &ws[i]
			for k(w.lo*stride) <= t-w.span {
				w.lo++
			}
			w.dst[j] = int32(w.lo)
		}
	}
}
