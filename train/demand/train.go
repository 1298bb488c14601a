// Package demand trains forecasters: a network over all series of a panel, classical methods beside it, and the weights
// that combine them.
//
// What enters: a panel (package features), a range to learn from and a program.Backend. What leaves: an artifact of
// task demand, and figures. It may not be assumed that a panel is long: where it is too short to judge on rolling
// folds, there is no network and the methods are weighted alike, which is said.
//
// In the order of processing: panel.go reads, windows.go draws training rows, network.go builds the model, fit.go
// trains it, combine.go weights it with the classical methods, evaluate.go judges, train.go drives all of it.
package demand

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/tune"
)

// Options of Train.
type Options struct {
	Source Source
	Out    string // directory of the artifact
	Force  bool
	Resume bool

	// Train is the steps to learn from; without an end it ends where Test begins. Valid, where given, are the steps that
	// the folds lie in; nil takes the latest of Train. Test, where given, is judged with the methods beside the model.
	Train       datasets.Range
	Valid, Test *datasets.Range

	Horizon int // steps; 0 takes what is usual for the step: 48 hours, 28 days or 13 weeks
	Config  Config
	Seed    uint64
	Threads int
	Backend program.Backend
	Created model.Created
	train.Running

	// Note takes lines for people, Bar starts a progress bar, Explain takes the programs of the training and what
	// they are bound to. All may be nil.
	Note    func(format string, args ...any)
	Bar     func(label string, total int64, unit string) *progress.Bar
	Explain func(*program.Set, program.Data)
}

// defaultHorizon is what is forecast where no horizon is given: two days of hours, four weeks of days, a quarter.
func defaultHorizon(s forecast.Step) int {
	switch s {
	case forecast.Hour:
		return 48
	case forecast.Week:
		return 13
	}
	return 28
}

// Summary is what a training came to, for --json. The figures of Test stand in it by their own names too.
type Summary struct {
	Out           string             `json:"out"`
	Version       string             `json:"version"`
	Backend       string             `json:"backend"`
	Seed          uint64             `json:"seed"`
	Train         string             `json:"train"`
	Folds         []string           `json:"folds"` // where each begins
	Series        int                `json:"series"`
	Steps         int                `json:"steps"`
	Horizon       int                `json:"horizon"`
	Scaling       string             `json:"scaling"`
	Closed        string             `json:"closed"`
	Network       bool               `json:"network"`
	Resumed       bool               `json:"resumed"`
	Rows          int                `json:"rows"` // of the network's last training
	Epochs        int                `json:"epochs"`
	Weights       map[string]Weights `json:"weights"`    // by class of series
	Validation    Metrics            `json:"validation"` // over the folds
	Seeds         int                `json:"seeds"`
	Tuning        *tune.Result       `json:"tuning,omitempty"`
	Shortened     []string           `json:"shortened,omitempty"` // parts that --max-time ended
	Log           string             `json:"log,omitempty"`
	Curves        []train.Curve      `json:"-"`
	Test          *TestSummary       `json:"test,omitempty"`
	Context       bool               `json:"context"`
	TrainSeconds  float64            `json:"train_seconds"`
	Seconds       float64            `json:"seconds"`
	RowsPerSecond float64            `json:"rows_per_second"` // of the training loops
}

// Weights are a mixture for people.
type Weights struct {
	Cases    int                           `json:"cases"`
	Point    map[string]float64            `json:"point"`
	Quantile map[string]map[string]float64 `json:"quantile"` // by level
}

// TestSummary is the model and the methods on the test steps.
type TestSummary struct {
	Range string `json:"range"`
	Judged
}

// trainer is a training under way.
type trainer struct {
	Options
	panel   *forecast.Panel // train and, where given, test
	learned *forecast.Panel // up to the end of Train
	known   int             // its steps
	span    datasets.Range
	closed  *forecast.Closed
	view    *forecaster.View
	model   *forecaster.Model
	origins []int
	start   time.Time
	session *train.Session
	tuning  *tune.Result
	first   *prepared // rows of the first fold, which trials share
	scales  []float64 // of the learning rate by epoch, as the first fold's plateau found them
}

// Train trains a forecaster and writes its artifact to Out.
func Train(ctx context.Context, o Options) (*Summary, error) {
	out := train.Output{Dir: o.Out, Force: o.Force, Resume: o.Resume}
	if err := out.Check(); err != nil {
		return nil, err
	}
	t, err := newTrainer(ctx, o)
	if err != nil {
		return nil, err
	}
	t.session = o.Session(out, t.Note, t.Bar)
	s, err := t.run(ctx)
	if err := t.session.End(ctx, s, err); err != nil {
		return nil, err
	}
	return s, nil
}

// Plan is what Train would train first with these options, untrained. It makes nothing.
func Plan(ctx context.Context, o Options) (*program.Set, program.Data, error) {
	t, err := newTrainer(ctx, o)
	if err != nil {
		return nil, program.Data{}, err
	}
	if !t.Config.Network {
		return nil, program.Data{}, errors.New(
			"there is no network to train: the panel is too short for folds, or --set network=false",
		)
	}
	f := fitting{config: &t.Config, seed: t.Seed}
	return f.bind(prepare(t.foldRows(0)), t.Config.Epochs)
}

func newTrainer(ctx context.Context, o Options) (*trainer, error) {
	t := &trainer{Options: o, start: time.Now()}
	train.Mute(&t.Note, &t.Bar)
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	return t, t.plan()
}

// load reads the panel and finds the end of what may be learned from.
func (t *trainer) load(ctx context.Context) error {
	from, to := t.Train.Bounds()
	last := to
	if t.Test != nil {
		testFrom, testTo := t.Test.Bounds()
		if t.Train.To == 0 || t.Train == (datasets.Range{}) {
			to = testFrom
		}
		if testFrom < to {
			return fmt.Errorf("--test %s overlaps --train %s: steps that were learned from cannot judge; end --train before --test", t.Test, t.Train)
		}
		last = testTo
	}
	p, err := t.Source.Load(ctx, last, t.Threads)
	if err != nil {
		return err
	}
	p = after(p, from)
	if len(p.Times) == 0 {
		return fmt.Errorf(
			"--train %s: no steps there; %s has steps up to %s",
			t.Train,
			t.Source.Data.Dir(),
			datasets.FormatTime(t.Source.Data.Manifest().To),
		)
	}
	t.panel = p
	t.known, _ = slices.BinarySearch(p.Times, to)
	if t.known == 0 {
		return fmt.Errorf("--train %s: no steps there; %s has steps from %s to %s", t.Train, t.Source.Data.Dir(),
			datasets.FormatTime(p.Times[0]), datasets.FormatTime(p.Times[len(p.Times)-1]))
	}
	t.learned, _ = p.Cut(t.known)
	end := p.Step.Next(p.Times[t.known-1], p.Zone)
	t.span = datasets.Range{From: p.Times[0], To: end}
	if t.Test != nil {
		testFrom, _ := t.Test.Bounds()
		last := p.Times[len(p.Times)-1]
		if t.known == len(p.Times) || p.Step.Next(last, p.Zone) <= testFrom {
			return fmt.Errorf(
				"--test %s: no steps there; %s has steps up to %s",
				t.Test,
				t.Source.Data.Dir(),
				datasets.FormatTime(last),
			)
		}
		if testFrom > p.Times[t.known] {
			t.Note("--test begins after --train ends: the steps between are forecast and judged too")
		}
	}
	if partial := t.Source.Made.Partial; partial != "" && t.Test == nil && end == t.Source.Made.Closed {
		t.Note("the last step, %s, ends after the last transaction: if it is not whole, end --train before it", partial)
	}
	return nil
}

// after is a panel without the steps before an instant.
func after(p *forecast.Panel, from int64) *forecast.Panel {
	n, _ := slices.BinarySearch(p.Times, from)
	if n == 0 {
		return p
	}
	out := &forecast.Panel{Step: p.Step, Times: p.Times[n:], Zone: p.Zone, Covariates: p.Covariates}
	for _, s := range p.Series {
		drop := max(0, n-s.First)
		if drop >= len(s.Y) {
			continue
		}
		s.First, s.Y = max(0, s.First-n), s.Y[drop:]
		s.X = slices.Clone(s.X)
		for c := range s.X {
			s.X[c] = s.X[c][drop:]
		}
		out.Series = append(out.Series, s)
	}
	return out
}

const (
	// zerosShare is the share of zeros on open steps from which series are counts with zeros.
	zerosShare = .02
	// leastHorizons is how many horizons of steps there must be before a fold, for a network to be worth training.
	leastHorizons = 3
	// leastRows is below what a network learns nothing that methods do not know.
	leastRows = 2000
)

// plan decides all that is left to the data.
func (t *trainer) plan() error {
	p := t.learned
	if t.Horizon == 0 {
		t.Horizon = defaultHorizon(p.Step)
	}
	if t.Horizon < 1 || t.Horizon > forecaster.MaxHorizon {
		return fmt.Errorf("--horizon %d: want 1 to %d", t.Horizon, forecaster.MaxHorizon)
	}
	c := t.Source.columns()
	d := forecaster.Design{
		Step:       p.Step,
		Horizon:    t.Horizon,
		Covariates: c.Covariates,
		Known:      c.Known,
		Scaling:    t.Config.Scaling,
	}
	for _, s := range t.Source.Made.Seasons {
		if s > 1 {
			d.Seasons = append(d.Seasons, s)
		}
	}
	if len(d.Seasons) == 0 {
		d.Seasons = []int{1}
	}
	t.closed = forecast.FindClosed(p)
	zeros, negative := t.zeros()
	if d.Scaling == auto {
		d.Scaling = forecaster.Shift
		if zeros > zerosShare && !negative {
			d.Scaling = forecaster.Ratio
		}
	}
	if d.Scaling == forecaster.Ratio && negative {
		t.Note("there are negative values: forecasts may be negative too")
	}
	t.Config = t.Config.resolved(&d)
	t.model = &forecaster.Model{
		Design: d, Levels: t.Config.Levels, Point: t.Config.Point, Signed: negative, Target: c.Target, Unit: t.Source.unit(),
		Zone: t.Source.Made.Timezone, Members: slices.Clone(t.Config.Members),
		Spreads: []string{forecaster.Climatology, forecaster.Errors},
		Least:   d.Seasons[0],
	}
	if d.Scaling == forecaster.Shift {
		t.model.Least = 2 * d.Seasons[0]
	}
	t.view = d.NewView(p, t.closed)
	if err := t.findOrigins(); err != nil {
		return err
	}
	if len(t.origins) == 0 {
		t.Config.Network = false
		t.Note(
			"%d steps are too few to judge a horizon of %d on rolling folds: no network, and all methods weigh alike",
			t.known,
			t.Horizon,
		)
	}
	for _, name := range slices.Backward(t.model.Members) {
		if c, err := forecast.Lookup(name); err == nil && c.Quantiles {
			t.model.Spreads = append([]string{name}, t.model.Spreads...)
		}
	}
	if t.Config.Network {
		t.model.Members = append([]string{forecaster.Network}, t.model.Members...)
		t.model.Spreads = append([]string{forecaster.Network}, t.model.Spreads...)
	}
	return nil
}

// zeros is the share of zeros on open steps, and whether any value is negative.
func (t *trainer) zeros() (share float64, negative bool) {
	var n, zero float64
	for i := range t.learned.Series {
		s := &t.learned.Series[i]
		for k, y := range s.Y {
			negative = negative || y < 0
			if y == 0 {
				if t.closed.At(t.learned.Times[s.First+k]) {
					continue
				}
				zero++
			}
			n++
		}
	}
	return zero / max(n, 1), negative
}

// findOrigins places the folds: the latest of the training steps, or those of Valid.
func (t *trainer) findOrigins() error {
	end := t.known
	least := leastHorizons * t.Horizon
	folds := t.Config.Folds
	if t.Valid != nil {
		from, to := t.Valid.Bounds()
		first, _ := slices.BinarySearch(t.learned.Times, from)
		last, _ := slices.BinarySearch(t.learned.Times, to)
		if folds = (last - first) / t.Horizon; folds < 1 || first == 0 {
			return fmt.Errorf(
				"--valid %s: it holds %d of the training steps with others before them; want at least a horizon of %d",
				t.Valid,
				last-first,
				t.Horizon,
			)
		}
		end, least = last, 1
	}
	for k := folds; k >= 1; k-- {
		if at := end - k*t.Horizon; at >= least {
			t.origins = append(t.origins, at)
		}
	}
	return nil
}

func (t *trainer) drawOptions(known int) *drawOptions {
	o := &drawOptions{seed: t.Seed, known: known, least: t.model.Least, rows: t.Config.Rows, threads: t.Threads}
	var total float64
	for i := range t.view.Len() {
		o.first = append(o.first, t.view.Series(i).First)
		o.value = append(o.value, valueOf(t.learned, i, known, known))
		total += o.value[i]
	}
	share := t.Config.ValueWeight
	for i, v := range o.value {
		o.value[i] = 1
		if total > 0 {
			o.value[i] = 1 - share + share*min(maxWeight, v/total*float64(len(o.value)))
		}
	}
	return o
}

// foldRows are the rows before a fold, and, of the first, those that it is judged by.
func (t *trainer) foldRows(fold int) (fit, valid *Rows) {
	d := &t.model.Design
	fit = drawn(t.view, d, t.drawOptions(t.origins[fold]))
	if fold == 0 {
		o := t.drawOptions(t.known)
		o.rows = validRows
		valid = sampled(t.view, d, t.origins[:1], o)
	}
	return fit, valid
}

func (t *trainer) run(ctx context.Context) (*Summary, error) {
	if err := t.session.Begin(t.begun()); err != nil {
		return nil, err
	}
	var final *fitted
	var net *forecaster.Net
	var folds []*forecaster.Net
	if !t.Config.Network && t.Trials > 0 {
		return nil, errNoNetwork
	}
	if t.Config.Network {
		var err error
		if final, folds, err = t.networks(ctx); err != nil {
			return nil, err
		}
	}
	if final != nil {
		var err error
		if net, err = final.net(&t.model.Design, len(t.Config.Levels)); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	validation, err := t.combine(folds)
	if err != nil {
		return nil, err
	}
	return t.finish(ctx, final, net, validation)
}

// networks trains one network up to each fold, so that it is as fresh there as the methods beside it, and then one on
// all of it. The first fold chooses the epoch. Where there are too few rows there are none, which is said.
func (t *trainer) networks(ctx context.Context) (final *fitted, folds []*forecaster.Net, err error) {
	var epochs int
	for k := range t.origins {
		p := t.first
		if k > 0 || p == nil {
			fit, valid := t.foldRows(k)
			if k == 0 && (fit.Len() < leastRows || valid.Len() == 0) {
				t.Note("%d training rows are too few for a network: the methods are combined without one", fit.Len())
				t.dropNetwork()
				if t.Trials > 0 {
					return nil, nil, errNoNetwork
				}
				return nil, nil, nil
			}
			p = prepare(fit, valid)
		}
		if k == 0 {
			t.first = p
			if err := t.tune(ctx); err != nil {
				return nil, nil, err
			}
			t.first, epochs = nil, t.Config.Epochs
		}
		if k > 0 {
			if epochs, err = t.fits(fmt.Sprintf("fold%d", k+1), epochs, p, len(t.origins)-k); err != nil {
				return nil, nil, err
			}
		}
		m, best, err := t.seeds(ctx, fmt.Sprintf("fold%d", k+1), fmt.Sprintf("training up to fold %d of %d", k+1, len(t.origins)),
			p, epochs, k)
		if err != nil {
			return nil, nil, err
		}
		if k == 0 {
			epochs = best
		}
		net, err := m.net(&t.model.Design, len(t.Config.Levels))
		if err != nil {
			return nil, nil, err
		}
		folds = append(folds, net)
	}
	all := drawn(t.view, &t.model.Design, t.drawOptions(t.known))
	p := prepare(all, nil)
	if epochs, err = t.fits("all", epochs, p, 0); err != nil {
		return nil, nil, err
	}
	final, _, err = t.seeds(ctx, "all", "training on all of it, "+train.Plural(epochs, "epoch"), p, epochs, len(t.origins))
	return final, folds, err
}

// dropNetwork goes on without one.
func (t *trainer) dropNetwork() {
	t.Config.Network = false
	not := func(name string) bool { return name == forecaster.Network }
	t.model.Members, t.model.Spreads = slices.DeleteFunc(t.model.Members, not), slices.DeleteFunc(t.model.Spreads, not)
}

// leastCases is how many series a class must have in the folds to have weights of its own.
const leastCases = 30

// combine fits the weights on the folds, and says how good the combination was there.
func (t *trainer) combine(nets []*forecaster.Net) (Metrics, error) {
	m := t.model
	m.Mixtures = map[string]*forecaster.Mixture{}
	classes := []string{forecaster.Regular, forecaster.Intermittent}
	if m.Design.Scaling == forecaster.Shift {
		defer func() { m.Mixtures[forecaster.Intermittent] = m.Mixtures[forecaster.Regular] }() // all series are regular
		classes = classes[:1]
	}
	if len(t.origins) == 0 {
		for _, class := range classes {
			m.Mixtures[class] = alike(m)
		}
		return nil, nil
	}
	value := func(series, known int) float64 { return valueOf(t.learned, series, known, t.Horizon) }
	cases, err := foldCases(m, nets, t.view, value, t.origins, t.Threads)
	if err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		t.Note("no series has a past that varies before the folds: the methods are weighted alike")
		for _, class := range classes {
			m.Mixtures[class] = alike(m)
		}
		return nil, nil
	}
	var whole *forecaster.Mixture // of all classes together, for those that have too few series
	for _, class := range classes {
		own := slices.DeleteFunc(slices.Clone(cases), func(c foldCase) bool { return c.class != class })
		if len(own) >= leastCases {
			m.Mixtures[class] = fitMixture(m, own, t.Threads)
			continue
		}
		if whole == nil {
			whole = fitMixture(m, cases, t.Threads)
		}
		m.Mixtures[class] = whole
	}
	return t.validation(cases)
}

// alike weights all members alike.
func alike(m *forecaster.Model) *forecaster.Mixture {
	x := &forecaster.Mixture{Point: equal(len(m.Members))}
	for range m.Levels {
		x.Quantile = append(x.Quantile, equal(len(m.Spreads)))
	}
	for range forecaster.ErrorParts {
		x.Errors = append(x.Errors, make([]float64, len(m.Levels)))
	}
	return x
}

// validation scores the combination on the folds that it was weighted on: it flatters, a little.
func (t *trainer) validation(cases []foldCase) (Metrics, error) {
	m := t.model
	var scored []forecast.Case
	for i := range cases {
		c := &cases[i]
		open := make([]bool, len(c.actual))
		for k := range open {
			open[k] = true
		}
		f := m.Mix(m.Mixtures[c.class], c.points, c.spreads, open, c.scale)
		s := t.view.Series(c.series)
		scored = append(
			scored,
			forecast.Case{History: s.Y[:t.origins[c.fold]-s.First], Actual: c.actual, Forecast: f, Weight: c.weight},
		)
	}
	return measure(scored, m.Levels, &m.Design)
}

// identity is what decides the weights, beside what the loop itself knows.
func (t *trainer) identity(c *Config, seed uint64) []train.Fact {
	valid := "the latest part of --train"
	if t.Valid != nil {
		valid = t.Valid.String()
	}
	return append([]train.Fact{
		{Name: "data", Value: t.Source.Data.ID()},
		{Name: "panel", Value: t.Source.Plan.Fingerprint()},
		{Name: "--train", Value: t.span.String()},
		{Name: "--valid", Value: valid},
		{Name: "--horizon", Value: fmt.Sprint(t.Horizon)},
		{Name: "--seed", Value: fmt.Sprint(seed)},
		{Name: train.FactOnmart, Value: t.Created.Onmart},
	}, c.facts()...)
}

// historyTurns is how many turns of the longest season an artifact remembers at least, and historySteps how many steps.
const (
	historyTurns = 8
	historySteps = 800
)

// finish judges the model and writes the artifact.
func (t *trainer) finish(
	ctx context.Context,
	final *fitted,
	net *forecaster.Net,
	validation Metrics,
) (*Summary, error) {
	m := t.model
	s := &Summary{
		Out: t.Out, Backend: t.Backend.Name(), Seed: t.Seed, Train: t.span.String(), Folds: []string{},
		Series: len(t.learned.Series), Steps: t.known, Horizon: t.Horizon, Scaling: m.Design.Scaling, Closed: t.closed.String(),
		Network: final != nil, Resumed: t.session.Resumed(),
		Weights: weightsOf(m), Validation: validation,
		Seeds: t.Ensemble(), Tuning: t.tuning, Shortened: t.session.Shortened(), Log: t.Log, Curves: t.session.Curves(),
	}
	s.TrainSeconds, s.RowsPerSecond = t.session.Seconds()
	for _, at := range t.origins {
		s.Folds = append(s.Folds, datasets.FormatTime(t.learned.Times[at]))
	}
	columns := t.Source.columns()
	keep := max(historySteps, historyTurns*m.Design.Seasons[len(m.Design.Seasons)-1])
	content := model.Contents{
		Manifest: t.manifest(s), Spec: t.Source.Spec, Input: t.Source.Input, Tables: t.Source.Tables,
		Files: map[string]func(io.Writer) error{
			forecaster.ModelFile: m.Encode,
			forecaster.HistoryFile: func(w io.Writer) error {
				return forecaster.WriteHistory(w, t.learned, columns, keep)
			},
		},
	}
	maps.Copy(content.Files, train.HistoryFile(s.Curves, t.tuning))
	if final != nil {
		s.Rows, s.Epochs = final.rows, len(final.result.Epochs)
		content.Program, content.Weights = final.set, final.weights
		content.Manifest.Lineage.Rows = int64(final.rows)
	}
	if t.Test != nil {
		j, err := Judge(m, net, t.panel, t.known, t.beside(), t.Threads)
		if err != nil {
			return nil, err
		}
		span := datasets.Range{
			From: t.panel.Times[t.known],
			To:   t.panel.Step.Next(t.panel.Times[len(t.panel.Times)-1], t.panel.Zone),
		}
		s.Test = &TestSummary{span.String(), *j}
		for _, l := range j.LosesTo {
			t.Note("warning: the model loses to %s: %s %.4f against %.4f", l.Name, l.Metric, l.Model, l.Baseline)
		}
		content.Manifest.Test = evaluation(t.Source.Data.ID(), span, j)
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

// beside are the methods that a model is judged with: its members and the seasonal naive forecast.
func (t *trainer) beside() []string { return Beside(t.model) }

// Beside are the methods that a model is judged with: its members and the seasonal naive forecast.
func Beside(m *forecaster.Model) []string {
	names := slices.Clone(m.Members)
	if !slices.Contains(names, "seasonal-naive") {
		names = append(names, "seasonal-naive")
	}
	return names
}

func evaluation(data string, span datasets.Range, j *Judged) *model.Evaluation {
	e := &model.Evaluation{Data: data, Range: model.Span{Range: span}, Metrics: j.Model.plain()}
	for _, b := range j.Baselines {
		e.Baselines = append(e.Baselines, model.Baseline{Name: b.Name, Metrics: b.Metrics.plain()})
	}
	return e
}

func weightsOf(m *forecaster.Model) map[string]Weights {
	out := map[string]Weights{}
	for class, x := range m.Mixtures {
		w := Weights{Cases: x.Cases, Point: map[string]float64{}, Quantile: map[string]map[string]float64{}}
		for k, name := range m.Members {
			w.Point[name] = x.Point[k]
		}
		for l, q := range m.Levels {
			by := map[string]float64{}
			for k, name := range m.Spreads {
				by[name] = x.Quantile[l][k]
			}
			w.Quantile[levelName(q)] = by
		}
		out[class] = w
	}
	return out
}

func (t *trainer) manifest(s *Summary) model.Manifest {
	settings := map[string]string{}
	for _, f := range t.Config.facts() {
		settings[f.Name] = f.Value
	}
	settings["horizon"] = fmt.Sprint(t.Horizon)
	if n := t.Ensemble(); n > 1 && s.Network {
		settings["seeds"] = fmt.Sprint(n)
	}
	created := t.Created
	created.Backend = t.Backend.Name()
	m := model.Manifest{
		Task: model.Demand, Created: created, Seed: t.Seed, Settings: settings,
		Lineage: model.Lineage{Data: t.Source.Data.ID(), From: t.Source.From, Train: model.Span{Range: t.span}},
	}
	if t.Valid != nil {
		m.Lineage.Valid = &model.Span{Range: *t.Valid}
	}
	if s.Validation != nil {
		first := t.learned.Times[t.origins[0]]
		m.Validation = &model.Evaluation{
			Data:    t.Source.Data.ID(),
			Range:   model.Span{Range: datasets.Range{From: first, To: t.span.To}},
			Metrics: s.Validation.plain(),
		}
	}
	return m
}

// context folds the transactions up to the end of training: with its state the artifact follows live ones.
func (t *trainer) context(ctx context.Context) (model.State, error) {
	d := t.Source.Transactions
	if d == nil {
		t.Note("the artifact cannot follow live transactions: %s", t.Source.NoTransactions)
		return nil, nil
	}
	bar := t.Bar("state of the panel", d.Manifest().Rows, "rows")
	state, err := features.StateOf(ctx, t.Source.Spec, d, t.span.To, func(done, _ int64) { bar.Set(done, "") })
	bar.Done()
	if err != nil {
		return nil, err
	}
	// The history holds every step up to the cut. A state that still had those within the spec's lateness open would
	// give their rows again.
	if panel, ok := state.(*features.Panel); ok {
		err = panel.Advance(t.span.To, datasets.NewBatch(t.Source.Plan.Schema(), 0))
	}
	return state, err
}
