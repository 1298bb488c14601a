package model

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/train/cpu"
)

// ReferenceFile is a classifier's file of what its training rows looked like, and of scores to test it by.
const ReferenceFile = "reference.json"

// Reference is how a classifier's features and scores were spread over a sample of its training rows, and what it gives
// for a few of them: live values are held against it, and an artifact that is opened elsewhere has to give the same.
type Reference struct {
	Rows     int                   `json:"rows"`     // of the sample
	Features []*features.Histogram `json:"features"` // in the order of the manifest
	Scores   *features.Histogram   `json:"scores"`
	Probe    Probe                 `json:"probe"`
}

// Probe is rows, by feature and then by row, and the scores that the artifact gave when it was made.
type Probe struct {
	Values [][]float64 `json:"values"`
	Scores []float64   `json:"scores"`
}

const (
	probeRows = 16
	// probeTolerance is how far the scores of two processors may be apart: the portable kernels differ from AVX2 by
	// some units in the last place of float32 in an exponent.
	probeTolerance = 1e-5
)

// reference computes what stands in the file from a sample of training rows.
func (c *Contents) reference(features int, run func(x []float64, rows int, out []float64) error) (*Reference, error) {
	if len(c.Sample) != features {
		return nil, fmt.Errorf("a sample of %d features, the model has %d", len(c.Sample), features)
	}
	n := len(c.Sample[0])
	x, scores := make([]float64, n*features), make([]float64, n)
	for j, column := range c.Sample {
		if len(column) != n {
			return nil, fmt.Errorf("a sample with %d values of one feature and %d of another", n, len(column))
		}
		for i, v := range column {
			x[i*features+j] = v
		}
	}
	if err := run(x, n, scores); err != nil {
		return nil, err
	}
	r := &Reference{Rows: n, Scores: histogram(scores)}
	for _, column := range c.Sample {
		r.Features = append(r.Features, histogram(column))
		v := make([]float64, 0, probeRows)
		for k := range min(probeRows, n) {
			v = append(v, column[k*n/min(probeRows, n)])
		}
		r.Probe.Values = append(r.Probe.Values, v)
	}
	for k := range min(probeRows, n) {
		r.Probe.Scores = append(r.Probe.Scores, scores[k*n/min(probeRows, n)])
	}
	return r, nil
}

func histogram(values []float64) *features.Histogram {
	h := features.NewReference(slices.Clone(values))
	h.Add(values, nil)
	return h
}

// referenceFile is the file of Save; nil without a sample.
func (c *Contents) referenceFile(m *Manifest) (func(io.Writer) error, error) {
	if len(c.Sample) == 0 || len(c.Sample[0]) == 0 {
		return nil, nil
	}
	if m.Task != Fraud {
		return nil, fmt.Errorf("a model of task %s has no reference", m.Task)
	}
	forward, err := cpu.NewForward(c.Program.Forward, c.Weights)
	if err != nil {
		return nil, err
	}
	r, err := c.reference(len(m.Features), forward.Run)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ReferenceFile, err)
	}
	return func(w io.Writer) error { return json.NewEncoder(w).Encode(r) }, nil
}

// Reference reads what the training rows looked like; nil where the artifact was made without.
func (a *Artifact) Reference() (*Reference, error) {
	if _, ok := a.manifest.Files[ReferenceFile]; !ok {
		return nil, nil
	}
	b, err := a.ReadFile(ReferenceFile)
	if err != nil {
		return nil, err
	}
	r := &Reference{}
	err = decodeStrict(b, r)
	if err == nil {
		err = r.check(len(a.manifest.Features))
	}
	if err != nil {
		return nil, fmt.Errorf("model %s: %s is damaged: %w; train again", a.dir, ReferenceFile, err)
	}
	return r, nil
}

// check bounds what is believed of a file.
func (r *Reference) check(width int) error {
	if len(r.Features) != width || r.Scores == nil || len(r.Probe.Values) != width {
		return fmt.Errorf("%d histograms and %d probes for %d features", len(r.Features), len(r.Probe.Values), width)
	}
	for _, h := range append(slices.Clone(r.Features), r.Scores) {
		if h == nil || len(h.Counts) != len(h.Points)+len(h.Edges)+2 || !slices.IsSorted(h.Points) ||
			!slices.IsSorted(h.Edges) {
			return fmt.Errorf("a histogram that cannot be")
		}
	}
	for _, v := range r.Probe.Values {
		if len(v) != len(r.Probe.Scores) {
			return fmt.Errorf("%d values for %d probe scores", len(v), len(r.Probe.Scores))
		}
	}
	return nil
}

// SelfTest scores a row that is typical in every feature, one of zeros, and the rows of the artifact's probe, if it has
// one, whose scores must be those that it gave when it was made.
func (a *Artifact) SelfTest(p *Predictor) error {
	width := len(a.manifest.Features)
	rows := make([][]float64, width)
	for j := range rows {
		rows[j] = []float64{a.manifest.Typical[j], 0}
	}
	var scores [2]float64
	if err := p.Predict(rows, 2, scores[:]); err != nil {
		return fmt.Errorf("model %s: it cannot score a typical row: %w", a.dir, err)
	}
	r, err := a.Reference()
	if err != nil || r == nil || len(r.Probe.Scores) == 0 {
		return err
	}
	got := make([]float64, len(r.Probe.Scores))
	if err := p.Predict(r.Probe.Values, len(got), got); err != nil {
		return fmt.Errorf("model %s: it cannot score the rows of its probe: %w", a.dir, err)
	}
	for i, want := range r.Probe.Scores {
		if !(math.Abs(got[i]-want) <= probeTolerance) {
			return fmt.Errorf("model %s: it scores row %d of its probe %v, and scored it %v when it was made: this onmart or "+
				"this processor computes something else; train again here", a.dir, i+1, got[i], want)
		}
	}
	return nil
}
