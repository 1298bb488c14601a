package fraud

import (
	"fmt"
	"math"
	"sync"

	"github.com/onmart/onmart/train/baseline"
)

// Metrics are the figures by their names in JSON. A figure that is not defined is left out.
func (e *Evaluation) Metrics() map[string]float64 {
	m := map[string]float64{
		"auc":                   e.AUC,
		"average_precision":     e.AveragePrecision,
		"card_precision_at_100": e.CardPrecision100,
		"log_loss":              e.LogLoss,
		"brier":                 e.Brier,
		"ece":                   e.ECE,
		"alerts_per_day":        e.Alerts.PerDay,
		"alert_precision":       e.Alerts.Precision,
		"alert_recall":          e.Alerts.Recall,
	}
	for name, v := range m {
		if math.IsNaN(v) {
			delete(m, name)
		}
	}
	m["rows"], m["positives"] = float64(e.Rows), float64(e.Positives)
	return m
}

// BaselineResult is a classical model on the test rows.
type BaselineResult struct {
	Key     string             `json:"key"`
	Name    string             `json:"name"`
	Note    string             `json:"note,omitempty"`
	Metrics map[string]float64 `json:"metrics"`
}

// Baselines trains every baseline on the rows of learn and judges it on those of test. log says of which
// features the logarithm is taken; all are standardised.
func Baselines(learn, test *Rows, log []bool, seed uint64, p Protocol, threads int, note func(string, ...any)) ([]BaselineResult, error) {
	s := newStandard(learn, log)
	x, err := s.columns(learn, threads)
	if err != nil {
		return nil, err
	}
	z, err := s.columns(test, threads)
	if err != nil {
		return nil, err
	}
	models := baseline.All()
	out := make([]BaselineResult, len(models))
	errs := make([]error, len(models))
	room := make(chan struct{}, max(threads, 1))
	var wg sync.WaitGroup
	for i, m := range models {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			out[i], errs[i] = judge(m, x, learn.Y, z, test, seed, p)
		})
	}
	wg.Wait()
	kept := out[:0]
	for i, err := range errs {
		if err != nil { // a baseline that cannot be had is no reason to lose the model
			note("no figures of the %s: %v", models[i].Name(), err)
			continue
		}
		kept = append(kept, out[i])
	}
	return kept, nil
}

func judge(m baseline.Model, x [][]float64, y []bool, z [][]float64, test *Rows, seed uint64, p Protocol) (BaselineResult, error) {
	r := BaselineResult{Key: m.Key(), Name: m.Name()}
	var err error
	if r.Note, err = m.Fit(x, y, seed); err != nil {
		return r, err
	}
	scores, err := m.Score(z)
	if err != nil {
		return r, err
	}
	e := Evaluate(test, scores, p)
	r.Metrics = e.Metrics()
	for _, name := range []string{"alerts_per_day", "alert_precision", "alert_recall"} {
		delete(r.Metrics, name) // the threshold is the model's
	}
	if !m.Probabilities() {
		for _, name := range []string{"log_loss", "brier", "ece"} {
			delete(r.Metrics, name)
		}
	}
	return r, nil
}

// columns is the standardised features of the rows as columns.
func (s *standard) columns(rows *Rows, threads int) ([][]float64, error) {
	x, err := s.matrix(rows.Values, rows.Len(), threads)
	if err != nil {
		return nil, err
	}
	width := len(s.mean)
	out := make([][]float64, width)
	for f := range out {
		out[f] = make([]float64, rows.Len())
		for i := range out[f] {
			out[f][i] = float64(x[i*width+f])
		}
	}
	return out, nil
}

// Loss is a figure in which a baseline is better.
type Loss struct {
	Name     string  `json:"name"`
	Metric   string  `json:"metric"`
	Model    float64 `json:"model"`
	Baseline float64 `json:"baseline"`
}

func (l Loss) String() string {
	return fmt.Sprintf("%s: %s %.4f against %.4f", l.Name, l.Metric, l.Model, l.Baseline)
}

// losses lists where a baseline ranks frauds better than the model.
func losses(model map[string]float64, baselines []BaselineResult) []Loss {
	out := []Loss{}
	for _, b := range baselines {
		for _, metric := range []string{"auc", "average_precision", "card_precision_at_100"} {
			mine, ok := model[metric]
			theirs, there := b.Metrics[metric]
			if ok && there && theirs > mine {
				out = append(out, Loss{b.Name, metric, mine, theirs})
			}
		}
	}
	return out
}
