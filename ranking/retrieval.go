package ranking

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"
)

// Bitmap is a set of items: item i is bit i%64 of word i/64. Items past its end are not in it, so that nil is the
// empty set.
type Bitmap []uint64

// NewBitmap returns an empty set for items 0..n-1.
func NewBitmap(n int) Bitmap { return make(Bitmap, (n+63)/64) }

// Set puts an item in; it panics on one past the end.
func (b Bitmap) Set(item int32) { b[item>>6] |= 1 << (item & 63) }

// Clear takes an item out; it panics on one past the end.
func (b Bitmap) Clear(item int32) { b[item>>6] &^= 1 << (item & 63) }

// Has tells whether an item, 0 or greater, is in the set.
func (b Bitmap) Has(item int32) bool {
	w := int(item >> 6)
	return w < len(b) && b[w]>>(item&63)&1 == 1
}

// Index finds, among items with a vector each, those whose inner product with a query is greatest. The result is
// exact: it is what sorting all scores gives, where a score is one chain of fused float32 multiply-adds over the
// dimensions in order, from 0. An Index does not change and may be searched from several goroutines.
//
// Items lie in panels of 16, dimension by dimension, so that a lane of a vector register is an item and no sum
// crosses lanes. They are ordered by falling length: as |q.v| <= |q||v|, a search ends where no item that is left can
// reach the k-th best score (as in LEMP, Teflioudi et al. 2015). That bound has room for every rounding, so that
// it never changes a result; where all items have one length it saves nothing.
type Index struct {
	path   path
	n, dim int
	panels []float32 // panel after panel, each dim x 16; 0 past the last item
	ids    []int32   // by position: the item
	length []float64 // by panel: no score of an item from here on is above length * |q|
	most   float32   // greatest absolute value of any element
}

// NewIndex packs vectors, row i the one of item i, all of the same dim. They are copied. A value that is not finite
// is an error that names its place.
func NewIndex(vectors []float32, dim int) (*Index, error) {
	p, err := choosePath(os.Getenv("ONMART_CPU"))
	if err != nil {
		return nil, err
	}
	return newIndex(p, vectors, dim)
}

func newIndex(p path, vectors []float32, dim int) (*Index, error) {
	if dim < 1 || len(vectors)%dim != 0 || len(vectors)/dim > math.MaxInt32 {
		return nil, fmt.Errorf("ranking: %d numbers are no vectors of %d: want a positive multiple", len(vectors), dim)
	}
	x := &Index{path: p, n: len(vectors) / dim, dim: dim}
	lengths := make([]float64, x.n)
	x.ids = make([]int32, x.n)
	for i := range lengths {
		v := vectors[i*dim:][:dim]
		for j, e := range v {
			if !finite(e) {
				return nil, fmt.Errorf("ranking: item %d, dimension %d is %v: want a finite number", i, j, e)
			}
			x.most = max(x.most, e, -e)
		}
		lengths[i], x.ids[i] = norm(v), int32(i)
	}
	slices.SortFunc(x.ids, func(a, b int32) int {
		if c := cmp.Compare(lengths[b], lengths[a]); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	})
	panels := roundUp(x.n, groupItems) / panelItems
	x.panels = aligned[float32](panels * panelItems * dim)
	x.length = make([]float64, panels)
	for at, id := range x.ids {
		if at%panelItems == 0 {
			x.length[at/panelItems] = lengths[id] * (1 + slack(dim))
		}
		panel := x.panels[at/panelItems*panelItems*dim+at%panelItems:]
		for j, e := range vectors[int(id)*dim:][:dim] {
			panel[j*panelItems] = e
		}
	}
	return x, nil
}

// slack is how much longer, relatively, a bound must be so that it holds for rounded scores: a chain of dim fused
// multiply-adds is off by at most dim 2^-24 / (1 - dim 2^-24) of |q||v| (Higham 2002, section 3.1), and lengths are
// themselves rounded, by far less. Twice that, and a little for small dim.
func slack(dim int) float64 { return float64(dim+8) * 0x1p-23 }

// tiny is more than all roundings below the normal range add up to, for any dim that fits in memory.
const tiny = 0x1p-100

func norm(v []float32) float64 {
	var s float64
	for _, e := range v {
		s += float64(e) * float64(e)
	}
	return math.Sqrt(s)
}

// Items is the number of items.
func (x *Index) Items() int { return x.n }

// Dim is the number of dimensions.
func (x *Index) Dim() int { return x.dim }

// check refuses queries of another dim, with values that are not finite, or so large that a score could overflow.
func (x *Index) check(query []float32) error {
	if len(query) != x.dim {
		return fmt.Errorf("ranking: a query of %d numbers for items of %d dimensions", len(query), x.dim)
	}
	var most float32
	for j, e := range query {
		if !finite(e) {
			return fmt.Errorf("ranking: the query's dimension %d is %v: want a finite number", j, e)
		}
		most = max(most, e, -e)
	}
	if float64(most)*float64(x.most)*float64(x.dim) > math.MaxFloat32/2 {
		return fmt.Errorf("ranking: scores of a query with values up to %v overflow: scale it or the items, "+
			"with values up to %v", most, x.most)
	}
	return nil
}

// reach is the number of panels, from the first, whose items may have a score of at least threshold with a query
// of the given length.
func (x *Index) reach(threshold float32, length float64) int {
	if math.IsInf(float64(threshold), -1) || threshold <= 0 {
		return len(x.length)
	}
	return sort.Search(len(x.length), func(p int) bool { return x.length[p]*length+tiny < float64(threshold) })
}

// searchStep is the number of panels after which a search looks again how far it must go: 1,024 items, about 1 us.
const searchStep = 64

// Search returns in dst[:0] the k items with the greatest scores among those that are not excluded, best first,
// equal scores by the lower item number; fewer where fewer are left. It allocates nothing where dst has room for k.
func (x *Index) Search(dst []Scored, query []float32, k int, excluded Bitmap) ([]Scored, error) {
	if err := x.check(query); err != nil {
		return nil, err
	}
	if k < 0 {
		return nil, fmt.Errorf("ranking: the best %d: want 0 or more", k)
	}
	t := top{list: slices.Grow(dst[:0], min(k, x.n)), k: min(k, x.n)}
	if t.k == 0 {
		return t.list, nil
	}
	var out [groupItems]float32
	length := norm(query)
	threshold := t.threshold()
	for first := 0; first < min(len(x.length), x.reach(threshold, length)); first += searchStep {
		end := min(first+searchStep, len(x.length))
		for at := first; at < end; {
			groups := (end - at) / groupPanels
			left := x.path.search(x.panels[at*panelItems*x.dim:], query, groups, threshold, &out)
			if left < 0 {
				break
			}
			at += (groups - left) * groupPanels
			x.offer(&t, out[:], (at-groupPanels)*panelItems, threshold, excluded)
			threshold = t.threshold()
		}
	}
	t.sort()
	return t.list, nil
}

// offer hands on those of the scores, of items at position first and following, that reach the threshold.
func (x *Index) offer(t *top, scores []float32, first int, threshold float32, excluded Bitmap) {
	for i, s := range scores[:min(len(scores), x.n-first)] {
		if s >= threshold {
			if id := x.ids[first+i]; !excluded.Has(id) {
				t.offer(Scored{id, s})
			}
		}
	}
}

// Scores returns in dst[:0] the score of every item, in the order of items: what Search ranks.
func (x *Index) Scores(dst, query []float32) ([]float32, error) {
	if err := x.check(query); err != nil {
		return nil, err
	}
	dst = slices.Grow(dst[:0], x.n)[:x.n]
	var out [groupItems]float32
	for at := 0; at < x.n; at += groupItems {
		x.path.search(x.panels[at*x.dim:], query, 1, float32(math.Inf(-1)), &out)
		for i, id := range x.ids[at:min(at+groupItems, x.n)] {
			dst[id] = out[i]
		}
	}
	return dst, nil
}

// Top returns in dst[:0] the k items with the greatest of scores, one for each item, among those that are not
// excluded, in the order of Search. A score of -Inf is an item like others; NaN is an error. It allocates nothing where
// dst has room for k.
func Top(dst []Scored, scores []float32, k int, excluded Bitmap) ([]Scored, error) {
	if k < 0 {
		return nil, fmt.Errorf("ranking: the best %d: want 0 or more", k)
	}
	k = min(k, len(scores))
	t := top{list: slices.Grow(dst[:0], k), k: k}
	threshold := t.threshold()
	for i, s := range scores {
		switch {
		case s < threshold || k == 0 && s == s:
		case s != s:
			return nil, fmt.Errorf("ranking: the score of item %d is NaN", i)
		case !excluded.Has(int32(i)):
			t.offer(Scored{int32(i), s})
			threshold = t.threshold()
		}
	}
	t.sort()
	return t.list, nil
}

// top keeps the best k of what it is offered, the worst of them first (a heap).
type top struct {
	list []Scored
	k    int
}

// threshold is the least score that could still enter; -Inf while there is room.
func (t *top) threshold() float32 {
	if len(t.list) < t.k || t.k == 0 {
		return float32(math.Inf(-1))
	}
	return t.list[0].Score
}

func (t *top) offer(s Scored) {
	h := t.list
	if len(h) < t.k {
		h = append(h, s)
		i := len(h) - 1
		for i > 0 && better(h[(i-1)/2], s) {
			h[i] = h[(i-1)/2]
			i = (i - 1) / 2
		}
		h[i] = s
		t.list = h
		return
	}
	if better(s, h[0]) {
		t.sink(s, len(h))
	}
}

// sink puts s in the place of the root of the first n.
func (t *top) sink(s Scored, n int) {
	h, i := t.list[:n], 0
	for {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && better(h[c], h[c+1]) {
			c++
		}
		if better(h[c], s) {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = s
}

// sort turns the heap into a list, best first.
func (t *top) sort() {
	for n := len(t.list) - 1; n > 0; n-- {
		worst, s := t.list[0], t.list[n]
		t.sink(s, n)
		t.list[n] = worst
	}
}
