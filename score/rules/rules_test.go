package rules_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/rules"
)

func columns() rules.Columns {
	return rules.Columns{
		Events: &datasets.Schema{Fields: []datasets.Field{
			{Name: datasets.TransID, Type: datasets.Int64},
			{Name: datasets.UserID, Type: datasets.String},
			{Name: datasets.Amount, Type: datasets.Decimal, Scale: datasets.AmountScale},
			{Name: datasets.Channel, Type: datasets.String},
			{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
		}},
		Features: []string{"n_7d", "mean_7d"},
	}
}

// batch has four transactions and, in its second row, a label.
func batch() *rules.Batch {
	b := datasets.NewBatch(columns().Events, 5)
	b.N = 5
	b.Columns[0].Ints = []int64{1, 0, 2, 3, 4}
	b.Columns[1].Strings = []string{"ann", "", "bob", "cid", "dan"}
	b.Columns[2].Ints = []int64{10_0000, 0, 700_0000, 500_0000, 90_0000}
	b.Columns[3].Strings = []string{"web", "", "shop", "web", ""}
	b.Columns[3].Null = []bool{false, true, false, false, true}
	b.Columns[4].Ints, b.Columns[4].Null = make([]int64, 5), []bool{true, false, true, true, true}
	return &rules.Batch{
		Events: b, Input: []int32{0, 2, 3, 4}, N: 4,
		Values: [][]float64{{0, 3, 30, 1}, {1, 2, 3, 4}},
		Scores: []float64{0.9, 0.8, 0.1, 0.4}, Threshold: 0.5,
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

const good = `lists:
  blocked: {column: user_id, file: blocked.txt}
  friends: {column: user_id, file: friends.txt}
before:
  - name: blocked-card
    when: blocked
    then: block
    reason: on the list
  - name: many
    when: n_7d > 20 and channel == "web"
    then: allow
    reason: a regular
after:
  - name: suspect
    when: score >= 0.8 and not friends
    then: review
    reason: the model doubts it
  - name: dear
    when: |
      alert and
      amount > 5
    then: block
    reason: never reached by what suspect took
`

func TestDecides(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "blocked.txt", "# cards\nann # stolen\n\nzoe\n")
	write(t, dir, "friends.txt", "")
	s, err := rules.Open(write(t, dir, "rules.yaml", good), columns())
	if err != nil {
		t.Fatal(err)
	}
	out := make([]int32, 4)
	b := batch()
	if !s.Before(b, out) || !slices.Equal(out, []int32{0, rules.None, 1, rules.None}) {
		t.Fatal("before the model:", out)
	}
	if !s.After(b, out) || !slices.Equal(out, []int32{0, 2, 1, rules.None}) {
		t.Fatal("after the model:", out)
	}
	b.Scores[3] = 0.6
	s.Before(b, out)
	s.After(b, out)
	if !slices.Equal(out, []int32{0, 2, 1, 3}) {
		t.Fatal("with another score:", out)
	}
	if r := s.Rules()[3]; r.Name != "dear" || r.Then != rules.Block || r.Before {
		t.Errorf("%+v", r)
	}
	if n := testing.AllocsPerRun(100, func() { s.Before(b, out); s.After(b, out) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

// TestChanged: a list is a part of the rules.
func TestChanged(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "blocked.txt", "ann\n")
	write(t, dir, "friends.txt", "")
	path := write(t, dir, "rules.yaml", good)
	s, err := rules.Open(path, columns())
	if err != nil {
		t.Fatal(err)
	}
	if s.Changed() {
		t.Error("nothing changed")
	}
	if err := os.Remove(filepath.Join(dir, "friends.txt")); err != nil {
		t.Fatal(err)
	}
	if s.Changed() {
		t.Error("a file that is gone is being replaced")
	}
	write(t, dir, "friends.txt", "bob\n")
	if err := os.Chtimes(filepath.Join(dir, "friends.txt"), time.Time{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if !s.Changed() {
		t.Error("a list changed")
	}
	// Other columns, the same text.
	c := columns()
	c.Features = c.Features[:1]
	if _, err := s.Bind(c); err != nil {
		t.Error(err)
	}
	c.Features = nil
	if _, err := s.Bind(c); err == nil || !strings.Contains(err.Error(), "there is no column n_7d") {
		t.Error(err)
	}
}

// TestFaults: all of them at once, each where it stands.
func TestFaults(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "blocked.txt", "ann\n")
	path := write(t, dir, "rules.yaml", `lists:
  blocked: {column: user, file: blocked.txt}
  outside: {column: user_id, file: ../secret.txt}
  missing: {column: user_id, file: none.txt}
  my-list: {colum: user_id, file: blocked.txt}
before:
  - name: early
    when: score > 0.5
    then: block
    reason: too early
  - name: label
    when: is_fraud
    then: block
    reason: the future
  - name: early
    when: amuont > 5 and nn_7d > "x"
    then: blok
    reason: typos
  - name: word
    when: "amount + 1"
    then: allow
    resaon: x
after:
  - name: last
    when: >-
      score >
    then: review
    reason: unfinished
`)
	_, err := rules.Open(path, columns())
	if err == nil {
		t.Fatal("accepted")
	}
	got := strings.ReplaceAll(err.Error(), path, "F")
	for _, want := range []string{
		`F:2:21: list blocked: there is no column user`,
		`F:3:36: list outside: "../secret.txt" is not the name of a file beside the rules`,
		`F:4:36: list missing:`,
		`F:5:3: list my-list: a list's name is letters, digits and _`,
		`F:5:13: list my-list: unknown field "colum" (did you mean "column"?)`,
		`F:5:3: list my-list: the field column is missing`,
		`F:8:11: rule early: when: the score is not known before the model: move the rule to after`,
		`F:12:11: rule label: when: is_fraud is the label, which is not known when a transaction is decided`,
		`F:15:11: before rule 3: there are two rules early`,
		`F:16:11: rule early: when: there is no column amuont; did you mean amount?`,
		`F:16:26: rule early: when: there is no column nn_7d; did you mean n_7d?`,
		`F:17:11: before rule 3: then: "blok" (did you mean "block"?); want block, review, allow`,
		`F:20:12: rule word: when: a condition is needed`,
		`F:22:5: before rule 4: unknown field "resaon" (did you mean "reason"?)`,
		`F:19:5: before rule 4: the field reason is missing`,
		`F:26:13: rule last: when: unexpected token EOF`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestNotRules(t *testing.T) {
	for _, text := range []string{"", "a: [", "- x", "rules: 3", "before: []", "\xff", "before: [{name: a}]", "after: 7"} {
		path := write(t, t.TempDir(), "rules.yaml", text)
		if _, err := rules.Open(path, columns()); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	if _, err := rules.Open(filepath.Join(t.TempDir(), "none.yaml"), columns()); err == nil {
		t.Error("a file that is not there was read")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("after: [{name: a, when: score > 0, then: block, reason: x}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "rules.yaml")
		os.WriteFile(path, text, 0o666)
		s, err := rules.Open(path, columns())
		if err != nil {
			return
		}
		out := make([]int32, 4)
		b := batch()
		s.Before(b, out)
		s.After(b, out)
	})
}

func BenchmarkRules(b *testing.B) {
	dir := b.TempDir()
	os.WriteFile(filepath.Join(dir, "blocked.txt"), []byte("ann\n"), 0o666)
	os.WriteFile(filepath.Join(dir, "friends.txt"), nil, 0o666)
	path := filepath.Join(dir, "rules.yaml")
	os.WriteFile(path, []byte(good), 0o666)
	s, err := rules.Open(path, columns())
	if err != nil {
		b.Fatal(err)
	}
	in, out := batch(), make([]int32, 4)
	in.N = 1
	for b.Loop() {
		s.Before(in, out)
		s.After(in, out)
	}
}
