package cpu

import (
	"math"
	"sync/atomic"

	"github.com/onmart/onmart/train/program"
)

// The optimizers of embedding tables: RowAdam, RowAdagrad and RowSGD.
//
// What a step contributes to the gradient of a table is a list of entries, one for each index of each use. They are
// brought into the order of the table's rows in two passes that all workers share: into buckets of neighbouring rows,
// which need a count first, and within a bucket when its turn comes. Then whoever takes a bucket sums and updates its
// rows; all of a row lies in one bucket, so that no sum is divided. Who takes which is decided as they go along and
// changes no bit.

// entry is one index of one use: a row of the table, and the row of the use's source that it contributes, times factor.
// The layout is known to the assembly.
type entry struct {
	row, from, use int32
	factor         float32
}

// span is a row of a table and where its entries begin. The layout is known to the assembly.
type span struct{ row, at int32 }

// use is one reading of a table as its optimizer has it: idx [m,w] and a source [m,d]; s is nil where all factors are
// 1.
type use struct {
	idx, s []float32
	m, w   int
	part   partition // of its rows, for counting and listing
	hist   [maxThreads][]int32
}

const (
	// maxBuckets keeps the counts of a worker, and the places that it writes to next, in its first cache.
	maxBuckets = 2048
	// entriesPerBucket at least, so that a small batch does not clear and add up counts of large tables.
	entriesPerBucket = 8
	// maxShares are the parts that a table's update is divided into: enough to even out buckets of unlike weight.
	maxShares = 64
	// sharesFrom is the entries that a share is worth.
	sharesFrom = 256
	// few are the entries that are sorted by insertion.
	few = 24
	// group is the rows whose gradients are summed before they are updated, and asked for while those before are.
	group = 8
	// digit is the bits of a row that one pass within a bucket sorts by.
	digit = 8
)

// entries are those of the optimizer of one table, and the memory for it.
type entries struct {
	uses    []use
	sources [][]float32 // by use
	rows, d int
	shift   int // row >> shift is the bucket
	buckets int
	list    []entry // in buckets
	other   []entry // sorted
	starts  []int32 // of the buckets, and the end
	next    atomic.Int32
	own     [maxThreads]*ownEntries
}

// ownEntries is what a worker needs beside: made in its first step.
type ownEntries struct {
	at    [maxBuckets]int32
	count [1 << digit]int32
	spans [512]span
}

func newEntries(uses []use, sources [][]float32, rows, d int) *entries {
	es := &entries{uses: uses, sources: sources, rows: rows, d: d}
	total := 0
	for i := range uses {
		total += len(uses[i].idx)
	}
	most := min(maxBuckets, max(1, total/entriesPerBucket))
	for (rows-1)>>es.shift >= most {
		es.shift++
	}
	es.buckets = (rows-1)>>es.shift + 1
	es.list, es.other, es.starts = make([]entry, total), make([]entry, total), make([]int32, es.buckets+1)
	return es
}

// mine is the memory of a worker.
func (es *entries) mine(id int) *ownEntries {
	if es.own[id] == nil {
		es.own[id] = &ownEntries{}
	}
	return es.own[id]
}

// count counts the entries of rows lo..hi of a use by bucket, for worker id.
func (es *entries) count(u *use, id, lo, hi int) {
	if u.hist[id] == nil {
		u.hist[id] = make([]int32, es.buckets)
	}
	hist := u.hist[id]
	clear(hist)
	limit := float32(es.rows)
	for _, x := range u.idx[lo*u.w : hi*u.w] {
		if x >= 0 && x < limit {
			hist[int(x)>>es.shift]++
		}
	}
}

// places computes where worker id of n writes its entries of a use: behind those of all smaller buckets, and in its own
// bucket behind those of uses and workers before. Worker 0 notes where the buckets begin.
func (es *entries) places(of *use, id, n int, at []int32, starts []int32) {
	at = at[:es.buckets]
	clear(at)
	total := at // counts of a bucket by all, first; then places
	for k := range es.uses {
		u := &es.uses[k]
		for t := range n {
			if lo, hi := u.part.split(u.m, t, n); lo < hi {
				for b, c := range u.hist[t] {
					total[b] += c
				}
			}
		}
	}
	sum := int32(0)
	for b, c := range total {
		total[b] = sum
		sum += c
	}
	if starts != nil {
		copy(starts, at)
		starts[es.buckets] = sum
	}
	for k := range es.uses {
		u := &es.uses[k]
		for t := range n {
			if u == of && t == id {
				return
			}
			if lo, hi := u.part.split(u.m, t, n); lo < hi {
				for b, c := range u.hist[t] {
					at[b] += c
				}
			}
		}
	}
}

// fill lists the entries of rows lo..hi of a use in their buckets, at is where the next of each goes.
func (es *entries) fill(u *use, number int32, at []int32, lo, hi int) {
	at = at[:es.buckets]
	limit, shift := float32(es.rows), es.shift
	for i := lo; i < hi; i++ {
		for k := i * u.w; k < (i+1)*u.w; k++ {
			x := u.idx[k]
			if !(x >= 0 && x < limit) {
				continue
			}
			row := int32(x)
			factor := float32(1)
			if u.s != nil {
				factor = u.s[k]
			}
			place := &at[row>>shift]
			es.list[*place] = entry{row, int32(i), number, factor}
			*place++
		}
	}
}

// sort brings the entries of a bucket, lo..hi of list, into the order of their rows, in other; stably.
func (es *entries) sort(own *ownEntries, lo, hi int) {
	from, to := es.list[lo:hi], es.other[lo:hi]
	if len(from) <= few || es.shift == 0 {
		for i, e := range from {
			k := i
			for ; k > 0 && to[k-1].row > e.row; k-- {
				to[k] = to[k-1]
			}
			to[k] = e
		}
		return
	}
	for shift := 0; shift < es.shift; shift += digit {
		bits := min(digit, es.shift-shift)
		mask := int32(1)<<bits - 1
		count := own.count[:1<<bits]
		clear(count)
		for i := range from {
			count[from[i].row>>shift&mask]++
		}
		sum := int32(0)
		for k, c := range count {
			count[k] = sum
			sum += c
		}
		for _, e := range from {
			c := &count[e.row>>shift&mask]
			to[*c] = e
			*c++
		}
		from, to = to, from
	}
	if &from[0] != &es.other[lo] {
		copy(to, from)
	}
}

// shares is the number of parts of the update.
func (es *entries) shares() int { return max(1, min(maxShares, len(es.list)/sharesFrom)) }

// bucketOf is the first bucket of a share.
func (es *entries) bucketOf(share int) int {
	want := int32(int(es.starts[es.buckets]) * share / es.shares())
	lo, hi := 0, es.buckets
	for lo < hi {
		if mid := (lo + hi) / 2; es.starts[mid] < want {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// take does shares until none is left: sorts their buckets and hands on the spans of their rows, the last of which only
// ends the one before.
func (es *entries) take(id int, update func(spans []span)) {
	own := es.mine(id)
	shares := es.shares()
	for {
		share := int(es.next.Add(1)) - 1
		if share >= shares {
			return
		}
		first, end := es.bucketOf(share), es.buckets
		if share+1 < shares {
			end = es.bucketOf(share + 1)
		}
		n := 0
		for b := first; b < end; b++ {
			lo, hi := es.starts[b], es.starts[b+1]
			if lo == hi {
				continue
			}
			es.sort(own, int(lo), int(hi))
			row := int32(-1)
			for i := lo; i < hi; i++ {
				if r := es.other[i].row; r != row {
					if n == len(own.spans)-1 {
						own.spans[n] = span{r, i}
						update(own.spans[:n+1])
						n = 0
					}
					own.spans[n] = span{r, i}
					row = r
					n++
				}
			}
		}
		if n > 0 {
			own.spans[n] = span{own.spans[n-1].row, es.starts[end]}
			update(own.spans[:n+1])
		}
	}
}

// sorted emits the steps that count and list the entries of a table's gradient, and says what the update reads.
func (l lowering) sorted(table int) (*entries, []access) {
	rows, d := l.buf(table).Shape[0], l.width(table)
	readings := l.in.TableUses()
	var uses []use
	var sources [][]float32
	var reads []access // of the update
	for _, t := range readings {
		u := use{idx: l.mem[t.Idx].f32, m: l.buf(t.Idx).Shape[0], w: l.width(t.Idx), part: l.byRow(t.Idx)}
		source, place := l.mem[t.Source].f32, l.whole(t.Source, false)
		if t.S >= 0 {
			u.s = l.mem[t.S].f32
		} else if u.w > 1 {
			source, place = l.divided(t, rows, d)
		}
		uses, sources, reads = append(uses, u), append(sources, source), append(reads, place)
	}
	es := newEntries(uses, sources, rows, d)
	l.machine.macs += entryMacs*d*len(es.list) + adamMacs*d*min(len(es.list), rows)
	l.machine.pack = max(l.pack, group*d+2)
	var counts, lists []access // for each use, where each worker counts and where it lists
	for range uses {
		counts = append(counts, access{space: l.spaces, hi: 1})
		lists = append(lists, access{space: l.spaces + 1, hi: 1})
		l.machine.spaces += 2
	}
	for k, t := range readings {
		u, own := &es.uses[k], counts[k]
		own.write, own.unitBytes = true, 1
		l.emit(u.part, func(w *worker, lo, hi int) { es.count(u, w.id, lo, hi) }, l.rows(t.Idx, false), own)
	}
	for k, t := range readings {
		u, own := &es.uses[k], lists[k]
		own.write, own.unitBytes = true, 1
		touches := append([]access{l.rows(t.Idx, false), own}, counts...)
		if t.S >= 0 {
			touches = append(touches, l.rows(t.S, false))
		}
		l.emit(u.part, func(w *worker, lo, hi int) {
			at, starts := es.mine(w.id).at[:], []int32(nil)
			if lo == 0 {
				starts = es.starts
				es.next.Store(0)
			}
			es.places(u, w.id, w.of, at, starts)
			es.fill(u, int32(k), at, lo, hi)
		}, touches...)
	}
	return es, append(reads, lists...)
}

// update emits the last step of an optimizer; factor is what its gradient is multiplied by, nil for nothing.
func (l lowering) update(es *entries, touches []access, update func(w *worker, spans []span, factor []float32)) {
	var factor []float32
	if f := l.in.Factor(); f >= 0 {
		factor, touches = l.mem[f].f32, append(touches, l.whole(f, false))
	}
	for _, o := range l.in.Outs {
		touches = append(touches, l.whole(o, true))
	}
	l.emit(partition{units: maxThreads, quantum: 1}, func(w *worker, _, _ int) {
		es.take(w.id, func(spans []span) { update(w, spans, factor) })
	}, touches...)
}

// groups calls update for a few rows at a time with their gradients, times the factor where there is one, having asked
// for the next rows of the tensors.
func (es *entries) groups(w *worker, spans []span, factor []float32, tensors [][]float32,
	update func(spans []span, g []float32)) {
	k, d := w.kernels, es.d
	ask := func(spans []span) {
		for _, x := range tensors {
			k.embed.ask(x, spans, d)
		}
	}
	n := len(spans) - 1
	ask(spans[:min(group, n)])
	for lo := 0; lo < n; lo += group {
		hi := min(lo+group, n)
		ask(spans[hi:min(hi+group, n)])
		g := w.pack[:(hi-lo)*d]
		k.embed.sums(g, spans[lo:hi+1], es.other, es.sources, d)
		if factor != nil {
			k.scale(g, g, factor[0])
		}
		update(spans[lo:hi], g)
	}
}

func (l lowering) rowAdam() {
	p, m, v, at := l.out(0), l.out(1), l.out(2), l.in.Attr
	es, touches := l.sorted(l.in.Outs[0])
	tensors := [][]float32{p, m, v}
	l.update(es, touches, func(w *worker, spans []span, factor []float32) {
		w.adamCoef(&at, nil) // groups has scaled the gradients
		es.groups(w, spans, factor, tensors, func(spans []span, g []float32) {
			w.kernels.embed.adam(p, m, v, g, spans, es.d, &w.adam)
		})
	})
}

func (l lowering) rowAdagrad() {
	p, acc, at := l.out(0), l.out(1), l.in.Attr
	es, touches := l.sorted(l.in.Outs[0])
	eps, decay, d := float32(at.Eps), float32(at.Decay), es.d
	tensors := [][]float32{p}
	if len(acc) == len(p) {
		tensors = append(tensors, acc)
	}
	l.update(es, touches, func(w *worker, spans []span, factor []float32) {
		e := &w.kernels.embed
		es.groups(w, spans, factor, tensors, func(spans []span, g []float32) {
			for k, s := range spans {
				r, g := int(s.row), g[k*d:(k+1)*d]
				if len(acc) == len(p) {
					e.adagrad(p[r*d:(r+1)*d], acc[r*d:(r+1)*d], g, eps, w.rate, decay)
					continue
				}
				one := w.pack[group*d:][:2] // an index of row 0, and its inner product with itself
				one[0] = 0
				e.dot(one[1:], g, one[:1], g, 1, 1, d)
				acc[r] += one[1] / float32(d)
				e.shrink(p[r*d:(r+1)*d], g, sqrt32(acc[r])+eps, w.rate, decay)
			}
		})
	})
}

func (l lowering) rowSGD() {
	p, decay := l.out(0), float32(l.in.Attr.Decay)
	es, touches := l.sorted(l.in.Outs[0])
	d, tensors := es.d, [][]float32{p}
	l.update(es, touches, func(w *worker, spans []span, factor []float32) {
		es.groups(w, spans, factor, tensors, func(spans []span, g []float32) {
			for k, s := range spans {
				r := int(s.row)
				w.kernels.embed.shrink(p[r*d:(r+1)*d], g[k*d:(k+1)*d], 1, w.rate, decay)
			}
		})
	})
}

// divided emits the step that divides the rows of a gradient by their number of indices.
func (l lowering) divided(t program.TableUse, rows, d int) ([]float32, access) {
	idx, dy, w := l.mem[t.Idx].f32, l.mem[t.Source].f32, l.width(t.Idx)
	y, place, written := l.scratch(len(dy), 4*d)
	l.emit(l.byRow(t.Source), func(wk *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			n := 0
			for _, x := range idx[i*w : (i+1)*w] {
				if indexOf(x, rows) >= 0 {
					n++
				}
			}
			wk.kernels.div(y[i*d:(i+1)*d], dy[i*d:(i+1)*d], float32(max(n, 1)))
		}
	}, l.rows(t.Idx, false), l.rows(t.Source, false), written)
	return y, place
}

// sumsPortable begins each chain at -0, to which the first contribution is added without a change.
func sumsPortable(g []float32, spans []span, list []entry, sources [][]float32, d int) {
	for k := range len(spans) - 1 {
		sum := g[k*d : (k+1)*d]
		for c := range sum {
			sum[c] = float32(math.Copysign(0, -1))
		}
		for _, e := range list[spans[k].at:spans[k+1].at] {
			for c, x := range sources[e.use][int(e.from)*d : int(e.from+1)*d] {
				sum[c] = fma32(e.factor, x, sum[c])
			}
		}
	}
}

func adamRowsPortable(p, m, v, g []float32, spans []span, d int, c *adamCoef) {
	for k, s := range spans {
		lo, hi := int(s.row)*d, int(s.row+1)*d
		adamwPortable(p[lo:hi], m[lo:hi], v[lo:hi], g[k*d:(k+1)*d], c)
	}
}

func shrinkPortable(p, g []float32, by, lr, decay float32) {
	g = g[:len(p)]
	for i, x := range p {
		p[i] = x - float32(lr*(float32(g[i]/by)+float32(decay*x)))
	}
}

func adagradPortable(p, acc, g []float32, eps, lr, decay float32) {
	acc, g = acc[:len(p)], g[:len(p)]
	for i, x := range p {
		acc[i] += float32(g[i] * g[i])
		p[i] = x - float32(lr*(float32(g[i]/float32(sqrt32(acc[i])+eps))+float32(decay*x)))
	}
}
