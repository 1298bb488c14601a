package score_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/score/sink"
	"github.com/onmart/onmart/score/source"
)

const start = 1533081600 * datasets.Second // 2018-08-01

// cards is a stream of n purchases on few cards and stores over about 40 days, with their labels carried where
// carried says so and as events of their own, known 1 to 20 days later, for the others.
func cards(seed uint64, n int, carried bool) []string {
	r := rand.New(rand.NewPCG(seed, 1))
	type line struct {
		at   int64
		text string
	}
	var lines []line
	at := int64(start)
	for id := range n {
		at += r.Int64N(2*40*datasets.Day/int64(n)) / datasets.Second * datasets.Second
		fraud := r.IntN(12) == 0
		label := ""
		if carried {
			label = fmt.Sprintf(`,"is_fraud":%d`, b2i(fraud))
		} else if fraud {
			k := at + datasets.Day + r.Int64N(19*datasets.Day)
			lines = append(lines, line{k, fmt.Sprintf(`{"event":"label","trans_id":%d,"is_fraud":1,"known_at":%q}`, id, datasets.FormatTime(k))})
		}
		lines = append(lines, line{at, fmt.Sprintf(`{"trans_id":%d,"trans_datetime":%q,"user_id":%d,"store_id":%d,"amount":%d.%02d%s}`,
			id, datasets.FormatTime(at), r.IntN(7), r.IntN(5), r.IntN(300), r.IntN(100), label)})
	}
	// Arrival: roughly by time, a fifth of the events up to two days late.
	for i := range lines {
		if r.IntN(5) == 0 && !carried {
			lines[i].at += r.Int64N(2 * datasets.Day)
		}
	}
	sortBy(lines, func(l line) int64 { return l.at })
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l.text
	}
	return out
}

func sortBy[T any](v []T, key func(T) int64) {
	for i := 1; i < len(v); i++ { // stable; the input is nearly in order
		for j := i; j > 0 && key(v[j]) < key(v[j-1]); j-- {
			v[j], v[j-1] = v[j-1], v[j]
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func mapping(t testing.TB) *datasets.Mapping {
	t.Helper()
	m, err := datasets.MappingFor(modeltest.Schema())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newScorer(t testing.TB, a *model.Artifact, o score.Options) *score.Scorer {
	t.Helper()
	o.Artifact, o.Schema = a, mapping(t).LogSchema()
	if o.Explain == "" {
		o.Explain = score.ExplainOff
	}
	s, err := score.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run scores lines through a file source and returns the output lines.
func run(t testing.TB, s *score.Scorer, lines []string, batch int) []string {
	t.Helper()
	return runText(t, s, mapping(t), strings.Join(lines, "\n"), batch)
}

// runText is run of a file's text under a mapping.
func runText(t testing.TB, s *score.Scorer, m *datasets.Mapping, events string, batch int) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(events), 0o666); err != nil {
		t.Fatal(err)
	}
	src, err := source.Open(path, "", m, s.Position)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var out bytes.Buffer
	if err := score.Run(context.Background(), s, src, sink.Stream(&out), batch); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(out.String(), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// A scored is what a line says, as far as the tests look at it.
type scored struct {
	ScoreID  string `json:"score_id"`
	TransID  int64  `json:"trans_id"`
	Scores   struct{ Fraud float64 }
	Decision string
	Late     bool
	Reasons  []struct{ Feature, Text string }
	Features map[string]float64
	Model    string
	Error    *struct {
		Source, Column, Reason string
		Position               int64
	}
}

func parse(t testing.TB, lines []string) []scored {
	t.Helper()
	out := make([]scored, len(lines))
	for i, l := range lines {
		if err := json.Unmarshal([]byte(l), &out[i]); err != nil {
			t.Fatalf("line %d is not JSON: %v\n%s", i, err, l)
		}
	}
	return out
}

func TestBatchesAndThreadsDoNotMatter(t *testing.T) {
	a := modeltest.Artifact(t)
	lines := cards(1, 3000, false)
	var want []string
	for _, batch := range []int{1, 7, 1024} {
		for _, threads := range []int{1, 2, 8} {
			got := run(t, newScorer(t, a, score.Options{Threads: threads, Features: true, Explain: score.ExplainAll, Reasons: 3}), lines, batch)
			if want == nil {
				want = got
			}
			compare(t, fmt.Sprintf("batch %d, %d threads", batch, threads), got, want)
		}
	}
	if len(want) != 3000 {
		t.Errorf("%d lines for 3000 transactions", len(want))
	}
}

func compare(t testing.TB, what string, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: line %d is\n%s\nwant\n%s", what, i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d lines, want %d", what, len(got), len(want))
	}
}

// backfill computes features and scores of a recorded log as `features` and `predict` do.
func backfill(t testing.TB, a *model.Artifact, log string) (ids []int64, names []string, values [][]float64, scores []float64) {
	t.Helper()
	d, err := datasets.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "features")
	if _, err := features.Run(context.Background(), features.RunOptions{Spec: a.Spec(), In: d, Out: dir, Threads: 2}); err != nil {
		t.Fatal(err)
	}
	f, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.NewPredictor(2)
	if err != nil {
		t.Fatal(err)
	}
	names = a.Manifest().Features
	values = make([][]float64, len(names))
	err = f.Read(context.Background(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		vs := make([][]float64, len(names))
		for i, n := range names {
			vs[i] = b.Column(n).Floats
			values[i] = append(values[i], vs[i]...)
		}
		ids = append(ids, b.Column(datasets.TransID).Ints...)
		s := make([]float64, b.N)
		if err := p.Predict(vs, b.N, s); err != nil {
			return err
		}
		scores = append(scores, s...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, names, values, scores
}

func TestRecordedLogGivesTheSameBits(t *testing.T) {
	a := modeltest.Artifact(t)
	for _, carried := range []bool{true, false} {
		for _, warm := range []bool{false, true} {
			t.Run(fmt.Sprintf("carried=%v warm=%v", carried, warm), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "log")
				rec, err := score.NewRecorder(dir, mapping(t).LogSchema(), false)
				if err != nil {
					t.Fatal(err)
				}
				defer rec.Abort()
				s := newScorer(t, a, score.Options{Threads: 2, Features: true, Record: rec})
				lines := cards(2, 2500, carried)
				if warm {
					state := filepath.Join(t.TempDir(), "state")
					before := newScorer(t, a, score.Options{})
					run(t, before, lines[:900], 100)
					if err := before.SaveState(state, false); err != nil {
						t.Fatal(err)
					}
					if _, err := s.Warm(state); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Begin(); err != nil {
					t.Fatal(err)
				}
				live := parse(t, run(t, s, append(lines, `{"trans_id": nonsense}`), 64))
				if err := rec.Close(); err != nil {
					t.Fatal(err)
				}
				ids, names, values, scores := backfill(t, a, dir)
				k := 0
				for _, l := range live {
					if l.Error != nil {
						continue
					}
					if ids[k] != l.TransID || math.Float64bits(scores[k]) != math.Float64bits(l.Scores.Fraud) {
						t.Fatalf("row %d: transaction %d scored %v, live %d scored %v", k, ids[k], scores[k], l.TransID, l.Scores.Fraud)
					}
					for i, n := range names {
						if math.Float64bits(values[i][k]) != math.Float64bits(l.Features[n]) {
							t.Fatalf("row %d: %s is %v, live %v", k, n, values[i][k], l.Features[n])
						}
					}
					k++
				}
				if k != len(ids) || k < 1500 {
					t.Errorf("%d live scores, %d rows from the log", k, len(ids))
				}
				rejects, err := os.ReadFile(filepath.Join(dir, "rejects.jsonl"))
				if err != nil || !bytes.Contains(rejects, []byte("nonsense")) {
					t.Errorf("the reject is not kept: %q %v", rejects, err)
				}
			})
		}
	}
}

func TestRestartInTheMiddle(t *testing.T) {
	a := modeltest.Artifact(t)
	lines := cards(3, 2000, false)
	want := run(t, newScorer(t, a, score.Options{Features: true}), lines, 50)
	cut := 777
	state := filepath.Join(t.TempDir(), "state")
	first := newScorer(t, a, score.Options{Features: true})
	got := run(t, first, lines[:cut], 50)
	if err := first.SaveState(state, false); err != nil {
		t.Fatal(err)
	}
	second := newScorer(t, a, score.Options{Features: true, Threads: 2})
	if _, err := second.Warm(state); err != nil {
		t.Fatal(err)
	}
	// The same file again: the scorer goes on after the events that are in the state.
	got = append(got, run(t, second, lines, 1024)...)
	compare(t, "restarted", got, want)
}

func TestBadEventsKeepTheirPlace(t *testing.T) {
	a := modeltest.Artifact(t)
	good := func(id int) string {
		return fmt.Sprintf(`{"trans_id":%d,"trans_datetime":"2018-08-01T10:00:%02dZ","user_id":1,"store_id":1,"amount":10}`, id, id)
	}
	lines := []string{good(1), `{"trans_id":`, good(2), good(1), `{"trans_id":3,"trans_datetime":"yesterday","user_id":1,"store_id":1,"amount":1}`,
		`{"trans_id":4,"trans_datetime":"2018-08-01T10:01:00Z","user_id":1,"store_id":1,"amount":"NaN"}`, "", good(5), `[]`}
	for _, batch := range []int{1, 3, 100} {
		s := newScorer(t, a, score.Options{})
		var got []string
		for _, l := range parse(t, run(t, s, lines, batch)) {
			if l.Error != nil {
				name, digest, _ := strings.Cut(l.Error.Source, "#")
				if len(digest) != 8 {
					t.Errorf("source %q", l.Error.Source)
				}
				got = append(got, fmt.Sprintf("%s:%d %s", name, l.Error.Position, l.Error.Column))
			} else {
				got = append(got, fmt.Sprint("score ", l.TransID))
			}
		}
		want := []string{"score 1", "file:events.jsonl:2 trans_id", "score 2", "file:events.jsonl:4 trans_id",
			"file:events.jsonl:5 trans_datetime", "file:events.jsonl:6 amount", "score 5", "file:events.jsonl:9 "}
		compare(t, fmt.Sprintf("batch %d", batch), got, want)
		if c := s.Counts(); c.Scored != 3 || c.Rejected != 4 || c.Duplicates != 1 {
			t.Errorf("counts %+v", c)
		}
	}
}

func TestLabelsChangeWhatComesAfterThem(t *testing.T) {
	a := modeltest.Artifact(t)
	tx := func(id, day int) string {
		return fmt.Sprintf(`{"trans_id":%d,"trans_datetime":"2018-08-%02dT10:00:00Z","user_id":%d,"store_id":1,"amount":10}`, id, day, id)
	}
	label := `{"event":"label","trans_id":1,"is_fraud":1,"known_at":"2018-08-12T00:00:00Z"}`
	risk := func(lines ...string) float64 {
		out := parse(t, run(t, newScorer(t, a, score.Options{Features: true}), lines, 1))
		return out[len(out)-1].Features["TERMINAL_ID_RISK_30DAY_WINDOW"]
	}
	// The delay is 7 days: the first purchase counts as genuine from the 8th, as fraud once the label is known.
	for _, c := range []struct {
		name  string
		lines []string
		want  float64
	}{
		{"no label", []string{tx(1, 1), tx(2, 2), tx(3, 20)}, 0},
		{"label known", []string{tx(1, 1), tx(2, 2), label, tx(3, 20)}, .5},
		{"label not known yet", []string{tx(1, 1), tx(2, 2), label, tx(3, 11)}, 0},
		{"label before its transaction", []string{label, tx(1, 1), tx(2, 2), tx(3, 20)}, .5},
	} {
		if got := risk(c.lines...); got != c.want {
			t.Errorf("%s: risk %v, want %v", c.name, got, c.want)
		}
	}
}

func TestScoreIDs(t *testing.T) {
	a := modeltest.Artifact(t)
	lines := cards(4, 50, true)
	lines[3] = strings.Replace(lines[3], "{", `{"event_id":"till-\"7\"",`, 1)
	first := parse(t, run(t, newScorer(t, a, score.Options{Job: "a"}), lines, 10))
	again := parse(t, run(t, newScorer(t, a, score.Options{Job: "a"}), lines, 3))
	other := parse(t, run(t, newScorer(t, a, score.Options{Job: "b"}), lines, 10))
	seen := map[string]bool{}
	for i := range first {
		if first[i].ScoreID != again[i].ScoreID {
			t.Errorf("row %d: a replay gives %s, not %s", i, again[i].ScoreID, first[i].ScoreID)
		}
		if (first[i].ScoreID == other[i].ScoreID) != (i == 3) {
			t.Errorf("row %d: jobs a and b give %s and %s", i, first[i].ScoreID, other[i].ScoreID)
		}
		if seen[first[i].ScoreID] {
			t.Errorf("row %d: id %s is there twice", i, first[i].ScoreID)
		}
		seen[first[i].ScoreID] = true
	}
	if first[3].ScoreID != `till-"7"` {
		t.Errorf("the caller's id became %q", first[3].ScoreID)
	}
}

func TestReasonsAreInWords(t *testing.T) {
	a := modeltest.Artifact(t)
	out := parse(t, run(t, newScorer(t, a, score.Options{Explain: score.ExplainAll, Reasons: 2}), cards(5, 300, true), 64))
	for i, l := range out {
		if len(l.Reasons) == 0 || len(l.Reasons) > 2 {
			t.Fatalf("row %d has %d reasons", i, len(l.Reasons))
		}
		for _, r := range l.Reasons {
			if r.Text == "" || strings.ContainsAny(r.Text, "{}") {
				t.Fatalf("row %d: reason %+v", i, r)
			}
		}
	}
}

func TestRangeSkipsAndCounts(t *testing.T) {
	a := modeltest.Artifact(t)
	r, err := datasets.ParseRange("2018-08-10..2018-08-20")
	if err != nil {
		t.Fatal(err)
	}
	s := newScorer(t, a, score.Options{Range: r})
	lines := cards(6, 500, true)
	out := run(t, s, lines, 33)
	if c := s.Counts(); int(c.Scored) != len(out) || c.Scored+c.Skipped != 500 || c.Skipped == 0 || c.Scored == 0 {
		t.Errorf("counts %+v for %d lines", c, len(out))
	}
}

// errAfter fails after some lines, as a disk that fills up does.
type errAfter struct{ left int }

func (w *errAfter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestOutputErrorEndsTheRun(t *testing.T) {
	a := modeltest.Artifact(t)
	s := newScorer(t, a, score.Options{})
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(cards(7, 200, true), "\n")), 0o666); err != nil {
		t.Fatal(err)
	}
	src, err := source.Open(path, "", mapping(t), s.Position)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := score.Run(context.Background(), s, src, sink.Stream(&errAfter{5000}), 10); err != io.ErrShortWrite {
		t.Errorf("error %v, want the writer's", err)
	}
}

// What a run of a source tells the monitor: lines taken, where the source goes on, how large the state is, when it was
// saved.
func TestRunTellsTheMonitor(t *testing.T) {
	s := newScorer(t, modeltest.Save(t, filepath.Join(t.TempDir(), "model"), 1), score.Options{})
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	if got := run(t, s, append(cards(3, 50, true), "nonsense"), 20); len(got) != 51 {
		t.Fatalf("%d lines", len(got))
	}
	if err := s.SaveState(filepath.Join(t.TempDir(), "state"), false); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.Monitor().Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := w.Body.String()
	for _, want := range []string{`onmart_delivered_total 51`, `onmart_delivery_seconds_count [1-9]\d*`,
		`onmart_source_position\{source="file:events.jsonl#\w+"\} 52`, `onmart_state_keys [1-9]\d*`,
		`onmart_state_save_seconds_count 1`, `onmart_stage_seconds_count\{stage="deliver"\} [1-9]\d*`} {
		if !regexp.MustCompile("(?m)^" + want + "$").MatchString(text) {
			t.Errorf("nothing like %s in the metrics", want)
		}
	}
	if o := s.Monitor().StateOverview(); o.Bytes["memory"] == 0 || o.Saved == nil {
		t.Errorf("%+v", o)
	}
}
