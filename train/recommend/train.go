// Package recommend trains recommenders: item neighbours, EASE, ALS and a network of embeddings, and the weights that
// blend them with a user's own purchases, the rhythm of buying again and what sells now.
//
// What enters: interactions (package features), a range to learn from and a program.Backend. What leaves: an artifact
// of task recommend, and figures. It may not be assumed that there is enough to fit a blend on: where nobody bought
// again within the training, that is an error that says which simpler models there are.
//
// In the order of processing: source.go reads, parts.go fits what is blended, network.go is the network, evaluate.go
// judges, train.go drives all of it.
package recommend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/recommender"
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

	// Train is the purchases to learn from; without an end it ends where Test begins. Valid, where given, is the one
	// span that the blend is fitted on; nil takes the latest ones of Train. Test, where given, is judged with simpler
	// models beside.
	Train       datasets.Range
	Valid, Test *datasets.Range

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

// Summary is what a training came to, for --json.
type Summary struct {
	Out           string         `json:"out"`
	Version       string         `json:"version"`
	Backend       string         `json:"backend"`
	Seed          uint64         `json:"seed"`
	Model         string         `json:"model"`
	Train         string         `json:"train"`
	Folds         []string       `json:"folds"` // spans that the blend was fitted on
	Users         int            `json:"users"`
	Items         int            `json:"items"`
	Rows          int            `json:"rows"` // lines of purchases
	Purchases     int            `json:"purchases"`
	Components    []string       `json:"components,omitempty"` // of the blend
	Blend         *ranking.Blend `json:"blend,omitempty"`
	Resumed       bool           `json:"resumed"`
	Validation    *Judged        `json:"validation,omitempty"` // on the latest fold, of a blend fitted on the others
	Test          *TestSummary   `json:"test,omitempty"`
	Seeds         int            `json:"seeds"`
	Tuning        *tune.Result   `json:"tuning,omitempty"`
	Shortened     []string       `json:"shortened,omitempty"` // parts that --max-time ended
	Log           string         `json:"log,omitempty"`
	Curves        []train.Curve  `json:"-"`
	Context       bool           `json:"context"`
	TrainSeconds  float64        `json:"train_seconds"` // of the network
	Seconds       float64        `json:"seconds"`
	RowsPerSecond float64        `json:"rows_per_second"`
}

// TestSummary is the model and simpler ones on the test span.
type TestSummary struct {
	Range string `json:"range"`
	Judged
}

// trainer is a training under way.
type trainer struct {
	Options
	history *recommender.History
	span    datasets.Range
	folds   []fold
	start   time.Time
	session *train.Session
	tuning  *tune.Result
	trial   *trial    // what is tried at present, nil in the training itself
	parts   *partsKit // that trials share
}

// fold is a span that the blend is fitted on.
type fold struct {
	from, to int64
	parts    ranking.Parts
}

// Train trains a recommender and writes its artifact to Out.
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

// Plan is what Train would train last with these options, untrained. It makes nothing.
func Plan(ctx context.Context, o Options) (*program.Set, program.Data, error) {
	t, err := newTrainer(ctx, o)
	if err != nil {
		return nil, program.Data{}, err
	}
	if !t.Config.Embeds() {
		return nil, program.Data{}, errors.New("there is no network to train: --set model or components leave it out")
	}
	f := fitting{config: &t.Config, seed: t.Seed}
	return f.bind(&t.history.Log, t.span.To)
}

func newTrainer(ctx context.Context, o Options) (*trainer, error) {
	t := &trainer{Options: o, start: time.Now()}
	train.Mute(&t.Note, &t.Bar)
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	return t, t.plan()
}

// load reads the purchases and finds the end of what may be learned from.
func (t *trainer) load(ctx context.Context) error {
	d := t.Source.Data
	from, to := t.Train.Bounds()
	if t.Test != nil {
		testFrom, _ := t.Test.Bounds()
		if t.Train.To == 0 {
			to = testFrom
		}
		if testFrom < to {
			return fmt.Errorf("--test %s overlaps --train %s: purchases that were learned from cannot judge; end --train before --test", t.Test,
				t.Train)
		}
		if testFrom > to {
			t.Note("--test begins after --train ends: what was bought between is not known to the model")
		}
	}
	var err error
	if t.history, err = t.Source.Load(ctx, from, to, t.Threads); err != nil {
		return err
	}
	l := &t.history.Log
	if len(l.User) == 0 {
		m := d.Manifest()
		if m.Rows == 0 {
			return fmt.Errorf("%s has no purchases", d.Dir())
		}
		return fmt.Errorf("--train %s: no purchases there; %s has purchases from %s to %s", t.Train, d.Dir(),
			datasets.FormatTime(m.From), datasets.FormatTime(m.To))
	}
	if n := t.history.Returns; n > 0 {
		t.Note("%s rows of goods that were taken back are no purchases", progress.Count(int64(n)))
	}
	last := l.Time[len(l.Time)-1]
	if to > last+366*microDay {
		// No end was given, or one long after the last purchase: the second after that one, which people can read.
		to = last/datasets.Second*datasets.Second + datasets.Second
	}
	t.span = datasets.Range{From: l.Time[0], To: to}
	if l.Items == 1 {
		return fmt.Errorf("--train %s: a single item (%s) was sold: there is nothing to choose between", t.span,
			t.history.Items.Name(0))
	}
	if t.Test != nil {
		_, _, err = t.tested(ctx) // it is read again to judge: what is there is not kept, and decides nothing
	}
	return err
}

// tested is the purchases of the test span that can be judged, and the lines that cannot; that there are none is an error.
func (t *trainer) tested(ctx context.Context) (*recommender.History, int, error) {
	d := t.Source.Data
	from, to := t.Test.Bounds()
	later, others, err := LoadLater(ctx, d, t.history, from, to, t.Threads)
	if err == nil && len(later.Log.User) == 0 {
		err = fmt.Errorf("--test %s: no purchases there of users and items that had been seen before; %s has purchases up to %s",
			t.Test, d.Dir(), datasets.FormatTime(d.Manifest().To))
	}
	return later, others, err
}

// plan finds the folds.
func (t *trainer) plan() error {
	if t.Config.Model != string(ranking.Blended) {
		if t.Config.Model == string(ranking.EASER) && t.history.Items.Len() > ranking.MaxEASE {
			return fmt.Errorf("--set model=ease: EASE inverts a matrix of items by items, and %d items are more than the %d that it is for; take blend, als, knn or embedding", t.history.Items.Len(), ranking.MaxEASE)
		}
		return nil
	}
	if n := t.history.Items.Len(); t.Config.wants("ease", ranking.EASER) && !t.ease(n) {
		t.Note("%s items are more than ease_items (%s): the blend is without EASE", progress.Count(int64(n)),
			progress.Count(int64(t.Config.EASEItems)))
	}
	if t.Valid != nil {
		from, to := t.Valid.Bounds()
		from, to = max(from, t.span.From), min(to, t.span.To)
		if f := (fold{from: from, to: to}); t.usable(&f) {
			t.folds = []fold{f}
			return nil
		}
		return fmt.Errorf("--valid %s: nobody who had bought before, in --train %s, bought anything there that had been sold before: give another span, or --set model=own", t.Valid, t.span)
	}
	horizon := int64(t.Config.Horizon) * microDay
	for k := range t.Config.Folds {
		f := fold{from: t.span.To - int64(k+1)*horizon, to: t.span.To - int64(k)*horizon}
		if !t.usable(&f) {
			break
		}
		t.folds = append(t.folds, f)
	}
	if len(t.folds) == 0 {
		return fmt.Errorf("--train %s: in its last %d days nobody who had bought before bought anything that had been sold before, so that there is nothing to weigh a blend by; give a longer range, --set horizon=DAYS, or --set model=own, knn, als or popular",
			t.span, t.Config.Horizon)
	}
	if len(t.folds) < t.Config.Folds {
		t.Note("the training is long enough for %d of %d folds of %d days", len(t.folds), t.Config.Folds,
			t.Config.Horizon)
	}
	return nil
}

// usable tells whether users with a past bought known items in a fold.
func (t *trainer) usable(f *fold) bool {
	before := t.history.Log.Until(f.from)
	users, items := make([]bool, before.Users), make([]bool, before.Items)
	for i, u := range before.User {
		users[u], items[before.Item[i]] = true, true
	}
	later := t.between(f.from, f.to)
	for i, u := range later.User {
		if users[u] && items[later.Item[i]] {
			return true
		}
	}
	return false
}

func (t *trainer) run(ctx context.Context) (*Summary, error) {
	if err := t.session.Begin(t.begun()); err != nil {
		return nil, err
	}
	if err := t.tune(ctx); err != nil {
		return nil, err
	}
	s := &Summary{
		Out: t.Out, Backend: t.Backend.Name(), Seed: t.Seed, Model: t.Config.Model, Train: t.span.String(), Folds: []string{},
		Users: t.history.Users.Len(), Items: t.history.Items.Len(), Rows: len(t.history.Log.User),
	}
	var blend *ranking.Blend
	if t.Config.Model == string(ranking.Blended) {
		var err error
		if blend, err = t.weigh(ctx, s); err != nil {
			return nil, err
		}
		s.Blend, s.Components = blend, blend.Components
	}
	t.Note("fitting on all of %s", t.span)
	parts, net, err := t.fitParts(ctx, &t.history.Log, t.span.To, "all")
	if err != nil {
		return nil, err
	}
	parts.Blend = blend
	return t.finish(ctx, s, parts, net)
}

// foldSets is what was bought in each fold as a model of its start sees it.
func (t *trainer) foldSets(ctx context.Context) ([]*ranking.Examples, error) {
	var sets []*ranking.Examples
	for k := range t.folds {
		f := &t.folds[k]
		t.Note("fold %d of %d: fitting up to %s, then what was bought until %s", k+1, len(t.folds),
			datasets.FormatTime(f.from), datasets.FormatTime(f.to))
		e, err := t.examples(ctx, k)
		if err != nil {
			return nil, err
		}
		sets = append(sets, e)
	}
	return sets, nil
}

// fitOptions are those of the blend.
func (t *trainer) fitOptions() ranking.FitOptions {
	return ranking.FitOptions{Penalty: t.Config.Penalty, NewShare: t.Config.NewShare, Threads: t.Threads}
}

// onLatest is the model of the latest fold with a blend that was fitted on the others, the log that it knows, and its parts.
func (t *trainer) onLatest(ctx context.Context, sets []*ranking.Examples) (*ranking.Model, *ranking.Log, ranking.Parts, error) {
	f := &t.folds[0]
	l, parts := t.history.Log.Until(f.from), f.parts
	b, err := ranking.FitBlend(ctx, sets[1:], t.fitOptions())
	if err != nil {
		return nil, nil, parts, err
	}
	parts.Blend = b
	m, err := ranking.NewModel(ranking.Blended, l, f.from, parts)
	return m, l, parts, err
}

// weigh fits the blend on the folds. With two or more, one that has not seen the latest is judged there first.
func (t *trainer) weigh(ctx context.Context, s *Summary) (*ranking.Blend, error) {
	for _, f := range t.folds {
		s.Folds = append(s.Folds, datasets.Range{From: f.from, To: f.to}.String())
	}
	sets, err := t.foldSets(ctx)
	if err != nil {
		return nil, err
	}
	if len(sets) > 1 {
		m, l, parts, err := t.onLatest(ctx, sets)
		if err != nil {
			return nil, err
		}
		f := &t.folds[0]
		if s.Validation, err = Judge(m, l, t.between(f.from, f.to), parts, t.Threads); err != nil {
			return nil, err
		}
		for _, x := range s.Validation.LosesTo {
			t.Note("warning: on the latest fold the blend loses to %s: %s %.4f against %.4f", x.Name, x.Metric, x.Model,
				x.Baseline)
		}
	}
	for k := range t.folds {
		t.folds[k].parts = ranking.Parts{} // they are large
	}
	return ranking.FitBlend(ctx, sets, t.fitOptions())
}

// identity is what decides the weights, beside what the loop itself knows.
func (t *trainer) identity(name string, seed uint64) []train.Fact {
	valid := "the latest part of --train"
	if t.Valid != nil {
		valid = t.Valid.String()
	}
	facts := []train.Fact{
		{Name: "data", Value: t.Source.Data.ID()},
		{Name: "interactions", Value: t.Source.Plan.Fingerprint()},
		{Name: "--train", Value: t.span.String()},
		{Name: "--valid", Value: valid},
		{Name: "--seed", Value: fmt.Sprint(seed)},
		{Name: train.FactOnmart, Value: t.Created.Onmart},
		{Name: "part", Value: name},
	}
	for _, f := range t.Config.facts() {
		facts = append(facts, train.Fact{Name: "--set " + f.Name, Value: f.Value})
	}
	return facts
}

// keptTogether is how many items that are bought with an item an artifact keeps.
const keptTogether = 100

// finish judges the model and writes the artifact.
func (t *trainer) finish(ctx context.Context, s *Summary, parts ranking.Parts, net *network) (*Summary, error) {
	together, err := ranking.NewTogether(&t.history.Log, keptTogether, t.Threads)
	if err != nil {
		return nil, err
	}
	s.Purchases = together.Purchases
	m := &recommender.Model{Kind: ranking.Kind(t.Config.Model), Now: t.span.To, Blend: parts.Blend}
	content := model.Contents{Manifest: t.manifest(s), Spec: t.Source.Spec, Input: t.Source.Input,
		Tables: t.Source.Tables}
	if net != nil {
		m.Embedding = &recommender.Embedding{Dim: t.Config.Dim * net.members, Recent: t.Config.Recent}
		content.Program, content.Weights = net.served(), slices.Clone(net.weights)
	}
	fitted := &recommender.Fitted{Model: m, History: t.history, Parts: parts, Together: together}
	if err := fitted.Put(&content); err != nil {
		return nil, err
	}
	s.Curves = t.session.Curves()
	maps.Copy(content.Files, train.HistoryFile(s.Curves, t.tuning))
	if t.Test != nil {
		if s.Test, content.Manifest.Test, err = t.test(ctx, parts); err != nil {
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
	s.Resumed, s.Seeds, s.Tuning, s.Shortened, s.Log = t.session.Resumed(), t.Ensemble(), t.tuning, t.session.Shortened(), t.Log
	s.TrainSeconds, s.RowsPerSecond = t.session.Seconds()
	s.Seconds = time.Since(t.start).Seconds()
	return s, nil
}

// test judges the model and simpler ones on the test span.
func (t *trainer) test(ctx context.Context, parts ranking.Parts) (*TestSummary, *model.Evaluation, error) {
	later, others, err := t.tested(ctx)
	if err != nil {
		return nil, nil, err
	}
	if others > 0 {
		t.Note("%s of %s test lines are of users or items that were not there in training, and do not count",
			progress.Count(int64(others)),
			progress.Count(int64(others+len(later.Log.User))))
	}
	m, err := ranking.NewModel(ranking.Kind(t.Config.Model), &t.history.Log, t.span.To, parts)
	if err != nil {
		return nil, nil, err
	}
	j, err := Judge(m, &t.history.Log, &later.Log, parts, t.Threads)
	if err != nil {
		return nil, nil, fmt.Errorf("--test %s: %w", t.Test, err)
	}
	for _, l := range j.LosesTo {
		t.Note("warning: the model loses to %s: %s %.4f against %.4f", l.Name, l.Metric, l.Model, l.Baseline)
	}
	return &TestSummary{t.Test.String(), *j}, Evaluation(t.Source.Data.ID(), *t.Test, j), nil
}

// Evaluation is a judgement as an artifact keeps it.
func Evaluation(data string, span datasets.Range, j *Judged) *model.Evaluation {
	e := &model.Evaluation{Data: data, Range: model.Span{Range: span}, Metrics: j.Model}
	for _, b := range j.Baselines {
		e.Baselines = append(e.Baselines, model.Baseline{Name: b.Name, Metrics: b.Metrics})
	}
	return e
}

func (t *trainer) manifest(s *Summary) model.Manifest {
	settings := map[string]string{}
	for _, f := range t.Config.facts() {
		settings[f.Name] = f.Value
	}
	if n := t.Ensemble(); n > 1 && t.Config.Embeds() {
		settings["seeds"] = fmt.Sprint(n)
	}
	created := t.Created
	created.Backend = t.Backend.Name()
	m := model.Manifest{
		Task: model.Recommend, Created: created, Seed: t.Seed, Settings: settings,
		Lineage: model.Lineage{Data: t.Source.Data.ID(), From: t.Source.From, Train: model.Span{Range: t.span},
			Rows: int64(s.Rows)},
	}
	if t.Valid != nil {
		m.Lineage.Valid = &model.Span{Range: *t.Valid}
	}
	if s.Validation != nil {
		m.Validation = Evaluation(t.Source.Data.ID(), datasets.Range{From: t.folds[0].from, To: t.folds[0].to},
			s.Validation)
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
	bar := t.Bar("state of the interactions", d.Manifest().Rows, "rows")
	state, err := features.StateOf(ctx, t.Source.Spec, d, t.span.To, func(done, _ int64) { bar.Set(done, "") })
	bar.Done()
	if err != nil {
		return nil, err
	}
	return state, nil
}
