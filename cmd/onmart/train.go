package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/fraud"
)

func newTrainCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "train TASK",
		Short: "Train a model and write its artifact",
	}
	cmd.AddCommand(newTrainFraudCmd(), newTrainDemandCmd(), newTrainRecommendCmd())
	return cmd
}

// defaultFraudSpec is what features are computed by where --data has transactions.
const defaultFraudSpec = "fraud-handbook"

// fraudFlags are those of train fraud.
type fraudFlags struct {
	trainFlags
	delay  string
	alerts float64
	folds  int
}

func newTrainFraudCmd() *cobra.Command {
	var f fraudFlags
	cmd := &cobra.Command{
		Use:   "fraud --data DIR --out DIR",
		Short: "Train a classifier of fraudulent transactions",
		Long: `train fraud learns from labelled transactions and writes an artifact: the network with its standardisation and
calibration, a threshold for an alert budget, and the state of the features at the end of training, so that it
can score the next event. --data names features (onmart features) or transactions (onmart import), of which the
features are computed first and kept beside them.

The epoch to keep is chosen on --valid. Without it, it is chosen on the latest part of --train, after a gap as long
as the delay where the range is long enough, and then all of --train is trained on; --folds K takes K such parts, each
later than what is fitted on for it. With --test the model is judged there, with logistic regression, a decision tree and
an isolation forest beside it. Ctrl-C keeps what was learned in OUT.checkpoint, and --resume goes on from there to the
same bits. OUT.runlog.jsonl says what happened when (docs/RUNLOG.md).

` + settingsText(fraud.Settings(), fraud.DefaultConfig()),
		Args: cobra.NoArgs,
	}
	f.bind(cmd, trainWords{
		data:  "`directory` of features or transactions",
		spec:  "feature spec, built-in `name` or file (default: that of the features, or " + defaultFraudSpec + ")",
		train: "`range` to learn from, FROM..TO (default: all there is)",
		valid: "`range` to choose the epoch on (default: the latest part of --train)",
		test:  "`range` to judge the model and the baselines on",
		seed:  "seed of first weights, shuffles and dropout",
	}, fraud.DefaultSpace())
	cmd.Flags().StringVar(&f.delay, "delay", "", "how long after a transaction its label is known, such as 7d (default: the spec's)")
	cmd.Flags().IntVar(&f.folds, "folds", 1, "choose the epoch, and tune, on so many rolling parts of --train, each behind the delay")
	cmd.Flags().Float64Var(&f.alerts, "alerts-per-day", fraud.DefaultAlertsPerDay, "alerts a day that can be followed up: sets the threshold")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runTrainFraud(cmd, &f) }
	return cmd
}

func runTrainFraud(cmd *cobra.Command, f *fraudFlags) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	o := fraud.Options{
		Out: f.out, Force: *f.force, Resume: f.resume, AlertsPerDay: f.alerts, Config: fraud.DefaultConfig(),
		Seed: f.seed, Note: con.notef, Bar: con.bar, Created: trainCreated("train fraud"),
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
		set, data, err := fraud.Plan(ctx, o)
		if err != nil {
			return err
		}
		return f.predicted(con, set, data)
	}
	if err := f.reportable(o.Force); err != nil {
		return err
	}
	backend, closeBackend, err := openBackend(con, f.device, fraudLacks(o.Config, searched(&o.Running)))
	if err != nil {
		return err
	}
	defer giveBack(con, closeBackend)
	o.Backend = backend
	if err := beside(&o.Running, backend, o.Threads); err != nil {
		return err
	}
	if o.Source, err = f.source(cmd, con, delay); err != nil {
		return err
	}
	o.Explain = f.explained(con, backend)
	s, err := fraud.Train(ctx, o)
	if err != nil {
		return err
	}
	page := trainingPage("Training of "+s.Version, "How "+s.Out+" was trained to find frauds.", []report.Fact{
		{Name: "Trained on", Value: s.Train}, {Name: "Transactions", Value: progress.Count(int64(s.Rows))},
		{Name: "Frauds", Value: progress.Count(int64(s.Positives))}, {Name: "Epochs chosen on", Value: s.Valid},
		{Name: "Networks", Value: strconv.Itoa(s.Seeds)}, {Name: "Seed", Value: strconv.FormatUint(s.Seed, 10)},
		{Name: "Device", Value: s.Backend},
	}, &train.History{Curves: s.Curves, Tuning: s.Tuning})
	if err := f.writeReport(con, o.Force, page); err != nil {
		return err
	}
	return con.result(s, func(w io.Writer) error { return printTraining(w, s) })
}

// check reports every fault of the flags at once. delay is -1 where none was given.
func (f *fraudFlags) check(o *fraud.Options) (delay int64, err error) {
	faults := f.faults()
	o.Threads = f.device.threads
	r, err := f.ranges(time.UTC)
	faults = append(faults, err, f.run(&o.Running))
	if o.Running.Space == nil {
		o.Running.Space = fraud.DefaultSpace()
	}
	switch o.Folds = f.folds; {
	case f.folds < 1 || f.folds > fraud.MaxFolds:
		faults = append(faults, fmt.Errorf("--folds %d: want 1 to %d", f.folds, fraud.MaxFolds))
	case f.folds > 1 && f.valid != "":
		faults = append(faults, errors.New("--folds: with --valid there is one part that chooses the epoch; give one of the two"))
	}
	o.Train, o.Valid, o.Test = r.train, r.valid, r.test
	delay = -1
	if f.delay != "" {
		if delay, err = datasets.ParseDuration(f.delay); err != nil {
			faults = append(faults, fmt.Errorf("--delay: %w", err))
		}
	}
	faults = append(faults, o.Config.Set(f.set))
	if o.Trials > 0 {
		_, err := o.Config.CheckSpace(o.Space)
		faults = append(faults, err)
	}
	return delay, errors.Join(faults...)
}

// source opens --data and sees that spec and delay are those asked for.
func (f *fraudFlags) source(cmd *cobra.Command, con *console, delay int64) (fraud.Source, error) {
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
func sameSpec(spec *features.Spec, s *fraud.Source, f *fraudFlags) error {
	if delayed, err := spec.WithDelay(s.Delay); err == nil && f.delay == "" {
		spec = delayed // only what was asked for is compared
	}
	plan, err := spec.Plan(s.Input, s.Tables)
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
	if s.Tuning != nil {
		if err := printTrials(w, s.Tuning, "average precision"); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s: model %s, %s on %s (%s) in %.1f s\n", s.Out, s.Version, train.Plural(s.Epochs, "epoch"),
		train.Plural(s.Rows, "transaction"), train.Plural(s.Positives, "fraud"), s.Seconds)
	fmt.Fprintf(w, "alert from a probability of %.4f: %g alerts a day on %s\n", s.Threshold, s.Validation["alerts_per_day"], s.Valid)
	if err := printFolds(w, s); err != nil {
		return err
	}
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

// printFolds is the figures of the networks on the folds that they have not seen.
func printFolds(w io.Writer, s *fraud.Summary) error {
	if len(s.Folds) == 0 {
		return nil
	}
	keys := []string{"auc", "average_precision", "card_precision_at_100", "log_loss"}
	t := newTable("judged on", "trained on", "epoch", "AUC", "average precision", "card precision@100", "log loss")
	row := func(name, fit, epoch string, m map[string]float64) {
		cells := []string{name, fit, epoch}
		for _, key := range keys {
			cell := "-"
			if v, ok := m[key]; ok {
				cell = fmt.Sprintf("%.4f", v)
			}
			cells = append(cells, cell)
		}
		t.add(cells...)
	}
	for _, f := range s.Folds {
		row(f.Valid, f.Fit, strconv.Itoa(f.Epoch), f.Validation)
	}
	row("mean", "", strconv.Itoa(s.Epochs), s.Validation)
	row("spread", "", "", s.ValidationSpread)
	fmt.Fprintln(w)
	return t.write(w)
}
