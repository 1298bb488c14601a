package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/demand"
)

// defaultDemandSpec is what a panel is made by where --data has transactions.
const defaultDemandSpec = "online-retail-daily"

// demandFlags are those of train demand.
type demandFlags struct {
	trainFlags
	horizon int
}

func newTrainDemandCmd() *cobra.Command {
	var f demandFlags
	cmd := &cobra.Command{
		Use:   "demand --data DIR --out DIR",
		Short: "Train a forecaster of demand",
		Long: `train demand learns from a panel (onmart features with a spec that has panel:) how much will be sold of each
series, and writes an artifact: a network over all series with quantiles, the weights that combine it with classical
methods, and the history, so that onmart forecast answers alone. --data names the panel, or transactions, of which
the panel is made first and kept beside them.

The weights are fitted on rolling folds: the latest horizons of --train, or those in --valid. For each fold a network
is trained on what came before it; the first fold also chooses the epoch. Then one is trained on all of --train. With
--test the forecasts are judged there, a horizon at a time, beside each method alone. Ctrl-C keeps what was learned in
OUT.checkpoint, and --resume goes on from there to the same bits. OUT.runlog.jsonl says what happened when
(docs/RUNLOG.md).

` + settingsText(demand.Settings(), demand.DefaultConfig()),
		Args: cobra.NoArgs,
	}
	f.bind(cmd, trainWords{
		data:  "`directory` of a panel or of transactions",
		spec:  "panel spec, built-in `name` or file, where --data has transactions (default " + defaultDemandSpec + ")",
		train: "`range` to learn from, FROM..TO (default: all there is before --test)",
		valid: "`range` of the folds that the combination is weighted on (default: the latest part of --train)",
		test:  "`range` to judge the forecasts on",
		seed:  "seed of first weights, shuffles, dropout and drawn windows",
	}, demand.DefaultSpace())
	cmd.Flags().IntVar(&f.horizon, "horizon", 0, "`steps` to forecast (default 48 hours, 28 days or 13 weeks)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runTrainDemand(cmd, &f) }
	return cmd
}

func runTrainDemand(cmd *cobra.Command, f *demandFlags) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	o := demand.Options{
		Out: f.out, Force: *f.force, Resume: f.resume, Config: demand.DefaultConfig(), Seed: f.seed, Horizon: f.horizon,
		Note: con.notef, Bar: con.bar,
		Created: trainCreated("train demand"),
	}
	if err := f.check(&o); err != nil {
		return usage(err)
	}
	if err := replaces("--out", f.out, o.Force, model.Kind); err != nil {
		return err
	}
	if f.device.paper() {
		if err := f.open(ctx, con, &o); err != nil {
			return err
		}
		set, data, err := demand.Plan(ctx, o)
		if err != nil {
			return err
		}
		return f.predicted(con, set, data)
	}
	if err := f.reportable(o.Force); err != nil {
		return err
	}
	backend, closeBackend, err := openBackend(con, f.device, demandLacks(o.Config, searched(&o.Running)))
	if err != nil {
		return err
	}
	defer giveBack(con, closeBackend)
	o.Backend = backend
	if err := beside(&o.Running, backend, o.Threads); err != nil {
		return err
	}
	if err := f.open(ctx, con, &o); err != nil {
		return err
	}
	o.Explain = f.explained(con, backend)
	s, err := demand.Train(ctx, o)
	if err != nil {
		return err
	}
	page := trainingPage("Training of "+s.Version, "How "+s.Out+" was trained to forecast demand.", []report.Fact{
		{Name: "Trained on", Value: s.Train}, {Name: "Series", Value: progress.Count(int64(s.Series))},
		{Name: "Steps", Value: progress.Count(int64(s.Steps))}, {Name: "Horizon", Value: strconv.Itoa(s.Horizon)},
		{Name: "Networks", Value: strconv.Itoa(s.Seeds)}, {Name: "Seed", Value: strconv.FormatUint(s.Seed, 10)}, {Name: "Device", Value: s.Backend},
	}, &train.History{Curves: s.Curves, Tuning: s.Tuning})
	if err := f.writeReport(con, o.Force, page); err != nil {
		return err
	}
	return con.result(s, func(w io.Writer) error { return printDemandTraining(w, s) })
}

// check reports every fault of the flags at once.
func (f *demandFlags) check(o *demand.Options) error {
	faults := f.faults()
	o.Threads = f.device.threads
	_, err := f.ranges(time.UTC)
	faults = append(faults, err, f.run(&o.Running))
	if o.Running.Space == nil {
		o.Running.Space = demand.DefaultSpace()
	}
	if f.horizon < 0 {
		faults = append(faults, fmt.Errorf("--horizon %d: want at least 1 step", f.horizon))
	}
	faults = append(faults, o.Config.Set(f.set))
	if o.Trials > 0 {
		_, err := o.Config.CheckSpace(o.Space)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// open finds the source, and takes the ranges' dates as days of its zone.
func (f *demandFlags) open(ctx context.Context, con *console, o *demand.Options) error {
	var err error
	if o.Source, err = f.source(ctx, con); err != nil {
		return err
	}
	r, err := f.ranges(o.Source.Spec.Location())
	o.Train, o.Valid, o.Test = r.train, r.valid, r.test
	return err
}

func (f *demandFlags) source(ctx context.Context, con *console) (demand.Source, error) {
	name := f.spec
	if name == "" {
		name = defaultDemandSpec
	}
	spec, err := loadSpec(name, "")
	if err != nil {
		return demand.Source{}, err
	}
	d, err := openFeatures(ctx, con, f.data, spec, f.device.threads)
	if err != nil {
		return demand.Source{}, err
	}
	s, err := demand.OpenSource(d)
	if err == nil && f.spec != "" && s.Spec.Name() != spec.Name() {
		err = fmt.Errorf(
			"--spec %s: the panel of %s was made with another spec, %s; leave --spec out, or give the transactions as --data",
			f.spec,
			f.data,
			s.Spec.Name(),
		)
	}
	return s, err
}

// printDemandTraining is the result for people: what was made, the weights, and after --test the table.
func printDemandTraining(w io.Writer, s *demand.Summary) error {
	if s.Tuning != nil {
		if err := printTrials(w, s.Tuning, "pinball loss"); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s: model %s, %d series of %d steps in %.1f s\n", s.Out, s.Version, s.Series, s.Steps, s.Seconds)
	if s.Network {
		fmt.Fprintf(w, "network: %s on %s, series scaled by %s\n", train.Plural(s.Epochs, "epoch"),
			train.Plural(s.Rows, "row"), s.Scaling)
	}
	fmt.Fprintf(w, "%s\n", s.Closed)
	for _, class := range slices.Sorted(maps.Keys(s.Weights)) {
		x := s.Weights[class]
		var parts []string
		for _, name := range slices.SortedFunc(maps.Keys(x.Point), func(a, b string) int {
			if x.Point[a] != x.Point[b] {
				if x.Point[a] > x.Point[b] {
					return -1
				}
				return 1
			}
			return strings.Compare(a, b)
		}) {
			if x.Point[name] >= .005 {
				parts = append(parts, fmt.Sprintf("%s %.2f", name, x.Point[name]))
			}
		}
		fmt.Fprintf(w, "weights of %s series: %s\n", class, strings.Join(parts, ", "))
	}
	if s.Test == nil {
		return nil
	}
	fmt.Fprintln(w)
	return demandTable("on "+s.Test.Range, s.Test.Model, s.Test.Baselines).write(w)
}

// demandTable is the figures of a model and of methods alone.
func demandTable(title string, m demand.Metrics, baselines []demand.BaselineResult) *table {
	keys := []string{"rmsse", "wrmsse", "mase", "pinball_50", "pinball_90", "pinball_95", "coverage_90"}
	if _, ok := m["owa"]; ok {
		keys = append(keys, "owa")
	}
	keys = slices.DeleteFunc(keys, func(k string) bool { _, ok := m[k]; return !ok })
	t := newTable(append([]string{title}, keys...)...)
	row := func(name string, m demand.Metrics) {
		cells := []string{name}
		for _, k := range keys {
			cell := "-"
			if v, ok := m[k]; ok {
				cell = fmt.Sprintf("%.4f", v)
			}
			cells = append(cells, cell)
		}
		t.add(cells...)
	}
	row("combination", m)
	for _, b := range baselines {
		row(b.Name, b.Metrics)
	}
	return t
}
