package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/recommender"
	"github.com/onmart/onmart/train/recommend"
)

// evaluatedRecommend is what evaluate prints of a recommender with --json: these keys and those of its metrics, in one
// object.
type evaluatedRecommend struct {
	Model         string                     `json:"model"`
	Task          string                     `json:"task"`
	Data          string                     `json:"data"`
	Range         model.Span                 `json:"range"`
	Rows          int                        `json:"rows"` // lines of known users and items
	Others        int                        `json:"rows_of_unknown"`
	Baselines     []recommend.BaselineResult `json:"baselines"`
	Beaten        bool                       `json:"beaten_by_baseline"`
	LosesTo       []recommend.Loss           `json:"loses_to"`
	Seconds       float64                    `json:"seconds"`
	RowsPerSecond float64                    `json:"rows_per_second"`

	metrics recommend.Metrics
}

// MarshalJSON joins both parts' keys.
func (e *evaluatedRecommend) MarshalJSON() ([]byte, error) {
	type plain evaluatedRecommend
	own, err := json.Marshal((*plain)(e))
	if err != nil {
		return nil, err
	}
	figures, err := json.Marshal(e.metrics)
	if err != nil {
		return nil, err
	}
	own[len(own)-1] = ','
	return append(own, figures[1:]...), nil
}

// evaluateRecommend judges a recommender, and the simpler models that its artifact has the parts of, on what was bought
// after its training.
func evaluateRecommend(ctx context.Context, con *console, f *evaluateFlags, a *model.Artifact) error {
	switch {
	case f.delay != "" || f.allCards:
		return usagef("--delay and --all-cards are for models of fraud: %s is a recommender", f.model)
	case f.report != "":
		return usagef("--report is for models of fraud: %s is a recommender; --json has all figures", f.model)
	}
	start := time.Now()
	r, err := recommender.Open(a, f.threads)
	if err != nil {
		return err
	}
	d, err := openFeatures(ctx, con, f.data, a.Spec(), f.threads)
	if err != nil {
		return err
	}
	s, err := recommend.OpenSource(d)
	if err != nil {
		return err
	}
	if s.Spec.Name() != a.Spec().Name() {
		return fmt.Errorf("--data %s: its interactions were made with the spec %s, those of the model with %s: give transactions, or interactions of the same spec", f.data, s.Spec.Name(), a.Spec().Name())
	}
	m := a.Manifest()
	e := &evaluatedRecommend{Model: m.Version, Task: m.Task, Data: d.ID()}
	now := r.Model().Now
	switch {
	case f.test != "":
		span, err := datasets.ParseRangeIn(f.test, a.Spec().Location())
		if err != nil {
			return usagef("--test: %w", err)
		}
		e.Range = model.Span{Range: span}
	case m.Test != nil && m.Test.Data == d.ID():
		e.Range = m.Test.Range
	case d.Manifest().To >= now:
		e.Range = model.Span{Range: datasets.Range{From: now, To: d.Manifest().To + 1}}
	default:
		return usagef("the model was trained on %s and %s ends at %s: nothing is left to evaluate on; give --test R to evaluate on a range all the same",
			m.Lineage.Train, d.Dir(), datasets.FormatTime(d.Manifest().To))
	}
	from, to := e.Range.Bounds()
	if from < now {
		con.notef("warning: %s begins before the end of training, %s: the figures flatter the model", e.Range,
			datasets.FormatTime(now))
	} else if from > now && from != math.MinInt64 {
		con.notef("%s begins after the end of training, %s: what was bought between is not known to the model", e.Range,
			datasets.FormatTime(now))
	}
	later, others, err := recommend.LoadLater(ctx, d, r.History(), from, to, f.threads)
	if err != nil {
		return err
	}
	if len(later.Log.User) == 0 {
		return fmt.Errorf("%s has no purchases in %s of users and items that the model knows: it reaches from %s to %s",
			d.Dir(), e.Range,
			datasets.FormatTime(d.Manifest().From), datasets.FormatTime(d.Manifest().To))
	}
	j, err := recommend.Judge(r.Ranking(), &r.History().Log, &later.Log, r.Parts(), f.threads)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Range, err)
	}
	e.metrics, e.Baselines, e.LosesTo, e.Beaten = j.Model, j.Baselines, j.LosesTo, len(j.LosesTo) > 0
	e.Rows, e.Others = len(later.Log.User), others
	e.Seconds = time.Since(start).Seconds()
	e.RowsPerSecond = float64(e.Rows) / e.Seconds
	if err := con.result(e, func(w io.Writer) error { return e.text(w, string(r.Model().Kind)) }); err != nil {
		return err
	}
	if f.requireBeat && e.Beaten {
		var faults []error
		for _, l := range e.LosesTo {
			faults = append(faults, fmt.Errorf("--require-beat: %s has %s %.4f and the model %.4f", l.Name, l.Metric,
				l.Baseline, l.Model))
		}
		return errors.Join(faults...)
	}
	return nil
}

func (e *evaluatedRecommend) text(w io.Writer, kind string) error {
	fmt.Fprintf(w, "model %s (%s) on %s: %s users, %s of them bought something new; %s of %s lines are of users or items that it does not know\n\n", e.Model, kind, e.Range,
		progress.Count(int64(e.metrics["users"])), progress.Count(int64(e.metrics["new_users"])), progress.Count(int64(e.Others)), progress.Count(int64(e.Others+e.Rows)))
	if err := recommendTable("model", kind, &e.metrics, e.Baselines).write(w); err != nil {
		return err
	}
	for _, l := range e.LosesTo {
		fmt.Fprintf(w, "\nthe model does not beat %s: %s %.4f against %.4f\n", l.Name, l.Metric, l.Model, l.Baseline)
	}
	return nil
}
