package forecaster

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/score/model"
)

// Forecaster answers from a model and a history. It is for one goroutine at a time; answers of one state are the same
// bits for any number of threads.
type Forecaster struct {
	model   *Model
	net     *Net
	plan    *features.Plan
	engine  *features.Panel // folds transactions into steps; nil where the artifact carries none
	out     *datasets.Batch
	columns Columns
	history *History
	threads int

	view   *View                     // of the history, nil after it has grown
	pooled map[string][]forecast.Fit // what methods that learn from the whole panel said since then
	ahead  int                       // steps after the history whose known covariates the view has
}

// Open makes a forecaster of an artifact of task demand, with the history and the state that it carries.
func Open(a *model.Artifact, threads int) (*Forecaster, error) {
	f, err := open(a, threads)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", a.Dir(), err)
	}
	return f, nil
}

func open(a *model.Artifact, threads int) (*Forecaster, error) {
	if task := a.Manifest().Task; task != model.Demand {
		return nil, fmt.Errorf(
			"it is a model for %s, and forecasts are made of one for %s: give the directory that onmart train demand wrote",
			task,
			model.Demand,
		)
	}
	text, err := a.ReadFile(ModelFile)
	if err != nil {
		return nil, err
	}
	m, err := decodeModel(text)
	if err != nil {
		return nil, err
	}
	f := &Forecaster{model: m, threads: max(1, threads), columns: m.columns()}
	f.plan = a.Plan()
	if m.networked() {
		if a.Program() == nil {
			return nil, errors.New("it has no program: copy the artifact again or train again")
		}
		if f.net, err = NewNet(&m.Design, len(m.Levels), a.Program().Forward, a.Weights()); err != nil {
			return nil, err
		}
	}
	zone, err := time.LoadLocation(m.Zone)
	if err != nil {
		return nil, fmt.Errorf("time zone %q: %w", m.Zone, err)
	}
	made := f.plan.Panel()
	if made == nil {
		return nil, fmt.Errorf("its spec %s makes no panel: train again", a.Spec().Name())
	}
	f.history = NewHistory(m.Design.Step, zone, f.columns, made.Fill == "last")
	if text, err = a.ReadFile(HistoryFile); err != nil {
		return nil, err
	}
	rows, err := datasets.DecodeTable(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", HistoryFile, err)
	}
	if err := f.history.Append(rows); err != nil {
		return nil, fmt.Errorf("%s: %w", HistoryFile, err)
	}
	if f.history.Steps() == 0 {
		return nil, fmt.Errorf("%s is empty: train again", HistoryFile)
	}
	if a.Manifest().Context != nil {
		f.engine = f.plan.NewPanel()
		if err := a.RestoreContext(f.engine); err != nil {
			return nil, err
		}
		f.out = datasets.NewBatch(f.plan.Schema(), 0)
	}
	return f, nil
}

// New makes a forecaster of parts: while a model is trained, or for a history that is not the artifact's. net is nil
// for a model without a network.
func New(m *Model, net *Net, p *forecast.Panel, threads int) (*Forecaster, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	c := m.columns()
	return &Forecaster{model: m, net: net, columns: c, history: HistoryOf(p, c, false), threads: max(1, threads)}, nil
}

// Model is not to be changed.
func (f *Forecaster) Model() *Model { return f.model }

// Net is the network; nil where the model has none.
func (f *Forecaster) Net() *Net { return f.net }

// Plan is what makes the panel's rows of transactions; nil for a forecaster that New made.
func (f *Forecaster) Plan() *features.Plan { return f.plan }

// Panel is the history.
func (f *Forecaster) Panel() *forecast.Panel { return f.prepared().p }

// Closed are the steps on which nothing is sold, as the history shows them.
func (f *Forecaster) Closed() *forecast.Closed { return f.prepared().closed }

func (f *Forecaster) prepared() *View {
	if f.view == nil {
		p := f.history.Panel()
		f.view = f.model.Design.NewView(p, forecast.FindClosed(p))
		f.pooled = map[string][]forecast.Fit{}
	}
	return f.view
}

// grown forgets what was made of the history before.
func (f *Forecaster) grown() { f.view, f.ahead = nil, 0 }

// lookAhead has the engine say what is known of the steps of a horizon. Without one, or for what it does not know,
// values stay as they were last.
func (f *Forecaster) lookAhead(horizon int) error {
	if f.engine == nil || len(f.columns.Known) == 0 || horizon <= f.ahead || f.history.Steps() == 0 {
		return nil
	}
	behind, _ := slices.BinarySearch(f.history.times, f.engine.Closed()) // steps that the engine has yet to close
	out := datasets.NewBatch(f.plan.Schema(), 0)
	if err := f.engine.Ahead(horizon+f.history.Steps()-behind, out); err != nil {
		return err
	}
	if err := f.history.Ahead(out); err != nil {
		return err
	}
	f.view, f.ahead = nil, horizon
	return nil
}

// Answer is the forecast of one series.
type Answer struct {
	Key    string
	Class  string
	Method string
	Steps  []int64 // starts, microseconds since 1970 UTC
	Levels []float64
	forecast.Forecast
}

// Request is what is asked of a forecaster. No keys mean every series; no levels those of the model; no method the
// combination.
type Request struct {
	Keys    []string
	Horizon int
	Levels  []float64
	Method  string
}

// Unknown is the error for a key that no series has.
type Unknown struct{ Key string }

func (e *Unknown) Error() string {
	return fmt.Sprintf("there is no series %q: it has sold nothing yet, or its key is written otherwise", e.Key)
}

// Forecast answers in the order of the keys, or of the series' keys where none are given. Beyond the horizon that it
// was trained for the network's inputs stay at their last step, and seasons go on.
func (f *Forecaster) Forecast(r Request) ([]Answer, error) {
	if r.Horizon < 1 || r.Horizon > MaxHorizon {
		return nil, fmt.Errorf("a horizon of %d steps: want 1 to %d", r.Horizon, MaxHorizon)
	}
	if r.Levels == nil {
		r.Levels = f.model.Levels
	}
	if err := f.checkLevels(r.Levels); err != nil {
		return nil, err
	}
	if err := f.lookAhead(r.Horizon); err != nil {
		return nil, err
	}
	v := f.prepared()
	series, err := f.find(v, r.Keys)
	if err != nil {
		return nil, err
	}
	var forecasts []forecast.Forecast
	switch r.Method {
	case "", Combination, Network:
		forecasts, err = f.own(v, r, series)
	default:
		forecasts, err = f.classical(v, r, series)
	}
	if err != nil {
		return nil, err
	}
	method := r.Method
	if method == "" {
		method = Combination
	}
	steps := v.p.Future(r.Horizon)
	out := make([]Answer, len(series))
	for i, s := range series {
		out[i] = Answer{v.p.Series[s].Key, v.Class(s, len(v.p.Times)), method, steps, r.Levels, forecasts[i]}
	}
	return out, nil
}

func (f *Forecaster) checkLevels(levels []float64) error {
	known := f.model.Levels
	for i, q := range levels {
		if !(q >= known[0] && q <= known[len(known)-1]) {
			return fmt.Errorf("level %v: the model has quantiles from %v to %v", q, known[0], known[len(known)-1])
		}
		if i > 0 && !(q > levels[i-1]) {
			return fmt.Errorf("levels %v: want them ascending", levels)
		}
	}
	return nil
}

func (f *Forecaster) find(v *View, keys []string) ([]int, error) {
	var out []int
	if keys == nil {
		for i := range v.p.Series {
			out = append(out, i)
		}
		return out, nil
	}
	for _, k := range keys {
		i, ok := slices.BinarySearchFunc(v.p.Series, k, func(s forecast.Series, k string) int {
			switch {
			case s.Key < k:
				return -1
			case s.Key > k:
				return 1
			}
			return 0
		})
		if !ok {
			return nil, &Unknown{k}
		}
		out = append(out, i)
	}
	return out, nil
}

// own is the combination, or the network alone.
func (f *Forecaster) own(v *View, r Request, series []int) ([]forecast.Forecast, error) {
	m, known := f.model, len(v.p.Times)
	if r.Method == Network {
		if f.net == nil {
			return nil, fmt.Errorf(
				"method %s: this model has no network (its history was too short to train one); want one of %v",
				Network,
				m.Methods(),
			)
		}
		alone := *m
		alone.Members, alone.Spreads, alone.Least = []string{Network}, []string{Network}, 0
		one := &Mixture{Point: []float64{1}, Errors: m.Mixtures[Regular].Errors}
		for range m.Levels {
			one.Quantile = append(one.Quantile, []float64{1})
		}
		alone.Mixtures = map[string]*Mixture{Regular: one, Intermittent: one}
		m = &alone
	}
	told, err := m.Ask(
		v,
		f.net,
		Question{Known: known, Horizon: r.Horizon, Series: series, Threads: f.threads, pooled: f.pooled},
	)
	if err != nil {
		return nil, err
	}
	out := make([]forecast.Forecast, len(series))
	for i, s := range series {
		if out[i], err = m.Combine(v, told, i, s, known); err != nil {
			return nil, err
		}
		out[i].Quantiles = atLevels(&out[i], m.Levels, r.Levels)
	}
	return out, nil
}

// atLevels are the quantiles at the levels that were asked for.
func atLevels(f *forecast.Forecast, have, want []float64) [][]float64 {
	if slices.Equal(have, want) {
		return f.Quantiles
	}
	out := make([][]float64, len(want))
	column := make([]float64, len(have))
	for l := range out {
		out[l] = make([]float64, f.Horizon())
	}
	for t := range f.Mean {
		for l := range have {
			column[l] = f.Quantiles[l][t]
		}
		for l, q := range want {
			out[l][t] = interpolate(have, column, q)
		}
	}
	return out
}

// classical is one method of package forecast with quantiles from its own rolling folds.
func (f *Forecaster) classical(v *View, r Request, series []int) ([]forecast.Forecast, error) {
	m, err := forecast.Lookup(r.Method)
	if err != nil {
		return nil, fmt.Errorf("method %q is not known: want one of %v", r.Method, f.model.Methods())
	}
	o := forecast.Options{Horizon: r.Horizon, Levels: r.Levels, Seasons: f.model.Design.Seasons, Threads: f.threads,
		Signed: f.model.Signed, Closed: v.closed}
	if m.Pooled || len(series) == len(v.p.Series) {
		all, err := forecast.Run(v.p, r.Method, o)
		if err != nil {
			return nil, err
		}
		out := make([]forecast.Forecast, len(series))
		for i, s := range series {
			out[i] = all[s]
		}
		return out, nil
	}
	p, _ := v.cut(len(v.p.Times), series)
	return forecast.Run(p, r.Method, o)
}

// Append takes rows of closed steps, as the panel's engine makes them, in the order of time.
func (f *Forecaster) Append(rows *datasets.Batch) error {
	if rows.N == 0 {
		return nil
	}
	f.grown()
	return f.history.Append(rows)
}

// ErrNoState is returned by Fold where the artifact carries no state of the engine.
var ErrNoState = errors.New(
	"the model carries no state of its panel, and cannot follow transactions: train it where those of its panel are",
)

// Task is the name of the state among others'.
func (f *Forecaster) Task() string { return model.Demand }

// Fold takes transactions in the order of the log. Steps that end before the watermark, less the spec's lateness, are
// appended to the history.
func (f *Forecaster) Fold(b *datasets.Batch) error {
	if f.engine == nil {
		return ErrNoState
	}
	return f.fold(func(out *datasets.Batch) error { return f.engine.Process(b, out) })
}

// Advance closes every step that ends at or before the instant, though no transaction says so.
func (f *Forecaster) Advance(to int64) error {
	if f.engine == nil {
		return ErrNoState
	}
	return f.fold(func(out *datasets.Batch) error { return f.engine.Advance(to, out) })
}

func (f *Forecaster) fold(do func(out *datasets.Batch) error) error {
	err := do(f.out)
	if err == nil && f.out.N > 0 {
		f.grown()
		err = f.history.Revise(f.out)
	}
	f.out = datasets.NewBatch(f.plan.Schema(), 0)
	return err
}

// Snapshot writes the engine's state and the history.
func (f *Forecaster) Snapshot(w io.Writer) error { return f.snapshot(w) }

// Restore takes up what Snapshot wrote.
func (f *Forecaster) Restore(r io.Reader) error { return f.restore(r) }

// Replace takes a newer history, such as that of a panel made since: it must have the step of the model's. engine is
// the state that it ends in, so that what is known in advance is known and transactions can be followed; nil for none.
func (f *Forecaster) Replace(p *forecast.Panel, engine *features.Panel) error {
	if err := p.Check(); err != nil {
		return err
	}
	if p.Step != f.model.Design.Step {
		return fmt.Errorf("the panel has steps of a %s, the model was trained on steps of a %s", p.Step, f.model.Design.Step)
	}
	f.history, f.engine = HistoryOf(p, f.columns, f.history.repeat), engine
	if engine != nil {
		f.plan, f.out = engine.Plan(), datasets.NewBatch(engine.Plan().Schema(), 0)
	}
	f.grown()
	return nil
}

// Decompose takes a series and its forecast apart.
func (f *Forecaster) Decompose(a *Answer) (*forecast.Components, *forecast.Series, error) {
	v := f.prepared()
	at, err := f.find(v, []string{a.Key})
	if err != nil {
		return nil, nil, err
	}
	p, _ := v.cut(len(v.p.Times), at)
	p.Series[0].X = nil
	c, err := forecast.Decompose(
		p,
		0,
		a.Mean,
		forecast.Options{Seasons: f.model.Design.Seasons, Closed: v.closed, Signed: f.model.Signed},
	)
	return c, v.Series(at[0]), err
}
