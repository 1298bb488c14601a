package fraud

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/fraud/fraudtest"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/traintest"
)

// The tests train on 40 days from 2026-01-05.
var (
	mockTrain = mustRange("2026-01-14..2026-01-31")
	mockTest  = mustRange("2026-02-08..2026-02-13")
)

func mustRange(s string) datasets.Range {
	r, err := datasets.ParseRange(s)
	if err != nil {
		panic(err)
	}
	return r
}

var (
	mockOnce sync.Once
	mockDir  string
)

func TestMain(m *testing.M) {
	code := m.Run()
	if mockDir != "" {
		os.RemoveAll(mockDir)
	}
	os.Exit(code)
}

// mockSource is a small made-up stream with its features, made once for all tests.
func mockSource(t testing.TB) Source {
	t.Helper()
	mockOnce.Do(func() {
		dir, err := os.MkdirTemp("", "onmart-fraud-test")
		if err != nil {
			t.Fatal(err)
		}
		mockDir = dir
		if err := fraudtest.Write(filepath.Join(dir, "data"), 40, 600); err != nil {
			t.Fatal(err)
		}
		writeFeatures(t, filepath.Join(dir, "data"), filepath.Join(dir, "features"))
	})
	return openMock(t)
}

// writeFeatures computes the built-in spec's features, rows in the order of the log.
func writeFeatures(t testing.TB, in, out string) {
	d, plan := planOf(t, in)
	w, err := datasets.Create(out, datasets.KindFeatures, plan.Schema(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	e := plan.NewEngine(1)
	var rows features.Rows
	err = d.Read(t.Context(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		if err := e.Process(b, &rows); err != nil {
			return err
		}
		if rows.N != b.N {
			return fmt.Errorf("%d rows of features for %d", rows.N, b.N)
		}
		next := 0
		o := &datasets.Batch{Schema: plan.Schema(), N: b.N, Columns: make([]datasets.Column, len(plan.Schema().Fields))}
		for i, f := range plan.Schema().Fields {
			if c := b.Column(f.Name); c != nil {
				o.Columns[i] = *c
			} else {
				o.Columns[i].Floats = rows.Values[next]
				next++
			}
		}
		return w.Write(o)
	})
	if err := errors.Join(err, w.Commit()); err != nil {
		t.Fatal(err)
	}
}

func planOf(t testing.TB, dir string) (*datasets.Dataset, *features.Plan) {
	t.Helper()
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := mockSpec(t).Plan(d.Schema())
	if err != nil {
		t.Fatal(err)
	}
	return d, plan
}

func mockSpec(t testing.TB) *features.Spec {
	t.Helper()
	spec, err := features.Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func openMock(t testing.TB) Source {
	t.Helper()
	d, plan := planOf(t, filepath.Join(mockDir, "data"))
	f, err := datasets.Open(filepath.Join(mockDir, "features"))
	if err != nil {
		t.Fatal(err)
	}
	spec := mockSpec(t)
	return Source{Features: f, Spec: spec, Input: d.Schema(), Plan: plan, Delay: spec.Delay(), From: d.ID(), Transactions: d}
}

// notes collects what a training says.
type notes struct{ lines []string }

func (n *notes) note(format string, args ...any) {
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}

func (n *notes) has(t testing.TB, want string) {
	t.Helper()
	if !slices.ContainsFunc(n.lines, func(s string) bool { return strings.Contains(s, want) }) {
		t.Errorf("nothing says %q in:\n%s", want, strings.Join(n.lines, "\n"))
	}
}

// small is a quick training of the mock stream.
func small(t testing.TB, n *notes) Options {
	t.Helper()
	b, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Hidden: []int{16}, Dropout: .05, Activation: "relu", Towers: 2, Batch: 64, Epochs: 6, Patience: 8,
		Optim: train.DefaultOptim(2e-2), PositiveWeight: 1, Genuine: 1, Log: true,
	}
	c.Schedule, c.WeightDecay = "one-cycle", .01
	return Options{
		Source: mockSource(t), Out: filepath.Join(t.TempDir(), "model"), Train: mockTrain, AlertsPerDay: 5,
		Config: c, Seed: 1, Threads: 1, Backend: b, Note: n.note,
	}
}

func TestPlantedFraudIsFound(t *testing.T) {
	n := &notes{}
	o := small(t, n)
	o.Test = &mockTest
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v\n%s", s.Test.Model, strings.Join(n.lines, "\n"))
	if auc := s.Test.Model["auc"]; !(auc >= .85) {
		t.Errorf("AUC %v on planted fraud", auc)
	}
	if len(s.Test.Baselines) != 3 || !s.Refitted || !s.Context || s.Version == "" || s.Positives == 0 {
		t.Errorf("%+v", s)
	}
	n.has(t, "then all of 2026-01-14..2026-01-31")
	n.has(t, "too short for the delay of 7d between them, the gap is 5d")
	if names := testkit.Names(t, filepath.Dir(o.Out)); !slices.Equal(names, []string{"model"}) {
		t.Errorf("left behind %v", names)
	}

	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	m := a.Manifest()
	if m.Task != "fraud" || m.Test == nil || m.Validation == nil || len(m.Test.Baselines) != 3 || m.Lineage.Data != o.Source.Features.ID() || m.Created.Backend != o.Backend.Name() {
		t.Errorf("%+v", m)
	}
	// The artifact's own scores of the test rows have the figures that training reported, and about as many
	// alerts as were asked for.
	rows, err := Load(t.Context(), o.Source.Features, mockTest, m.Features, 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.NewPredictor(2)
	if err != nil {
		t.Fatal(err)
	}
	scores := make([]float64, rows.Len())
	if err := p.Predict(rows.Values, rows.Len(), scores); err != nil {
		t.Fatal(err)
	}
	known, err := LoadKnown(t.Context(), o.Source.Features, datasets.Range{From: mockTrain.From, To: mockTest.To}, 1)
	if err != nil {
		t.Fatal(err)
	}
	e := Evaluate(rows, scores, Protocol{Known: known, Delay: o.Source.Delay, AlertsPerDay: m.AlertsPerDay, Threshold: m.Threshold})
	for name, v := range e.Metrics() {
		if v != m.Test.Metrics[name] {
			t.Errorf("%s is %v, the manifest says %v", name, v, m.Test.Metrics[name])
		}
	}
	if !(e.Alerts.PerDay > 1 && e.Alerts.PerDay < 15) {
		t.Errorf("%v alerts a day for a budget of 5", e.Alerts.PerDay)
	}
	// The state is that of an engine that saw everything before the end of training.
	engine := o.Source.Plan.NewEngine(1)
	if err := a.RestoreContext(engine); err != nil {
		t.Fatal(err)
	}
	if w := engine.Watermark(); w >= mockTrain.To || w < mockTrain.To-datasets.Hour {
		t.Errorf("the state ends at %s", datasets.FormatTime(w))
	}
}

// quick is a training of three epochs.
func quick(t testing.TB, n *notes) Options {
	t.Helper()
	o := small(t, n)
	o.Config.Epochs, o.Config.Patience = 3, 0
	o.Config.Schedule = "constant"
	return o
}

// task is that training, as the tests that all tasks share order it.
func task(t testing.TB, order traintest.Order) error {
	t.Helper()
	n := &notes{}
	o := quick(t, n)
	o.Backend, o.Threads, o.Seed, o.Out, o.Resume = order.Backend, order.Threads, order.Seed, order.Out, order.Resume
	s, err := Train(order.Context, o)
	if err != nil {
		return err
	}
	if s.Version == "" || s.Resumed != o.Resume {
		t.Errorf("%+v", s)
	}
	if o.Resume {
		n.has(t, "goes on after epoch")
	}
	return nil
}

func TestSameWeightsForAnyThreads(t *testing.T) { traintest.TaskThreads(t, task) }

// A training stopped after any epoch of either loop and resumed ends in the same artifact.
func TestResumeEndsInTheSameArtifact(t *testing.T) { traintest.TaskResume(t, task) }

func TestStoppedBeforeAnythingIsFinished(t *testing.T) { traintest.TaskStopped(t, task) }

func TestLossThatIsNoNumber(t *testing.T) { traintest.TaskDiverges(t, task) }

// A source whose transactions are gone or were replaced gives an artifact without feature state, and says so.
func TestSourceOfFeatures(t *testing.T) {
	mockSource(t)
	dir := t.TempDir()
	data, made := filepath.Join(dir, "data"), filepath.Join(dir, "features")
	if err := os.CopyFS(data, os.DirFS(filepath.Join(mockDir, "data"))); err != nil {
		t.Fatal(err)
	}
	d, _ := planOf(t, data)
	if _, err := features.Run(t.Context(), features.RunOptions{Spec: mockSpec(t), In: d, Out: made, Threads: 1}); err != nil {
		t.Fatal(err)
	}
	open := func() (Source, error) {
		f, err := datasets.Open(made)
		if err != nil {
			t.Fatal(err)
		}
		return OpenSource(f)
	}
	s, err := open()
	if err != nil || s.Transactions == nil || s.Delay != 7*datasets.Day || s.From != d.ID() {
		t.Errorf("%+v, %v", s, err)
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if s, err = open(); err != nil || s.Transactions != nil || !strings.Contains(s.NoTransactions, "cannot be read") {
		t.Errorf("%+v, %v", s, err)
	}
	n := &notes{}
	o := small(t, n)
	o.Source = s
	sum, err := Train(t.Context(), o)
	if err != nil || sum.Context {
		t.Fatalf("%+v, %v", sum, err)
	}
	n.has(t, "carries no feature state")
	if a, err := model.Open(o.Out); err != nil || a.Manifest().Context != nil {
		t.Error(err)
	}
	w, err := datasets.Create(data, datasets.KindTransactions, fraudtest.Schema(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if s, err = open(); err != nil || s.Transactions != nil || !strings.Contains(s.NoTransactions, "not the data set any more") {
		t.Errorf("%+v, %v", s, err)
	}
	foreign, err := datasets.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSource(foreign); err == nil || !strings.Contains(err.Error(), "onmart features did not make") {
		t.Error(err)
	}
}

func TestUnlabelledRowsAreCounted(t *testing.T) {
	rows := makeRows([][3]int{{0, 0, 1}, {1, 1, 0}})
	rows.Null = []bool{false, true}
	if rows.Unlabelled() != 1 {
		t.Error(rows.Unlabelled())
	}
	bare := makeRows([][3]int{{0, 0, 0}, {1, 1, 0}})
	bare.Null = []bool{true, true}
	for want, r := range map[string]*Rows{
		"none of the 2 rows has a label: import": bare,
		"no rows":                                {},
		"none of the 1":                          makeRows([][3]int{{0, 0, 0}}),
		"all 2 rows are frauds:":                 makeRows([][3]int{{0, 0, 1}, {0, 0, 1}}),
	} {
		if err := checkClasses("here", r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestValidRangeIsUsedAsGiven(t *testing.T) {
	n := &notes{}
	o := small(t, n)
	valid := mustRange("2026-02-01..2026-02-07")
	o.Valid = &valid
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Refitted || s.Valid != valid.String() || s.Fit != mockTrain.String() {
		t.Errorf("%+v", s)
	}
	n.has(t, "epochs chosen on 2026-02-01..2026-02-07")
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if a.Manifest().Lineage.Valid == nil {
		t.Error("the manifest does not name the validation rows")
	}
	overlap := mustRange("2026-01-31..2026-02-07")
	o.Valid, o.Out = &overlap, o.Out+"2"
	if _, err := Train(t.Context(), o); err == nil || !strings.Contains(err.Error(), "overlaps") {
		t.Error(err)
	}
}

// unused is a backend that nothing may be trained on.
type unused struct {
	program.Backend
	t testing.TB
}

func (u unused) Compile(*program.Set) (program.Exec, error) {
	u.t.Error("something was trained")
	return nil, errors.New("unused")
}

// Test rows that cannot judge are refused before anything is trained: where there are none, and where what was learned
// is of the same time or later.
func TestTestRange(t *testing.T) {
	for test, wants := range map[string][]string{
		mockTrain.String(): {"--test 2026-01-14..2026-01-31 overlaps --train 2026-01-14..2026-01-31: ",
			"begin --test at 2026-02-08T00:00:00Z, a delay of 7d after --train ends"},
		"2026-01-31..2026-02-10": {"overlaps --train", "end --train before --test"},
		"2026-01-05..2026-01-13": {"--test 2026-01-05..2026-01-13 lies before --train 2026-01-14..2026-01-31: "},
		"..2026-02-13":           {"--test ..2026-02-13 overlaps --train"},
		"2030-01-01..2030-01-05": {"--test 2030-01-01..2030-01-05: no rows there; ", " has rows from 2026-01-05T"},
	} {
		o := small(t, &notes{})
		r := mustRange(test)
		o.Test, o.Backend = &r, unused{o.Backend, t}
		_, err := Train(t.Context(), o)
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("--test %s: %v, want %q", test, err, want)
			}
		}
	}
	o := small(t, &notes{})
	valid := mustRange("2026-02-08..2026-02-10")
	o.Valid, o.Test, o.Backend = &valid, &mockTest, unused{o.Backend, t}
	if _, err := Train(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--test 2026-02-08..2026-02-13 overlaps --valid 2026-02-08..2026-02-10") {
		t.Error(err)
	}
	o = small(t, &notes{}) // with no --train, all is learned from
	o.Train, o.Test = datasets.Range{}, &mockTest
	if _, err := Train(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--test 2026-02-08..2026-02-13 overlaps --train 2026-01-05..2026-02-13") {
		t.Error(err)
	}
	for test, gap := range map[string]string{"2026-02-01..2026-02-05": "0s", "2026-02-04..2026-02-13": "3d", "2026-02-08..2026-02-13": ""} {
		n := &notes{}
		o, r := small(t, n), mustRange(test)
		o.Test = &r
		tr := newTrainer(o)
		if err := tr.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		said := strings.Join(n.lines, "\n")
		if want := "--test begins " + gap + " after --train ends, less than the delay of 7d"; strings.Contains(said, want) != (gap != "") {
			t.Errorf("--test %s: %s", test, said)
		}
	}
}

// Where no test row is left to judge, that is said: the table has no figure.
func TestAllTestCardsAreCompromised(t *testing.T) {
	n := &notes{}
	o := quick(t, n)
	from := int64(math.MinInt64)
	o.Test, o.KnownFrom = &mockTest, &from
	o.Source = altered(t, func(b *datasets.Batch) { // each card is defrauded before training begins
		for i, at := range b.Column(datasets.TransDatetime).Ints {
			b.Column(datasets.UserID).Ints[i] %= 50
			if at < mockTrain.From {
				b.Column(datasets.IsFraud).Ints[i] = 1
			}
		}
	})
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Test.Model["rows"] != 0 {
		t.Errorf("%v", s.Test.Model)
	}
	n.has(t, "in 2026-02-08..2026-02-13 are of cards known to be compromised: nothing is left to judge on; give a longer --test")
}

func TestBadTrainings(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"no rows there; ":     func(o *Options) { o.Train = mustRange("2031-01-01..2031-02-01") },
		"--valid 2031":        func(o *Options) { r := mustRange("2031-01-01..2031-02-01"); o.Valid = &r },
		"--test 2031":         func(o *Options) { r := mustRange("2031-01-01..2031-02-01"); o.Test = &r },
		"one class":           func(o *Options) { o.Train = mustRange("2026-01-05T00:00:00Z..2026-01-05T02:00:00Z") },
		"alerts per day":      func(o *Options) { o.AlertsPerDay = 0 },
		"nothing to resume":   func(o *Options) { o.Resume = true },
		"exists already":      func(o *Options) { o.Out = filepath.Join(mockDir, "data") },
		"smaller learning":    func(o *Options) { o.Config.LearningRate = 1e9; o.Backend = traintest.Blind{Backend: o.Backend} },
		"the training diverg": func(o *Options) { o.Config.LearningRate = 1e30 },
	} {
		o := small(t, &notes{})
		change(&o)
		if _, err := Train(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(o.Out), "model")); err == nil {
			t.Errorf("%s: something was left", want)
		}
	}
}

func TestFewerRowsThanABatch(t *testing.T) {
	n := &notes{}
	o := small(t, n)
	o.Config.Batch = 1 << 20
	if _, err := Train(t.Context(), o); err != nil && !strings.Contains(err.Error(), "has learned nothing") {
		t.Fatal(err)
	}
	n.has(t, "all rows make one step")
}

// What learned nothing cannot be gone on with: no checkpoint stays to be resumed or forced away.
func TestLearnedNothingLeavesNoCheckpoint(t *testing.T) {
	for seed := range uint64(20) {
		o := small(t, &notes{})
		o.Seed, o.Config.Epochs, o.Config.LearningRate = seed, 1, 1e-8 // as good as first weights
		_, err := Train(t.Context(), o)
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), "has learned nothing") {
			t.Fatal(err)
		}
		if _, err := os.Stat(train.CheckpointDir(o.Out)); err == nil {
			t.Error("the checkpoint stayed")
		}
		return
	}
	t.Error("no seed of 20 has first weights that rank backwards")
}

// A loss curve that changes is a change of the training that has to be meant.
func TestLossCurve(t *testing.T) {
	o := small(t, &notes{})
	rows, err := Load(t.Context(), o.Source.Features, mockTrain, featureNames(o.Source.Plan), 1)
	if err != nil {
		t.Fatal(err)
	}
	log := make([]bool, len(rows.Features))
	for i, f := range o.Source.Plan.Features() {
		log[i] = f.Log
	}
	for activation, want := range map[string][]float64{
		"relu": {.2330268, .0396097, .0346783, .0316638, .0296211, .0283346},
		"silu": {.2501300, .0383652, .0325627, .0291871, .0278975, .0267396},
	} {
		o.Config.Activation = activation
		f := fitting{config: &o.Config, backend: o.Backend, seed: 1, threads: 1, log: log}
		m, err := f.run(t.Context(), rows, nil, 6)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range m.result.Epochs {
			if got := e.Loss / 2; !(math.Abs(got-want[i]) <= 1e-5) {
				t.Errorf("%s, epoch %d: loss %.7f, want %.7f", activation, i+1, got, want[i])
			}
		}
	}
}

func featureNames(p *features.Plan) []string {
	var names []string
	for _, f := range p.Features() {
		names = append(names, f.Name)
	}
	return names
}

// The handbook's protocol on the handbook's data has the handbook's rows.
func TestHandbookRows(t *testing.T) {
	path := testkit.SharedData(t, "fraud-handbook/transactions.csv.gz")
	m, err := datasets.Preset("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := datasets.Import(t.Context(), datasets.ImportOptions{Mapping: m, Files: []string{path}, Out: dir}); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	trained, tested := mustRange("2018-07-25..2018-07-31"), mustRange("2018-08-08..2018-08-14")
	known, err := LoadKnown(t.Context(), d, datasets.Range{From: trained.From, To: tested.To}, 2)
	if err != nil {
		t.Fatal(err)
	}
	learn, err := Load(t.Context(), d, trained, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	test, err := Load(t.Context(), d, tested, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	e := Evaluate(test, make([]float64, test.Len()), Protocol{Known: known, Delay: 7 * datasets.Day})
	if learn.Len() != 67_240 || learn.Positives() != 598 || e.Rows != 58_264 || e.Positives != 385 || len(e.Days) != 7 {
		t.Errorf("train %d rows with %d frauds, test %d with %d; the book has 67240/598 and 58264/385",
			learn.Len(), learn.Positives(), e.Rows, e.Positives)
	}
}

// A training that diverges after its first epoch is not offered to go on: the same steps would diverge again.
func TestDivergedIsNotResumed(t *testing.T) {
	o := small(t, &notes{})
	o.Config.Schedule, o.Config.LearningRate, o.Config.WeightDecay, o.Config.Dropout = "constant", 1, 2.4, 0
	o.Config.Epochs, o.Config.Patience = 60, 0
	_, err := Train(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "diverged") {
		t.Fatalf("it did not diverge: %v", err)
	}
	if strings.Contains(err.Error(), "--resume") {
		t.Errorf("it is offered to go on: %v", err)
	}
	var e *train.Diverged
	if !errors.As(err, &e) || e.Epoch < 2 {
		t.Errorf("it diverged in its first epoch, so nothing was tested: %v", err)
	}
	// As it says.
	o.Config.ClipNorm, o.Config.LearningRate, o.Config.Epochs = 1, .01, 1
	if _, err := Train(t.Context(), o); err != nil {
		t.Errorf("with a smaller learning rate: %v", err)
	}
}
