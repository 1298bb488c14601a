package features

import (
	"math"
	"math/big"
	"math/bits"
	"sort"
)

// ring is the entries of one key in one group, ascending by K, in one block of memory:
//
//	d[0]            number of entries n
//	d[1]            hint: index of the first entry with K > t
//	d[2:2+windows]  hints: index of the first entry inside each window
//	then n entries and a sentinel of stride words each: K, and for each summed column the sum of all
//	entries before this one, modulo 2^64. The sentinel has K = MaxInt64.
//
// A nil d is an empty ring.
type ring struct{ d []int64 }

// layout is what the rings of a group have in common.
type layout struct {
	header int // words before the first entry: 2 + windows
	stride int // words of an entry: 1 + summed columns
}

// ringStart is the number of entries a new ring has room for: most keys of a card stream see more.
const ringStart = 6

// walk is how many entries a cursor steps over one by one before it searches by bisection. In order, a
// cursor moves by about one entry an event.
const walk = 8

func (l layout) at(i int) int { return l.header + i*l.stride }

func (l layout) alloc() []int64 {
	d := make([]int64, l.header+l.stride, l.header+(ringStart+1)*l.stride)
	d[l.header] = math.MaxInt64
	return d
}

// seek returns the index of the first entry with K > bound, starting from cur.
func (l layout) seek(d []int64, cur int, bound int64) int {
	o := l.header + cur*l.stride
	if d[o] <= bound {
		for range walk {
			cur++
			o += l.stride
			if d[o] > bound {
				return cur
			}
		}
		return l.bisect(d, cur, int(d[0]), bound)
	}
	for range walk {
		if cur == 0 || d[o-l.stride] <= bound {
			return cur
		}
		cur--
		o -= l.stride
	}
	return l.bisect(d, 0, cur, bound)
}

// bisect finds the first index in [lo, hi] with K > bound; the entry at hi is known to have it.
func (l layout) bisect(d []int64, lo, hi int, bound int64) int {
	return lo + sort.Search(hi-lo, func(i int) bool { return d[l.at(lo+i)] > bound })
}

// insert puts in an entry; v has a value for each summed column. Entries with K <= drop are forgotten when
// room is needed.
func (l layout) insert(r *ring, k int64, v []int64, drop int64) {
	if r.d == nil {
		r.d = l.alloc()
	}
	if len(r.d)+l.stride > cap(r.d) {
		l.makeRoom(r, drop)
	}
	n := int(r.d[0])
	d := r.d[:len(r.d)+l.stride]
	r.d = d
	d[0] = int64(n + 1)
	end := l.at(n) // the sentinel, which moves up by one entry
	if n == 0 || d[end-l.stride] <= k {
		d[end] = k
		next := end + l.stride
		d[next] = math.MaxInt64
		for c, x := range v {
			d[next+1+c] = d[end+1+c] + x
		}
		return
	}
	i := l.bisect(d, 0, n-1, k) // the last entry has K > k
	o := l.at(i)
	copy(d[o+l.stride:], d[o:end+l.stride])
	d[o] = k
	for p := o + l.stride; p < len(d); p += l.stride {
		for c, x := range v {
			d[p+1+c] += x
		}
	}
	for c := 1; c < l.header; c++ {
		if int(d[c]) > i {
			d[c]++
		}
	}
}

// remove takes out one entry with that K and that value in the single summed column.
// It reports whether there was one.
func (l layout) remove(r *ring, k, v int64) bool {
	d := r.d
	if d == nil {
		return false
	}
	n := int(d[0])
	for i := l.bisect(d, 0, n, k) - 1; i >= 0; i-- {
		o := l.at(i)
		if d[o] != k {
			return false
		}
		if d[o+l.stride+1]-d[o+1] != v {
			continue
		}
		copy(d[o:], d[o+l.stride:])
		d = d[:len(d)-l.stride]
		// The entry behind came down with a sum that still counts the removed value.
		for p := o; p < len(d); p += l.stride {
			d[p+1] -= v
		}
		d[0] = int64(n - 1)
		for c := 1; c < l.header; c++ {
			if int(d[c]) > i {
				d[c]--
			}
		}
		r.d = d
		return true
	}
	return false
}

// makeRoom forgets entries with K <= drop if they are a quarter or more, else takes more memory.
func (l layout) makeRoom(r *ring, drop int64) {
	d := r.d
	n := int(d[0])
	if gone := l.bisect(d, 0, n, drop); gone*4 >= n && gone > 0 {
		copy(d[l.header:], d[l.at(gone):])
		r.d = d[:len(d)-gone*l.stride]
		d[0] = int64(n - gone)
		for c := 1; c < l.header; c++ {
			d[c] = max(0, d[c]-int64(gone))
		}
		return
	}
	r.d = make([]int64, len(d), len(d)+(n+1)*l.stride)
	copy(r.d, d)
}

// total is the sum of column c over entries [lo, hi) plus extra, as a float64. Every |value| is at most
// bound. It is the correctly rounded value of the exact sum.
func (l layout) total(d []int64, lo, hi, c int, extra int64, bound uint64) float64 {
	over, size := bits.Mul64(uint64(hi-lo+1), bound)
	if over == 0 && size <= math.MaxInt64 {
		if lo == hi {
			return float64(extra)
		}
		return float64(d[l.at(hi)+1+c] - d[l.at(lo)+1+c] + extra)
	}
	sum, x := big.NewInt(extra), new(big.Int)
	for i := lo; i < hi; i++ {
		sum.Add(sum, x.SetInt64(d[l.at(i+1)+1+c]-d[l.at(i)+1+c]))
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
