// Package score is the scorer: events in, scores out, with the features and the model that training had.
//
// What enters: decoded events in the order of their log (score/source reads files and streams, the HTTP
// handler reads requests). What leaves: one line of JSON for each transaction, one error object for each
// event that could not be read, and, where asked, the log itself as a data set. Features come from the
// feature engine that makes the training data and scores from the program in the artifact, so a replayed
// log gives the scores of predict to the last bit, however it is cut into batches. Features are taken before
// their event is folded into the state.
package score

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/monitor"
	"github.com/onmart/onmart/score/quality"
)

// Explain says for which transactions reasons are computed; each costs one forward pass a feature.
type Explain string

const (
	ExplainOff    Explain = "off"
	ExplainAlerts Explain = "alerts" // those at or above the threshold
	ExplainAll    Explain = "all"
)

// Options of a Scorer. Schema is required, and an Artifact or Followers.
type Options struct {
	// Artifact of a classifier. Nil scores nothing: the events go to the followers alone.
	Artifact *model.Artifact
	// Followers are kept up to date with the transactions, in this order.
	Followers []Following
	// Schema of the events, a mapping's LogSchema.
	Schema *datasets.Schema
	// Threads that a batch may use; 0 means one.
	Threads int
	// Job is part of every score's id: two jobs over one stream give different ids.
	Job string
	// Explain and Reasons: when reasons are given, and how many. Zero values mean off.
	Explain Explain
	Reasons int
	// Features writes the feature vector into each line.
	Features bool
	// Spec of features that are computed and written without a model. It goes without an Artifact.
	Spec *features.Spec
	// Form of a transaction's line; zero is FormScore. Prefix stands before the names that FormEvent adds.
	Form   Form
	Prefix string
	// Range limits what is scored; events outside are skipped and counted, not folded.
	Range datasets.Range
	// Now is the clock that tells events of an impossible future; nil is time.Now.
	Now func() time.Time
	// Shadows score the same events beside the artifact and decide nothing.
	Shadows []*model.Artifact
	// Rules is a file of rules that decide before and after the model; empty for none.
	Rules string
	// Quality asks for live figures; nil for none.
	Quality *quality.Options
	// Record, if not nil, receives every event that was folded, in order; the caller commits it.
	Record *Recorder
	// Monitor is told what happens; nil makes one.
	Monitor *monitor.Monitor
	// Log takes what models and rules in service came to: reloads, takeovers, shadows that are left out; nil is slog.Default.
	Log *slog.Logger
}

// Events is a piece of the log: rows of the scorer's schema in the order in which they are to be folded, of one source or
// of several that were merged, and what could not be read between them. The positions of a source ascend.
type Events struct {
	Sources   []string        // their names
	Rows      *datasets.Batch // may have columns beyond the schema's mapping, such as seq
	From      []int32         // by row: its source; nil: all are of the first
	Positions []int64         // by row: its position in its source
	Rejects   []Reject        // in the order of Before
	Raw       [][]byte        // by row: the event as it came; nil where no output repeats it
	Keys      [][]byte        // by row: the key that it came with, for its line; nil where there are none
}

// Reject is an event that could not be read.
type Reject struct {
	datasets.Reject
	From   int32 // its source
	Before int32 // it stands before this row
	Raw    []byte
	Key    []byte
	early  bool // it was decoded, and is of a time that has not come
}

// Lines are what a piece of the log gives, in the order of its rows: JSON, each line with its end.
type Lines struct {
	Bytes []byte
	Lines []Line
}

// Line is one of Lines.
type Line struct {
	End      int    // in Bytes, behind its newline
	Source   string // of the event it is of
	Position int64
	Fault    *Fault // why the event was not scored; nil where it was
	Raw      []byte // the event, where Events had it
	Key      []byte // the event's key, where Events had it
}

// Fault is why an event was not scored.
type Fault struct {
	Column, Reason string // Column is empty where the event as a whole is at fault
	Cause          monitor.Cause
}

// Reset forgets all lines and keeps the memory.
func (l *Lines) Reset() { l.Bytes, l.Lines = l.Bytes[:0], l.Lines[:0] }

// row ends the line of a row.
func (l *Lines) row(ev *Events, i int, fault *Fault) {
	line := Line{End: len(l.Bytes), Source: ev.source(i), Position: ev.Positions[i], Fault: fault}
	if ev.Raw != nil {
		line.Raw = ev.Raw[i]
	}
	if ev.Keys != nil {
		line.Key = ev.Keys[i]
	}
	l.Lines = append(l.Lines, line)
}

// source is the name of a row's source.
func (ev *Events) source(row int) string {
	if ev.From == nil {
		return ev.Sources[0]
	}
	return ev.Sources[ev.From[row]]
}

// where names the sources in a message.
func (ev *Events) where() string { return strings.Join(ev.Sources, ", ") }

// Counts of a Scorer since it was made.
type Counts = monitor.Counts

// Scorer holds the state of one job. Its methods may be called from several goroutines; batches are
// processed one after the other.
type Scorer struct {
	o         Options
	plan      *features.Plan
	feats     []features.Feature
	predictor *model.Predictor // nil where nothing is scored
	threshold float64
	task      string
	version   string
	time      int // column of event time
	echo      []int
	eventID   int
	id, line  int // columns of the purchase and its line
	label     int // column of the label; -1: none
	monitor   *monitor.Monitor
	tell      *monitor.Monitor // what a batch tells: monitor, or in Again silent
	silent    *monitor.Monitor
	lenses    []*lens // by follower
	stock     *stock  // nil: events of stock cannot come
	stockIn   stockColumns
	fields    fields
	added     []string // names that lines add to events

	generation atomic.Int64 // of the engine's features

	mu        sync.Mutex
	engine    *features.Engine
	rows      features.Rows
	scores    []float64
	values    [][]float64 // of the champion's features, of the batch at hand
	live      live
	positions map[string]int64 // next position of each source
	counts    Counts
	failed    error
}

// echoed are the columns a score repeats, so that it can be joined without the input.
var echoed = []string{datasets.TransID, datasets.Line, datasets.TransDatetime, datasets.UserID, datasets.StoreID}

// New checks that the artifact's features can be computed from the events and starts from an empty state.
func New(o Options) (*Scorer, error) {
	if o.Threads < 1 {
		o.Threads = 1
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Artifact == nil && o.Spec == nil && len(o.Followers) == 0 {
		return nil, fmt.Errorf("a scorer needs a model or a spec")
	}
	if err := o.checkForm(); err != nil {
		return nil, err
	}
	if o.Monitor == nil {
		o.Monitor = monitor.New(monitor.Build{})
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	plan, err := o.plan()
	if err != nil {
		return nil, err
	}
	s := &Scorer{
		o: o, plan: plan, feats: plan.Features(),
		id: o.Schema.Index(datasets.TransID), line: o.Schema.Index(datasets.Line), label: o.Schema.Index(datasets.IsFraud),
		time: o.Schema.Index(datasets.TransDatetime), eventID: o.Schema.Index(datasets.EventID),
		engine: plan.NewEngine(o.Threads), positions: map[string]int64{}, monitor: o.Monitor, tell: o.Monitor,
	}
	s.engine.DetectDuplicates = true
	s.stock, s.stockIn = stockOf(o.Schema)
	for i := range o.Followers {
		l, err := lensOf(&o.Followers[i], o.Schema)
		if err != nil {
			return nil, err
		}
		s.lenses = append(s.lenses, l)
	}
	for _, name := range echoed {
		if i := o.Schema.Index(name); i >= 0 {
			s.echo = append(s.echo, i)
		}
	}
	s.nameFields()
	if o.Form == FormEvent {
		s.added = o.addedFields(s.feats)
	}
	if err := s.startLive(); err != nil {
		return nil, err
	}
	s.monitor.Health.Set("scorer", nil)
	s.watch()
	s.registerLive()
	return s, nil
}

// sameTypes refuses events whose columns are of other types than those that the model's features were made
// of: the same id as text and as a number are two keys, and states of the two do not fit each other.
func sameTypes(trained, events *datasets.Schema) error {
	if trained == nil {
		return nil
	}
	var faults []string
	for _, want := range trained.Fields {
		i := events.Index(want.Name)
		if i < 0 {
			continue
		}
		if have := events.Fields[i]; have.Type != want.Type || have.Scale != want.Scale {
			faults = append(faults, fmt.Sprintf("%s is %s here and was %s in training", want.Name, typeName(have), typeName(want)))
		}
	}
	if faults == nil {
		return nil
	}
	return fmt.Errorf("the events' mapping gives columns of other types: %s; give the mapping that the training data was imported with, or set the types in yours", strings.Join(faults, ", "))
}

func typeName(f datasets.Field) string {
	if f.Type == datasets.Decimal {
		return fmt.Sprintf("decimal with scale %d", f.Scale)
	}
	return f.Type.String()
}

// UseContext starts from the state that the classifier's artifact carries: the purchases its training had
// seen. It is model.ErrNoContext where there is none. Followers bring their own.
func (s *Scorer) UseContext() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Artifact == nil {
		return nil
	}
	return s.o.Artifact.RestoreContext(s.engine)
}

// Warm starts from a state directory that features --state-out or a scorer wrote. It returns the tasks of the
// followers that the directory has no state for: they keep the one of their artifact.
func (s *Scorer) Warm(dir string) (without []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	positions, err := features.LoadState(dir, s.engine)
	if err != nil {
		return nil, err
	}
	if without, err = s.warmFollowers(dir); err != nil {
		return nil, err
	}
	if err := s.restoreStates(dir); err != nil {
		return nil, err
	}
	if positions != nil {
		s.positions = positions
	}
	return without, nil
}

// Begin ends the preparation: a recorder notes the state that the log begins from. It is called once, before
// the first event.
func (s *Scorer) Begin() error {
	if s.o.Record == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var tables *features.Tables
	if s.o.Artifact != nil {
		tables = s.o.Artifact.Tables()
	}
	return s.o.Record.start(s.engine, tables)
}

// SaveState writes the state and each source's next position to a directory that Warm reads.
func (s *Scorer) SaveState(dir string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	start := time.Now()
	if err := features.SaveState(dir, s.engine, s.positions, s.beside(), force); err != nil {
		return err
	}
	s.monitor.Saved(time.Now(), time.Since(start))
	return nil
}

// Position is where a source goes on: one more than the last position folded from it, 0 at first.
func (s *Scorer) Position(source string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.positions[source]
}

// Watermark is the greatest event time folded, microseconds since 1970 UTC; math.MinInt64 before the first.
func (s *Scorer) Watermark() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine.Watermark()
}

// Err is the error that stopped the scorer, nil while it accepts events.
func (s *Scorer) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Counts since the scorer was made.
func (s *Scorer) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Process is ProcessLines for who wants the bytes alone: it appends them to dst.
func (s *Scorer) Process(ev Events, dst []byte) ([]byte, Counts, error) {
	lines := Lines{Bytes: dst}
	counts, err := s.ProcessLines(ev, &lines)
	return lines.Bytes, counts, err
}

// ProcessLines scores a piece of a log, folds it, and appends one line of JSON for each transaction and each event
// that could not be read to out, in their order. It returns the counts of this piece. An error is final: state and
// output no longer agree, and the scorer must be started again from a saved state.
func (s *Scorer) ProcessLines(ev Events, out *Lines) (Counts, error) {
	asked := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell.Stage(monitor.Queue, time.Since(asked))
	return s.processLocked(ev, out)
}

// Again folds events whose lines went out before the scorer was started: metrics and counts do not see them.
func (s *Scorer) Again(ev Events, scratch *Lines) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent == nil {
		s.silent = monitor.New(monitor.Build{})
	}
	counts := s.counts
	s.tell = s.silent
	defer func() { s.tell, s.counts = s.monitor, counts }()
	_, err := s.processLocked(ev, scratch)
	return err
}

func (s *Scorer) processLocked(ev Events, out *Lines) (Counts, error) {
	if s.failed != nil {
		return Counts{}, s.failed
	}
	start, total := time.Now(), s.counts
	s.counts = Counts{}
	if err := s.process(ev, out); err != nil {
		s.tell.Error(monitor.Internal)
		s.failed = fmt.Errorf("%s: the scorer stopped: %w; restart it from its last saved state", ev.where(), err)
		s.monitor.Health.Set("scorer", s.failed)
		return Counts{}, s.failed
	}
	s.tell.Batch(time.Since(start))
	piece := s.counts
	s.counts = total.Plus(piece)
	return piece, nil
}

func (s *Scorer) process(ev Events, out *Lines) error {
	if s.live.warming != nil {
		s.takeOver()
	}
	s.advance(&ev)
	ev = s.inRange(s.possible(s.takeStock(ev)))
	rows, watermark, began := ev.Rows, s.engine.Watermark(), time.Now()
	if err := s.engine.Process(rows, &s.rows); err != nil {
		return err
	}
	computed := time.Now()
	s.tell.Stage(monitor.Features, computed.Sub(began))
	if cap(s.scores) < s.rows.N {
		s.scores = make([]float64, s.rows.N)
	}
	scores := s.scores[:s.rows.N]
	s.values = s.rows.Values
	if s.predictor != nil {
		if err := s.judge(&ev, scores, watermark); err != nil {
			return err
		}
	}
	predicted := time.Now()
	s.tell.Stage(monitor.Model, predicted.Sub(computed))
	defer func() { s.tell.Stage(monitor.Encode, time.Since(predicted)) }()
	if err := s.follow(rows); err != nil {
		return err
	}
	if s.o.Record != nil {
		if err := s.o.Record.write(rows, s.rows.Status, ev.Rejects); err != nil {
			return err
		}
	}
	rejects, k := ev.Rejects, 0
	for i := range rows.N {
		for len(rejects) > 0 && int(rejects[0].Before) <= i {
			s.reject(out, &ev, &rejects[0])
			rejects = rejects[1:]
		}
		switch s.rows.Status[i] {
		case features.Scored, features.Late:
			if !s.answers() {
				continue
			}
			from, alerts := len(out.Bytes), s.counts.Alerts
			out.Bytes = s.appendRow(out.Bytes, &ev, i, k, scores[k])
			if s.predictor != nil && !math.IsNaN(scores[k]) { // else a rule decided before the model
				s.tell.Scored(scores[k])
			}
			if s.counts.Alerts > alerts {
				s.tell.Alerts.Add(predicted, out.Bytes[from:])
			}
			out.row(&ev, i, nil)
			k++
		case features.Duplicate:
			s.counts.Duplicates++
			s.fault(out, &ev, i, monitor.Duplicate, datasets.TransID, s.duplicate(rows, i))
		case features.Invalid:
			column, reason := s.plan.Fault(rows, i)
			s.refuse(out, &ev, i, monitor.Invalid, column, reason)
		case features.LateSkipped:
			s.refuse(out, &ev, i, monitor.TooLate, datasets.TransDatetime,
				"is further behind the newest event than the lateness of the features, which leave such events out")
		case features.FutureEvent:
			s.refuse(out, &ev, i, monitor.TooEarly, datasets.TransDatetime,
				"is too far ahead of all events before it to be believed; a second one of about that time would be")
		case features.LabelApplied:
			s.counts.Labels++
		case features.LabelWaiting:
			s.counts.Labels++
			s.counts.LabelsWaiting++
		case features.LabelExpired:
			s.counts.Labels++
			s.counts.LabelsExpired++
		}
	}
	for i := range rejects {
		s.reject(out, &ev, &rejects[i])
	}
	return nil
}

// advance notes that all positions of a piece were handed over.
func (s *Scorer) advance(ev *Events) {
	if ev.From == nil && len(ev.Positions) > 0 {
		s.passed(ev.Sources[0], ev.Positions[len(ev.Positions)-1])
	} else if ev.From != nil {
		last := make([]int64, len(ev.Sources))
		for i, from := range ev.From {
			last[from] = ev.Positions[i] + 1
		}
		for i, next := range last {
			s.passed(ev.Sources[i], next-1)
		}
	}
	for i := range ev.Rejects {
		s.passed(ev.Sources[ev.Rejects[i].From], ev.Rejects[i].Line)
	}
}

func (s *Scorer) passed(source string, position int64) {
	s.positions[source] = max(s.positions[source], position+1)
}

// An event that is both more than clockError ahead of this machine's clock and more than maxGap ahead of every
// event before it has a wrong time. Folded, it would end every window: all that follows would be late, and the
// state forgotten. Clocks of tills are wrong by minutes and zones by hours; a stream that is made up may lie in
// the future as a whole, but has no such gap.
const (
	clockError = datasets.Day
	maxGap     = 30 * datasets.Day
)

// horizon tells, event after event, which times are impossible.
type horizon struct{ watermark, now int64 }

func (s *Scorer) horizonOf() horizon {
	return horizon{s.engine.Watermark(), s.o.Now().UnixMicro() + clockError}
}

func (h *horizon) impossible(t int64) bool {
	return t > h.now && h.watermark != math.MinInt64 && t-maxGap > h.watermark
}

// pass takes the time of a transaction and tells whether it is possible.
func (h *horizon) pass(t int64) bool {
	if h.impossible(t) {
		return false
	}
	h.watermark = max(h.watermark, t)
	return true
}

// possible turns transactions of an impossible future into rejects.
func (s *Scorer) possible(ev Events) Events {
	when := s.horizonOf()
	times := ev.Rows.Columns[s.time]
	return ev.without(func(i int) bool {
		return !times.IsNull(i) && !when.pass(times.Ints[i]) // a label has no time of its own
	}, func(i int) *Reject {
		return &Reject{early: true, Reject: datasets.Reject{File: ev.source(i), Line: ev.Positions[i], Column: datasets.TransDatetime,
			Reason: fmt.Sprintf("%s has not come yet, and no event so far is within 30 days of it; it would end every window",
				datasets.FormatTime(times.Ints[i]))}}
	})
}

// inRange drops the events outside Options.Range; labels stay, since they belong to transactions of any time.
func (s *Scorer) inRange(ev Events) Events {
	if s.o.Range == (datasets.Range{}) {
		return ev
	}
	times := ev.Rows.Columns[s.time]
	kept := ev.without(func(i int) bool { return !times.IsNull(i) && !s.o.Range.Contains(times.Ints[i]) }, nil)
	s.counts.Skipped += int64(ev.Rows.N - kept.Rows.N)
	return kept
}

// without is the events but for the bad rows, each asked for once and in order, in whose place stand the rejects of
// them, if there are to be any. Where none is bad it is the events themselves.
func (ev Events) without(bad func(row int) bool, reject func(row int) *Reject) Events {
	var drop []bool
	for i := range ev.Rows.N {
		if bad(i) {
			if drop == nil {
				drop = make([]bool, ev.Rows.N)
			}
			drop[i] = true
		}
	}
	if drop == nil {
		return ev
	}
	out := Events{Sources: ev.Sources, Rows: datasets.NewBatch(ev.Rows.Schema, ev.Rows.N)}
	rejects := ev.Rejects
	standing := func(until int) {
		for len(rejects) > 0 && int(rejects[0].Before) <= until {
			r := rejects[0]
			r.Before = int32(out.Rows.N)
			out.Rejects, rejects = append(out.Rejects, r), rejects[1:]
		}
	}
	for i := range ev.Rows.N {
		standing(i)
		if drop[i] {
			if reject != nil {
				r := reject(i)
				r.Before = int32(out.Rows.N)
				if ev.From != nil {
					r.From = ev.From[i]
				}
				if ev.Raw != nil {
					r.Raw = ev.Raw[i]
				}
				if ev.Keys != nil {
					r.Key = ev.Keys[i]
				}
				out.Rejects = append(out.Rejects, *r)
			}
			continue
		}
		appendRow(out.Rows, ev.Rows, i)
		out.Positions = append(out.Positions, ev.Positions[i])
		if ev.From != nil {
			out.From = append(out.From, ev.From[i])
		}
		if ev.Raw != nil {
			out.Raw = append(out.Raw, ev.Raw[i])
		}
		if ev.Keys != nil {
			out.Keys = append(out.Keys, ev.Keys[i])
		}
	}
	standing(ev.Rows.N)
	return out
}

// appendID writes the caller's event id, or a digest that a replay of the same source gives again.
func (s *Scorer) appendID(dst []byte, ev *Events, row int) []byte {
	b := ev.Rows
	if s.eventID >= 0 && !b.Columns[s.eventID].IsNull(row) {
		return appendText(dst, b.Columns[s.eventID].Strings[row])
	}
	var buf [256]byte
	key := append(buf[:0], s.o.Job...)
	key = append(key, 0)
	key = append(key, s.task...)
	key = append(key, 0)
	key = append(key, ev.source(row)...)
	key = append(key, 0)
	key = strconv.AppendInt(key, ev.Positions[row], 10)
	sum := sha256.Sum256(key)
	return hex.AppendEncode(dst, sum[:16])
}

// reject is of an event that could not be decoded.
func (s *Scorer) reject(out *Lines, ev *Events, r *Reject) {
	s.counts.Rejected++
	s.tell.Error(r.cause())
	source := ev.Sources[r.From]
	out.Bytes = appendError(out.Bytes, source, r.Line, r.Column, r.Reason)
	out.Lines = append(out.Lines, Line{End: len(out.Bytes), Source: source, Position: r.Line,
		Fault: &Fault{r.Column, r.Reason, r.cause()}, Raw: r.Raw, Key: r.Key})
}

func (r *Reject) cause() monitor.Cause {
	switch {
	case r.early:
		return monitor.TooEarly
	case len(r.Raw) > datasets.MaxEvent:
		return monitor.TooLarge
	}
	return monitor.Malformed
}

// refuse is of a row that was decoded, and not folded.
func (s *Scorer) refuse(out *Lines, ev *Events, row int, cause monitor.Cause, column, reason string) {
	s.counts.Rejected++
	s.fault(out, ev, row, cause, column, reason)
}

// fault writes the line of a row that has no score.
func (s *Scorer) fault(out *Lines, ev *Events, row int, cause monitor.Cause, column, reason string) {
	s.tell.Error(cause)
	out.Bytes = appendError(out.Bytes, ev.source(row), ev.Positions[row], column, reason)
	out.row(ev, row, &Fault{column, reason, cause})
}

func (s *Scorer) duplicate(b *datasets.Batch, row int) string {
	c := b.Schema.Index(datasets.TransID)
	id := appendValue(nil, &b.Schema.Fields[c], &b.Columns[c], row)
	return fmt.Sprintf("transaction %s was scored before; it is not counted again", id)
}
