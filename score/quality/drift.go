package quality

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

const (
	driftHours = 24 // of event time that live values are held for
	// driftWhole is how many rows of an hour are all counted; of those beyond, one in driftThin: at 5,000 events/s the
	// histograms then take 0.1 % of a core, and a bin of a tenth of an hour is within half a point.
	driftWhole = 1 << 14
	driftThin  = 16
)

// Drift holds live features and scores against those of the training, over the last 24 hours of event time. Its methods
// may be called from several goroutines. Adding allocates nothing.
type Drift struct {
	names     []string
	reference []*features.Histogram // by feature, then that of scores

	mu    sync.Mutex
	hours [driftHours]driftHour
	last  int64 // newest hour, since 1970
}

type driftHour struct {
	hour int64
	rows int
	live []*features.Histogram
}

// NewDrift begins with no live values. names and reference are by feature; scores is the reference of scores.
func NewDrift(names []string, reference []*features.Histogram, scores *features.Histogram) *Drift {
	d := &Drift{names: names, reference: append(slices.Clone(reference), scores), last: math.MinInt64}
	for h := range d.hours {
		d.hours[h].hour = math.MinInt64
		for _, r := range d.reference {
			d.hours[h].live = append(d.hours[h].live, r.Against())
		}
	}
	return d
}

// Add counts n rows of about one time: by feature and then by row, with their scores; a score that is NaN was not
// given.
func (d *Drift) Add(values [][]float64, scores []float64, n int, at int64) {
	if n == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	hour := at / (3600 * datasets.Second)
	if hour+driftHours <= d.last {
		return
	}
	d.last = max(d.last, hour)
	h := &d.hours[(hour%driftHours+driftHours)%driftHours]
	if h.hour != hour {
		h.hour, h.rows = hour, 0
		for _, x := range h.live {
			clear(x.Counts)
			x.Rows, x.Zeros, x.Sum = 0, 0, 0
		}
	}
	step := 1
	if h.rows >= driftWhole {
		step = driftThin
	}
	first := (step - h.rows%step) % step
	h.rows += n
	for j := range d.names {
		add(h.live[j], values[j][:n], first, step)
	}
	add(h.live[len(d.names)], scores[:n], first, step)
}

func add(h *features.Histogram, values []float64, first, step int) {
	if step == 1 {
		h.Add(values, nil)
		return
	}
	for i := first; i < len(values); i += step {
		h.Add(values[i:i+1], nil)
	}
}

// Drifted is how far one column has moved. PSI is nil without live rows.
type Drifted struct {
	Name      string              `json:"name"`
	PSI       *float64            `json:"psi"`
	Chance    float64             `json:"psi_by_chance"` // what equal populations exceed in one case of twenty
	Verdict   string              `json:"verdict"`
	Mean      float64             `json:"mean"`
	Trained   float64             `json:"mean_trained"`
	Reference *features.Histogram `json:"reference"`
	Live      *features.Histogram `json:"live"`
}

// DriftReport is what GET /v1/drift answers.
type DriftReport struct {
	Hours    int       `json:"hours"` // of event time that the live values are of
	Rows     int64     `json:"rows"`  // counted
	Score    Drifted   `json:"score"`
	Features []Drifted `json:"features"` // greatest PSI first
}

// Report compares.
func (d *Drift) Report() DriftReport {
	r := DriftReport{Features: []Drifted{}}
	sums := make([]*features.Histogram, len(d.reference))
	d.mu.Lock()
	for i := range d.reference {
		sums[i] = d.reference[i].Against()
	}
	for h := range d.hours {
		x := &d.hours[h]
		if x.hour == math.MinInt64 || x.hour+driftHours <= d.last {
			continue
		}
		r.Hours++
		for i, s := range sums {
			live := x.live[i]
			for b, n := range live.Counts {
				s.Counts[b] += n
			}
			s.Rows, s.Zeros, s.Sum = s.Rows+live.Rows, s.Zeros+live.Zeros, s.Sum+live.Sum
		}
	}
	d.mu.Unlock()
	for i, live := range sums {
		x := Drifted{Reference: d.reference[i], Live: live, Mean: live.Mean(), Trained: d.reference[i].Mean()}
		psi := features.PSI(d.reference[i], live)
		x.Chance = features.PSIByChance(d.reference[i], live)
		x.Verdict = features.PSIWords(psi, x.Chance)
		if !math.IsNaN(psi) {
			x.PSI = &psi
		}
		if i == len(d.names) {
			x.Name = "score"
			r.Score, r.Rows = x, live.Rows
		} else {
			x.Name = d.names[i]
			r.Features = append(r.Features, x)
		}
	}
	slices.SortStableFunc(r.Features, func(a, b Drifted) int { return cmp.Compare(value(b.PSI), value(a.PSI)) })
	return r
}

func value(p *float64) float64 {
	if p == nil {
		return -1
	}
	return *p
}
