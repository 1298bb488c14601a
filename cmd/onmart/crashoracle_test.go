package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/deadletter"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/score/state"
)

// What an input gives, as the one who sent it knows.
const (
	wantLine   = "line"   // of several with one trans_id the first that is folded has a line, the others a letter
	wantLetter = "letter" // it cannot be scored
	wantLabel  = "label"  // nothing
)

// record is one record of a topic.
type record struct {
	source     string // partition, as a state calls it
	offset     int64
	key, value []byte
	want       string // of an input
}

func (r *record) String() string { return fmt.Sprintf("%s at %d", r.source, r.offset) }

// crashJob is what scores in a crash test: the features of a spec, or a model over them.
type crashJob struct {
	name    string // --job
	spec    *features.Spec
	model   *model.Artifact // or nil
	mapping *datasets.Mapping
	letters bool // errors are dead letters; else lines of the sink
}

// crashDelay is the delay of labels in the spec, in seconds.
const crashDelay = 2 * 86400

func newCrashJob(t testing.TB, name, modelDir string, letters bool) *crashJob {
	t.Helper()
	spec, err := readSpec("testdata/crash/spec.yaml")
	if err != nil {
		t.Fatal(err)
	}
	j := &crashJob{name: name, spec: spec, letters: letters}
	if j.mapping, err = loadMapping("testdata/crash/mapping.yaml", ""); err != nil {
		t.Fatal(err)
	}
	if modelDir != "" {
		in := &datasets.Schema{Fields: append(slices.Clone(j.mapping.Schema().Fields),
			datasets.Field{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true})}
		if err := model.Save(modelDir, modeltest.Contents(t, spec, in, 1), false); err != nil {
			t.Fatal(err)
		}
		j.model = modeltest.Open(t, modelDir)
	}
	o := j.options()
	added, err := o.AddedFields()
	if err == nil {
		j.mapping, err = j.mapping.Repeating(added)
	}
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func (j *crashJob) options() score.Options {
	o := score.Options{Schema: score.Placed(j.mapping.LogSchema()), Threads: 1, Job: j.name, Form: score.FormEvent,
		Explain: score.ExplainAlerts, Reasons: model.DefaultReasons}
	if j.model != nil {
		o.Artifact, o.Features = j.model, true
	} else {
		o.Spec = j.spec
	}
	return o
}

// crashRun is what is left of a run: the topics, and the state after its end.
type crashRun struct {
	job     *crashJob
	events  []record // the log, partition by partition
	labels  []record
	lines   []record // of the sink, partition by partition
	letters []record
	numbers map[string]int32 // by partition: what its events are ordered by
	state   []byte           // snapshot of the engine
	repeats bool             // at least once: a line may be there again
}

// findings are faults by their kind.
type findings map[string][]string

// Kinds of findings.
const (
	missing   = "missing"   // an input has no line or letter
	twice     = "twice"     // or more than one
	unknown   = "unknown"   // a line or letter is of no input, or not of what it says
	wrong     = "wrong"     // a line has other values than the events before it give
	disorder  = "disorder"  // lines are not in the order in which their events were folded
	otherness = "undefined" // a value is not what the definition of its feature gives
	drifted   = "state"     // the state is not that of an engine that was never stopped
)

func (f findings) add(kind, format string, args ...any) {
	f[kind] = append(f[kind], fmt.Sprintf(format, args...))
}

func (f findings) String() string {
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(&b, "%s: %d\n", kind, len(f[kind]))
		for _, text := range f[kind][:min(5, len(f[kind]))] {
			fmt.Fprintf(&b, "  %.1500s\n", text)
		}
	}
	return b.String()
}

// scoredLine is what the oracle needs of a line.
type scoredLine struct {
	N        int64    `json:"n"` // number of the input
	TransID  int64    `json:"trans_id"`
	Time     int64    `json:"trans_datetime"`
	Store    int64    `json:"store_id"`
	Fold     int64    `json:"fold"`
	Labelled float64  `json:"labelled"`
	ScoreID  string   `json:"score_id"`
	Error    *failure `json:"error"`

	input *record
	line  *record
}

type failure struct {
	Source   string `json:"source"`
	Position int64  `json:"position"`
	Reason   string `json:"reason"`
}

// crashFigures are what an examination went through.
type crashFigures struct {
	lines, letters, labels, repeated, branches, late int
	defined                                          int // lines that were computed again from the definition of each feature
}

// examination is one of a run.
type examination struct {
	*crashRun
	t       testing.TB
	found   findings
	figures crashFigures
	byN     map[int64]*record
	byPlace map[string]*record // inputs
	copies  map[int64]int      // inputs of a trans_id
	ids     map[*record]int64
	stores  map[int64][]*crashLabel // labels in their order in the log
	answers map[*record]int         // lines and letters of an input
}

// examine holds what a run left against what its input must have given. Each line says by its feature `fold` where in the
// one order of all partitions its transaction was folded, and by `labelled` which labels had been. In that order the events
// are folded again by a scorer that is never stopped: every line must be the same, byte for byte, and so must the
// state be at the end. A sample of lines is also computed from the definition of the features.
func examine(t testing.TB, run *crashRun, sample int) (findings, crashFigures) {
	t.Helper()
	x := &examination{crashRun: run, t: t, found: findings{}, byN: map[int64]*record{}, byPlace: map[string]*record{},
		copies: map[int64]int{}, ids: map[*record]int64{}, stores: map[int64][]*crashLabel{}, answers: map[*record]int{}}
	x.index()
	history := x.order()
	x.count(history)
	if len(x.found[unknown]) > 0 || len(x.found[missing]) > 0 || len(x.found[twice]) > 0 || len(x.found[disorder]) > 0 {
		return x.found, x.figures // there is no order to fold in
	}
	steps := x.steps(history)
	x.replay(steps)
	x.define(steps, sample)
	return x.found, x.figures
}

// crashLabel is a label as it was sent.
type crashLabel struct {
	TransID int64     `json:"trans_id"`
	Store   int64     `json:"store_id"`
	Fraud   int       `json:"is_fraud"`
	KnownAt time.Time `json:"known_at"`

	record *record
}

func (x *examination) parse(r *record, into any) bool {
	if err := json.Unmarshal(r.value, into); err != nil {
		x.found.add(unknown, "%s is no JSON: %v: %s", r, err, r.value)
		return false
	}
	return true
}

// index reads the input.
func (x *examination) index() {
	for i := range x.events {
		r := &x.events[i]
		x.byPlace[r.String()] = r
		if r.want == wantLetter {
			continue
		}
		var e scoredLine
		if err := json.Unmarshal(r.value, &e); err != nil {
			x.t.Fatalf("an input is no JSON: %v: %s", err, r.value)
		}
		x.byN[e.N] = r
		x.ids[r] = e.TransID
		x.copies[e.TransID]++
	}
	for i := range x.labels {
		l := &crashLabel{record: &x.labels[i]}
		if err := json.Unmarshal(x.labels[i].value, l); err != nil {
			x.t.Fatalf("a label is no JSON: %v: %s", err, x.labels[i].value)
		}
		x.stores[l.Store] = append(x.stores[l.Store], l)
	}
	x.figures.labels = len(x.labels)
}

// order reads the lines and brings them into the order in which their transactions were folded. At least once, a line whose
// place in that order was taken before says that the job went back to there, without its lines: those from there on are a
// branch that ends, which must have been right by itself.
func (x *examination) order() []*scoredLine {
	for i := range x.crashRun.letters {
		x.letter(&x.crashRun.letters[i])
	}
	var history []*scoredLine
	last := map[string]int64{}
	for i := range x.lines {
		r := &x.lines[i]
		l := &scoredLine{line: r}
		if !x.parse(r, l) {
			continue
		}
		if l.Error != nil {
			x.errorLine(r, l.Error)
			continue
		}
		if l.input = x.byN[l.N]; l.input == nil {
			x.found.add(unknown, "%s is of no input: %s", r, r.value)
			continue
		}
		if !bytes.Equal(r.key, l.input.key) {
			x.found.add(unknown, "%s has the key %q, its input %s %q", r, r.key, l.input, l.input.key)
		}
		x.figures.lines++
		x.answers[l.input]++
		if bytes.Contains(r.value, []byte(`"late":true`)) {
			x.figures.late++
		}
		if !x.repeats {
			if l.Fold <= last[r.source] {
				x.found.add(disorder, "%s is of fold %d and stands behind one of fold %d", r, l.Fold, last[r.source])
			}
			last[r.source] = l.Fold
			history = append(history, l)
			continue
		}
		if n := int64(len(history)); l.Fold > n+1 || l.Fold < 1 {
			x.found.add(disorder, "%s is of fold %d and stands behind one of fold %d", r, l.Fold, n)
			continue
		} else if l.Fold <= n {
			x.branch(history)
			history = history[:l.Fold-1]
		}
		history = append(history, l)
	}
	if x.repeats {
		return history
	}
	slices.SortFunc(history, func(a, b *scoredLine) int { return int(a.Fold - b.Fold) })
	return history
}

// branch checks lines whose events are scored again in what follows.
func (x *examination) branch(history []*scoredLine) {
	x.figures.branches++
	branched := *x
	run := *x.crashRun
	run.state = nil
	branched.crashRun = &run
	branched.replay(branched.steps(history))
}

// letter checks a dead letter against its input.
func (x *examination) letter(r *record) {
	x.figures.letters++
	l, err := deadletter.Parse(r.value)
	if err != nil {
		x.found.add(unknown, "%s: %v: %s", r, err, r.value)
		return
	}
	input := x.failed(r, l.Source, l.Position)
	if input != nil && (!bytes.Equal(l.Event, input.value) || !bytes.Equal(l.Key, input.key) || l.Reason == "") {
		x.found.add(unknown, "%s is not its input %s: %s, not %s", r, input, r.value, input.value)
	}
}

func (x *examination) errorLine(r *record, e *failure) {
	x.figures.letters++
	if x.job.letters {
		x.found.add(unknown, "%s is an error among the lines: %s", r, r.value)
		return
	}
	if input := x.failed(r, e.Source, e.Position); input != nil && (e.Reason == "" || !bytes.Equal(r.key, input.key)) {
		x.found.add(unknown, "%s, of %s, has no reason or another key: %s", r, input, r.value)
	}
}

// failed is the input that could not be scored.
func (x *examination) failed(r *record, source string, position int64) *record {
	input := x.byPlace[(&record{source: source, offset: position}).String()]
	switch {
	case input == nil:
		x.found.add(unknown, "%s is of no input: %s", r, r.value)
		return nil
	case input.want == wantLine && x.copies[x.ids[input]] == 1:
		x.found.add(wrong, "%s was not scored: %s", input, r.value)
	}
	x.answers[input]++
	return input
}

// count finds inputs without an answer, and with more than one.
func (x *examination) count(history []*scoredLine) {
	lines := map[int64]int{}
	for _, l := range history {
		lines[l.TransID]++
	}
	for _, id := range slices.Sorted(maps.Keys(x.copies)) {
		switch n := lines[id]; {
		case n == 0:
			x.found.add(missing, "transaction %d has no line", id)
		case n > 1:
			x.found.add(twice, "transaction %d was scored %d times", id, n)
		}
	}
	for i := range x.events {
		r := &x.events[i]
		switch n := x.answers[r]; {
		case n == 0:
			x.found.add(missing, "%s: %s", r, r.value)
		case n > 1 && !x.repeats:
			x.found.add(twice, "%s has %d: %s", r, n, r.value)
		case n > 1:
			x.figures.repeated += n - 1
		}
	}
}

// step is what is folded next: a line's transaction, or a label.
type step struct {
	input *record
	line  *scoredLine // nil for a label
}

// tally counts what the feature `labelled` of a store reads.
type tally struct {
	next  int // label that is not folded yet
	trans []*labelled
	byID  map[int64]*labelled
	early map[int64]*crashLabel // labels of transactions that are not folded yet
}

type labelled struct {
	at    int64
	label *crashLabel
}

// risk is the feature by its definition: entries count from when their label is known, as genuine after the delay.
func (y *tally) risk(watermark int64) float64 {
	n, frauds := 0, 0
	for _, e := range y.trans {
		known := e.label != nil && e.label.KnownAt.Unix() <= watermark
		if e.at+crashDelay <= watermark || known {
			n++
		}
		if known && e.label.Fraud == 1 {
			frauds++
		}
	}
	return (float64(frauds) + 0.5) / (float64(n) + 1)
}

func (y *tally) fold(l *crashLabel) {
	y.next++
	if e := y.byID[l.TransID]; e != nil {
		e.label = l
	} else {
		y.early[l.TransID] = l
	}
}

// steps puts the labels between the lines: each store's as late as the store's lines allow. Where between two lines of its
// store a label was folded is not to be seen, and makes no difference.
func (x *examination) steps(history []*scoredLine) []step {
	var out []step
	tallies := map[int64]*tally{}
	watermark := int64(math.MinInt64)
	for i, l := range history {
		if l.Fold != int64(i)+1 {
			x.found.add(disorder, "%s is line %d and says fold %d", l.line, i+1, l.Fold)
			return nil
		}
		watermark = max(watermark, l.Time)
		y := tallies[l.Store]
		if y == nil {
			y = &tally{byID: map[int64]*labelled{}, early: map[int64]*crashLabel{}}
			tallies[l.Store] = y
		}
		all := x.stores[l.Store]
		for math.Abs(y.risk(watermark)-l.Labelled) > 1e-9 {
			if y.next == len(all) {
				x.found.add(wrong, "%s: no labels of store %d make its feature labelled %v: %s", l.line, l.Store, l.Labelled, l.line.value)
				return nil
			}
			y.fold(all[y.next])
			out = append(out, step{input: all[y.next-1].record})
		}
		out = append(out, step{l.input, l})
		e := &labelled{at: l.Time, label: y.early[l.TransID]}
		y.trans = append(y.trans, e)
		y.byID[l.TransID] = e
	}
	for _, store := range slices.Sorted(maps.Keys(x.stores)) {
		at := 0
		if y := tallies[store]; y != nil {
			at = y.next
		}
		for _, l := range x.stores[store][at:] {
			out = append(out, step{input: l.record})
		}
	}
	return out
}

// folding decodes steps for an engine, in pieces.
type folding struct {
	job      *crashJob
	numbers  map[string]int32
	decoders map[string]*datasets.EventDecoder
	rows     *datasets.Batch
	from     []int32
	places   []int64
	raw      [][]byte
	sources  []string
}

func newFolding(job *crashJob, numbers map[string]int32) *folding {
	return &folding{job: job, numbers: numbers, decoders: map[string]*datasets.EventDecoder{},
		rows: datasets.NewBatch(score.Placed(job.mapping.LogSchema()), 1024)}
}

func (f *folding) reset() {
	f.rows.Reset()
	f.from, f.places, f.raw = f.from[:0], f.places[:0], f.raw[:0]
}

// add decodes one more event.
func (f *folding) add(r *record) error {
	d := f.decoders[r.source]
	if d == nil {
		var err error
		if d, err = f.job.mapping.NewEventDecoder(r.source); err != nil {
			return err
		}
		if r.want == wantLabel {
			d.LabelsOnly()
		}
		f.decoders[r.source] = d
		f.sources = append(f.sources, r.source)
	}
	if reject := d.Append(f.rows, r.value, r.offset); reject != nil {
		return fmt.Errorf("%s: %s %s", r, reject.Column, reject.Reason)
	}
	f.from = append(f.from, int32(slices.Index(f.sources, r.source)))
	f.places = append(f.places, r.offset)
	f.raw = append(f.raw, r.value)
	score.Place(f.rows, f.numbers[r.source], f.places)
	return nil
}

func (f *folding) events() score.Events {
	return score.Events{Sources: f.sources, Rows: f.rows, From: f.from, Positions: f.places, Raw: f.raw}
}

// replay folds the steps without ever stopping, and compares each line and the state at the end.
func (x *examination) replay(steps []step) {
	x.t.Helper()
	s, err := score.New(x.job.options())
	if err != nil {
		x.t.Fatal(err)
	}
	f := newFolding(x.job, x.numbers)
	var out score.Lines
	for start := 0; start < len(steps); start += 1000 {
		piece := steps[start:min(start+1000, len(steps))]
		f.reset()
		for i := range piece {
			if err := f.add(piece[i].input); err != nil {
				x.found.add(wrong, "an event with a line cannot be decoded: %v", err)
				return
			}
		}
		out.Reset()
		if _, err := s.ProcessLines(f.events(), &out); err != nil {
			x.t.Fatal(err)
		}
		x.compare(piece, &out)
	}
	if x.state == nil {
		return
	}
	defined := snapshotOf(x.t, s)
	if !bytes.Equal(defined, x.state) {
		n := 0
		for n < min(len(defined), len(x.state)) && defined[n] == x.state[n] {
			n++
		}
		x.found.add(drifted, "the state has %d bytes, that of an engine that was never stopped %d; they differ from byte %d on",
			len(x.state), len(defined), n)
	}
}

// snapshotOf is the state of a scorer's features.
func snapshotOf(t testing.TB, s *score.Scorer) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := s.Capture(state.Engine, func(name string) io.Writer {
		if name == state.Engine {
			return &b
		}
		return io.Discard
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (x *examination) compare(piece []step, out *score.Lines) {
	lines := out.Lines
	from := 0
	for i := range piece {
		want := piece[i].line
		if want == nil {
			continue
		}
		if len(lines) == 0 || lines[0].Source != want.input.source || lines[0].Position != want.input.offset {
			x.found.add(wrong, "%s has a line, and folding it again gives none", want.input)
			return
		}
		if given := out.Bytes[from : lines[0].End-1]; !bytes.Equal(given, want.line.value) {
			x.found.add(wrong, "%s of %s: %s, folded in the same order it is: %s", want.line, want.input, want.line.value, given)
		}
		from = lines[0].End
		lines = lines[1:]
	}
	for _, l := range lines {
		x.found.add(wrong, "%s at %d gives a line that is not there", l.Source, l.Position)
	}
}

// define computes a sample of lines from the definition of their features over all that stands before them.
func (x *examination) define(steps []step, sample int) {
	x.t.Helper()
	n, err := features.NewNaive(x.job.spec, score.Placed(x.job.mapping.LogSchema()))
	if err != nil {
		x.t.Fatal(err)
	}
	n.DetectDuplicates = true
	f := newFolding(x.job, x.numbers)
	var chosen []int
	for i := range steps {
		f.reset()
		if err := f.add(steps[i].input); err != nil {
			return // told already
		}
		if err := n.Log(f.rows); err != nil {
			x.t.Fatal(err)
		}
		if steps[i].line != nil {
			chosen = append(chosen, i)
		}
	}
	hash := func(i int) uint32 {
		h := fnv.New32a()
		fmt.Fprint(h, i)
		return h.Sum32()
	}
	slices.SortFunc(chosen, func(a, b int) int { return int(int64(hash(a)) - int64(hash(b))) })
	for _, i := range chosen[:min(sample, len(chosen))] {
		l := steps[i].line
		var given map[string]any
		if err := json.Unmarshal(l.line.value, &given); err != nil {
			x.t.Fatal(err)
		}
		values, status := n.Row(i)
		if status != features.Scored && status != features.Late {
			x.found.add(otherness, "%s is %s by the definition", l.line, status)
			continue
		}
		x.figures.defined++
		for c, name := range n.Names() {
			if v, ok := given[name].(float64); !ok || math.Float64bits(v) != math.Float64bits(values[c]) {
				x.found.add(otherness, "%s: %s is %v, by its definition %v", l.line, name, given[name], values[c])
			}
		}
	}
}

// exportedState is the engine's snapshot and the numbers of partitions in a state directory.
func exportedState(t testing.TB, dir string) ([]byte, *features.StateManifest) {
	t.Helper()
	m, err := features.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "state.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return b, m
}
