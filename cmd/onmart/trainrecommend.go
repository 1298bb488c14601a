package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/recommend"
)

// defaultRecommendSpec is what interactions are made by where --data has transactions.
const defaultRecommendSpec = "online-retail-baskets"

// recommendTraining is the flags of train recommend.
type recommendTraining struct{ trainFlags }

func newTrainRecommendCmd() *cobra.Command {
	var f recommendTraining
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
all items and over items that are new to the user. Ctrl-C keeps what the network has learned in
OUT.checkpoint, and --resume goes on from there to the same bits. OUT.runlog.jsonl says what happened when
(docs/RUNLOG.md).

` + settingsText(recommend.Settings(), recommend.DefaultConfig()),
		Args: cobra.NoArgs,
	}
	f.bind(cmd, trainWords{
		data:  "`directory` of interactions or of transactions",
		spec:  "interactions spec, built-in `name` or file, where --data has transactions (default " + defaultRecommendSpec + ")",
		train: "`range` to learn from, FROM..TO (default: all there is before --test)",
		valid: "`range` inside --train that the blend is fitted on (default: its latest spans)",
		test:  "`range` to judge the model on",
		seed:  "seed of first vectors, shuffles and drawn items",
	}, recommend.DefaultSpace())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runTrainRecommend(cmd, &f) }
	return cmd
}

func runTrainRecommend(cmd *cobra.Command, f *recommendTraining) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	o := recommend.Options{
		Out: f.out, Force: *f.force, Resume: f.resume, Config: recommend.DefaultConfig(), Seed: f.seed,
		Note: con.notef, Bar: con.bar,
		Created: trainCreated("train recommend"),
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
		set, data, err := recommend.Plan(ctx, o)
		if err != nil {
			return err
		}
		return f.predicted(con, set, data)
	}
	if err := f.reportable(o.Force); err != nil {
		return err
	}
	backend, closeBackend, err := openBackend(con, f.device, recommendLacks(o.Config, searched(&o.Running)))
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
	s, err := recommend.Train(ctx, o)
	if err != nil {
		return err
	}
	page := trainingPage("Training of "+s.Version, "How "+s.Out+" was trained to recommend.", []report.Fact{
		{Name: "Trained on", Value: s.Train}, {Name: "Users", Value: progress.Count(int64(s.Users))},
		{Name: "Items", Value: progress.Count(int64(s.Items))}, {Name: "Lines of purchases", Value: progress.Count(int64(s.Rows))},
		{Name: "Networks", Value: strconv.Itoa(s.Seeds)}, {Name: "Seed", Value: strconv.FormatUint(s.Seed, 10)}, {Name: "Device", Value: s.Backend},
	}, &train.History{Curves: s.Curves, Tuning: s.Tuning})
	if err := f.writeReport(con, o.Force, page); err != nil {
		return err
	}
	return con.result(s, func(w io.Writer) error { return printRecommendTraining(w, s) })
}

// check reports every fault of the flags at once.
func (f *recommendTraining) check(o *recommend.Options) error {
	faults := f.faults()
	o.Threads = f.device.threads
	_, err := f.ranges(time.UTC)
	faults = append(faults, err, f.run(&o.Running))
	if o.Running.Space == nil {
		o.Running.Space = recommend.DefaultSpace()
	}
	faults = append(faults, o.Config.Set(f.set))
	if o.Trials > 0 {
		_, err := o.Config.CheckSpace(o.Space)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// open finds the source, and takes the ranges' dates as days of its zone.
func (f *recommendTraining) open(ctx context.Context, con *console, o *recommend.Options) error {
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
	r, err := f.ranges(o.Source.Spec.Location())
	o.Train, o.Valid, o.Test = r.train, r.valid, r.test
	return err
}

// printRecommendTraining is the result for people: what was made and, after --test, the table.
func printRecommendTraining(w io.Writer, s *recommend.Summary) error {
	if s.Tuning != nil {
		if err := printTrials(w, s.Tuning, "nDCG@10"); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
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
