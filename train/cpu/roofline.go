package cpu

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onmart/onmart/train/program"
)

// How fast the kernels are, and what the processor could do: the two sides of a roofline (Williams, Waterman &
// Patterson 2009).

// Ceiling is what the processor reaches at best, measured now, on all threads together.
type Ceiling struct {
	Threads int `json:"threads"`
	// FLOPs are operations a second of multiply-adds on registers, a multiply-add being two; 0 on the portable path.
	FLOPs float64 `json:"flops"`
	// Bandwidths are those of working sets of growing size.
	Bandwidths []Bandwidth `json:"bandwidths"`
	// Random is bytes read a second of rows of 256 bytes at random places of the largest working set, each asked for some
	// rows before it is read: the roof of what reads tables by index.
	Random float64 `json:"random_bytes_per_second"`
	// RoundTrip is the seconds that a number takes to the cache of another core and back; 0 with one thread. About 1e-7
	// where the cores share a cache, several times that where they do not: then threads that read what others have
	// written wait for it, and a virtual machine may be moved from one to the other while it runs.
	RoundTrip float64 `json:"round_trip_seconds"`
}

// Bandwidth is bytes read and written a second: in copies, in multiplications in place, or in those of four arrays in
// turns, which more of a processor's prefetching serves; whichever was most.
type Bandwidth struct {
	Level   string  `json:"level"`
	Working int     `json:"working_bytes"` // of each thread
	Bytes   float64 `json:"bytes_per_second"`
}

// Memory is the last of the bandwidths, that of the largest working set.
func (c *Ceiling) Memory() float64 { return c.Bandwidths[len(c.Bandwidths)-1].Bytes }

// workingSets are sizes that lie within the caches of processors from 2015 on: 32 KiB and more of the first level, 256
// KiB and more of the second, 2 MiB and more of the third for each core; and one that lies in none.
func workingSets() []Bandwidth {
	return []Bandwidth{{Level: "L1", Working: 16 << 10}, {Level: "L2", Working: 160 << 10}, {Level: "L3", Working: 2 << 20},
		{Level: "memory", Working: 96 << 20}}
}

// levelOf is the working set that so many bytes are nearest to.
func levelOf(bytes float64) string {
	sets := workingSets()
	for i := range sets[:len(sets)-1] {
		if bytes*bytes < float64(sets[i].Working)*float64(sets[i+1].Working) {
			return sets[i].Level
		}
	}
	return sets[len(sets)-1].Level
}

// Rate is what one kernel reached on one thread.
type Rate struct {
	Kernel string `json:"kernel"`
	Case   string `json:"case"`
	// Level is the working set that its operands are, or are nearest to.
	Level string `json:"level"`
	// Random tells that it reads rows at random places of the working set: beyond the caches its roof is Ceiling.Random.
	Random  bool    `json:"random,omitempty"`
	Seconds float64 `json:"seconds"` // of a call, the median
	// FLOPs and Bytes are those of a call by the table of costs.go, which the profile of a step is made of too. FLOPs are
	// 0 where nothing is computed, where it is with integers, and of the functions of the standard library.
	FLOPs float64 `json:"flops"`
	Bytes float64 `json:"bytes"`
}

// matmulKernel is the Kernel of matrix products, which are made of several.
const matmulKernel = "matmul"

// Measurement is a roofline of one thread.
type Measurement struct {
	Ceiling Ceiling `json:"ceiling"`
	Rates   []Rate  `json:"rates"`
	// Missing are kernels that no case measures, or that do nothing on this path.
	Missing []string `json:"missing,omitempty"`
}

// timing is how long and how often something is timed, and by what clock.
type timing struct {
	least  time.Duration
	rounds int
	now    func() time.Time
}

// Ceiling measures the processor on so many threads; it takes about half a second. Each figure is the best of
// ceilingSpells short spells that are spread over all of that time, those of one figure between those of the others:
// what else runs on the machine takes some of them and not all, and nothing makes one better than the processor is. A
// machine that is busy throughout, which does not leave a millisecond alone, still gives less.
func (b *Backend) Ceiling(threads int) Ceiling {
	k, c := b.kernels, Ceiling{Threads: max(1, min(threads, maxThreads)), Bandwidths: workingSets()}
	t := timing{least: time.Millisecond, rounds: ceilingSpells, now: time.Now}
	var efforts []*effort
	var put []func(rate float64)
	try := func(to *float64, times float64, work func(thread int) func() float64) {
		efforts = append(efforts, t.effort(c.Threads, work))
		put = append(put, func(rate float64) { *to = max(*to, times*rate) })
	}
	if peak := k.peak; peak != nil {
		try(&c.FLOPs, 1, func(int) func() float64 { return func() float64 { return float64(peak(1 << 13)) } })
	}
	var own [][]float32 // by thread, of the working set
	for i := range c.Bandwidths {
		n := c.Bandwidths[i].Working / 4
		own = nil
		for range c.Threads {
			x := alignedF32(n)
			for at := 0; at < n; at += 512 {
				x[at] = 1 // a page that was never written may be one that all share
			}
			own = append(own, x)
		}
		sets := own
		move := func(run func(x []float32)) func(thread int) func() float64 {
			return func(thread int) func() float64 {
				x := sets[thread]
				return func() float64 { run(x); return float64(4 * n) }
			}
		}
		inTurns := func(x []float32) {
			const run = 128 // elements, 512 bytes
			q := len(x) / 4
			for at := 0; at+run <= q; at += run {
				for from := at; from < 4*q; from += q {
					y := x[from : from+run]
					k.scale(y, y, 1)
				}
			}
		}
		to := &c.Bandwidths[i].Bytes
		try(to, 1, move(func(x []float32) { copy(x[:n/2], x[n/2:]) }))
		try(to, 2, move(func(x []float32) { k.scale(x, x, 1) }))
		try(to, 2, move(inTurns))
	}
	for _, read := range k.randomReads() {
		try(&c.Random, 1, func(thread int) func() float64 { return read(own[thread]) })
	}
	for i, rate := range t.best(efforts) {
		put[i](rate)
	}
	if c.Threads > 1 {
		c.RoundTrip = RoundTrip()
	}
	return c
}

// raise takes what another measurement of as many threads found to be higher.
func (c *Ceiling) raise(o Ceiling) {
	c.FLOPs, c.Random = max(c.FLOPs, o.FLOPs), max(c.Random, o.Random)
	for i := range c.Bandwidths {
		c.Bandwidths[i].Bytes = max(c.Bandwidths[i].Bytes, o.Bandwidths[i].Bytes)
	}
}

// ceilingSpells are a millisecond each. While ten other programs ran on two cores, ten ceilings of a thread's
// multiply-adds lay between 98 and 103 GFLOP/s with the best of 15 spells, and between 4 and 101 with the median of 5.
const ceilingSpells = 15

// RoundTrip measures Ceiling's: the least of twenty times, since a thread may be kept from running meanwhile. It is 0
// where only one thread may run at a time.
func RoundTrip() float64 {
	const trips, times = 200, 20
	if runtime.GOMAXPROCS(0) < 2 {
		return 0
	}
	var ball struct {
		_ [128]byte
		n atomic.Int64
		_ [128]byte
	}
	var other sync.WaitGroup
	other.Go(func() {
		for i := int64(1); i < 2*trips*times; i += 2 {
			for ball.n.Load() != i {
			}
			ball.n.Store(i + 1)
		}
	})
	least, at := time.Duration(1<<62), int64(0)
	for range times {
		start := time.Now()
		for range trips {
			ball.n.Store(at + 1)
			at += 2
			for ball.n.Load() != at {
			}
		}
		least = min(least, time.Since(start))
	}
	other.Wait()
	return least.Seconds() / trips
}

// effort is a work of its own for each thread, done often times between two looks at the clock.
type effort struct {
	works []func() float64
	often int
}

// effort makes the works of all threads and runs each once, which touches the pages.
func (t timing) effort(threads int, work func(thread int) func() float64) *effort {
	const clock = 20 * time.Microsecond // between two looks at the clock, so that they cost nothing
	e := &effort{often: 1}
	for i := range threads {
		e.works = append(e.works, work(i))
		e.works[i]()
	}
	for {
		start := t.now()
		for range e.often {
			e.works[0]()
		}
		if t.now().Sub(start) > clock {
			return e
		}
		e.often *= 2
	}
}

// best is the greatest rate of each effort, over as many rounds as there are, each of a spell of every effort.
func (t timing) best(efforts []*effort) []float64 {
	best := make([]float64, len(efforts))
	for range t.rounds {
		for i, e := range efforts {
			best[i] = max(best[i], t.spell(e))
		}
	}
	return best
}

// spell runs the works of an effort at a time, again and again, and returns how much of it they do a second.
func (t timing) spell(e *effort) (rate float64) {
	sums := make([]float64, len(e.works))
	var ready atomic.Int32
	var wait sync.WaitGroup
	for i, work := range e.works {
		wait.Go(func() {
			for ready.Add(1); int(ready.Load()) < len(e.works); {
				runtime.Gosched() // a thread that slept needs longer to start than some of these works take
			}
			start, done := t.now(), 0.
			took := time.Duration(0)
			for done == 0 || took < t.least {
				for range e.often {
					done += work()
				}
				took = t.now().Sub(start)
			}
			sums[i] = done / took.Seconds()
		})
	}
	wait.Wait()
	for _, s := range sums {
		rate += s
	}
	return rate
}

func median(x []float64) float64 {
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// seconds of a call.
func (t timing) seconds(call func()) float64 {
	call()
	n := 1
	for start := t.now(); ; n *= 2 {
		for range n {
			call()
		}
		if t.now().Sub(start) >= t.least/2 {
			break
		}
	}
	var took []float64
	for range t.rounds {
		calls, start := 0, t.now()
		for calls == 0 || t.now().Sub(start) < t.least {
			for range max(1, n/8) {
				call()
			}
			calls += max(1, n/8)
		}
		took = append(took, t.now().Sub(start).Seconds()/float64(calls))
	}
	return median(took)
}

// Measure times every kernel on one thread, five runs of least each; a nil or empty only takes all. The ceiling is
// measured before and after.
func (b *Backend) Measure(least time.Duration, only []string) *Measurement {
	m := &Measurement{Ceiling: b.Ceiling(1)}
	k, t := b.kernels, timing{least, 5, time.Now}
	wanted := func(kernel string) bool { return len(only) == 0 || slices.Contains(only, kernel) }
	measured := map[string]bool{}
	add := func(kernel string, r Rate, call func()) {
		r.Kernel, r.Seconds = kernel, t.seconds(call)
		m.Rates = append(m.Rates, r)
	}
	for _, p := range modelProducts() {
		measured["tile"] = true
		if wanted(matmulKernel) {
			c := productCost(int64(p.m), int64(p.k), int64(p.n), 0)
			add(matmulKernel, Rate{Case: p.String(), Level: levelOf(float64(c.bytes)), FLOPs: float64(c.flops),
				Bytes: float64(c.bytes)}, p.call(k))
		}
	}
	for _, s := range streams() {
		measured[s.field()] = true
		if !wanted(s.kernel) {
			continue
		}
		for _, w := range s.sets() {
			n := max(64, w.Working/workOf(s.kernel).bytes()/512*512)
			c := streamed(s.kernel, int64(n))
			add(s.kernel, Rate{Case: fmt.Sprint(n), Level: w.Level, FLOPs: float64(c.flops), Bytes: float64(c.bytes)},
				s.make(k, n))
		}
	}
	for _, p := range tableProbes() {
		levels := p.levels
		if levels == nil {
			levels = workingSets()
		}
		for i, w := range levels {
			if !wanted(p.kernel) && i > 0 {
				break // that there is a call at all is known
			}
			call, c := p.make(k, w.Working)
			if call == nil {
				break
			}
			measured[p.field()] = true
			if wanted(p.kernel) {
				add(p.kernel, Rate{Case: p.what + w.Level, Level: w.Level, Random: p.random, FLOPs: float64(c.flops),
					Bytes: float64(c.bytes)}, call)
			}
		}
	}
	m.Ceiling.raise(b.Ceiling(1))
	for _, name := range kernelNames(reflect.TypeFor[kernels](), "") {
		if !measured[name] && name != "peak" && name != "prefetch" {
			m.Missing = append(m.Missing, name)
		}
	}
	return m
}

// kernelNames are the functions of kernels, those of a part of it behind the part's name.
func kernelNames(t reflect.Type, part string) (names []string) {
	for _, f := range reflect.VisibleFields(t) {
		switch {
		case f.Type.Kind() == reflect.Func:
			names = append(names, part+f.Name)
		case f.Type.Kind() == reflect.Struct && !f.Anonymous:
			names = append(names, kernelNames(f.Type, part+f.Name+".")...)
		}
	}
	return names
}

// sizes are those of a matrix product y [m,n] = a' b'.
type sizes struct {
	m, k, n        int
	transA, transB bool
}

// String is m x k x n with t behind it, and the side that is transposed.
func (p sizes) String() string {
	s := fmt.Sprintf("%dx%dx%d", p.m, p.k, p.n)
	if p.transA {
		s += " ta"
	}
	if p.transB {
		s += " tb"
	}
	return s
}

// modelProducts are those of the networks 32-128-128-1 and 15-500-1 with batches of 64, 1,024 and 8,192: forward,
// gradients of weights, gradients of inputs; the output layer; one row; and one that is large.
func modelProducts() []sizes {
	s := []sizes{{2048, 2048, 2048, false, false}}
	for _, m := range []int{64, 1024, 8192} {
		s = append(s,
			sizes{m, 32, 128, false, false}, sizes{m, 128, 128, false, false}, sizes{m, 15, 500, false, false},
			sizes{128, m, 128, true, false}, sizes{32, m, 128, true, false}, sizes{15, m, 500, true, false},
			sizes{m, 128, 128, false, true}, sizes{m, 128, 1, false, false}, sizes{m, 500, 1, false, false},
			sizes{128, m, 1, true, false}, sizes{500, m, 1, true, false}, sizes{m, 1, 128, false, true},
			sizes{m, 1, 500, false, true})
	}
	return append(s, sizes{1, 32, 128, false, false}, sizes{1, 128, 128, false, false}, sizes{1, 15, 500, false, false})
}

// call is the product on one worker.
func (p sizes) call(k *kernels) func() {
	r := rand.New(rand.NewPCG(1, 1))
	mm := &matmul{a: noise(r, p.m*p.k), b: noise(r, p.k*p.n), y: alignedF32(p.m * p.n), m: p.m, k: p.k, n: p.n,
		transA: p.transA, transB: p.transB}
	d := mm.divide(true)
	w := newWorker(k, 0, 1, d.pack)
	return func() { d.run(w, 0, d.units) }
}

// noise is n normal numbers.
func noise(r *rand.Rand, n int) []float32 {
	x := alignedF32(n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// stream is a kernel over n elements.
type stream struct {
	kernel string // the field of kernels, and behind a dot which of several
	make   func(k *kernels, n int) func()
}

// sets are the working sets that it is timed at: one where the arithmetic takes far longer than any memory.
func (s *stream) sets() []Bandwidth {
	sets := workingSets()
	if s.kernel == "permute" || s.kernel == "embed.uniforms" || s.field() == "fns" {
		return sets[1:2]
	}
	return sets
}

// field is the kernel's place in kernels, of a function of Map that of all.
func (s *stream) field() string {
	if strings.HasPrefix(s.kernel, "fns.") {
		return "fns"
	}
	return s.kernel
}

// arrays makes a stream of operands x[0] .. x[arrays-1], all float32 and of n elements.
func arrays(kernel string, arrays int, call func(k *kernels, x [][]float32)) stream {
	return stream{kernel, func(k *kernels, n int) func() {
		r := rand.New(rand.NewPCG(1, uint64(n)))
		x := make([][]float32, arrays)
		for i := range x {
			x[i] = noise(r, n)
		}
		return func() { call(k, x) }
	}}
}

// Sizes of matrices.
const (
	sumCols   = 128
	dotCols   = 64
	longRow   = 1024 // negatives of a row
	quantiles = 256  // steps times levels of a row
)

// streams are the kernels that pass over their operands once.
func streams() []stream {
	s := []stream{
		arrays("actGrad", 3, func(k *kernels, x [][]float32) { k.actGrad(x[0], x[1], x[2]) }),
		arrays("silu", 2, func(k *kernels, x [][]float32) { k.silu(x[0], x[1]) }),
		arrays("siluGrad", 3, func(k *kernels, x [][]float32) { k.siluGrad(x[0], x[1], x[2]) }),
		{"colSum", func(k *kernels, n int) func() {
			x, s := noise(rand.New(rand.NewPCG(1, 1)), n), alignedF32(sumCols)
			return func() { k.colSum(s, x, n/sumCols, sumCols, false) }
		}},
		updates("adamw", func(k *kernels) update { return k.adamw }),
		updates("adam", func(k *kernels) update { return k.adam }),
		updates("sgd", func(k *kernels) update { return k.sgd }),
		updates("momentum", func(k *kernels) update { return k.momentum }),
		updates("nesterov", func(k *kernels) update { return k.nesterov }),
		updates("adagrad", func(k *kernels) update { return k.adagrad }),
		arrays("sumSquares", 1, func(k *kernels, x [][]float32) { k.sumSquares(x[0]) }),
		arrays("average", 2, func(k *kernels, x [][]float32) { k.average(x[0], x[1], 1e-3) }),
		arrays("bce", 4, func(k *kernels, x [][]float32) { k.bce(x[0], x[1], x[2], x[3]) }),
		arrays("bceGrad", 4, func(k *kernels, x [][]float32) { k.bceGrad(x[0], x[1], x[2], x[3], 1e-3) }),
		byRow("extreme", 1, longRow, func(k *kernels, x [][]float32) { k.extreme(program.Max, x[0]) }),
		arrays("dropout", 2, func(k *kernels, x [][]float32) {
			d := dropCoef{seed: 1, step: 2, site: 3, rate: .2, keep: .8}
			k.dropout(x[0], x[1], 0, &d)
		}),
		{"permute", func(k *kernels, n int) func() {
			order, p := make([]int32, n), program.NewPermutation(1, 2, n)
			return func() { k.permute(order, 0, &p) }
		}},
		{"embed.uniforms", func(k *kernels, n int) func() {
			u := alignedF32(n)
			return func() { k.embed.uniforms(u, 0, 1, 2, 3) }
		}},
		byRow("embed.shrink", 2, tableCols, func(k *kernels, x [][]float32) { k.embed.shrink(x[0], x[1], 1.5, 1e-3, .1) }),
		byRow("embed.adagrad", 3, tableCols, func(k *kernels, x [][]float32) {
			k.embed.adagrad(x[0], x[1], x[2], 1e-8, 1e-3, .1)
		}),
		arrays("add", 3, func(k *kernels, x [][]float32) { k.add(x[0], x[1], x[2]) }),
		arrays("addTo", 2, func(k *kernels, x [][]float32) { k.addTo(x[0], x[1], 1) }),
		arrays("scale", 2, func(k *kernels, x [][]float32) { k.scale(x[0], x[1], 1.5) }),
		arrays("div", 2, func(k *kernels, x [][]float32) { k.div(x[0], x[1], 1.5) }),
		{"rowDot", func(k *kernels, n int) func() {
			r := rand.New(rand.NewPCG(1, 1))
			a, b, s := noise(r, n), noise(r, n), alignedF32(n/dotCols)
			return func() { k.rowDot(s, a, b, dotCols) }
		}},
		byRow("softmaxLogits", 4, longRow, func(k *kernels, x [][]float32) {
			k.softmaxLogits(x[0], x[1], x[2], x[3], -1, 0)
		}),
		byRow("softmaxExp", 1, longRow, func(k *kernels, x [][]float32) { // of its own results
			var sums lanes
			k.softmaxExp(&sums, x[0], 5)
		}),
		byRow("pinball", 4, quantiles, func(k *kernels, x [][]float32) {
			var terms lanes
			k.pinball(&terms, x[0], x[1], x[2], x[3])
		}),
		byRow("pinballGrad", 5, quantiles, func(k *kernels, x [][]float32) {
			k.pinballGrad(x[0], x[1], x[2], x[3], x[4], 1e-3)
		}),
		arrays("laneSum", 1, func(k *kernels, x [][]float32) { k.laneSum(x[0]) }),
	}
	fns := program.Fns()
	slices.SortFunc(fns, func(a, b program.Fn) int { return cmp.Compare(a, b) })
	for _, fn := range fns {
		n := 2
		if binary32[fn] != nil {
			n = 3
		}
		s = append(s, arrays("fns."+string(fn), n, func(k *kernels, x [][]float32) {
			var b []float32
			if n == 3 {
				b = x[2]
			}
			k.fns[fn](x[0], x[1], b)
		}))
	}
	return s
}

// updates is an optimizer's kernel.
func updates(kernel string, of func(k *kernels) update) stream {
	return stream{kernel, func(k *kernels, n int) func() {
		r := rand.New(rand.NewPCG(1, 1))
		p, m, v, g := noise(r, n), alignedF32(n), alignedF32(n), noise(r, n)
		c := newAdamCoef(&program.Attr{Beta1: .9, Beta2: .999, Eps: 1e-8, Momentum: .9}, 1, 1e-3)
		return func() { of(k)(p, m, v, g, &c) }
	}}
}

// byRow is arrays for a kernel that is called for one row after the other.
func byRow(kernel string, n, width int, call func(k *kernels, x [][]float32)) stream {
	return arrays(kernel, n, func(k *kernels, x [][]float32) {
		row := make([][]float32, len(x))
		for at := 0; at < len(x[0]); at += width {
			for i := range x {
				row[i] = x[i][at:min(at+width, len(x[i]))]
			}
			call(k, row)
		}
	})
}
