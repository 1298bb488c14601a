package features

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
)

func verified(t *testing.T, o VerifyOptions) *Verification {
	t.Helper()
	v, err := Verify(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerify(t *testing.T) {
	in := monthStream(30_000)
	d := store(t, datasets.KindTransactions, in, nil)
	spec := fraudSpec(t)
	out, _ := runTo(t, RunOptions{Spec: spec, In: d})
	o := VerifyOptions{Spec: spec, In: d, Sample: 500, Threads: 2}
	v := verified(t, o)
	if v.Rows != 30_000 || v.Checked != 500 || v.Values < 490*15 || v.Mismatched != 0 {
		t.Errorf("%+v", v)
	}
	o.Against = open(t, out)
	if v := verified(t, o); v.Checked != 500 || v.Mismatched != 0 || v.Values < 490*15 {
		t.Errorf("%+v", v)
	}
	o.Seed, o.Range = 9, datasets.Range{From: in.Columns[1].Ints[29_000], To: in.Columns[1].Ints[29_999] + 1}
	if v := verified(t, o); v.Checked != 500 || v.Mismatched != 0 {
		t.Errorf("%+v", v)
	}
	part, _ := runTo(t, RunOptions{Spec: spec, In: d, Range: o.Range})
	o.Against, o.Range, o.Sample = open(t, part), datasets.Range{}, 20_000
	if v := verified(t, o); v.Checked < 500 || v.Checked > 1300 || v.Mismatched != 0 {
		t.Errorf("%+v", v)
	}
}

// A value that was changed in a features data set is found where its row is in the sample, and the row is named.
func TestVerifyFindsAChangedValue(t *testing.T) {
	d := store(t, datasets.KindTransactions, monthStream(3_000), nil)
	spec := fraudSpec(t)
	out, _ := runTo(t, RunOptions{Spec: spec, In: d})
	old := open(t, out)
	dir := filepath.Join(t.TempDir(), "changed")
	w, err := datasets.Create(dir, datasets.KindFeatures, old.Schema(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	at := old.Schema().Index("CUSTOMER_ID_NB_TX_7DAY_WINDOW")
	if err := old.Read(context.Background(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		b.Columns[at].Floats[1234]++
		return w.Write(b)
	}); err != nil {
		t.Fatal(err)
	}
	w.Manifest().Extra = old.Manifest().Extra
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	v := verified(t, VerifyOptions{Spec: spec, In: d, Against: open(t, dir), Sample: 3_000})
	if v.Mismatched != 1 || v.Mismatches[0].Feature != "CUSTOMER_ID_NB_TX_7DAY_WINDOW" || v.Mismatches[0].TransID != "1247" {
		t.Errorf("%+v", v)
	}
}

func TestVerifyRefusals(t *testing.T) {
	d := store(t, datasets.KindTransactions, cardStream(200), nil)
	spec := fraudSpec(t)
	later, err := spec.WithDelay(3 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	baskets, err := Builtin("shop-interactions")
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := runTo(t, RunOptions{Spec: spec, In: d})
	log := store(t, datasets.KindLog, toBatch(logSchema(false, false), []fact{{id: 1, t: hour, store: 1, user: 1,
		amount: 1, y: -1}}),
		map[string][]byte{StartStateFile: snapshot(t, handbookPlan(t, logSchema(false, false)).NewEngine(1))})
	for _, c := range []struct {
		name string
		o    VerifyOptions
		want string
	}{
		{"no sample", VerifyOptions{Spec: spec, In: d}, "want 1 or more"},
		{"another shape", VerifyOptions{Spec: baskets, In: d, Sample: 1}, "features of transactions can be verified"},
		{"another spec", VerifyOptions{Spec: later, In: d, Against: open(t, dir), Sample: 1}, "give the spec that it was " +
			"made of"},
		{"other data", VerifyOptions{Spec: spec, In: store(t, datasets.KindTransactions, cardStream(300), nil),
			Against: open(t, dir), Sample: 1}, "was made of other data"},
		{"a log with a past", VerifyOptions{Spec: spec, In: log, Sample: 1}, "had history before it"},
		{"an empty range", VerifyOptions{Spec: spec, In: d, Sample: 1, Range: datasets.Range{From: 1, To: 2}}, "no " +
			"transaction to verify"},
	} {
		if _, err := Verify(context.Background(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A log with labels and duplicates, and a spec of many kinds.
func TestVerifyManyKinds(t *testing.T) {
	spec, err := Parse("many.yaml", []byte(`name: many
label: {column: is_fraud, delay: 2d}
keep: [trans_id, trans_datetime]
features:
  - {name: "{kind}_{key}_{w}", kinds: [count, sum, mean, std, min, max, since_last], of: amount, keys: [user_id,
	[user_id, store_id]], windows: [1d, day, last 5, ever]}
  - {name: "risk_{w}", kind: risk, key: store_id, windows: [7d, ever], prior: {rate: 0.01, weight: 5}}
  - {name: decayed, kind: ewma, of: amount, key: user_id, half_life: 3d}
  - {name: twice, kind: expr, expr: "amount * 2 + decayed"}
`))
	if err != nil {
		t.Fatal(err)
	}
	d := store(t, datasets.KindTransactions, monthStream(8_000), nil)
	v := verified(t, VerifyOptions{Spec: spec, In: d, Sample: 300, Threads: 2})
	if v.Checked != 300 || v.Mismatched != 0 || v.Values < 290*55 {
		t.Errorf("%d of %d values, %+v", v.Mismatched, v.Values, v.Mismatches[:min(5, len(v.Mismatches))])
	}
	names := []string{}
	for _, m := range v.Mismatches {
		if !slices.Contains(names, m.Feature) {
			names = append(names, m.Feature)
		}
	}
	if len(names) > 0 {
		t.Errorf("features that differ: %v", names)
	}
}
