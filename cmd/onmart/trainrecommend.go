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
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/recommend"
)

// defaultRecommendSpec is what interactions are made by where --data has transactions.
const defaultRecommendSpec = "online-retail-baskets"

type trainRecommendFlags struct {
	data, out, spec    string
	train, valid, test string
	device             deviceFlags
	seed               uint64
	resume, explain    bool
	set                []string
	force              *bool
}

func newTrainRecommendCmd() *cobra.Command {
	var f trainRecommendFlags
	defaults := recommend.DefaultConfig()
	var settings strings.Builder
	settings.WriteString("Settings for --set, with their defaults:\n")
	for _, x := range recommend.Settings() {
		fmt.Fprintf(&settings, "  %-45s %s\n", x.Name+"="+x.Value(&defaults), x.Words)
	}
	cmd := &cobra.Command{
		Use:   "recommend --data DIR --out DIR",
		Short: "Train a recommender",
		Long: `train recommend learns from interactions (onmart features with a spec that has interactions:) what a user is likely to
buy next, and writes an artifact with all purchases in it, so that onmart recommend answers alone. --data names the
interactions, or transactions, of which they are made first and kept beside them.

The default model is a blend: a user's own purchases and the rhythm in which things are bought again, what sells now and
what is coming up, items bought together (item neighbours and EASE), factors (ALS), users who buy alike, and a network
of user and item embeddings. Its weights are fitted on spans of --train that the parts have not seen: the latest ones,
or --valid. --set model=... takes one part alone. With --test the model is judged there, with the parts beside it, over
all items and over items that are new to the user. Ctrl-C keeps the last finished epoch of the network in
OUT.checkpoint, and --resume goes on from there to the same bits.

` + strings.TrimRight(settings.String(), "\n"),
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "", "`directory` of interactions or of transactions")
	fl.StringVar(&f.out, "out", "", "`directory` of the artifact to make")
	fl.StringVar(&f.spec, "spec", "",
		"interactions spec, built-in `name` or file, where --data has transactions (default "+defaultRecommendSpec+")")
	fl.StringVar(&f.train, "train", "", "`range` to learn from, FROM..TO (default: all there is before --test)")
	fl.StringVar(&f.valid, "valid", "",
		"`range` inside --train that the blend is fitted on (default: its latest spans)")
	fl.StringVar(&f.test, "test", "", "`range` to judge the model on")
	fl.StringVar(&f.device.name, "device", "auto",
		"auto, cpu or cuda[:N]; with --explain also model:NAME, such as model:rtx2060")
	fl.StringVar(&f.device.memory, "gpu-memory", "",
		"`size` that may be taken of the GPU's memory, such as 4GiB (default nine tenths of what is free)")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of first vectors, shuffles and drawn items")
	fl.IntVar(&f.device.threads, "threads", 0, "threads (default one a core); they never change the result")
	fl.BoolVar(&f.resume, "resume", false, "go on with a training that was stopped")
	fl.StringArrayVar(&f.set, "set", nil, "change a setting, `name=value`; may be repeated")
	fl.BoolVar(&f.explain, "explain", false,
		"print the training program, one instruction a line; for a GPU, also what a step is predicted to ask of it")
	f.force = addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runTrainRecommend(cmd, &f) }
	return cmd
}

func runTrainRecommend(cmd *cobra.Command, f *trainRecommendFlags) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	o := recommend.Options{
		Out: f.out, Force: *f.force, Resume: f.resume, Config: recommend.DefaultConfig(), Seed: f.seed,
		Note: con.notef, Bar: con.bar,
		Created: model.Created{
			Command: "train recommend", Onmart: buildVersion(), Args: os.Args[1:], Time: time.Now().UTC().Format(time.RFC3339),
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
	s, err := recommend.Train(ctx, o)
	if err != nil {
		return err
	}
	return con.result(s, func(w io.Writer) error { return printRecommendTraining(w, s) })
}

// predict says what a step would ask of the card that --device describes. Nothing is trained.
func (f *trainRecommendFlags) predict(ctx context.Context, con *console, o recommend.Options) error {
	tuning, err := f.device.tuning()
	if err != nil {
		return err
	}
	if err := f.open(ctx, con, &o); err != nil {
		return err
	}
	set, data, err := recommend.Plan(ctx, o)
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
func (f *trainRecommendFlags) check(o *recommend.Options) error {
	var faults []error
	if f.data == "" {
		faults = append(faults, errors.New("--data is missing: name a directory of onmart features or onmart import"))
	}
	if f.out == "" && !f.device.paper() {
		faults = append(faults, errors.New("--out is missing: name the directory of the artifact to make"))
	}
	faults = append(faults, f.ranges(o, time.UTC))
	var err error
	if f.device.threads, err = threadCount(f.device.threads); err != nil {
		faults = append(faults, err)
	}
	o.Threads = f.device.threads
	faults = append(faults, f.device.check()...)
	if f.device.paper() && !f.explain {
		faults = append(faults,
			fmt.Errorf("--device %s: nothing can be trained on a description of a card; --explain predicts a step on it", f.device.name))
	}
	return errors.Join(append(faults, o.Config.Set(f.set))...)
}

// ranges reads the ranges; dates are days of the zone.
func (f *trainRecommendFlags) ranges(o *recommend.Options, zone *time.Location) error {
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
func (f *trainRecommendFlags) open(ctx context.Context, con *console, o *recommend.Options) error {
	name := f.spec
	if name == "" {
		name = defaultRecommendSpec
	}
	spec, err := loadSpec(name, "")
	if err != nil {
		return err
	}
	d, err := openFeatures(ctx, con, f.data, spec, f.device.threads)
	if err != nil {
		return err
	}
	if o.Source, err = recommend.OpenSource(d); err != nil {
		return err
	}
	if f.spec != "" && o.Source.Spec.Name() != spec.Name() {
		return fmt.Errorf("--spec %s: the interactions of %s were made with another spec, %s; leave --spec out, or give the transactions as --data", f.spec, f.data, o.Source.Spec.Name())
	}
	return f.ranges(o, o.Source.Spec.Location())
}

// printRecommendTraining is the result for people: what was made and, after --test, the table.
func printRecommendTraining(w io.Writer, s *recommend.Summary) error {
	fmt.Fprintf(w, "%s: model %s, %s of %d users and %d items on %d lines of %d purchases in %.1f s\n", s.Out,
		s.Version, s.Model, s.Users, s.Items, s.Rows, s.Purchases, s.Seconds)
	if len(s.Components) > 0 {
		fmt.Fprintf(w, "blend of own purchases, popularity and %s, fitted on %s\n", strings.Join(s.Components, ", "),
			strings.Join(s.Folds, " and "))
	}
	if s.Validation != nil {
		fmt.Fprintln(w)
		if err := recommendTable("on the latest fold", s.Model, &s.Validation.Model,
			s.Validation.Baselines).write(w); err != nil {
			return err
		}
	}
	if s.Test == nil {
		return nil
	}
	fmt.Fprintln(w)
	return recommendTable("on "+s.Test.Range, s.Model, &s.Test.Model, s.Test.Baselines).write(w)
}

// recommendTable is the figures of a model and of simpler ones.
func recommendTable(title, name string, m *recommend.Metrics, baselines []recommend.BaselineResult) *table {
	keys := []string{"ndcg_at_10", "recall_at_10", "hit_rate_at_10", "new_ndcg_at_10", "new_recall_at_10",
		"new_hit_rate_at_10"}
	t := newTable(append([]string{title}, "all: nDCG@10", "recall@10", "hits", "new: nDCG@10", "recall@10", "hits")...)
	row := func(name string, m recommend.Metrics) {
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
	row(name, *m)
	for _, b := range baselines {
		row(b.Name, b.Metrics)
	}
	return t
}
