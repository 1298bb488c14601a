package fraud

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/tune"
)

// DefaultAlertsPerDay is the budget of alerts where none is given: the k of the handbook's card precision.
const DefaultAlertsPerDay = 100

// Options of Train.
type Options struct {
	Source Source
	Out    string // directory of the artifact
	Force  bool
	Resume bool

	// Train is the rows to learn from. Valid are the rows that choose the epoch, calibrate and set the
	// threshold; nil takes the latest part of Train for that and then learns from all of it. Test, where
	// given, is judged with the baselines beside the model; it begins after Train.
	Train       datasets.Range
	Valid, Test *datasets.Range
	// KnownFrom is from when on a fraud makes a card known to be compromised and so leaves it out of Test,
	// microseconds; nil is the start of Train.
	KnownFrom *int64

	AlertsPerDay float64
	Config       Config
	Seed         uint64
	Threads      int
	Backend      program.Backend
	Created      model.Created

	// Folds is how many rolling parts of Train choose the epoch, where Valid is nil; 0 is 1.
	Folds int
	train.Running

	// Note takes lines for people, Bar starts a progress bar, Explain takes the programs of the training and what
	// they are bound to. All may be nil.
	Note    func(format string, args ...any)
	Bar     func(label string, total int64, unit string) *progress.Bar
	Explain func(*program.Set, program.Data)
}

// Summary is what a training came to, for --json.
type Summary struct {
	Out          string             `json:"out"`
	Version      string             `json:"version"`
	Backend      string             `json:"backend"`
	Seed         uint64             `json:"seed"`
	Train        string             `json:"train"`
	Fit          string             `json:"fit"` // rows the epoch was chosen with
	Valid        string             `json:"valid"`
	Refitted     bool               `json:"refitted"`
	Resumed      bool               `json:"resumed"`
	Rows         int                `json:"rows"`
	Positives    int                `json:"positives"`
	Unlabelled   int                `json:"unlabelled"`
	Epochs       int                `json:"epochs"`
	Threshold    float64            `json:"threshold"`
	AlertsPerDay float64            `json:"alerts_per_day"`
	Validation   map[string]float64 `json:"validation"` // the mean where there are folds
	// ValidationSpread is the deviation between Folds, which has each; nil with one.
	ValidationSpread map[string]float64 `json:"validation_spread,omitempty"`
	Folds            []FoldSummary      `json:"folds,omitempty"`
	Seeds            int                `json:"seeds"`
	Tuning           *tune.Result       `json:"tuning,omitempty"`
	Shortened        []string           `json:"shortened,omitempty"` // parts that --max-time ended
	Log              string             `json:"log,omitempty"`
	Curves           []train.Curve      `json:"-"`
	Test             *TestSummary       `json:"test,omitempty"`
	Context          bool               `json:"context"`
	TrainSeconds     float64            `json:"train_seconds"`
	Seconds          float64            `json:"seconds"`
	RowsPerSecond    float64            `json:"rows_per_second"` // of the training loops
}

// TestSummary is the model and the baselines on the test rows.
type TestSummary struct {
	Range     string             `json:"range"`
	Model     map[string]float64 `json:"model"`
	Baselines []BaselineResult   `json:"baselines"`
	// LosesTo lists every figure in which a baseline is better than the model.
	LosesTo []Loss `json:"loses_to"`
}

// trainer is a training under way.
type trainer struct {
	Options
	features []features.Feature
	names    []string
	log      []bool
	rows     *Rows // of Train
	span     datasets.Range
	split    Split           // of the latest fold
	folds    []fold          // in the order of time; with Valid, the one that it makes
	kept     *datasets.Range // what chose the epoch, where there was no time to train on it
	start    time.Time
	session  *train.Session
	tuning   *tune.Result
}

// Train trains a classifier and writes its artifact to Out.
func Train(ctx context.Context, o Options) (*Summary, error) {
	if !(o.AlertsPerDay > 0) || math.IsInf(o.AlertsPerDay, 0) {
		return nil, fmt.Errorf("alerts per day: %v, want more than 0", o.AlertsPerDay)
	}
	out := train.Output{Dir: o.Out, Force: o.Force, Resume: o.Resume}
	if err := out.Check(); err != nil {
		return nil, err
	}
	t := newTrainer(o)
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	t.session = o.Session(out, t.Note, t.Bar)
	s, err := t.run(ctx)
	if err := t.session.End(ctx, s, err); err != nil {
		return nil, err
	}
	return s, nil
}

func newTrainer(o Options) *trainer {
	t := &trainer{Options: o, start: time.Now(), features: o.Source.Plan.Features()}
	train.Mute(&t.Note, &t.Bar)
	for _, f := range t.features {
		t.names, t.log = append(t.names, f.Name), append(t.log, f.Log && o.Config.Log)
	}
	return t
}

// Plan is what Train would train with these options, untrained: the programs, and the data that they would be bound to in the
// first training loop. It makes nothing.
func Plan(ctx context.Context, o Options) (*program.Set, program.Data, error) {
	t := newTrainer(o)
	if err := t.load(ctx); err != nil {
		return nil, program.Data{}, err
	}
	f := fitting{config: &t.Config, seed: t.Seed, threads: t.Threads, log: t.log}
	b, err := f.bind(t.folds[0].fit, t.folds[0].valid, t.Config.Epochs)
	if err != nil {
		return nil, program.Data{}, err
	}
	return b.set, b.data, nil
}

func (t *trainer) run(ctx context.Context) (*Summary, error) {
	if err := t.session.Begin(t.begun()); err != nil {
		return nil, err
	}
	if err := t.tune(ctx); err != nil {
		return nil, err
	}
	m, c, err := t.fit(ctx)
	if err != nil {
		return nil, err
	}
	return t.finish(ctx, m, c)
}

// load reads the rows to learn from and decides which of them choose the epoch.
func (t *trainer) load(ctx context.Context) error {
	s := &t.Source
	var err error
	if t.rows, err = Load(ctx, s.Features, t.Train, t.names, t.Threads); err != nil {
		return err
	}
	if t.rows.Len() == 0 {
		return t.noRows("--train", t.Train)
	}
	t.span = clip(t.Train, t.rows)
	if n := t.rows.Unlabelled(); n > 0 {
		t.Note("%s of %s rows have no label and count as no fraud", progress.Count(int64(n)), progress.Count(int64(t.rows.Len())))
	}
	what := "--train " + t.Train.String()
	if t.Train == (datasets.Range{}) { // no --train was given
		what = "all of " + t.span.String()
	}
	if err := checkClasses(what, t.rows); err != nil {
		return err
	}
	if err := t.checkTest(ctx); err != nil {
		return err
	}
	if t.Valid == nil {
		return t.splitTrain()
	}
	valid, err := Load(ctx, s.Features, *t.Valid, t.names, t.Threads)
	if err != nil {
		return err
	}
	if valid.Len() == 0 {
		return t.noRows("--valid", *t.Valid)
	}
	t.split = Split{Fit: t.span, Valid: clip(*t.Valid, valid)}
	t.folds = []fold{{Split: t.split, fit: t.rows, valid: valid}}
	if t.split.Valid.From < t.span.To && t.split.Valid.To > t.span.From {
		return fmt.Errorf("--valid %s overlaps --train %s: rows that were learned from cannot judge", t.split.Valid, t.span)
	}
	t.Note("training on %s (%s); epochs chosen on %s (%s)", t.span, describe(t.rows), t.split.Valid, describe(valid))
	return checkClasses("--valid "+t.Valid.String(), valid)
}

// checkTest refuses, before anything is trained, test rows that cannot judge. It keeps none of them: they decide nothing.
func (t *trainer) checkTest(ctx context.Context) error {
	if t.Test == nil {
		return nil
	}
	rows, err := t.testRows(ctx)
	if err != nil {
		return err
	}
	test, delay := clip(*t.Test, rows), datasets.FormatDuration(t.Source.Delay)
	if test.From < t.span.To {
		where := "overlaps"
		if test.To <= t.span.From {
			where = "lies before"
		}
		return fmt.Errorf("--test %s %s --train %s: rows can only be judged by what was learned before them; begin --test at %s, "+
			"a delay of %s after --train ends, or later, or end --train before --test", t.Test, where, t.span,
			datasets.FormatTime(t.span.To+t.Source.Delay), delay)
	}
	if t.Valid != nil {
		if from, to := t.Valid.Bounds(); test.From < to && from < test.To {
			return fmt.Errorf("--test %s overlaps --valid %s, which chooses the epoch, calibrates and sets the threshold: judge on "+
				"other days, or end --valid before --test", t.Test, t.Valid)
		}
	}
	if gap := test.From - t.span.To; gap < t.Source.Delay {
		t.Note("--test begins %s after --train ends, less than the delay of %s: labels of the last training days were not known then, so these figures are too good",
			datasets.FormatDuration(gap), delay)
	}
	return nil
}

func (t *trainer) testRows(ctx context.Context) (*Rows, error) {
	rows, err := Load(ctx, t.Source.Features, *t.Test, t.names, t.Threads)
	if err == nil && rows.Len() == 0 {
		err = t.noRows("--test", *t.Test)
	}
	return rows, err
}

func (t *trainer) noRows(flag string, r datasets.Range) error {
	m := t.Source.Features.Manifest()
	if m.Rows == 0 {
		return fmt.Errorf("%s has no rows", t.Source.Features.Dir())
	}
	return fmt.Errorf("%s %s: no rows there; %s has rows from %s to %s", flag, r, t.Source.Features.Dir(),
		datasets.FormatTime(m.From), datasets.FormatTime(m.To))
}

// clip takes off a range what lies before the first day and after the last day of its rows.
func clip(r datasets.Range, rows *Rows) datasets.Range {
	first, last := rows.Time[0], rows.Time[0]
	for _, t := range rows.Time {
		first, last = min(first, t), max(last, t)
	}
	from, to := r.Bounds()
	return datasets.Range{From: max(from, startOfDay(first)), To: min(to, startOfDay(last)+datasets.Day)}
}

// identity is what decides the weights, beside what the loop itself knows.
func (t *trainer) identity(c *Config, seed uint64) []train.Fact {
	valid := "the latest part of --train"
	if t.Valid != nil {
		valid = t.Valid.String()
	}
	return append([]train.Fact{
		{Name: "data", Value: t.Source.Features.ID()},
		{Name: "features", Value: t.Source.Plan.Fingerprint()},
		{Name: "--train", Value: t.Train.String()},
		{Name: "--valid", Value: valid},
		{Name: "--delay", Value: datasets.FormatDuration(t.Source.Delay)},
		{Name: "--seed", Value: fmt.Sprint(seed)},
		{Name: "--folds", Value: fmt.Sprint(len(t.folds))},
		{Name: train.FactOnmart, Value: t.Created.Onmart},
	}, c.facts()...)
}

// finish wraps the network, judges it and writes the artifact.
func (t *trainer) finish(ctx context.Context, m *fitted, c *chosen) (*Summary, error) {
	set, err := artifact(m.set, len(t.names))
	if err != nil {
		return nil, err
	}
	weights := append(append(program.Tensors{}, m.weights...), m.standard.tensors()...)
	weights = append(weights, program.Tensor{Name: program.CalibrateAB, DType: program.F64, Shape: []int{2}, F64: []float64{c.a, c.b}})
	weights.Sort()
	s := &Summary{
		Out: t.Out, Backend: t.Backend.Name(), Seed: t.Seed, Train: t.span.String(),
		Fit: t.split.Fit.String(), Valid: t.split.Valid.String(), Refitted: t.Valid == nil && t.kept == nil,
		Resumed: t.session.Resumed(), Folds: c.folds, ValidationSpread: c.spread, Seeds: t.Ensemble(), Tuning: t.tuning,
		Shortened: t.session.Shortened(), Log: t.Log, Curves: t.session.Curves(),
		Rows: t.rows.Len(), Positives: t.rows.Positives(), Unlabelled: t.rows.Unlabelled(),
		Epochs: c.epochs, Threshold: c.threshold, AlertsPerDay: t.AlertsPerDay, Validation: c.metrics,
	}
	s.TrainSeconds, s.RowsPerSecond = t.session.Seconds()
	content := model.Contents{
		Manifest: t.manifest(m, c), Spec: t.Source.Spec, Input: t.Source.Input, Tables: t.Source.Tables,
		Program: set, Weights: weights, Files: train.HistoryFile(s.Curves, t.tuning),
		Sample: t.sample(),
	}
	if t.Test != nil {
		if s.Test, content.Manifest.Test, err = t.test(ctx, set, weights, c); err != nil {
			return nil, err
		}
	}
	engine, err := t.context(ctx)
	if err != nil {
		return nil, err
	}
	if s.Context = engine != nil; s.Context {
		content.Context = engine
	}
	if err := model.Save(t.Out, content, t.Force); err != nil {
		return nil, err
	}
	a, err := model.Open(t.Out)
	if err != nil {
		return nil, err
	}
	s.Version = a.Manifest().Version
	t.session.Remove()
	s.Seconds = time.Since(t.start).Seconds()
	return s, nil
}

// sampleRows is how many training rows the artifact keeps the distribution of: the share of a bin of a tenth is then
// within half a point.
const sampleRows = 1 << 15

// sample is training rows that are spread evenly over the range.
func (t *trainer) sample() [][]float64 {
	n := t.rows.Len()
	k := min(n, sampleRows)
	out := make([][]float64, len(t.rows.Values))
	for j, column := range t.rows.Values {
		out[j] = make([]float64, k)
		for i := range k {
			out[j][i] = column[i*n/k]
		}
	}
	return out
}

func (t *trainer) manifest(m *fitted, c *chosen) model.Manifest {
	settings := map[string]string{}
	for _, f := range t.Config.facts() {
		settings[f.Name] = f.Value
	}
	settings["epochs_trained"] = fmt.Sprint(c.epochs)
	if n := t.Ensemble(); n > 1 {
		settings["seeds"] = fmt.Sprint(n)
	}
	created := t.Created
	created.Backend = t.Backend.Name()
	valid := model.Span{Range: t.split.Valid}
	lineage := model.Lineage{
		Data: t.Source.Features.ID(), From: t.Source.From, Train: model.Span{Range: t.span},
		Delay: model.Duration(t.Source.Delay), Rows: int64(t.rows.Len()), Seen: int64(t.rows.Positives()),
	}
	if t.Valid != nil || t.kept != nil {
		lineage.Valid = &valid
	}
	return model.Manifest{
		Task: "fraud", Created: created, Typical: medians(t.rows), Lineage: lineage, Seed: t.Seed,
		Threshold: c.threshold, AlertsPerDay: t.AlertsPerDay,
		Calibration: model.Calibration{A: c.a, B: c.b}, Settings: settings,
		Validation: &model.Evaluation{
			Data: t.Source.Features.ID(), Range: valid, Delay: model.Duration(t.Source.Delay), Metrics: c.metrics,
		},
	}
}

// test judges the model and the baselines on the test rows.
func (t *trainer) test(ctx context.Context, set *program.Set, weights program.Tensors, c *chosen) (*TestSummary, *model.Evaluation, error) {
	rows, err := t.testRows(ctx)
	if err != nil {
		return nil, nil, err
	}
	span := clip(*t.Test, rows)
	from := t.span.From
	if t.KnownFrom != nil {
		from = *t.KnownFrom
	}
	known, err := LoadKnown(ctx, t.Source.Features, datasets.Range{From: from, To: span.To}, t.Threads)
	if err != nil {
		return nil, nil, err
	}
	p := Protocol{Known: known, Delay: t.Source.Delay, AlertsPerDay: t.AlertsPerDay, Threshold: c.threshold}
	scores, err := score(set.Forward, weights, rows.Values, rows.Len(), t.Threads)
	if err != nil {
		return nil, nil, err
	}
	e := Evaluate(rows, scores, p)
	if e.Rows == 0 {
		t.Note("all %d transactions of %s in %s are of cards known to be compromised: nothing is left to judge on; give a longer --test, "+
			"or judge with onmart evaluate --all-cards", rows.Len(), t.Source.Features.Dir(), span)
	}
	if e.Unlabelled > 0 {
		t.Note("%s test rows have no label and count as no fraud", progress.Count(int64(e.Unlabelled)))
	}
	out := &TestSummary{Range: span.String(), Model: e.Metrics()}
	if out.Baselines, err = Baselines(t.rows, rows, t.log, t.Seed, p, t.Threads, t.Note); err != nil {
		return nil, nil, err
	}
	out.LosesTo = losses(out.Model, out.Baselines)
	for _, l := range out.LosesTo {
		t.Note("warning: the model loses to %s: %s %.4f against %.4f", l.Name, l.Metric, l.Model, l.Baseline)
	}
	stored := &model.Evaluation{
		Data: t.Source.Features.ID(), Range: model.Span{Range: span}, Delay: model.Duration(t.Source.Delay), Metrics: out.Model,
	}
	for _, b := range out.Baselines {
		stored.Baselines = append(stored.Baselines, model.Baseline{Name: b.Name, Metrics: b.Metrics})
	}
	return out, stored, nil
}

// context runs the feature engine over the transactions up to the end of training: with its state the
// artifact can score the next event alone.
func (t *trainer) context(ctx context.Context) (*features.Engine, error) {
	d := t.Source.Transactions
	if d == nil {
		t.Note("the artifact carries no feature state: %s; onmart score wants --warm-from", t.Source.NoTransactions)
		return nil, nil
	}
	bar := t.Bar("feature state", d.Manifest().Rows, "rows")
	_, to := t.span.Bounds()
	e, err := features.StateAt(ctx, t.Source.Spec, d, to, t.Threads, func(done, _ int64) { bar.Set(done, "") })
	bar.Done()
	if err == nil && e.Plan().Fingerprint() != t.Source.Plan.Fingerprint() {
		t.Note("the artifact carries no feature state: a table beside %s was changed after the features were made; "+
			"onmart score wants --warm-from", d.Dir())
		return nil, nil
	}
	return e, err
}
