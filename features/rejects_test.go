package features

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
)

func rejectsOf(t *testing.T, path string) []Reject {
	t.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var list []Reject
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		var r Reject
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// holed is a card stream in which every hundredth row has no amount.
func holed(n int) *datasets.Batch {
	in := cardStream(n)
	in.Schema = &datasets.Schema{Fields: slices.Clone(in.Schema.Fields)}
	at := in.Schema.Index(datasets.Amount)
	in.Schema.Fields[at].Nullable = true
	in.Columns[at].Null = make([]bool, n)
	for i := 7; i < n; i += 100 {
		in.Columns[at].Null[i], in.Columns[at].Ints[i] = true, 0
	}
	return in
}

// Rows that lack a value are listed with their place and the reason, and counted; the others have their features.
func TestRejectsAreListed(t *testing.T) {
	in := holed(70_000) // more than a batch
	d := store(t, datasets.KindTransactions, in, nil)
	dir, m := runTo(t, RunOptions{Spec: fraudSpec(t), In: d, Threads: 2})
	list := rejectsOf(t, filepath.Join(dir, RejectsFile))
	if m.Counts["invalid"] != 700 || len(list) != 700 || m.Rows != 69_300 {
		t.Fatalf("%d rejects, %d rows, %v", len(list), m.Rows, m.Counts)
	}
	for i, r := range list {
		at := int64(7 + 100*i)
		if r.Position != at || r.TransID != float64(in.Columns[0].Ints[at]) || r.Status != "invalid" || r.Column != "amount" ||
			r.Reason != "amount has no value, and the features need it" || r.Time != datasets.FormatTime(in.Columns[1].Ints[at]) {
			t.Fatalf("%+v", r)
		}
	}
	dir, _ = runTo(t, RunOptions{Spec: fraudSpec(t), In: store(t, datasets.KindTransactions, cardStream(100), nil)})
	if list := rejectsOf(t, filepath.Join(dir, RejectsFile)); list != nil {
		t.Errorf("rejects of good rows: %v", list)
	}
}

func TestMaxRejects(t *testing.T) {
	d := store(t, datasets.KindTransactions, holed(1000), nil)
	out := filepath.Join(t.TempDir(), "f")
	share := 0.005
	o := RunOptions{Spec: fraudSpec(t), In: d, Out: out, MaxRejects: &share}
	_, err := Run(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "10 of 1000 rows are invalid, more than --max-rejects 0.005 "+
		"allows; the first is row 8 of ") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was left behind")
	}
	if list := rejectsOf(t, out+"."+RejectsFile); len(list) != 10 || list[9].Position != 907 {
		t.Errorf("%v", list)
	}
	if share = 0.01; share > 0 {
		if _, err := Run(context.Background(), o); err != nil {
			t.Error(err)
		}
	}
	share = 0
	o.Force = true
	if _, err := Run(context.Background(), o); err == nil {
		t.Error("a share of 0 allows none")
	}
}

// What the spec's policies set aside is listed too, each with its reason.
func TestRejectsByPolicy(t *testing.T) {
	spec, err := Parse("p.yaml", []byte(`name: p
lateness: 1h
late: {policy: skip}
duplicates: {within: 1d}
future: {beyond: 10d}
keep: [trans_id]
features: [{name: n, kind: count, key: user_id, windows: [7d]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	d := store(t, datasets.KindLog, toBatch(logSchema(false, false), []fact{
		{id: 1, t: 100 * hour, user: 1, store: 1, amount: 1, y: -1},
		{id: 2, t: 98 * hour, user: 1, store: 1, amount: 1, y: -1},    // late
		{id: 1, t: 100 * hour, user: 1, store: 1, amount: 1, y: -1},   // delivered twice
		{id: 3, t: 9_000 * hour, user: 1, store: 1, amount: 1, y: -1}, // a year ahead
		{id: 4, t: 101 * hour, user: 1, store: 1, amount: 1, y: -1},
	}), nil)
	dir, m := runTo(t, RunOptions{Spec: spec, In: d})
	want := []struct {
		position int64
		status   string
		reason   string
	}{
		{1, "late_skipped", "it is more than the lateness of 1h behind the newest before it, and the spec skips such rows"},
		{2, "duplicate", "its trans_id and line were there already"},
		{3, "future", "it is more than 10d after the newest before it, and none before it agrees"},
	}
	list := rejectsOf(t, filepath.Join(dir, RejectsFile))
	if len(list) != len(want) || m.Rows != 2 || m.Counts["duplicates"] != 1 || m.Counts["future"] != 1 || m.Counts["late_skipped"] != 1 {
		t.Fatalf("%+v, %v", list, m.Counts)
	}
	for i, w := range want {
		if r := list[i]; r.Position != w.position || r.Status != w.status || r.Reason != w.reason {
			t.Errorf("%+v, want %+v", r, w)
		}
	}
}
