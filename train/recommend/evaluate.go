package recommend

import (
	"fmt"

	"github.com/onmart/onmart/ranking"
)

// listed is how many items are judged.
const listed = 10

// Metrics are the figures of a model by their names: ndcg_at_10, recall_at_10 and hit_rate_at_10 over lists that may
// offer anything, and new_ndcg_at_10 ... over lists without what the user had bought before, which then does not count
// either. users and new_users are how many were judged.
type Metrics map[string]float64

// names of what models are compared by: in each reading the one figure that heeds the order.
var comparedBy = []string{"ndcg_at_10", "new_ndcg_at_10"}

func metricsOf(r ranking.Report) Metrics {
	m := Metrics{}
	for prefix, x := range map[string]ranking.Metrics{"": r.All, "new_": r.New} {
		m[prefix+"users"] = float64(x.Users)
		if x.Users > 0 {
			m[prefix+fmt.Sprintf("ndcg_at_%d", listed)] = x.NDCG
			m[prefix+fmt.Sprintf("recall_at_%d", listed)] = x.Recall
			m[prefix+fmt.Sprintf("hit_rate_at_%d", listed)] = x.Hit
		}
	}
	return m
}

// Loss is a baseline that a model does not beat.
type Loss struct {
	Name     string  `json:"name"`
	Metric   string  `json:"metric"`
	Model    float64 `json:"model"`
	Baseline float64 `json:"baseline"`
}

// BaselineResult is a simpler model on the same users.
type BaselineResult struct {
	Name    string  `json:"name"`
	Metrics Metrics `json:"metrics"`
}

// Judged is a model and the baselines on a span.
type Judged struct {
	Model     Metrics          `json:"model"`
	Baselines []BaselineResult `json:"baselines"`
	LosesTo   []Loss           `json:"loses_to"`
}

// Judge compares a model, and each simpler one that its parts allow, on what was bought later.
func Judge(m *ranking.Model, l, later *ranking.Log, parts ranking.Parts, threads int) (*Judged, error) {
	r, err := ranking.Evaluate(m, later, listed, threads)
	if err != nil {
		return nil, err
	}
	if r.All.Users == 0 {
		return nil, fmt.Errorf("nobody who had bought before bought anything known there: there is nothing to judge by")
	}
	j := &Judged{Model: metricsOf(r), Baselines: []BaselineResult{}, LosesTo: []Loss{}}
	for _, k := range beside(parts) {
		if k == m.Kind() {
			continue
		}
		b, err := ranking.NewModel(k, l, m.Now(), parts)
		if err != nil {
			return nil, err
		}
		if r, err = ranking.Evaluate(b, later, listed, threads); err != nil {
			return nil, err
		}
		x := BaselineResult{string(k), metricsOf(r)}
		j.Baselines = append(j.Baselines, x)
		for _, name := range comparedBy {
			ours, ok := j.Model[name]
			if theirs, has := x.Metrics[name]; ok && has && !(ours > theirs) {
				j.LosesTo = append(j.LosesTo, Loss{x.Name, name, ours, theirs})
			}
		}
	}
	return j, nil
}

// beside are the kinds that parts are enough for.
func beside(p ranking.Parts) []ranking.Kind {
	var out []ranking.Kind
	for _, k := range ranking.Kinds() {
		have := true
		switch k {
		case ranking.Blended:
			have = false // one blend is not the baseline of another model
		case ranking.EASER:
			have = p.EASE != nil
		case ranking.KNN:
			have = p.KNN != nil
		case ranking.ALSKind:
			have = p.ALS != nil
		case ranking.Vector:
			have = p.Embedding != nil
		}
		if have {
			out = append(out, k)
		}
	}
	return out
}
