package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train/demand"
)

// evaluatedDemand is what evaluate prints of a forecaster with --json: these keys and the figures by their names.
type evaluatedDemand struct {
	Model         string                  `json:"model"`
	Task          string                  `json:"task"`
	Data          string                  `json:"data"`
	Range         string                  `json:"range"`
	Series        int                     `json:"series"`
	Origins       int                     `json:"origins"`
	Baselines     []demand.BaselineResult `json:"baselines"`
	LosesTo       []demand.Loss           `json:"loses_to"`
	Rows          int                     `json:"rows"` // forecasts that were judged
	Seconds       float64                 `json:"seconds"`
	RowsPerSecond float64                 `json:"rows_per_second"`

	metrics demand.Metrics
}

// MarshalJSON joins both parts' keys.
func (e *evaluatedDemand) MarshalJSON() ([]byte, error) {
	type plain evaluatedDemand
	own, err := json.Marshal((*plain)(e))
	if err != nil || len(e.metrics) == 0 {
		return own, err
	}
	figures, err := json.Marshal(e.metrics)
	if err != nil {
		return nil, err
	}
	own[len(own)-1] = ','
	return append(own, figures[1:]...), nil
}

// evaluateDemand judges a forecaster on steps that it has not seen: a horizon at a time, from what was known then.
func evaluateDemand(ctx context.Context, con *console, f *evaluateFlags, a *model.Artifact) error {
	if f.report != "" || f.allCards || f.delay != "" {
		return usagef(
			"--report, --all-cards and --delay are for fraud models; %s is of the task %s",
			f.model,
			a.Manifest().Task,
		)
	}
	start := time.Now()
	fc, err := forecaster.Open(a, f.threads)
	if err != nil {
		return err
	}
	d, err := openFeatures(ctx, con, f.data, a.Spec(), f.threads)
	if err != nil {
		return err
	}
	s, err := demand.OpenSource(d)
	if err != nil {
		return err
	}
	if s.Spec.Name() != a.Spec().Name() {
		return fmt.Errorf(
			"--data %s: its panel was made with the spec %s, the model with %s: give transactions, or a panel of the same spec",
			f.data,
			s.Spec.Name(),
			a.Spec().Name(),
		)
	}
	_, trained := a.Manifest().Lineage.Train.Bounds()
	span := datasets.Range{From: trained, To: math.MaxInt64}
	if f.test != "" {
		if span, err = datasets.ParseRangeIn(f.test, s.Spec.Location()); err != nil {
			return usagef("--test: %w", err)
		}
	}
	from, to := span.Bounds()
	if from < trained {
		con.notef("--test begins before the end of training, %s: these figures are too good", datasets.FormatTime(trained))
	}
	p, err := s.Load(ctx, to, f.threads)
	if err != nil {
		return err
	}
	known, _ := slices.BinarySearch(p.Times, from)
	if known == 0 || known == len(p.Times) {
		return fmt.Errorf("%s has no steps in %s with others before them: it reaches from %s to %s", d.Dir(), span,
			datasets.FormatTime(p.Times[0]), datasets.FormatTime(p.Times[len(p.Times)-1]))
	}
	j, err := demand.Judge(fc.Model(), fc.Net(), p, known, demand.Beside(fc.Model()), f.threads)
	if err != nil {
		return err
	}
	e := &evaluatedDemand{
		Model: a.Manifest().Version, Task: a.Manifest().Task, Data: d.Dir(),
		Series: j.Series, Origins: j.Origins, Baselines: j.Baselines, LosesTo: j.LosesTo,
		Range: datasets.Range{
			From: p.Times[known],
			To:   p.Step.Next(p.Times[len(p.Times)-1], p.Zone),
		}.String(), metrics: j.Model, Rows: j.Rows,
	}
	e.Seconds = time.Since(start).Seconds()
	e.RowsPerSecond = float64(e.Rows) / e.Seconds
	if err := con.result(e, func(w io.Writer) error {
		title := fmt.Sprintf("%d series on %s", e.Series, e.Range)
		if err := demandTable(title, e.metrics, e.Baselines).write(w); err != nil {
			return err
		}
		for _, l := range e.LosesTo {
			fmt.Fprintf(w, "%s is better in %s: %.4f against %.4f\n", l.Name, l.Metric, l.Baseline, l.Model)
		}
		return nil
	}); err != nil {
		return err
	}
	if f.requireBeat && len(e.LosesTo) > 0 {
		l := e.LosesTo[0]
		return fmt.Errorf("--require-beat: %s has %s %.4f and the combination %.4f", l.Name, l.Metric, l.Baseline, l.Model)
	}
	return nil
}
