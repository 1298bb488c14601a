package model

import (
	"fmt"
	"sync"

	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/train/cpu"
)

// Predictor turns feature vectors into calibrated probabilities. It is for one goroutine at a time and
// uses several itself. A row's probability is the same bits whatever rows and threads it shares a call
// with, and so are its reasons.
type Predictor struct {
	features []features.Feature
	typical  []float64
	tile     int
	workers  []*worker
	parts    sync.WaitGroup
	reasons  struct{ x, out []float64 }
}

// worker is one thread's share: its own buffers over weights that all share.
type worker struct {
	forward *cpu.Forward
	x       []float64 // a tile of rows, row-major
	err     error
}

// NewPredictor compiles the program of a classifier for up to threads goroutines; less than one is one.
func (a *Artifact) NewPredictor(threads int) (*Predictor, error) {
	if a.manifest.Task != Fraud {
		return nil, fmt.Errorf("model %s is of task %s and scores no transactions: give one that onmart train fraud wrote", a.dir, a.manifest.Task)
	}
	forward, err := cpu.NewForward(a.set.Forward, a.weights)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", a.dir, err)
	}
	p := &Predictor{features: a.plan.Features(), typical: a.manifest.Typical, tile: a.set.Forward.Rows}
	for i := range max(threads, 1) {
		w := &worker{forward: forward, x: make([]float64, p.tile*len(p.features))}
		if i > 0 {
			w.forward = forward.Clone()
		}
		p.workers = append(p.workers, w)
	}
	n := len(p.features) + 1
	p.reasons.x, p.reasons.out = make([]float64, n*len(p.features)), make([]float64, n)
	return p, nil
}

// Predict writes the probabilities of n rows to scores. values holds one slice of at least n numbers for
// each feature of the model, in its order, as features.Rows.Values does. Values must be finite: a score
// that comes out as no probability is an error naming its row.
func (p *Predictor) Predict(values [][]float64, n int, scores []float64) error {
	if len(values) != len(p.features) {
		return fmt.Errorf("predict: %d features, the model wants %d", len(values), len(p.features))
	}
	for i := range values {
		if len(values[i]) < n {
			return fmt.Errorf("predict: feature %s has %d values for %d rows", p.features[i].Name, len(values[i]), n)
		}
	}
	if len(scores) < n {
		return fmt.Errorf("predict: room for %d scores of %d rows", len(scores), n)
	}
	tiles := (n + p.tile - 1) / p.tile
	if tiles < 2 || len(p.workers) == 1 {
		return p.workers[0].run(values, 0, n, scores)
	}
	k := min(len(p.workers), tiles)
	for i, w := range p.workers[:k] {
		from, to := tiles*i/k*p.tile, min(tiles*(i+1)/k*p.tile, n)
		p.parts.Go(func() { w.err = w.run(values, from, to, scores) })
	}
	p.parts.Wait()
	for _, w := range p.workers[:k] {
		if w.err != nil {
			return w.err
		}
	}
	return nil
}

// run scores the rows from..to, a tile at a time.
func (w *worker) run(values [][]float64, from, to int, scores []float64) error {
	width := len(values)
	tile := len(w.x) / width
	for ; from < to; from += tile {
		n := min(tile, to-from)
		for j, column := range values {
			for i, v := range column[from : from+n] {
				w.x[i*width+j] = v
			}
		}
		out := scores[from : from+n]
		if err := w.forward.Run(w.x[:n*width], n, out); err != nil {
			return fmt.Errorf("predict: %w", err)
		}
		for i, s := range out {
			if !(s >= 0 && s <= 1) {
				return fmt.Errorf("predict: row %d scores %v, which is no probability: a feature of it is not a finite number", from+i, s)
			}
		}
	}
	return nil
}
