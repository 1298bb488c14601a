package ranking

import (
	"fmt"
	"math"
	"unsafe"
)

//go:generate go run ./internal/asm -out kernels_amd64.s -stubs kernels_amd64.go -pkg ranking

// path is how the inner loops run. Every path gives the same bits. It is a value and not a table of functions, so
// that the compiler sees that no kernel keeps its arguments, and a search needs no memory of its own.
type path uint8

const (
	portable path = iota // plain Go: the reference
	avx2                 // AVX2 and FMA
)

// choosePath detects the processor; force is the value of ONMART_CPU.
func choosePath(force string) (path, error) {
	switch {
	case force == "portable" || force == "" && !hasAVX2():
		return portable, nil
	case (force == "avx2" || force == "avx512") && !hasAVX2():
		return 0, fmt.Errorf("ranking: ONMART_CPU=%s, but this processor lacks AVX2 or FMA: unset it, or set portable", force)
	case force == "avx2" || force == "avx512" || force == "": // there are no wider kernels here
		return avx2, nil
	}
	return 0, fmt.Errorf("ranking: ONMART_CPU=%s is not known: unset it, or set avx512, avx2 or portable", force)
}

// Sizes of the micro-kernels.
const (
	panelItems  = 16 // items side by side in a panel: two vectors
	groupPanels = 4  // panels that one query is scored against at a time
	groupItems  = groupPanels * panelItems
	batchUsers  = 6 // users that are scored against a panel at a time: 6 x 16 fills 12 registers with sums
	vector      = 8 // float32 lanes
)

// batchScratch is what the batch kernel reads and writes beside users and panels.
type batchScratch struct {
	thresholds [batchUsers][vector]float32 // the threshold of each user, in every lane
	scores     [batchUsers][panelItems]float32
	masks      [2 * batchUsers]uint8 // by user and half panel: the lanes that reach the threshold
}

// search scores groups of panels against a query, each score one chain of fused multiply-adds over k from 0, until a
// group has a score of at least threshold. It returns how many groups are left after that one, whose scores are
// then in out, or -1 where there was none.
func (p path) search(panels, query []float32, groups int, threshold float32, out *[groupItems]float32) int {
	dim := len(query)
	panels = panels[:groups*groupItems*dim]
	if p == avx2 {
		return searchAVX2(panels, query, groups, threshold, out)
	}
	for left := groups - 1; left >= 0; left-- {
		hit := false
		for i := range groupPanels {
			scores := out[i*panelItems:][:panelItems]
			clear(scores)
			chain(scores, query, panels[i*panelItems*dim:][:panelItems*dim])
			for _, s := range scores {
				hit = hit || s >= threshold
			}
		}
		if hit {
			return left
		}
		panels = panels[groupItems*dim:]
	}
	return -1
}

// batch scores panels against six users, rows of users of the width dim, with the chains of search, until a score
// reaches its user's threshold. It returns how many panels are left after that one, or -1.
func (p path) batch(users, panels []float32, dim int, s *batchScratch) int {
	n := len(panels) / (panelItems * dim)
	users, panels = users[:batchUsers*dim], panels[:n*panelItems*dim]
	if n == 0 {
		return -1
	}
	if p == avx2 {
		return batchAVX2(users, panels, n, dim, s)
	}
	for left := n - 1; left >= 0; left-- {
		hit := false
		for u := range batchUsers {
			scores := &s.scores[u]
			clear(scores[:])
			chain(scores[:], users[u*dim:][:dim], panels[:panelItems*dim])
			s.masks[2*u], s.masks[2*u+1] = 0, 0
			for i, x := range scores {
				if x >= s.thresholds[u][0] {
					s.masks[2*u+i/vector] |= 1 << (i % vector)
					hit = true
				}
			}
		}
		if hit {
			return left
		}
		panels = panels[panelItems*dim:]
	}
	return -1
}

// chain adds to each sum the products of a and the rows of b, which are as wide as sums.
func chain(sums, a, b []float32) {
	for k, x := range a {
		row := b[k*len(sums):][:len(sums)]
		for j := range row {
			sums[j] = fma32(x, row[j], sums[j])
		}
	}
}

// tile adds to c, rows x cols with the stride ldc, the products of k rows of a and b: c[i*ldc+j] is one chain over
// p of a[i*rs+p*cs] * b[p*ldb+j]. Rows by cols are 4 x 16, 1 x 16 or 1 x 64.
func (p path) tile(rows, cols int, a []float32, rs, cs int, b []float32, ldb int, c []float32, ldc, k int) {
	if k == 0 {
		return
	}
	_, _, _ = a[(rows-1)*rs+(k-1)*cs], b[(k-1)*ldb+cols-1], c[(rows-1)*ldc+cols-1]
	if p == avx2 {
		tileAVX2(rows, cols, a, rs, cs, b, ldb, c, ldc, k)
		return
	}
	for i := range rows {
		sums := c[i*ldc:][:cols]
		for q := range k {
			x := a[i*rs+q*cs]
			row := b[q*ldb:][:cols]
			for j := range row {
				sums[j] = fma32(x, row[j], sums[j])
			}
		}
	}
}

// tile64 adds to c, 6 rows of 8 with the stride ldc, the products of k rows of a (6 wide) and b (8 wide); the sum is
// made apart, one chain over k from 0, and then added.
func (p path) tile64(a, b, c []float64, ldc, k int) {
	a, b = a[:6*k], b[:8*k]
	_ = c[5*ldc+7]
	if k == 0 {
		return
	}
	if p == avx2 {
		tile64AVX2(a, b, c, ldc, k)
		return
	}
	var sums [6][8]float64
	for q := range k {
		row := b[8*q:][:8]
		for i := range sums {
			x := a[6*q+i]
			for j := range row {
				sums[i][j] = math.FMA(x, row[j], sums[i][j])
			}
		}
	}
	for i := range sums {
		for j, s := range sums[i] {
			c[i*ldc+j] += s
		}
	}
}

// table is the factors that gather picks from: rows of the given width, a multiple of 8, in which every row of the
// index lies.
type table struct {
	data  []float32
	width int
}

func (t table) row(i int) []float32 { return t.data[i*t.width:][:t.width:t.width] }

// residual adds to out, for each row i of the index with its weight c_i, in order, (c_i - (c_i-1) y_i.p) y_i, the
// coefficient as one fused multiply-add c + (1-c) s. The index has a multiple of 8 rows, and its memory 8 more numbers
// after them, whatever they are: those rows are fetched ahead.
func (p path) residual(y table, index []int32, weight, v, out []float32) {
	p.gather(true, y, index, weight, v, out)
}

// product adds to out (c_i - 1) (y_i.p) y_i, as residual does.
func (p path) product(y table, index []int32, weight, v, out []float32) {
	p.gather(false, y, index, weight, v, out)
}

func (p path) gather(residual bool, y table, index []int32, weight, v, out []float32) {
	weight, v, out, _ = weight[:len(index)], v[:y.width], out[:y.width], index[:len(index)+vector]
	if len(index) == 0 {
		return
	}
	if p == avx2 {
		gatherAVX2(residual, y, index, weight, v, out)
		return
	}
	for i, r := range index {
		row := y.row(int(r))
		s, c := p.dot(row, v), weight[i]
		if residual {
			s = fma32(float32(1-c), s, c)
		} else {
			s = float32(c-1) * s
		}
		p.axpy(out, row, s)
	}
}

// dot is the inner product of two vectors of a multiple of 8 elements: lane l is a chain over elements l, l+8, ...,
// and the lanes are summed as ((0+1)+(2+3)) + ((4+5)+(6+7)).
func (p path) dot(a, b []float32) float32 {
	b = b[:len(a)]
	if len(a) == 0 {
		return 0
	}
	if p == avx2 {
		return dotAVX2(a, b)
	}
	var l [vector]float32
	for i := range a {
		l[i%vector] = fma32(a[i], b[i], l[i%vector])
	}
	return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]))
}

// axpy: y[i] += a x[i], fused, for a multiple of 8 elements.
func (p path) axpy(y, x []float32, a float32) {
	x = x[:len(y)]
	if len(y) == 0 {
		return
	}
	if p == avx2 {
		axpyAVX2(y, x, a)
		return
	}
	for i := range y {
		y[i] = fma32(a, x[i], y[i])
	}
}

// subnormal32 is the bits of the smallest normal float32, 2^-126, as a float64.
const subnormal32 = (1023 - 126) << 52

// fma32 is x*y + z rounded once to float32. The product is exact in float64. Rounding the float64 sum again can
// differ from rounding once only where that sum is a tie, by its low 29 bits, or below the normal range.
func fma32(x, y, z float32) float32 {
	s := float64(float64(x)*float64(y)) + float64(z)
	if u := math.Float64bits(s); u<<35 != 1<<63 && u<<1 >= 2*subnormal32 {
		return float32(s)
	}
	return fma32Exact(x, y, z)
}

// fma32Exact moves a sum that had to be rounded one unit towards the exact one where its last bit is even; rounding
// that to 24 bits gives what one rounding gives (rounding to odd, Boldo & Melquiond 2008).
func fma32Exact(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z)
	s := p + c
	b := s - p
	err := (p - (s - b)) + (c - b) // exact: Knuth's two-sum
	u := math.Float64bits(s)
	if (err > 0 || err < 0) && u&1 == 0 { // false for NaN, which an infinite s gives
		if (err > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return float32(math.Float64frombits(u))
}

// aligned returns n elements, 0, that begin on a cache line.
func aligned[T float32 | float64](n int) []T {
	const line = 64
	size := int(unsafe.Sizeof(T(0)))
	all := make([]T, n+line/size)
	skip := 0
	if rest := uintptr(unsafe.Pointer(unsafe.SliceData(all))) % line; rest != 0 {
		skip = (line - int(rest)) / size
	}
	return all[skip : skip+n : skip+n]
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
