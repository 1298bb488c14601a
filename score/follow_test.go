package score_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
)

// tally is a follower that remembers the ids it was given.
type tally struct {
	ids  []int64
	fail error
}

func (t *tally) Task() string { return "tally" }

func (t *tally) Fold(b *datasets.Batch) error {
	t.ids = append(t.ids, b.Column(datasets.TransID).Ints...)
	return t.fail
}

func (t *tally) Snapshot(w io.Writer) error { return binary.Write(w, binary.LittleEndian, t.ids) }

func (t *tally) Restore(r io.Reader) error {
	b, err := io.ReadAll(r)
	t.ids = make([]int64, len(b)/8)
	for i := range t.ids {
		t.ids[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return err
}

// A follower sees each transaction once and in order, with or without a classifier, whatever the batches.
func TestFollowers(t *testing.T) {
	a := modeltest.Artifact(t)
	lines := cards(3, 60, true)
	lines = append(lines[:40:40], append([]string{lines[38], `{"trans_id":1}`, "nonsense"}, lines[40:]...)...)
	var want []int64
	for _, artifact := range []*model.Artifact{a, nil} {
		for _, batch := range []int{1, 7, 1024} {
			f := &tally{}
			s := newScorer(t, artifact, score.Options{Followers: following(a, f)})
			out := run(t, s, lines, batch)
			if want == nil {
				want = f.ids
			}
			if len(f.ids) != 60 || !slices.Equal(f.ids, want) {
				t.Errorf("classifier %v, batch %d: %d transactions, want 60 in the order of the log", artifact != nil, batch, len(f.ids))
			}
			c := s.Counts()
			if c.Followed != 60 || c.Duplicates+c.Rejected != 3 || artifact == nil && c.Scored != 0 {
				t.Errorf("counts %+v", c)
			}
			if scored := 60 * btoi(artifact != nil); len(out) != scored+3 {
				t.Errorf("%d lines, want %d scores and 3 errors", len(out), scored)
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func following(a *model.Artifact, f score.Follower) []score.Following {
	return []score.Following{{Follower: f, Artifact: a}}
}

// A scorer that goes on from a saved state hands its followers what they have not seen.
func TestFollowersGoOn(t *testing.T) {
	a := modeltest.Artifact(t)
	lines := cards(4, 50, true)
	whole := &tally{}
	run(t, newScorer(t, nil, score.Options{Followers: following(a, whole)}), lines, 9)
	for _, cut := range []int{0, 1, 23, 50} {
		dir := filepath.Join(t.TempDir(), "state")
		before := newScorer(t, nil, score.Options{Followers: following(a, &tally{})})
		run(t, before, lines[:cut], 9)
		if err := before.SaveState(dir, false); err != nil {
			t.Fatal(err)
		}
		f := &tally{ids: []int64{-1}}
		s := newScorer(t, nil, score.Options{Followers: following(a, f)})
		if without, err := s.Warm(dir); err != nil || len(without) > 0 {
			t.Fatal(without, err)
		}
		run(t, s, lines[cut:], 9)
		if !slices.Equal(f.ids, whole.ids) {
			t.Errorf("cut at %d: %d transactions, want %d", cut, len(f.ids), len(whole.ids))
		}
	}
	// A state without the follower's: it is named and stays as it is.
	dir := filepath.Join(t.TempDir(), "state")
	if err := newScorer(t, nil, score.Options{Followers: following(a, other{})}).SaveState(dir, false); err != nil {
		t.Fatal(err)
	}
	f := &tally{ids: []int64{-1}}
	without, err := newScorer(t, nil, score.Options{Followers: following(a, f)}).Warm(dir)
	if err != nil || !slices.Equal(without, []string{"tally"}) || len(f.ids) != 1 {
		t.Errorf("%v, %v, %v", without, err, f.ids)
	}
}

type other struct{}

func (other) Task() string               { return "other" }
func (other) Fold(*datasets.Batch) error { return nil }
func (other) Snapshot(w io.Writer) error { return nil }
func (other) Restore(io.Reader) error    { return nil }

// A follower that fails stops the scorer before it writes a line whose events another model has not seen.
func TestFollowerFails(t *testing.T) {
	a := modeltest.Artifact(t)
	s := newScorer(t, a, score.Options{Followers: following(a, &tally{fail: errors.New("broken")})})
	ev := score.Events{Sources: []string{"x"}, Rows: datasets.NewBatch(mapping(t).LogSchema(), 1), Positions: []int64{1}}
	d, err := mapping(t).NewDecoder(strings.NewReader(cards(1, 1, true)[0]), "x", datasets.JSONL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Next(ev.Rows, 1); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	out, _, err := s.Process(ev, nil)
	if err == nil || !strings.Contains(fmt.Sprint(err), "tally: broken") || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
	if s.Err() == nil {
		t.Error("the scorer goes on")
	}
}

// A column that the events lack and the model makes do without is null to the follower; one that it needs, or that
// has another type, is refused at the start.
func TestFollowersSeeTheirColumns(t *testing.T) {
	a := modeltest.Artifact(t)
	without := func(name string) *datasets.Schema {
		s := &datasets.Schema{}
		for _, f := range mapping(t).LogSchema().Fields {
			if f.Name != name {
				s.Fields = append(s.Fields, f)
			}
		}
		return s
	}
	f := &columns{}
	s, err := score.New(score.Options{Followers: following(a, f), Schema: without(datasets.IsFraud)})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		rows := datasets.NewBatch(without(datasets.IsFraud), 1)
		rows.N = 1
		for i := range rows.Columns {
			c := &rows.Columns[i]
			switch name := rows.Schema.Fields[i].Name; {
			case name == datasets.Event:
				c.Strings = []string{datasets.EventTransaction}
			case rows.Schema.Fields[i].Type == datasets.String:
				c.Strings, c.Null = []string{""}, []bool{true}
			case name == datasets.KnownAt:
				c.Ints, c.Null = []int64{0}, []bool{true}
			default:
				c.Ints = []int64{start + int64(n)}
			}
		}
		if _, _, err := s.Process(score.Events{Sources: []string{"x"}, Rows: rows, Positions: []int64{int64(n)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if f.rows != 3 || f.null != 3 {
		t.Errorf("%d rows, %d without a label, want 3 and 3", f.rows, f.null)
	}
	if _, err := score.New(score.Options{Followers: following(a, f), Schema: without(datasets.Amount)}); err == nil || !strings.Contains(err.Error(), "amount") {
		t.Errorf("without amount: %v", err)
	}
	other := without("")
	other.Fields[other.Index(datasets.UserID)].Type = datasets.String
	if _, err := score.New(score.Options{Followers: following(a, f), Schema: other}); err == nil || !strings.Contains(err.Error(), "user_id is string here") {
		t.Errorf("user_id as text: %v", err)
	}
}

// columns is a follower that counts rows whose label is null.
type columns struct {
	other
	rows, null int
}

func (c *columns) Fold(b *datasets.Batch) error {
	label := b.Column(datasets.IsFraud)
	for i := range b.N {
		c.rows++
		if label.IsNull(i) {
			c.null++
		}
	}
	return nil
}
