package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/fraud"
)

func newBenchCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench NAME",
		Short: "The measurements of docs/BENCHMARKS.md",
	}
	cmd.AddCommand(newBenchFraudCmd(), newBenchLiveCmd(), newBenchGPUCmd(), newBenchRecommendCmd(), newBenchQualityCmd(),
		newBenchTrainCmd(), newBenchScoreCmd(), newBenchInferCmd(), newBenchKernelsCmd())
	return cmd
}

type benchFraudFlags struct {
	data, spec, train, test, delay, known string
	seeds, threads                        int
	set                                   []string
}

func newBenchFraudCmd() *cobra.Command {
	var f benchFraudFlags
	cmd := &cobra.Command{
		Use:   "fraud --data FILE",
		Short: "From an export to an evaluated model, for several seeds",
		Long: `bench fraud imports the Fraud Detection Handbook's transactions (TRANSACTION_ID, TX_DATETIME, CUSTOMER_ID,
TERMINAL_ID, TX_AMOUNT, TX_FRAUD as CSV), computes features, trains once for each seed and judges each model. It
prints the seconds from the export to the first evaluated model, and the median and spread of the figures.

Cards that were known to be compromised are left out of the judging: those with a fraud since --train began, as in the
handbook. With a longer --train more cards are known and other rows are judged; --known-from 2018-07-25 keeps to the rows
of the default week.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "", "transactions `file`, CSV, also .gz")
	fl.StringVar(&f.spec, "spec", defaultFraudSpec, "feature spec, built-in `name` or file")
	fl.StringVar(&f.train, "train", "2018-07-25..2018-07-31", "`range` to learn from")
	fl.StringVar(&f.delay, "delay", "7d", "how long after a transaction its label is known")
	fl.StringVar(&f.test, "test", "2018-08-08..2018-08-14", "`range` to judge on")
	fl.StringVar(&f.known, "known-from", "", "first `day` whose frauds make a card known to be compromised (default: that of --train)")
	fl.IntVar(&f.seeds, "seeds", 5, "trainings, with seeds 1, 2, ...")
	fl.IntVar(&f.threads, "threads", 0, "threads (default one a core)")
	fl.StringArrayVar(&f.set, "set", nil, "change a setting of the training, `name=value`; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runBenchFraud(cmd, &f) }
	return cmd
}

// spread is the median and the extremes of a figure over seeds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(v []float64) spread {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

type benchFraudResult struct {
	Spec      string                 `json:"spec"`
	Train     string                 `json:"train"`
	KnownFrom string                 `json:"known_from,omitempty"`
	Test      string                 `json:"test"`
	Seeds     int                    `json:"seeds"`
	Rows      int64                  `json:"rows"`
	Import    float64                `json:"import_seconds"`
	Features  float64                `json:"features_seconds"`
	Total     float64                `json:"seconds"` // export to evaluated model, first seed
	Training  spread                 `json:"train_seconds"`
	Rate      spread                 `json:"train_rows_per_second"`
	Model     map[string]spread      `json:"model"`
	Baselines []fraud.BaselineResult `json:"baselines"`
}

func runBenchFraud(cmd *cobra.Command, f *benchFraudFlags) error {
	con := consoleOf(cmd)
	threads, err := threadCount(f.threads)
	if err != nil {
		return err
	}
	trainRange, err1 := datasets.ParseRange(f.train)
	testRange, err2 := datasets.ParseRange(f.test)
	spec, err3 := loadSpec(f.spec, f.delay)
	known, err4 := knownFrom(f.known)
	config := fraud.DefaultConfig()
	if err := errors.Join(err1, err2, err3, err4, config.Set(f.set)); err != nil {
		return usage(err)
	}
	if f.data == "" {
		return usagef("--data is missing: name the handbook's transactions as CSV")
	}
	if f.seeds < 1 {
		return usagef("--seeds %d: want 1 or more", f.seeds)
	}
	dir, err := os.MkdirTemp("", "onmart-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &benchFraudResult{Spec: f.spec, Train: f.train, KnownFrom: f.known, Test: f.test, Seeds: f.seeds, Model: map[string]spread{}}
	start := time.Now()
	src, err := r.prepare(cmd.Context(), f.data, dir, spec, threads)
	if err != nil {
		return err
	}
	backend, _, err := openBackend(con, deviceFlags{name: "cpu", threads: threads}, nil)
	if err != nil {
		return err
	}
	figures := map[string][]float64{}
	var seconds, rates []float64
	for seed := 1; seed <= f.seeds; seed++ {
		s, err := fraud.Train(cmd.Context(), fraud.Options{
			Source: src, Out: filepath.Join(dir, fmt.Sprint("model", seed)), Train: trainRange, Test: &testRange,
			KnownFrom: known, AlertsPerDay: fraud.DefaultAlertsPerDay, Config: config, Seed: uint64(seed), Threads: threads, Backend: backend,
			Created: model.Created{Command: "bench fraud", Onmart: buildVersion(), Args: os.Args[1:], Time: time.Now().UTC().Format(time.RFC3339)},
		})
		if err != nil {
			return err
		}
		if seed == 1 {
			r.Total = time.Since(start).Seconds()
			r.Baselines = s.Test.Baselines
		}
		con.notef("seed %d: AUC %.4f, average precision %.4f, card precision@100 %.4f, %d epochs, %.1f s", seed,
			s.Test.Model["auc"], s.Test.Model["average_precision"], s.Test.Model["card_precision_at_100"], s.Epochs, s.Seconds)
		for k, v := range s.Test.Model {
			figures[k] = append(figures[k], v)
		}
		seconds, rates = append(seconds, s.TrainSeconds), append(rates, s.RowsPerSecond)
	}
	for k, v := range figures {
		r.Model[k] = spreadOf(v)
	}
	r.Training, r.Rate = spreadOf(seconds), spreadOf(rates)
	return con.result(r, r.print)
}

// prepare imports the export and computes its features, timing both.
func (r *benchFraudResult) prepare(ctx context.Context, file, dir string, spec *features.Spec, threads int) (fraud.Source, error) {
	in, feats := filepath.Join(dir, "transactions"), filepath.Join(dir, "features")
	start := time.Now()
	m, err := importHandbook(ctx, file, in)
	if err != nil {
		return fraud.Source{}, err
	}
	r.Rows, r.Import = m.Rows, time.Since(start).Seconds()
	start = time.Now()
	d, err := backfillInto(ctx, in, feats, "", datasets.Range{}, spec, threads)
	if err != nil {
		return fraud.Source{}, err
	}
	r.Features = time.Since(start).Seconds()
	return fraud.OpenSource(d)
}

// knownFrom is the moment that a day begins, nil where none is given.
func knownFrom(day string) (*int64, error) {
	if day == "" {
		return nil, nil
	}
	r, err := datasets.ParseRange(day + ".." + day)
	if err != nil {
		return nil, fmt.Errorf("--known-from %s: want a day, such as 2018-07-25", day)
	}
	from, _ := r.Bounds()
	return &from, nil
}

func importHandbook(ctx context.Context, file, out string) (*datasets.Manifest, error) {
	m, err := datasets.Preset("fraud-handbook")
	if err != nil {
		return nil, err
	}
	res, err := datasets.Import(ctx, datasets.ImportOptions{Mapping: m, Files: []string{file}, Out: out})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// backfillInto computes the features of a data set, and opens them where out is given.
func backfillInto(ctx context.Context, in, out, stateOut string, r datasets.Range, spec *features.Spec, threads int) (*datasets.Dataset, error) {
	d, err := datasets.Open(in)
	if err != nil {
		return nil, err
	}
	_, err = features.Run(ctx, features.RunOptions{Spec: spec, In: d, Out: out, StateOut: stateOut, Range: r, Threads: threads,
		Created: datasets.Created{Command: "bench", Version: buildVersion(), Args: os.Args[1:]}})
	if err != nil || out == "" {
		return nil, err
	}
	return datasets.Open(out)
}

func (r *benchFraudResult) print(w io.Writer) error {
	fmt.Fprintf(w, "trained on %s, judged on %s, %d seeds\n\n", r.Train, r.Test, r.Seeds)
	t := newTable("", "AUC", "average precision", "card precision@100", "log loss")
	keys := []string{"auc", "average_precision", "card_precision_at_100", "log_loss"}
	row := func(name string, get func(string) (float64, bool)) {
		cells := []string{name}
		for _, k := range keys {
			cells = append(cells, cell(get(k)))
		}
		t.add(cells...)
	}
	for _, part := range []struct {
		name string
		get  func(spread) float64
	}{
		{"onmart, median", func(s spread) float64 { return s.Median }},
		{"onmart, least", func(s spread) float64 { return s.Min }},
		{"onmart, greatest", func(s spread) float64 { return s.Max }},
	} {
		row(part.name, func(k string) (float64, bool) { s, ok := r.Model[k]; return part.get(s), ok })
	}
	for _, b := range r.Baselines {
		row(b.Name, func(k string) (float64, bool) { v, ok := b.Metrics[k]; return v, ok && !math.IsNaN(v) })
	}
	if err := t.write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nexport to evaluated model  %.1f s for %s rows: import %.1f, features %.1f\ntraining                   %.1f s (%.1f to %.1f), %s rows/s\n",
		r.Total, progress.Count(r.Rows), r.Import, r.Features, r.Training.Median, r.Training.Min, r.Training.Max, progress.Short(r.Rate.Median))
	return err
}
