package slab

import "unsafe"

// ahead is how many entries slide compares at a time.
const ahead = 4

// Slide sets dst to the number of entries of a ring with K <= t-span for each of some rows. d holds n entries of stride
// words each, in ascending order of K, their first word, and a last one with K = math.MaxInt64. times are the rows' t,
// ascending and step words apart. lo is the number for the first row, or less. It returns the last of dst, lo without rows.
//
// From one row to the next there are none, one or a few entries more, in no order that a processor could learn: a loop that
// stops at the first greater K costs a wrong guess for each row. So a few are compared, of which the first so many are not
// greater, and how many they are is added.
func Slide(dst []int32, d []int64, stride, n int, times []int64, step int, span int64, lo int) int {
	if len(dst) == 0 {
		return lo
	}
	_ = d[lo*stride : n*stride+1 : len(d)] // the sentinel ends every search
	_ = times[(len(dst)-1)*step]
	if d[n*stride] <= times[(len(dst)-1)*step]-span {
		panic("slab: the entries have no end")
	}
	return slide(&dst[0], len(dst), &d[0], stride*wordBytes, (n+1-ahead)*stride*wordBytes, &times[0], step*wordBytes, span, lo)
}

// slidePortable is slide in Go. Strides and steps are in bytes; last is where the last entry begins that has the sentinel or an
// entry at each of the three places behind it.
func slidePortable(dst *int32, rows int, d *int64, stride, last int, times *int64, step int, span int64, lo int) int {
	k := func(o int) int64 { return *(*int64)(unsafe.Add(unsafe.Pointer(d), o)) }
	out := unsafe.Slice(dst, rows)
	o := lo * stride
	for j := range out {
		bound := *(*int64)(unsafe.Add(unsafe.Pointer(times), j*step)) - span
		for k(o) <= bound {
			lo++
			o += stride
		}
		out[j] = int32(lo)
	}
	return lo
}
