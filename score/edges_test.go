package score_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/score/sink"
	"github.com/onmart/onmart/score/source"
)

// ties is a stream in which everything happens at four instants three days apart: purchases
// of one card in one store, and labels that contradict each other at one known-at, so that only the order of
// arrival decides.
func ties(n int) []string {
	at := func(i int) string { return datasets.FormatTime(start + int64(i%4)*3*datasets.Day) }
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`{"trans_id":%d,"trans_datetime":%q,"user_id":%d,"store_id":%d,"amount":%d}`, i, at(i/(n/4)), i%2, i%3/2, i%7))
		if i%3 == 0 {
			k := datasets.FormatTime(start + 9*datasets.Day)
			out = append(out, fmt.Sprintf(`{"event":"label","trans_id":%d,"is_fraud":%d,"known_at":%q}`, i/2, i/3%2, k),
				fmt.Sprintf(`{"event":"label","trans_id":%d,"is_fraud":%d,"known_at":%q}`, i/2, 1-i/3%2, k))
		}
	}
	last := start + 20*datasets.Day // what the labels came to shows here
	for i := range 6 {
		out = append(out, fmt.Sprintf(`{"trans_id":%d,"trans_datetime":%q,"user_id":%d,"store_id":%d,"amount":3}`, n+i, datasets.FormatTime(last), i%2, i%3/2))
	}
	return out
}

// A log that begins from a state continues the state's order, so what ties in time with events of the state
// comes out as it did live.
func TestLogThatTiesWithItsStartingState(t *testing.T) {
	a := modeltest.Artifact(t)
	lines := ties(120)
	whole := newScorer(t, a, score.Options{Features: true})
	want := parse(t, run(t, whole, lines, 16))
	for _, cut := range []int{2, 42, 101, 157} {
		state, dir := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "log")
		before := newScorer(t, a, score.Options{})
		first := len(run(t, before, lines[:cut], 7))
		if err := before.SaveState(state, false); err != nil {
			t.Fatal(err)
		}
		rec, err := score.NewRecorder(dir, mapping(t).LogSchema(), false)
		if err != nil {
			t.Fatal(err)
		}
		defer rec.Abort()
		s := newScorer(t, a, score.Options{Features: true, Record: rec})
		if _, err := s.Warm(state); err != nil {
			t.Fatal(err)
		}
		if err := s.Begin(); err != nil {
			t.Fatal(err)
		}
		// Cuts of 2 modulo 5 part two labels that contradict each other. The purchase that is in the state already
		// is refused, and must not shift the order.
		run(t, s, append([]string{lines[0]}, lines[cut:]...), 5)
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
		ids, names, values, scores := backfill(t, a, dir)
		if len(ids) != len(want)-first {
			t.Fatalf("cut at %d: %d rows of the log, want %d", cut, len(ids), len(want)-first)
		}
		for k, w := range want[first:] {
			if ids[k] != w.TransID || math.Float64bits(scores[k]) != math.Float64bits(w.Scores.Fraud) {
				t.Errorf("cut at %d: %d scored %v, without a cut %d scored %v", cut, ids[k], scores[k], w.TransID, w.Scores.Fraud)
			}
			for i, n := range names {
				if math.Float64bits(values[i][k]) != math.Float64bits(w.Features[n]) {
					t.Fatalf("cut at %d: %s of %d is %v, without a cut %v", cut, n, ids[k], values[i][k], w.Features[n])
				}
			}
		}
	}
}

// Signals come between two batches: what a stopped scorer has written and what it scores when started again
// from its state are together what one run writes, wherever it stopped.
func TestStoppedAndStartedAgain(t *testing.T) {
	a := modeltest.Artifact(t)
	lines := ties(60)
	path := filepath.Join(t.TempDir(), "events.jsonl")
	lines[20] = "nonsense"
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	follow := func(ctx context.Context, s *score.Scorer, w io.Writer) {
		t.Helper()
		src, err := source.Open(path, "", mapping(t), s.Position)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if err := score.Run(ctx, s, src, sink.Stream(w), 3); err != nil {
			t.Fatal(err)
		}
	}
	var want bytes.Buffer
	follow(t.Context(), newScorer(t, a, score.Options{}), &want)
	for stop := 1; stop <= 40; stop += 3 {
		var got stopping
		ctx, cancel := context.WithCancel(t.Context())
		got.after, got.stop = stop, cancel
		s := newScorer(t, a, score.Options{})
		follow(ctx, s, &got)
		if n := bytes.Count(got.Bytes(), []byte("\n")); n < stop || n > stop+10 {
			t.Errorf("stopped after %d lines, %d were written", stop, n)
		}
		state := filepath.Join(t.TempDir(), "state")
		if err := s.SaveState(state, false); err != nil {
			t.Fatal(err)
		}
		again := newScorer(t, a, score.Options{})
		if _, err := again.Warm(state); err != nil {
			t.Fatal(err)
		}
		follow(t.Context(), again, &got.Buffer)
		if got.String() != want.String() {
			t.Fatalf("stopped after %d lines and started again:\n%swant\n%s", stop, &got.Buffer, &want)
		}
	}
}

// stopping calls stop when `after` lines have been written.
type stopping struct {
	bytes.Buffer
	after int
	stop  func()
}

func (s *stopping) Write(b []byte) (int, error) {
	s.Buffer.Write(b)
	if bytes.Count(s.Bytes(), []byte("\n")) >= s.after {
		s.stop()
	}
	return len(b), nil
}

// An event whose columns can be read and yet is of no use to the features is answered, not dropped.
func TestEventWithoutWhatTheFeaturesNeed(t *testing.T) {
	a := modeltest.Artifact(t)
	m, err := datasets.ParseMapping("m", []byte(`
timezone: UTC
columns:
  trans_id: {type: int64}
  trans_datetime: {}
  user_id: {type: int64}
  store_id: {type: int64}
  amount: {optional: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := score.New(score.Options{Artifact: a, Schema: m.LogSchema()})
	if err != nil {
		t.Fatal(err)
	}
	text := `{"trans_id":1,"trans_datetime":"2018-08-01T00:00:00Z","user_id":1,"store_id":1,"amount":5}
{"trans_id":2,"trans_datetime":"2018-08-01T00:00:00Z","user_id":1,"store_id":1}
{"trans_id":3,"trans_datetime":"2018-08-01T00:00:00Z","user_id":1,"store_id":1,"amount":5}
`
	got := parse(t, runText(t, s, m, text, 10))
	if len(got) != 3 || got[1].Error == nil || got[1].Error.Position != 2 || got[1].Error.Column != "amount" ||
		got[1].Error.Reason != "has no value, and the features need it" || got[2].TransID != 3 {
		t.Errorf("%+v", got)
	}
	if c := s.Counts(); c.Scored != 2 || c.Rejected != 1 {
		t.Errorf("%+v", c)
	}
}

func TestEventsOfOtherTypesAreRefused(t *testing.T) {
	a := modeltest.Artifact(t)
	m, err := datasets.Preset("canonical")
	if err != nil {
		t.Fatal(err)
	}
	_, err = score.New(score.Options{Artifact: a, Schema: m.LogSchema()})
	if err == nil {
		t.Fatal("text ids went into a model of number ids")
	}
	for _, want := range []string{a.Dir(), "user_id is string here and was int64 in training", "give the mapping that the training data was imported with"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

// A file goes on where the state left it if it is that file, wherever it lies now and however it has grown; a
// file that only has the same name is another one.
func TestWhichFileIsTheSame(t *testing.T) {
	tx := func(id int) string {
		return fmt.Sprintf(`{"trans_id":%d,"trans_datetime":"2018-08-01T10:00:00Z","user_id":1,"store_id":1,"amount":10}`+"\n", id)
	}
	lines := func(from, to int) (s string) {
		for id := from; id < to; id++ {
			s += tx(id)
		}
		return s
	}
	a := modeltest.Artifact(t)
	s := newScorer(t, a, score.Options{})
	follow := func(text string) (string, error) {
		path := filepath.Join(t.TempDir(), "events.jsonl")
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		src, err := source.Open(path, "", mapping(t), s.Position)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		var out bytes.Buffer
		err = score.Run(t.Context(), s, src, sink.Stream(&out), 4)
		got := ""
		for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
			if l == "" {
				continue
			}
			p := parse(t, []string{l})[0]
			if p.Error != nil {
				t.Errorf("%s", l)
			}
			got += fmt.Sprint(p.TransID, " ")
		}
		return got, err
	}
	for _, c := range []struct{ text, want string }{
		{lines(0, 5), "0 1 2 3 4 "},
		{lines(0, 5), ""},
		{lines(0, 8), "5 6 7 "},
		{lines(10, 13), "10 11 12 "},
		{lines(0, 9), "8 "},
		{tx(20), "20 "},
	} {
		if got, err := follow(c.text); err != nil || got != c.want {
			t.Errorf("scored %q, %v; want %q", got, err, c.want)
		}
	}
	if got, err := follow(lines(0, 4)); err == nil || got != "" || !strings.Contains(err.Error(), "ends at line 4, and the state has gone through it up to line 9") {
		t.Errorf("a file that was cut: %q, %v", got, err)
	}
}

// One event with an impossible time must not end the windows of all that follow.
func TestImpossibleFuture(t *testing.T) {
	a := modeltest.Artifact(t)
	now := func() time.Time { return time.UnixMicro(start + 10*datasets.Day) }
	tx := func(id int, at string) string {
		return fmt.Sprintf(`{"trans_id":%d,"trans_datetime":%q,"user_id":1,"store_id":1,"amount":10}`, id, at)
	}
	lines := []string{tx(1, "2018-08-10T10:00:00Z"), tx(2, "2218-08-10T10:00:00Z"), `{`, tx(3, "2018-08-10T11:00:00Z"), tx(4, "2018-08-25T11:00:00Z"), tx(5, "2018-10-25T11:00:00Z")}
	for _, batch := range []int{1, 100} {
		dir := filepath.Join(t.TempDir(), "log")
		rec, err := score.NewRecorder(dir, mapping(t).LogSchema(), false)
		if err != nil {
			t.Fatal(err)
		}
		defer rec.Abort()
		s := newScorer(t, a, score.Options{Now: now, Record: rec})
		if err := s.Begin(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range parse(t, run(t, s, lines, batch)) {
			if l.Error != nil {
				got = append(got, fmt.Sprintf("%d %.25s", l.Error.Position, l.Error.Column+" "+l.Error.Reason))
			} else {
				got = append(got, fmt.Sprint("score ", l.TransID, " ", l.Late))
			}
		}
		// The third is ahead of the clock and the fourth far ahead of it, but not of the events before.
		compare(t, fmt.Sprint("batch ", batch), got, []string{"score 1 false", "2 trans_datetime 2218-08-10", "3  not JSON at byte 2: want", "score 3 false", "score 4 false", "6 trans_datetime 2018-10-25"})
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
		if ids, _, _, _ := backfill(t, a, dir); len(ids) != 3 {
			t.Errorf("the log has %d", ids)
		}
	}
	// A clock that would allow it does not matter to the spec: one event alone does not move the watermark, two in a row do.
	far := newScorer(t, a, score.Options{Now: func() time.Time { return time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) }})
	var told []string
	for _, l := range parse(t, run(t, far, []string{tx(1, "2018-08-10T10:00:00Z"), tx(2, "2118-08-10T10:00:00Z"),
		tx(3, "2018-08-10T11:00:00Z"), tx(4, "2018-12-10T10:00:00Z"), tx(5, "2018-12-11T10:00:00Z")}, 2)) {
		if l.Error != nil {
			told = append(told, fmt.Sprintf("%d %.40s", l.Error.Position, l.Error.Reason))
		} else {
			told = append(told, fmt.Sprint("score ", l.TransID))
		}
	}
	compare(t, "far ahead of all before", told, []string{"score 1", "2 is too far ahead of all events before it", "score 3",
		"4 is too far ahead of all events before it", "score 5"})
	// A stream that lies in the future as a whole is scored.
	s := newScorer(t, a, score.Options{Now: func() time.Time { return time.UnixMicro(0) }})
	run(t, s, cards(1, 300, true), 10)
	if c := s.Counts(); c.Scored != 300 || c.Rejected != 0 {
		t.Errorf("%+v", c)
	}
}
