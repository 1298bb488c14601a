package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/demand"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

// defaultDemandSpec is what a panel is made by where --data has transactions.
const defaultDemandSpec = "online-retail-daily"

type demandFlags struct {
	data, out, spec    string
	train, valid, test string
	horizon            int
	device             deviceFlags
	seed               uint64
	resume, explain    bool
	set                []string
	force              *bool
}

func newTrainDemandCmd() *cobra.Command {
	var f demandFlags
	defaults := demand.DefaultConfig()
	var settings strings.Builder
	settings.WriteString("Settings for --set, with their defaults:\n")
	for _, x := range demand.Settings() {
		fmt.Fprintf(&settings, "  %-45s %s\n", x.Name+"="+x.Value(&defaults), x.Words)
	}
	cmd := &cobra.Command{
		Use:   "demand --data DIR --out DIR",
		Short: "Train a forecaster of demand",
		Long: `train demand learns from a panel (onmart features with a spec that has panel:) how much will be sold of each
series, and writes an artifact: a network over all series with quantiles, the weights that combine it with classical
methods, and the history, so that onmart forecast answers alone. --data names the panel, or transactions, of which
the panel is made first and kept beside them.

The weights are fitted on rolling folds: the latest horizons of --train, or those in --valid. For each fold a network
is trained on what came before it; the first fold also chooses the epoch. Then one is trained on all of --train. With
--test the forecasts are judged there, a horizon at a time, beside each method alone. Ctrl-C keeps the last finished
epoch in OUT.checkpoint, and --resume goes on from there to the same bits.

` + strings.TrimRight(settings.String(), "\n"),
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "", "`directory` of a panel or of transactions")
	fl.StringVar(&f.out, "out", "", "`directory` of the artifact to make")
	fl.StringVar(
		&f.spec,
		"spec",
		"",
		"panel spec, built-in `name` or file, where --data has transactions (default "+defaultDemandSpec+")",
	)
	fl.StringVar(&f.train, "train", "", "`range` to learn from, FROM..TO (default: all there is before --test)")
	fl.StringVar(
		&f.valid,
		"valid",
		"",
		"`range` of the folds that the combination is weighted on (default: the latest part of --train)",
	)
	fl.StringVar(&f.test, "test", "", "`range` to judge the forecasts on")
	fl.IntVar(&f.horizon, "horizon", 0, "`steps` to forecast (default 48 hours, 28 days or 13 weeks)")
	fl.StringVar(
		&f.device.name,
		"device",
		"auto",
		"auto, cpu or cuda[:N]; with --explain also model:NAME, such as model:rtx2060",
	)
	fl.StringVar(
		&f.device.memory,
		"gpu-memory",
		"",
		"`size` that may be taken of the GPU's memory, such as 4GiB (default nine tenths of what is free)",
	)
	fl.Uint64Var(&f.seed, "seed", 1, "seed of first weights, shuffles, dropout and drawn windows")
	fl.IntVar(&f.device.threads, "threads", 0, "threads (default one a core); they never change the result")
	fl.BoolVar(&f.resume, "resume", false, "go on with a training that was stopped")
	fl.StringArrayVar(&f.set, "set", nil, "change a setting, `name=value`; may be repeated")
	fl.BoolVar(
		&f.explain,
		"explain",
		false,
		"print the training program, one instruction a line; for a GPU, also what a step is predicted to ask of it",
	)
	f.force = addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runTrainDemand(cmd, &f) }
	return cmd
}

func runTrainDemand(cmd *cobra.Command, f *demandFlags) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	o := demand.Options{
		Out: f.out, Force: *f.force, Resume: f.resume, Config: demand.DefaultConfig(), Seed: f.seed, Horizon: f.horizon,
		Note: con.notef, Bar: con.bar,
		Created: model.Created{
			Command: "train demand", Onmart: buildVersion(), Args: os.Args[1:], Time: time.Now().UTC().Format(time.RFC3339),
		},
	}
	if err := f.check(&o); err != nil {
		return usage(err)
	}
	if err := replaces("--out", f.out, o.Force, model.Kind); err != nil {
		return err
	}
	if f.device.paper() {
		return f.predict(ctx, con, o)
	}
	backend, closeBackend, err := openBackend(con, f.device)
	if err != nil {
		return err
	}
	defer giveBack(con, closeBackend)
	o.Backend = backend
	if err := f.open(ctx, con, &o); err != nil {
		return err
	}
	if f.explain {
		o.Explain = func(set *program.Set, data program.Data) {
			fmt.Fprint(con.err, set.Train.String())
			if b, ok := backend.(*gpu.Backend); ok {
				p, err := gpu.Predict(set, data, b.Kernels().Tuning())
				if err != nil {
					con.notef("no prediction of a step: %v", err)
					return
				}
				fmt.Fprintln(con.err)
				p.Print(con.err) // an error of standard error has nowhere to go
			}
		}
	}
	s, err := demand.Train(ctx, o)
	if err != nil {
		return err
	}
	return con.result(s, func(w io.Writer) error { return printDemandTraining(w, s) })
}

// predict says what a step would ask of the card that --device describes. Nothing is trained.
func (f *demandFlags) predict(ctx context.Context, con *console, o demand.Options) error {
	tuning, err := f.device.tuning()
	if err != nil {
		return err
	}
	if err := f.open(ctx, con, &o); err != nil {
		return err
	}
	set, data, err := demand.Plan(ctx, o)
	if err != nil {
		return err
	}
	p, err := gpu.Predict(set, data, tuning)
	if err != nil {
		return err
	}
	con.notef("nothing was trained: %s is a description of a card, not a card", f.device.name)
	return con.result(p, p.Print)
}

// check reports every fault of the flags at once.
func (f *demandFlags) check(o *demand.Options) error {
	var faults []error
	if f.data == "" {
		faults = append(faults, errors.New("--data is missing: name a directory of onmart features or onmart import"))
	}
	if f.out == "" && !f.device.paper() {
		faults = append(faults, errors.New("--out is missing: name the directory of the artifact to make"))
	}
	faults = append(faults, f.ranges(o, time.UTC))
	if f.horizon < 0 {
		faults = append(faults, fmt.Errorf("--horizon %d: want at least 1 step", f.horizon))
	}
	var err error
	if f.device.threads, err = threadCount(f.device.threads); err != nil {
		faults = append(faults, err)
	}
	o.Threads = f.device.threads
	faults = append(faults, f.device.check()...)
	if f.device.paper() && !f.explain {
		faults = append(
			faults,
			fmt.Errorf(
				"--device %s: nothing can be trained on a description of a card; --explain predicts a step on it",
				f.device.name,
			),
		)
	}
	return errors.Join(append(faults, o.Config.Set(f.set))...)
}

// ranges reads the ranges; dates are days of the zone.
func (f *demandFlags) ranges(o *demand.Options, zone *time.Location) error {
	var faults []error
	span := func(flag, value string) *datasets.Range {
		if value == "" {
			return nil
		}
		r, err := datasets.ParseRangeIn(value, zone)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", flag, err))
		}
		return &r
	}
	if r := span("--train", f.train); r != nil {
		o.Train = *r
	}
	o.Valid, o.Test = span("--valid", f.valid), span("--test", f.test)
	return errors.Join(faults...)
}

// open finds the source, and takes the ranges' dates as days of its zone.
func (f *demandFlags) open(ctx context.Context, con *console, o *demand.Options) error {
	var err error
	if o.Source, err = f.source(ctx, con); err != nil {
		return err
	}
	return f.ranges(o, o.Source.Spec.Location())
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
	fmt.Fprintf(w, "%s: model %s, %d series of %d steps in %.1f s\n", s.Out, s.Version, s.Series, s.Steps, s.Seconds)
	if s.Network {
		fmt.Fprintf(w, "network: %d epochs on %d rows, series scaled by %s\n", s.Epochs, s.Rows, s.Scaling)
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
