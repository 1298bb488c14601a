package features

import (
	"math"
	"math/big"
	"math/bits"
	"sort"
)

// maxWindows is how many windows read one ring; a group with more is cut in two. Five cursors let a ring's
// head fit in a cache line of 64 bytes.
const maxWindows = 5

// ring is the entries of one key in one group, ascending by K. The zero ring is empty.
type ring struct {
	// n entries and a sentinel of stride words each: K, and for each summed column the sum of all entries
	// before this one, modulo 2^64. The sentinel has K = MaxInt64.
	d []int64
	n int32
	// Hints: index of the first entry with K > t, and of the first entry inside each window.
	hi int32
	lo [maxWindows]int32
}

// layout is what the rings of a group have in common.
type layout struct {
	stride int // words of an entry: 1 + summed columns
}

// ringStart is the number of entries a new ring has room for: most keys of a card stream see more.
const ringStart = 6

// walk is how many entries a cursor steps over one by one before it searches by bisection. In order, a
// cursor moves by about one entry an event.
const walk = 8

// seek returns the index of the first entry with K > bound, starting from cur.
func (l layout) seek(r *ring, cur int32, bound int64) int32 {
	d, o := r.d, int(cur)*l.stride
	if d[o] <= bound {
		for range walk {
			cur++
			o += l.stride
			if d[o] > bound {
				return cur
			}
		}
		return l.bisect(r, cur, r.n, bound)
	}
	for range walk {
		if cur == 0 || d[o-l.stride] <= bound {
			return cur
		}
		cur--
		o -= l.stride
	}
	return l.bisect(r, 0, cur, bound)
}

// bisect finds the first index in [lo, hi] with K > bound; the entry at hi is known to have it.
func (l layout) bisect(r *ring, lo, hi int32, bound int64) int32 {
	return lo + int32(sort.Search(int(hi-lo), func(i int) bool { return r.d[(int(lo)+i)*l.stride] > bound }))
}

// last is the greatest K; the ring is not empty.
func (l layout) last(r *ring) int64 { return r.d[(int(r.n)-1)*l.stride] }

// insert puts in an entry; v has a value for each summed column. Entries with K <= drop are forgotten when
// room is needed.
func (l layout) insert(r *ring, k int64, v []int64, drop int64) {
	if len(r.d)+l.stride > cap(r.d) {
		l.makeRoom(r, drop)
	}
	s := l.stride
	end := int(r.n) * s // the sentinel, which moves up by one entry
	r.d = r.d[:end+2*s]
	d := r.d
	if r.n == 0 || d[end-s] <= k {
		r.n++
		d[end] = k
		d[end+s] = math.MaxInt64
		for c, x := range v {
			d[end+s+1+c] = d[end+1+c] + x
		}
		return
	}
	i := l.bisect(r, 0, r.n-1, k) // the last entry has K > k
	r.n++
	o := int(i) * s
	copy(d[o+s:], d[o:end+s])
	d[o] = k
	for p := o + s; p < len(d); p += s {
		for c, x := range v {
			d[p+1+c] += x
		}
	}
	if r.hi > i {
		r.hi++
	}
	for w := range r.lo {
		if r.lo[w] > i {
			r.lo[w]++
		}
	}
}

// makeRoom forgets entries with K <= drop if they are a quarter or more, else takes more memory.
func (l layout) makeRoom(r *ring, drop int64) {
	if r.d == nil {
		r.d = make([]int64, l.stride, (ringStart+1)*l.stride)
		r.d[0] = math.MaxInt64
		return
	}
	if gone := l.bisect(r, 0, r.n, drop); gone > 0 && gone >= r.n/4 {
		r.d = r.d[:copy(r.d, r.d[int(gone)*l.stride:])]
		r.n -= gone
		r.hi = max(0, r.hi-gone)
		for w := range r.lo {
			r.lo[w] = max(0, r.lo[w]-gone)
		}
		return
	}
	d := make([]int64, len(r.d), 2*len(r.d))
	copy(d, r.d)
	r.d = d
}

// sum is the sum of column c over entries [lo, hi), modulo 2^64.
func (l layout) sum(r *ring, lo, hi int32, c int) int64 {
	return r.d[int(hi)*l.stride+1+c] - r.d[int(lo)*l.stride+1+c]
}

// total is the sum of column c over entries [lo, hi) plus extra, as the nearest float64 of the exact sum.
// No |value| is greater than bound.
func (l layout) total(r *ring, lo, hi int32, c int, extra int64, bound uint64) float64 {
	over, size := bits.Mul64(uint64(hi-lo+1), bound)
	if over == 0 && size <= math.MaxInt64 {
		return float64(l.sum(r, lo, hi, c) + extra)
	}
	sum, x := big.NewInt(extra), new(big.Int)
	for i := lo; i < hi; i++ {
		sum.Add(sum, x.SetInt64(l.sum(r, i, i+1, c)))
	}
	f, _ := new(big.Float).SetInt(sum).Float64()
	return f
}

func magnitude(x int64) uint64 {
	if x < 0 {
		return -uint64(x)
	}
	return uint64(x)
}
