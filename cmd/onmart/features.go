package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
)

// featuresReport is what features prints with --json.
type featuresReport struct {
	Out           string           `json:"out"`
	StateOut      string           `json:"state_out,omitempty"`
	ID            string           `json:"id"`
	Spec          string           `json:"spec"`
	Fingerprint   string           `json:"fingerprint"`
	Shape         features.Shape   `json:"shape"`
	Features      int              `json:"features,omitempty"`
	Series        int64            `json:"series,omitempty"` // of a panel, at its last step
	Steps         int64            `json:"steps,omitempty"`
	Step          features.Step    `json:"step,omitempty"`
	Partial       string           `json:"partial,omitempty"` // the last step, where the data end inside it
	Rows          int64            `json:"rows"`
	From          string           `json:"from,omitempty"`
	To            string           `json:"to,omitempty"`
	Counts        map[string]int64 `json:"counts"`
	Seconds       float64          `json:"seconds"`
	RowsPerSecond float64          `json:"rows_per_second"` // of all rows that were folded
}

func newFeaturesCmd() *cobra.Command {
	var specName, in, delay, eventRange string
	o := features.RunOptions{}
	cmd := &cobra.Command{
		Use:   "features --spec S --in DIR --out DIR",
		Short: "Compute features, a panel or interactions of transactions or of a recorded log",
		Long: `features computes a spec's features for every transaction of a data set, from what stood before it in time,
exactly as onmart score computes them live. With --range only those transactions are given rows; what came
before is still counted in their windows, and what comes after is not read.

A spec may also ask for a panel, series by steps of time for onmart train demand, or for interactions, the items of
purchases for onmart train recommend. --range is then of steps or purchases, and its dates are days of the spec's time
zone. Without an end, the last step of a panel is the one that the last transaction is in, whole or not.

A spec is a YAML file or a built-in one: ` + strings.Join(features.Builtins(), ", ") + `. docs/FEATURES.md has all of
its keys; one looks like this:

    name: shop
    label: {column: is_fraud, delay: 7d}
    keep: [trans_id, trans_datetime, user_id, is_fraud]
    features:
      - {name: amount, kind: value, of: amount, log: true}
      - {name: night, kind: calendar, of: night}
      - {name: "card_lines_{w}", kind: count, key: user_id, windows: [1d, 30d], log: true}
      - {name: "card_mean_{w}", kind: mean, of: amount, key: user_id, windows: [7d], log: true}
      - {name: "store_risk_{w}", kind: risk, key: store_id, windows: [30d]}`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&specName, "spec", "fraud-handbook", "feature spec: a YAML `file` or a built-in name")
	fl.StringVar(&in, "in", "", "data set `directory` of transactions, or a log of onmart score --record")
	fl.StringVar(&o.Out, "out", "", "features `directory` to make")
	fl.StringVar(&eventRange, "range", "", "transactions to give rows: a `range` FROM..TO; TO as a date includes that day")
	fl.StringVar(&o.StateOut, "state-out", "", "`directory` for the engine's state at the end, for onmart score --warm-from")
	fl.StringVar(&delay, "delay", "", "label `delay` in place of the spec's, such as 7d")
	fl.IntVar(&o.Threads, "threads", 0, "threads (default one a core)")
	force := addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if in == "" {
			return usagef("--in is missing: name a directory of onmart import or onmart score --record")
		}
		if o.Out == "" && o.StateOut == "" {
			return usagef("--out is missing: name the directory to make")
		}
		if o.Threads < 0 {
			return usagef("--threads %d: want 1 or more, or 0 for one a core", o.Threads)
		}
		var err error
		if o.Spec, err = loadSpec(specName, delay); err != nil {
			return err
		}
		if eventRange != "" {
			loc := time.UTC
			if o.Spec.Shape() != features.Events {
				loc = o.Spec.Location()
			}
			if o.Range, err = datasets.ParseRangeIn(eventRange, loc); err != nil {
				return usagef("--range: %w", err)
			}
		}
		if o.In, err = datasets.Open(in); err != nil {
			return err
		}
		o.Force = *force
		if err := errors.Join(replaces("--out", o.Out, o.Force, string(o.Spec.Shape().Kind())), replaces("--state-out", o.StateOut, o.Force, features.StateKind)); err != nil {
			return usage(err)
		}
		o.Created = datasets.Created{Command: "features", Version: buildVersion(), Args: os.Args[1:]}
		return runFeatures(cmd, o)
	}
	return cmd
}

// loadSpec takes a feature spec from a YAML file or by a built-in name; delay, where not empty, is put in
// place of its label delay.
func loadSpec(name, delay string) (*features.Spec, error) {
	spec, err := readSpec(name)
	if err != nil || delay == "" {
		return spec, err
	}
	d, err := datasets.ParseDuration(delay)
	if err != nil {
		return nil, usagef("--delay: %w", err)
	}
	spec, err = spec.WithDelay(d)
	return spec, usage(err)
}

func readSpec(name string) (*features.Spec, error) {
	if !strings.ContainsAny(name, `./\`) {
		spec, err := features.Builtin(name)
		return spec, usage(err)
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("--spec: %w", err)
	}
	spec, err := features.Parse(name, src)
	return spec, usage(err)
}

func runFeatures(cmd *cobra.Command, o features.RunOptions) error {
	con := consoleOf(cmd)
	bar := con.bar("features", o.In.Manifest().Rows, "rows")
	o.Progress = func(done, _ int64) { bar.Set(done, "") }
	start := time.Now()
	m, err := features.Run(cmd.Context(), o)
	if err != nil {
		return err
	}
	bar.Done()
	made, err := features.MadeOf(m)
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	r := featuresReport{
		Out: o.Out, StateOut: o.StateOut, ID: m.ID, Spec: o.Spec.Name(), Fingerprint: made.Fingerprint,
		Shape: o.Spec.Shape(), Features: len(made.Features), Rows: m.Rows, Counts: m.Counts, Seconds: seconds,
		RowsPerSecond: float64(m.Counts["folded"]) / seconds,
	}
	if p := made.Panel; p != nil {
		r.Series, r.Steps, r.Step, r.Partial = p.Series, p.Steps, p.Step, p.Partial
	}
	if m.Rows > 0 && o.Out != "" {
		r.From, r.To = datasets.FormatTime(m.From), datasets.FormatTime(m.To)
	}
	return con.result(r, func(w io.Writer) error {
		_, err := io.WriteString(w, r.text())
		return err
	})
}

func (r *featuresReport) text() string {
	s := ""
	if r.Out != "" {
		switch r.Shape {
		case features.Panels:
			s = fmt.Sprintf("%s: a panel of %s, %s series by %s steps of %s, %s rows", r.Out, r.Spec, progress.Count(r.Series), progress.Count(r.Steps), oneStep(r.Step), progress.Count(r.Rows))
		case features.Baskets:
			s = fmt.Sprintf("%s: %s interactions of %s", r.Out, progress.Count(r.Rows), r.Spec)
		default:
			s = fmt.Sprintf("%s: %d features of %s for %s transactions", r.Out, r.Features, r.Spec, progress.Count(r.Rows))
		}
		if r.From != "" {
			s += fmt.Sprintf(", %s to %s", r.From, r.To)
		}
		s += "\n"
	}
	if r.StateOut != "" {
		s += fmt.Sprintf("%s: the state after the last of them\n", r.StateOut)
	}
	s += fmt.Sprintf("  %s rows folded at %s rows/s\n", progress.Count(r.Counts["folded"]), progress.Short(r.RowsPerSecond))
	if r.Partial != "" {
		s += fmt.Sprintf("  the data end inside the last step, which begins at %s: give --range to leave it out\n", r.Partial)
	}
	late := "came later than the spec's lateness and may miss older purchases"
	switch r.Shape {
	case features.Panels:
		late = "came later than the spec's lateness, when their step was over, and were left out"
	case features.Baskets:
		late = "came later than the spec's lateness and stand out of order"
	}
	for _, c := range []struct{ key, text string }{
		{"late", late},
		{"filtered", "do not meet the spec's conditions"},
		{"unkeyed", "have no value in a key, or a table lacks their row, and were left out"},
		{"negative", "have a negative quantity and are not marked as returns; they were taken for returns"},
		{"undone", "sales were undone by a return"},
		{"returned", "returns were left out or undid a purchase"},
		{"dateless", "values of joined tables were not there and are 0"},
		{"invalid", "lack a value that the spec needs, or have an impossible one, and were left out"},
		{"duplicates", "were there already and were left out"},
		{"labels_waiting", "labels came before their transactions"},
		{"labels_expired", "labels were too far in time from their transactions and were not applied"},
		{"labels_ignored", "labels were ignored: the spec has none"},
	} {
		if n := r.Counts[c.key]; n > 0 {
			s += fmt.Sprintf("  %s %s\n", progress.Count(n), c.text)
		}
	}
	return s
}
