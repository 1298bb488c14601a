package demand

import (
	"math"
	"slices"
	"sync"

	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train/program"
)

// Rows are what the network is trained on or judged by: a series at an origin and a step ahead each.
type Rows struct {
	Width          int
	X              []float32 // inputs as they are made, row-major
	Target, Weight []float32 // demand in the network's units, and what its error counts
}

// Len is the number of rows.
func (r *Rows) Len() int { return len(r.Target) }

// window is one series at one origin with the steps ahead that are taken of it.
type window struct {
	series, known int
	from, to      int // rows
	steps         []int
}

// Sites of the draws that choose training rows.
const (
	siteWindow = 1 << 20
	siteSteps  = siteWindow + 1
)

const (
	// stepsPerWindow is how many steps ahead are taken of a window: making its inputs costs more than one step more.
	stepsPerWindow = 8
	// pause is how many steps without a sale leave nothing to learn from a window.
	pause = 100
	// maxWeight bounds what an error counts, up and down: a series of a few sales has no scale to speak of.
	maxWeight = 5
)

// drawn are the training rows whose targets lie in the first known steps: origins everywhere after the least age, a few
// steps ahead of each, as many windows as the cap allows, drawn by the seed.
func drawn(v *forecaster.View, d *forecaster.Design, o *drawOptions) *Rows {
	var all []window
	for i, first := range o.first {
		y, last := v.Series(i).Y, -pause
		for known := first + 1; known < o.known; known++ {
			if y[known-1-first] != 0 {
				last = known
			}
			if v.Age(i, known) >= o.least && known-last < pause {
				all = append(all, window{series: i, known: known})
			}
		}
	}
	all = thinned(all, o)
	slices.SortStableFunc(all, func(a, b window) int { return a.known - b.known })
	return made(v, d, all, o)
}

type drawOptions struct {
	seed    uint64
	first   []int // by series: its first step
	known   int   // targets lie before it
	least   int   // open steps that a series has at an origin
	rows    int
	threads int
	value   []float64 // by series: what a row counts, beside what its errors do
}

// validRows is how many rows the epochs are compared on at most.
const validRows = 60_000

// sampled are the rows of series at some origins, a few steps ahead of each, drawn by the seed.
func sampled(v *forecaster.View, d *forecaster.Design, origins []int, o *drawOptions) *Rows {
	var all []window
	for _, known := range origins {
		for i, first := range o.first {
			if first < known && v.Age(i, known) >= o.least {
				all = append(all, window{series: i, known: known})
			}
		}
	}
	return made(v, d, thinned(all, o), o)
}

// thinned draws as many windows as the cap on rows allows.
func thinned(all []window, o *drawOptions) []window {
	keep := float64(o.rows) / stepsPerWindow / math.Max(1, float64(len(all)))
	if keep >= 1 {
		return all
	}
	return slices.DeleteFunc(all, func(w window) bool {
		u := program.Uniforms4(o.seed, uint32(w.known), siteWindow, uint64(w.series))
		return float64(u[0]) >= keep
	})
}

// made makes the rows of windows that are sorted by origin.
func made(v *forecaster.View, d *forecaster.Design, all []window, o *drawOptions) *Rows {
	r := &Rows{Width: len(d.Names())}
	var groups [][]window
	rows := 0
	for from := 0; from < len(all); {
		to := from
		for to < len(all) && all[to].known == all[from].known {
			to++
		}
		groups = append(groups, all[from:to])
		from = to
	}
	origins := make([]*forecaster.Origin, len(groups))
	for g, ws := range groups {
		horizon := min(d.Horizon, o.known-ws[0].known)
		origins[g] = v.At(ws[0].known, horizon)
		var open []int
		for k := range horizon {
			if origins[g].Open(k) {
				open = append(open, k)
			}
		}
		for i := range ws {
			// As many as the part of the horizon that is known deserves.
			n := (stepsPerWindow*horizon + d.Horizon - 1) / d.Horizon
			ws[i].steps = chosen(open, n, o.seed, ws[i])
			ws[i].from = rows
			rows += len(ws[i].steps)
			ws[i].to = rows
		}
	}
	r.X, r.Target, r.Weight = make([]float32, rows*r.Width), make([]float32, rows), make([]float32, rows)
	var next sync.Mutex
	g := 0
	take := func() int {
		next.Lock()
		defer next.Unlock()
		g++
		return g - 1
	}
	var wg sync.WaitGroup
	for range max(1, o.threads) {
		wg.Go(func() {
			for k := take(); k < len(groups); k = take() {
				w := origins[k].Writer()
				for _, win := range groups[k] {
					r.fill(v, d, w, win, o.value[win.series])
				}
			}
		})
	}
	wg.Wait()
	return r
}

func (r *Rows) fill(v *forecaster.View, d *forecaster.Design, w *forecaster.Writer, win window, value float64) {
	if len(win.steps) == 0 {
		return
	}
	level, scale := w.Begin(win.series)
	s := v.Series(win.series)
	// What an error counts: as in the scores, by the scale of the series' own errors.
	weight := math.Max(1/float64(maxWeight), math.Min(maxWeight, scale/d.ErrorScale(s.Y[:win.known-s.First])))
	for i, k := range win.steps {
		row := win.from + i
		w.Row(k, r.X[row*r.Width:(row+1)*r.Width])
		r.Target[row] = float32((s.Y[win.known+k-s.First] - level) / scale)
		r.Weight[row] = float32(value * weight)
	}
}

// chosen draws n of the open steps, in order.
func chosen(open []int, n int, seed uint64, w window) []int {
	if n >= len(open) {
		return open
	}
	out := make([]int, 0, n)
	need := n
	for i, k := range open { // selection sampling (Knuth, TAOCP 3.4.2, algorithm S)
		u := program.Uniforms4(seed, uint32(w.known), siteSteps, uint64(w.series)<<16|uint64(i/4))[i%4]
		if float64(u)*float64(len(open)-i) < float64(need) {
			out = append(out, k)
			need--
		}
	}
	return out
}

// standard is how inputs are standardised: (x - mean) scale. An input that never varies gets no say.
type standard struct{ mean, scale []float64 }

func newStandard(r *Rows) *standard {
	s := &standard{make([]float64, r.Width), make([]float64, r.Width)}
	n := float64(r.Len())
	squares := make([]float64, r.Width)
	for i := range r.Len() {
		for f, x := range r.X[i*r.Width : (i+1)*r.Width] {
			s.mean[f] += float64(x)
		}
	}
	for f := range s.mean {
		s.mean[f] /= n
	}
	for i := range r.Len() {
		for f, x := range r.X[i*r.Width : (i+1)*r.Width] {
			e := float64(x) - s.mean[f]
			squares[f] += e * e
		}
	}
	for f := range s.scale {
		if sd := math.Sqrt(squares[f] / n); sd > 1e-9*math.Max(1, math.Abs(s.mean[f])) {
			s.scale[f] = 1 / sd
		}
	}
	return s
}

// apply standardises rows in place, by the arithmetic of the Standardize instruction, after inputs were held to what
// training saw, as forecaster.Net does.
func (s *standard) apply(r *Rows) {
	low, high := forecaster.Bounds(s.mean, s.scale)
	for i := range r.Len() {
		row := r.X[i*r.Width : (i+1)*r.Width]
		for f, x := range row {
			u := math.Max(low[f], math.Min(high[f], float64(x)))
			row[f] = float32((u - s.mean[f]) * s.scale[f])
		}
	}
}

func (s *standard) tensors() program.Tensors {
	n := []int{len(s.mean)}
	ts := program.Tensors{
		{Name: program.StandardizeMean, DType: program.F64, Shape: n, F64: s.mean},
		{Name: program.StandardizeScale, DType: program.F64, Shape: n, F64: s.scale},
		{Name: program.StandardizeLog, DType: program.F64, Shape: n, F64: make([]float64, len(s.mean))},
	}
	ts.Sort()
	return ts
}
