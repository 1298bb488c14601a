package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/fraud"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

func newTrainCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "train TASK",
		Short: "Train a model and write its artifact",
	}
	cmd.AddCommand(newTrainFraudCmd(), newTrainDemandCmd(), newTrainRecommendCmd())
	return cmd
}

// trainFlags are the flags that every task has.
type trainFlags struct {
	data, out                       string
	train, valid, test, delay, spec string
	device                          deviceFlags
	seed                            uint64
	resume, explain                 bool
	set                             []string
	force                           *bool
}

// defaultFraudSpec is what features are computed by where --data has transactions.
const defaultFraudSpec = "fraud-handbook"

func newTrainFraudCmd() *cobra.Command {
	var f trainFlags
	alerts := float64(fraud.DefaultAlertsPerDay)
	defaults := fraud.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "fraud --data DIR --out DIR",
		Short: "Train a classifier of fraudulent transactions",
		Long: `train fraud learns from labelled transactions and writes an artifact: the network with its standardisation and
calibration, a threshold for an alert budget, and the state of the features at the end of training, so that it
can score the next event. --data names features (onmart features) or transactions (onmart import), of which the
features are computed first and kept beside them.

The epoch to keep is chosen on --valid. Without it, it is chosen on the latest part of --train, after a gap as long
as the delay where the range is long enough, and then all of --train is trained on. With --test the model is judged
there, with logistic regression, a decision tree and an isolation forest beside it. Ctrl-C keeps the last finished
epoch in OUT.checkpoint, and --resume goes on from there to the same bits.

` + settingsText(&defaults),
		Args: cobra.NoArgs,
	}
	f.bind(cmd)
	cmd.Flags().Float64Var(&alerts, "alerts-per-day", alerts, "alerts a day that can be followed up: sets the threshold")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runTrainFraud(cmd, &f, alerts) }
	return cmd
}

func (f *trainFlags) bind(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "", "`directory` of features or transactions")
	fl.StringVar(&f.out, "out", "", "`directory` of the artifact to make")
	fl.StringVar(&f.train, "train", "", "`range` to learn from, FROM..TO (default: all there is)")
	fl.StringVar(&f.valid, "valid", "", "`range` to choose the epoch on (default: the latest part of --train)")
	fl.StringVar(&f.delay, "delay", "", "how long after a transaction its label is known, such as 7d (default: the spec's)")
	fl.StringVar(&f.test, "test", "", "`range` to judge the model and the baselines on")
	fl.StringVar(&f.spec, "spec", "", "feature spec, built-in `name` or file (default: that of the features, or "+defaultFraudSpec+")")
	fl.StringVar(&f.device.name, "device", "auto", "auto, cpu or cuda[:N]; with --explain also model:NAME, such as model:rtx2060")
	fl.StringVar(&f.device.memory, "gpu-memory", "", "`size` that may be taken of the GPU's memory, such as 4GiB (default nine tenths of what is free)")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of first weights, shuffles and dropout")
	fl.IntVar(&f.device.threads, "threads", 0, "threads (default one a core); they never change the result")
	fl.BoolVar(&f.resume, "resume", false, "go on with a training that was stopped")
	fl.StringArrayVar(&f.set, "set", nil, "change a setting, `name=value`; may be repeated")
	fl.BoolVar(&f.explain, "explain", false, "print the training program, one instruction a line; for a GPU, also what a step is predicted to ask of it")
	f.force = addForce(cmd)
}

// settingsText lists what --set takes, with the defaults.
func settingsText(defaults *fraud.Config) string {
	var s strings.Builder
	s.WriteString("Settings for --set, with their defaults:\n")
	for _, x := range fraud.Settings() {
		fmt.Fprintf(&s, "  %-25s %s\n", x.Name+"="+x.Value(defaults), x.Words)
	}
	return strings.TrimRight(s.String(), "\n")
}

func runTrainFraud(cmd *cobra.Command, f *trainFlags, alerts float64) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	o := fraud.Options{
		Out: f.out, Force: *f.force, Resume: f.resume, AlertsPerDay: alerts, Config: fraud.DefaultConfig(),
		Seed: f.seed, Note: con.notef, Bar: con.bar,
		Created: model.Created{
			Command: "train fraud", Onmart: buildVersion(), Args: os.Args[1:], Time: time.Now().UTC().Format(time.RFC3339),
		},
	}
	delay, err := f.check(&o)
	if err != nil {
		return usage(err)
	}
	if err := replaces("--out", f.out, o.Force, model.Kind); err != nil {
		return err
	}
	if f.device.paper() {
		if o.Source, err = f.source(cmd, con, delay); err != nil {
			return err
		}
		return f.predict(ctx, con, o)
	}
	backend, closeBackend, err := openBackend(con, f.device)
	if err != nil {
		return err
	}
	defer giveBack(con, closeBackend)
	o.Backend = backend
	if o.Source, err = f.source(cmd, con, delay); err != nil {
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
	s, err := fraud.Train(ctx, o)
	if err != nil {
		return err
	}
	return con.result(s, func(w io.Writer) error { return printTraining(w, s) })
}

// predict says what a step would ask of the card that --device describes. Nothing is trained.
func (f *trainFlags) predict(ctx context.Context, con *console, o fraud.Options) error {
	tuning, err := f.device.tuning()
	if err != nil {
		return err
	}
	set, data, err := fraud.Plan(ctx, o)
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

// check reports every fault of the flags at once. delay is -1 where none was given.
func (f *trainFlags) check(o *fraud.Options) (delay int64, err error) {
	var faults []error
	missing := func(flag, value, what string) {
		if value == "" {
			faults = append(faults, fmt.Errorf("%s is missing: name %s", flag, what))
		}
	}
	missing("--data", f.data, "a directory of onmart features or onmart import")
	if !f.device.paper() {
		missing("--out", f.out, "the directory of the artifact to make")
	}
	spans := map[string]datasets.Range{}
	for _, r := range []struct{ flag, value string }{{"--train", f.train}, {"--valid", f.valid}, {"--test", f.test}} {
		if r.value == "" {
			continue
		}
		span, err := datasets.ParseRange(r.value)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", r.flag, err))
		}
		spans[r.flag] = span
	}
	o.Train = spans["--train"]
	if r, ok := spans["--valid"]; ok {
		o.Valid = &r
	}
	if r, ok := spans["--test"]; ok {
		o.Test = &r
	}
	delay = -1
	if f.delay != "" {
		if delay, err = datasets.ParseDuration(f.delay); err != nil {
			faults = append(faults, fmt.Errorf("--delay: %w", err))
		}
	}
	if f.device.threads, err = threadCount(f.device.threads); err != nil {
		faults = append(faults, err)
	}
	o.Threads = f.device.threads
	faults = append(faults, f.device.check()...)
	if f.device.paper() && !f.explain {
		faults = append(faults, fmt.Errorf("--device %s: nothing can be trained on a description of a card; --explain predicts a step on it", f.device.name))
	}
	return delay, errors.Join(append(faults, o.Config.Set(f.set))...)
}

// source opens --data and sees that spec and delay are those asked for.
func (f *trainFlags) source(cmd *cobra.Command, con *console, delay int64) (fraud.Source, error) {
	name := f.spec
	if name == "" {
		name = defaultFraudSpec
	}
	spec, err := loadSpec(name, f.delay)
	if err != nil {
		return fraud.Source{}, err
	}
	d, err := openFeatures(cmd.Context(), con, f.data, spec, f.device.threads)
	if err != nil {
		return fraud.Source{}, err
	}
	s, err := fraud.OpenSource(d)
	if err != nil {
		return s, err
	}
	if delay >= 0 && delay != s.Delay {
		return s, fmt.Errorf("--delay %s: the features of %s were made with a delay of %s; make them again with the other one, or give the transactions as --data",
			datasets.FormatDuration(delay), f.data, datasets.FormatDuration(s.Delay))
	}
	if f.spec != "" {
		if err := sameSpec(spec, &s, f); err != nil {
			return s, err
		}
	}
	return s, nil
}

// sameSpec refuses a --spec that is not that of the features in --data.
func sameSpec(spec *features.Spec, s *fraud.Source, f *trainFlags) error {
	if delayed, err := spec.WithDelay(s.Delay); err == nil && f.delay == "" {
		spec = delayed // only what was asked for is compared
	}
	plan, err := spec.Plan(s.Input)
	if err != nil {
		return err
	}
	if plan.Fingerprint() != s.Plan.Fingerprint() {
		return fmt.Errorf("--spec %s: the features of %s were made with another spec, %s; leave --spec out, or give the transactions as --data", f.spec, f.data, s.Spec.Name())
	}
	return nil
}

// printTraining is the result for people: what was made and, after --test, the table.
func printTraining(w io.Writer, s *fraud.Summary) error {
	fmt.Fprintf(w, "%s: model %s, %d epochs on %d transactions (%d frauds) in %.1f s\n", s.Out, s.Version, s.Epochs, s.Rows, s.Positives, s.Seconds)
	fmt.Fprintf(w, "alert from a probability of %.4f: %g alerts a day on %s\n", s.Threshold, s.Validation["alerts_per_day"], s.Valid)
	if s.Test == nil {
		return nil
	}
	t := newTable("on "+s.Test.Range, "AUC", "average precision", "card precision@100", "log loss")
	row := func(name string, m map[string]float64) {
		cells := []string{name}
		for _, key := range []string{"auc", "average_precision", "card_precision_at_100", "log_loss"} {
			cell := "-"
			if v, ok := m[key]; ok {
				cell = fmt.Sprintf("%.4f", v)
			}
			cells = append(cells, cell)
		}
		t.add(cells...)
	}
	row("model", s.Test.Model)
	for _, b := range s.Test.Baselines {
		row(b.Name, b.Metrics)
	}
	fmt.Fprintln(w)
	if err := t.write(w); err != nil {
		return err
	}
	for _, b := range s.Test.Baselines {
		if b.Note != "" {
			fmt.Fprintf(w, "%s: %s\n", b.Name, b.Note)
		}
	}
	return nil
}
