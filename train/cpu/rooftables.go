package cpu

import (
	"math/rand/v2"

	"github.com/onmart/onmart/train/program"
)

// Rooflines of the kernels that read tables by rows, and of those that bring the sides of a product into the order in
// which the micro-kernel reads them. What a table's kernel reads lies at random places of the working set, as rows of a
// batch do: where that is beyond the caches its roof is Ceiling.Random and not the bandwidth of arrays. What it writes,
// and the indices, are small beside the rows or read in order.

// Sizes of what is measured: those of BenchmarkEmbed, a row of 64 for each of a user and nine candidates.
const (
	tableCols       = 64
	tableRowBytes   = 4 * tableCols
	tableCandidates = 9
	entriesOfRow    = 2 // of a gradient that sums adds up
)

// tableProbe is a kernel at a working set.
type tableProbe struct {
	kernel string
	what   string      // before the level, or ""
	random bool        // whether it reads rows at random
	levels []Bandwidth // nil for all
	// make gives a call with its cost, for a working set of so many bytes; the call is nil where the path does nothing.
	make func(k *kernels, bytes int) (func(), cost)
}

// field is the kernel's place in kernels.
func (p *tableProbe) field() string {
	if p.kernel == kernelBPR {
		return "embed.candidates"
	}
	return p.kernel
}

// randomRows is a source of rows of a table in no order, more than the table has, of which a call takes some.
type randomRows struct {
	idx []float32
	at  int
}

func newRandomRows(rows, least int) *randomRows {
	r := rand.New(rand.NewPCG(7, uint64(rows)))
	x := &randomRows{idx: make([]float32, max(rows, least))}
	for i := range x.idx {
		x.idx[i] = float32(r.IntN(rows))
	}
	return x
}

// next is the place of n rows, with as many behind them that will be read next.
func (x *randomRows) next(n int) int {
	at := x.at
	if x.at += n; x.at+2*n > len(x.idx) {
		x.at = 0
	}
	return at
}

// spans are the rows as spans of so many entries each.
func (x *randomRows) spans(entries int) []span {
	s := make([]span, len(x.idx))
	for i, r := range x.idx {
		s[i] = span{int32(r), int32(i * entries)}
	}
	return s
}

// tableProbes are the kernels that read tables or move the sides of a product.
func tableProbes() []tableProbe {
	r := func() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }
	const m, w, d = scoringBlock, tableCandidates, tableCols
	rowsIn := func(bytes, tables int) int { return max(group, bytes/tableRowBytes/tables) }
	coef := newAdamCoef(&program.Attr{Beta1: .9, Beta2: .999, Eps: 1e-8}, 1, 1e-3)
	caches := workingSets()
	probes := []tableProbe{
		{kernel: "embed.dot", random: true, make: func(k *kernels, bytes int) (func(), cost) {
			rows := rowsIn(bytes, 1)
			table, a, s, x := noise(r(), rows*d), noise(r(), m*d), alignedF32(m*w), newRandomRows(rows, 4*m*w)
			return func() { k.embed.dot(s, table, x.idx[x.next(m*w):], a, rows, w, d) }, readCost("embed.dot", m, w, d)
		}},
		{kernel: "embed.weighted", random: true, make: func(k *kernels, bytes int) (func(), cost) {
			rows := rowsIn(bytes, 1)
			table, y, s, x := noise(r(), rows*d), alignedF32(m*d), noise(r(), m*w), newRandomRows(rows, 4*m*w)
			return func() { k.embed.weighted(y, table, x.idx[x.next(m*w):], s, rows, w, d) },
				readCost("embed.weighted", m, w, d)
		}},
		{kernel: "embed.sums", random: true, make: func(k *kernels, bytes int) (func(), cost) {
			rows := rowsIn(bytes, 1)
			source, g, x := [][]float32{noise(r(), rows*d)}, alignedF32(group*d), newRandomRows(rows, 64*group)
			list := make([]entry, len(x.idx)/entriesOfRow*entriesOfRow)
			for i := range list {
				list[i] = entry{row: int32(i / entriesOfRow), from: int32(x.idx[i]), factor: .5}
			}
			spans := x.spans(entriesOfRow)[:len(list)/entriesOfRow]
			at := 0
			return func() {
				k.embed.sums(g, spans[at:at+group+1], list, source, d)
				if at += group; at+group+1 > len(spans) {
					at = 0
				}
			}, sumsCost(group*entriesOfRow, group, d)
		}},
		{kernel: "embed.ask", random: true, make: func(k *kernels, bytes int) (func(), cost) {
			if k.peak == nil { // only the paths with vectors ask
				return nil, cost{}
			}
			rows := rowsIn(bytes, 1)
			table, x := noise(r(), rows*d), newRandomRows(rows, 4*group)
			spans := x.spans(0)
			return func() {
				at := x.next(group)
				k.embed.ask(table, spans[at:at+group], d)
			}, rowsCost("embed.ask", group, d)
		}},
		// As an update does it: the rows after these are asked for first.
		{kernel: "embed.adam", random: true, make: func(k *kernels, bytes int) (func(), cost) {
			rows := rowsIn(bytes, 3)
			p, mean, v, g := noise(r(), rows*d), alignedF32(rows*d), alignedF32(rows*d), noise(r(), group*d)
			x := newRandomRows(rows, 4*group)
			spans := x.spans(0)
			return func() {
				at := x.next(group)
				for _, y := range [][]float32{p, mean, v} {
					k.embed.ask(y, spans[at+group:at+2*group], d)
				}
				k.embed.adam(p, mean, v, g, spans[at:at+group], d, &coef)
			}, rowsCost("embed.adam", group, d)
		}},
	}
	for _, loss := range []struct {
		kernel, what string
		bpr          bool
	}{{"embed.candidates", "softmax", false}, {kernelBPR, "BPR", true}} {
		probes = append(probes, tableProbe{kernel: loss.kernel, what: loss.what + ", ", levels: caches[:2],
			make: func(k *kernels, bytes int) (func(), cost) {
				rows := bytes / (4 * (3*w + 1)) / candidateBlock * candidateBlock
				s, grad, weight, idx := noise(r(), rows*w), alignedF32(rows*w), noise(r(), rows), newRandomRows(20_000, rows*w).idx
				var o outcome
				return func() {
					for lo := 0; lo < rows; lo += candidateBlock {
						hi := lo + candidateBlock
						k.embed.candidates(grad[lo*w:hi*w], s[lo*w:hi*w], idx[lo*w:hi*w], weight[lo:hi], w, 1e-3, loss.bpr, &o)
					}
				}, candidatesCost(loss.kernel, int64(rows), w)
			}})
	}
	return append(probes,
		tableProbe{kernel: "embed.terms", levels: caches[:1], make: func(k *kernels, _ int) (func(), cost) {
			var o outcome
			for i := range candidateBlock {
				o.all[i], o.rest[i], o.weight[i] = float32(i+2), .5, 1
			}
			terms := alignedF32(candidateBlock)
			return func() { k.embed.terms(terms, &o) }, streamed("embed.terms", candidateBlock)
		}},
		// A transposed b becomes panels of 16 columns, a transposed a tiles; both 128 deep.
		tableProbe{kernel: "transpose", make: func(k *kernels, bytes int) (func(), cost) {
			const deep = sumCols
			panels := max(1, bytes/(8*tileCols*deep))
			src, dst := noise(r(), panels*tileCols*deep), alignedF32(panels*tileCols*deep)
			return func() {
				for at := 0; at < len(src); at += tileCols * deep {
					k.transpose(dst[at:at+tileCols*deep], src[at:], deep, deep, tileCols)
				}
			}, streamed("transpose", int64(len(src)))
		}},
		tableProbe{kernel: "gatherTiles", make: func(k *kernels, bytes int) (func(), cost) {
			const deep = sumCols
			rows := k.panelRows
			tiles := max(1, bytes/(8*rows*deep))
			next, ld := tileNext(rows, deep), tiles*rows
			src, dst := noise(r(), deep*ld), alignedF32(tiles*next)
			return func() { k.gatherTiles(dst, src, rows, tiles, deep, next, ld) }, streamed("gatherTiles", int64(len(src)))
		}},
		tableProbe{kernel: "gatherRows", make: func(k *kernels, bytes int) (func(), cost) {
			const width = 32
			n := max(64, bytes/(8*width))
			src, dst, order := noise(r(), n*width), alignedF32(n*width), make([]int32, n)
			p := program.NewPermutation(1, 0, n)
			k.permute(order, 0, &p)
			return func() { k.gatherRows(dst, src, order, width) }, streamed("gatherRows", int64(len(src)))
		}},
		tableProbe{kernel: "columnDot", make: func(k *kernels, bytes int) (func(), cost) {
			const deep = sumCols
			n := max(program.Lanes, bytes/(4*deep))
			a, x, y := noise(r(), n*deep), noise(r(), deep), alignedF32(n)
			return func() { k.columnDot(y, a, x) }, streamed("columnDot", int64(len(a)))
		}},
		tableProbe{kernel: "dotRows", make: func(k *kernels, bytes int) (func(), cost) {
			const deep = sumCols
			n := max(program.Lanes, bytes/(4*deep))
			a, x, y := noise(r(), n*deep), noise(r(), deep), alignedF32(n)
			return func() { k.dotRows(y, a, x) }, streamed("dotRows", int64(len(a)))
		}},
		tableProbe{kernel: "addRows", make: func(k *kernels, bytes int) (func(), cost) {
			const wide = sumCols
			deep := max(program.Lanes, bytes/(4*wide))
			b, a, y := noise(r(), deep*wide), noise(r(), deep), alignedF32(wide)
			return func() { k.addRows(y, b, wide, a, 1, deep) }, streamed("addRows", int64(len(b)))
		}})
}

// randomReads are ways to read rows at random places of x, each of which returns how many bytes it was: by lane sums of
// rows that were asked for some rows before, as LookupWeighted reads them, and as a batch is gathered.
func (k *kernels) randomReads() []func(x []float32) func() float64 {
	const n, d = 9 * scoringBlock, tableCols
	var ways []func(x []float32) func() float64
	for _, ahead := range []int{8, 24} {
		ways = append(ways, func(x []float32) func() float64 {
			rows := newRandomRows(len(x)/d, 4*n)
			row := func(i int) []float32 { return x[int(rows.idx[i])*d:][:d] }
			return func() float64 {
				at := rows.next(n)
				for i := at; i < at+n; i++ {
					k.prefetch(row(i + ahead))
					k.laneSum(row(i))
				}
				return n * tableRowBytes
			}
		})
	}
	ways = append(ways, func(x []float32) func() float64 {
		rows, y := newRandomRows(len(x)/d, 4*n), alignedF32(n*d)
		order := make([]int32, len(rows.idx))
		for i := range order {
			order[i] = int32(rows.idx[i])
		}
		return func() float64 {
			at := rows.next(n)
			k.gatherRows(y, x, order[at:at+n], d)
			return n * tableRowBytes
		}
	})
	return append(ways, func(x []float32) func() float64 {
		rows, y, s := newRandomRows(len(x)/d, 4*n), alignedF32(scoringBlock*d), alignedF32(n)
		return func() float64 {
			k.embed.weighted(y, x, rows.idx[rows.next(n):], s, len(x)/d, n/scoringBlock, d)
			return n * tableRowBytes
		}
	})
}
