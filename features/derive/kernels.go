package derive

import (
	"cmp"
	"math"
	"math/bits"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The kernels go over one block. Slices of equal length are cut to that of the result, so that the compiler drops the
// bounds checks.

type number interface{ int64 | float64 }

// b2i compiles to a flag, without a branch.
func b2i(c bool) int64 {
	var v int64
	if c {
		v = 1
	}
	return v
}

// Whole numbers. These return whether some row left 64 bits; the mask is then made by the slow pass of `overflowed`.

func addI(d, a, b []int64) bool {
	a, b = a[:len(d)], b[:len(d)]
	var over int64
	for i := range d {
		x, y := a[i], b[i]
		s := x + y
		over |= (s ^ x) & (s ^ y)
		d[i] = s
	}
	return over < 0
}

func subI(d, a, b []int64) bool {
	a, b = a[:len(d)], b[:len(d)]
	var over int64
	for i := range d {
		x, y := a[i], b[i]
		s := x - y
		over |= (x ^ y) & (s ^ x)
		d[i] = s
	}
	return over < 0
}

func mulI(d, a, b []int64) bool {
	a, b = a[:len(d)], b[:len(d)]
	var over int64
	for i := range d {
		over |= mulHigh(a[i], b[i])
		d[i] = a[i] * b[i]
	}
	return over != 0
}

// mulHigh is 0 where the product has 64 bits.
func mulHigh(x, y int64) int64 {
	hi, lo := bits.Mul64(uint64(x), uint64(y))
	high := int64(hi) - (x>>63)&y - (y>>63)&x // of the signed product
	return high ^ int64(lo)>>63
}

// modI is Go's %; a remainder by zero is over.
func modI(d, a, b []int64) bool {
	a, b = a[:len(d)], b[:len(d)]
	over := false
	for i := range d {
		if b[i] == 0 {
			d[i], over = 0, true
			continue
		}
		d[i] = a[i] % b[i]
	}
	return over
}

func negI(d, a []int64) bool {
	a = a[:len(d)]
	over := false
	for i, x := range a {
		over = over || x == math.MinInt64
		d[i] = -x
	}
	return over
}

func absI(d, a []int64) bool {
	a = a[:len(d)]
	over := false
	for i, x := range a {
		over = over || x == math.MinInt64
		d[i] = (x ^ x>>63) - x>>63
	}
	return over
}

// overflowed marks the rows in which the operation left 64 bits.
func overflowed(o op, mask []uint8, a, b []int64) {
	for i := range mask {
		var over bool
		switch x := a[i]; o {
		case opAddI:
			s := x + b[i]
			over = (s^x)&(s^b[i]) < 0
		case opSubI:
			over = (x^b[i])&((x-b[i])^x) < 0
		case opMulI:
			over = mulHigh(x, b[i]) != 0
		case opModI:
			over = b[i] == 0
		default:
			over = x == math.MinInt64
		}
		if over {
			mask[i] |= undefined
		}
	}
}

func least[T number](d, a, b []T) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = min(a[i], b[i])
	}
}

func greatest[T number](d, a, b []T) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = max(a[i], b[i])
	}
}

// float64.

func addF(d, a, b []float64) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = a[i] + b[i]
	}
}

func subF(d, a, b []float64) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = a[i] - b[i]
	}
}

func mulF(d, a, b []float64) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = a[i] * b[i]
	}
}

func divF(d, a, b []float64) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = a[i] / b[i]
	}
}

func powF(d, a, b []float64) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = pow(a[i], b[i])
	}
}

// pow is math.Pow, which of a square is the product, rounded once, wherever that is neither tiny nor huge.
func pow(x, y float64) float64 {
	if m := math.Abs(x); y == 2 && m > 1e-150 && m < 1e150 {
		return x * x
	}
	return math.Pow(x, y)
}

func mapF(d, a []float64, o op) {
	a = a[:len(d)]
	switch o {
	case opNegF:
		for i, x := range a {
			d[i] = -x
		}
	case opAbsF:
		for i, x := range a {
			d[i] = math.Abs(x)
		}
	case opCeilF:
		for i, x := range a {
			d[i] = math.Ceil(x)
		}
	case opFloorF:
		for i, x := range a {
			d[i] = math.Floor(x)
		}
	case opRoundF:
		for i, x := range a {
			d[i] = math.Round(x)
		}
	case opSqrtF:
		for i, x := range a {
			d[i] = math.Sqrt(x)
		}
	case opLogF:
		for i, x := range a {
			d[i] = math.Log(x)
		}
	case opExpF:
		for i, x := range a {
			d[i] = math.Exp(x)
		}
	case opLog1pF:
		for i, x := range a {
			d[i] = log1p(x)
		}
	}
}

// log1p is ln(1+x), and 0 below 0; what is not finite stays so.
func log1p(x float64) float64 {
	if x < 0 && finite(x) {
		return 0
	}
	return math.Log1p(x)
}

func finite(x float64) bool { return x-x == 0 }

// Conversions.

func floatI(d []float64, a []int64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = float64(x)
	}
}

func decimalI(d []float64, a []int64, unit float64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = float64(x) / unit
	}
}

// intF cuts towards zero and tells whether some row has no such number.
func intF(d []int64, a []float64) bool {
	a = a[:len(d)]
	over := false
	for i, x := range a {
		if !fitsInt(x) {
			over = true
			d[i] = 0
			continue
		}
		d[i] = int64(x)
	}
	return over
}

func fitsInt(x float64) bool { return x >= -0x1p63 && x < 0x1p63 }

func boolI(d, a []int64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = b2i(x != 0)
	}
}

// spanI is the difference of two times in seconds.
func spanI(d []float64, a, b []int64) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		x, y := a[i], b[i]
		s := x - y
		if (x^y)&(s^x) < 0 {
			d[i] = (float64(x) - float64(y)) / 1e6
			continue
		}
		d[i] = float64(s) / 1e6
	}
}

// toScale rounds to a whole number of units, half to even. It is exact: the product's rounding matters only where it
// makes a half, and the fused product says then which side the number is on. ok is false beyond 18 digits.
func toScale(x, scale float64) (v int64, ok bool) {
	y := x * scale
	r := math.RoundToEven(y)
	if math.Abs(y-r) == 0.5 {
		if e := math.FMA(x, scale, -y); e > 0 {
			r = math.Ceil(y)
		} else if e < 0 {
			r = math.Floor(y)
		}
	}
	if !(math.Abs(r) < 1e18) {
		return 0, false
	}
	return int64(r), true
}

// Comparisons.

func equal[T comparable](d []int64, a, b []T) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = b2i(a[i] == b[i])
	}
}

func unequal[T comparable](d []int64, a, b []T) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = b2i(a[i] != b[i])
	}
}

func less[T cmp.Ordered](d []int64, a, b []T) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = b2i(a[i] < b[i])
	}
}

func atMost[T cmp.Ordered](d []int64, a, b []T) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = b2i(a[i] <= b[i])
	}
}

// Conditions.

func and(d, a, b []int64) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = a[i] & b[i]
	}
}

func or(d, a, b []int64) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = a[i] | b[i]
	}
}

func not(d, a []int64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = 1 - x
	}
}

// choose takes b where the condition holds and c elsewhere.
func choose[T any](d []T, when []int64, b, c []T) {
	when, b, c = when[:len(d)], b[:len(d)], c[:len(d)]
	for i := range d {
		x := c[i]
		if when[i] != 0 {
			x = b[i]
		}
		d[i] = x
	}
}

// Sets. A short one is gone through, a long one looked up.

func inI(d, a []int64, t *table) {
	a = a[:len(d)]
	if t.intSet != nil {
		for i, x := range a {
			d[i] = t.intSet[x]
		}
		return
	}
	for i, x := range a {
		var v int64
		for _, y := range t.ints {
			v |= b2i(x == y)
		}
		d[i] = v
	}
}

func inF(d []int64, a []float64, t *table) {
	a = a[:len(d)]
	for i, x := range a {
		k := countAtMost(t.floats, x)
		d[i] = b2i(k > 0 && t.floats[k-1] == x)
	}
}

func inS(d []int64, a []string, t *table) {
	a = a[:len(d)]
	if t.textSet != nil {
		for i, x := range a {
			d[i] = t.textSet[x]
		}
		return
	}
	for i, x := range a {
		var v int64
		for _, y := range t.texts {
			if x == y {
				v = 1
			}
		}
		d[i] = v
	}
}

// countAtMost is how many of the ascending edges are at most x.
func countAtMost(edges []float64, x float64) int {
	if len(edges) <= 16 {
		var n int64
		for _, e := range edges {
			n += b2i(e <= x)
		}
		return int(n)
	}
	lo, hi := 0, len(edges)
	for lo < hi {
		if m := int(uint(lo+hi) >> 1); edges[m] <= x {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// binsF tells whether some row is not finite.
func binsF(d []int64, a []float64, edges []float64) bool {
	a = a[:len(d)]
	bad := false
	for i, x := range a {
		bad = bad || !finite(x)
		d[i] = int64(countAtMost(edges, x))
	}
	return bad
}

func clipI(d, a []int64, lo, hi int64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = min(max(x, lo), hi)
	}
}

// clipF leaves what is not finite as not a number.
func clipF(d, a []float64, lo, hi float64) {
	a = a[:len(d)]
	for i, x := range a {
		if !finite(x) {
			d[i] = math.NaN()
			continue
		}
		d[i] = min(max(x, lo), hi)
	}
}

func lookF(d []float64, a []int64, t []float64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = t[x]
	}
}

func vocabularyI(d, a []int64, m map[int64]int64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = m[x]
	}
}

func vocabularyS(d []int64, a []string, m map[string]int64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = m[x]
	}
}

func hashI(d, a []int64, buckets uint64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = int64(hashInt(x) % buckets)
	}
}

func hashS(d []int64, a []string, buckets uint64) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = int64(Hash(x) % buckets)
	}
}

// Texts.

func relate(d []int64, a, b []string, f func(a, b string) bool) {
	a, b = a[:len(d)], b[:len(d)]
	for i := range d {
		d[i] = b2i(f(a[i], b[i]))
	}
}

func matches(d []int64, a []string, t *table) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = b2i(t.re.MatchString(x))
	}
}

func measure(d []int64, a []string, f func(string) int) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = int64(f(x))
	}
}

func trim(d, a []string) {
	a = a[:len(d)]
	for i, x := range a {
		d[i] = strings.TrimSpace(x)
	}
}

// recase writes texts in another case behind those in buf, and returns it. A text that stays the same is not copied.
func recase(d, a []string, buf []byte, to func(rune) rune) []byte {
	a = a[:len(d)]
	for i, x := range a {
		if same(x, to) {
			d[i] = x
			continue
		}
		from := len(buf)
		for _, r := range x { // what is no UTF-8 becomes U+FFFD, as in package strings
			buf = utf8.AppendRune(buf, to(r))
		}
		d[i] = textOf(buf[from:])
	}
	return buf
}

func same(x string, to func(rune) rune) bool {
	for i, r := range x {
		if to(r) != r || r == utf8.RuneError && !strings.HasPrefix(x[i:], "\uFFFD") {
			return false
		}
	}
	return true
}

func lowerRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	return unicode.ToLower(r)
}

func upperRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'a' <= r && r <= 'z' {
			r -= 'a' - 'A'
		}
		return r
	}
	return unicode.ToUpper(r)
}
