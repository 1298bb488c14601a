package features

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
)

const explained = `name: explained
timezone: Europe/Berlin
label: {column: is_fraud, delay: 7d}
keep: [trans_id]
features:
  - {name: big, kind: expr, expr: "amount > 100", hidden: true}
  - {name: night, kind: calendar, of: night}
  - {name: "{kind}_{w}", kinds: [count, mean, std, min, distinct], of: store_id, key: user_id, windows: [7d],
	include_current: true}
  - {name: "pair_{w}", kind: sum, of: amount, key: [user_id, store_id], windows: [day, last 5, ever], where: "big"}
  - {name: gap, kind: since_last, key: user_id, windows: [30d]}
  - {name: "risk_{w}", kind: risk, key: store_id, windows: [30d], prior: {rate: 0.01, weight: 10}}
  - {name: decayed, kind: ewma, of: amount, key: user_id, half_life: 3d}
  - {name: twice, kind: expr, expr: "decayed * 2 + night"}
`

func TestExplainWords(t *testing.T) {
	spec, err := Parse("e.yaml", []byte(strings.Replace(explained, "kinds: [count, mean, std, min, distinct], of: "+
		"store_id", "kinds: [count, distinct], of: store_id", 1)))
	if err != nil {
		t.Fatal(err)
	}
	x, err := Explain(spec)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct{ words, columns string }{
		"big":      {"amount > 100", "amount"},
		"night":    {"night of the local time in Europe/Berlin: 1 from 00:00:00 to 06:59:59", "trans_datetime"},
		"count_7d": {"number of the user's purchases of the latest 7 days, this one included", "user_id trans_datetime"},
		"distinct_7d": {"number of different store_id in the user's purchases of the latest 7 days, this one included",
			"store_id user_id trans_datetime"},
		"pair_day": {"sum of amount over the purchases of the same user and store with (big) since the day began",
			"amount user_id store_id trans_datetime"},
		"pair_last5": {"sum of amount over the last 5 of the purchases of the same user and store with (big)", ""},
		"pair_ever":  {"sum of amount over all of the purchases of the same user and store with (big) so far", ""},
		"gap":        {"seconds since the last of the user's purchases of the latest 30 days", ""},
		"risk_30d": {"share of is_fraud in the store's purchases of the latest 30 days, as labels were known 7 days " +
			"after each, with 10 more at a share of 0.01", "is_fraud store_id " +
			"trans_datetime"},
		"decayed": {"mean of amount over all the user's purchases, each weighing half as much after 3 days", ""},
		"twice":   {"decayed * 2 + night", "amount user_id trans_datetime"},
	} {
		f := featureNamed(x, name)
		if f == nil {
			t.Errorf("%s is not explained", name)
			continue
		}
		if f.Words != want.words || want.columns != "" && strings.Join(f.Columns, " ") != want.columns {
			t.Errorf("%s: %q of %v\nwant %q of %s", name, f.Words, f.Columns, want.words, want.columns)
		}
	}
}

// skewedStream is n rows over many days of users by a power law, with stores of their own.
func skewedStream(n, users, stores int, power float64) *datasets.Batch {
	in := cardStream(n)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		in.Columns[1].Ints[i] = in.Columns[1].Ints[0] + int64(i)*int64(60*datasets.Day)/int64(n)
		in.Columns[2].Ints[i] = int64(float64(users) * math.Pow(rng.Float64(), power))
		in.Columns[3].Ints[i] = int64(float64(stores) * math.Pow(rng.Float64(), power))
	}
	return in
}

// The memory that is predicted from a sample of the keys is within 20 % of what a run takes up.
func TestPredictedMemory(t *testing.T) {
	many, err := Parse("many.yaml", []byte(strings.Replace(strings.Replace(explained, "kinds: [count, mean, std, min, "+
		"distinct], of: store_id",
		"kinds: [count, mean, std, min], of: amount", 1), "  - {name: gap",
		"  - {name: \"{kind}_s_{w}\", kinds: [distinct, mode], of: store_id, key: user_id, windows: [7d, ever]}\n  - "+
			"{name: gap", 1)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		spec   *Spec
		in     *datasets.Batch
		sample int64
	}{
		{"even keys", fraudSpec(t), skewedStream(200_000, 5_000, 10_000, 1), 25_000},
		{"a few heavy keys", fraudSpec(t), skewedStream(200_000, 40_000, 500, 6), 25_000},
		{"one row a key", fraudSpec(t), skewedStream(200_000, 10_000_000, 10_000, 1), 25_000},
		{"many kinds", many, skewedStream(200_000, 5_000, 2_000, 2), 25_000},
		{"all of it", many, skewedStream(20_000, 5_000, 2_000, 2), 25_000},
	} {
		d := store(t, datasets.KindTransactions, c.in, nil)
		b, err := newBackfill(RunOptions{Spec: c.spec, In: d, Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		p, err := b.predict(context.Background(), c.sample, func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		var used MemoryUse
		if _, err := Run(context.Background(), RunOptions{Spec: c.spec, In: d, Threads: 2, Used: &used}); err != nil {
			t.Fatal(err)
		}
		off := float64(p.State)/float64(used.State) - 1
		t.Logf("%s: %d keys in %g, %d predicted, %d taken, %+.1f %%", c.name, p.Keys[0].Distinct, p.Share, p.State,
			used.State, 100*off)
		if math.Abs(off) > 0.2 {
			t.Errorf("%s: predicted %d, a run takes %d", c.name, p.State, used.State)
		}
		state := t.TempDir() + "/s"
		if _, err := Run(context.Background(), RunOptions{Spec: c.spec, In: d, Threads: 2, Used: &used,
			StateOut: state}); err != nil {
			t.Fatal(err)
		}
		if off := float64(p.State+p.Records)/float64(used.State) - 1; math.Abs(off) > 0.2 {
			t.Errorf("%s: predicted %d with records, a run takes %d", c.name, p.State+p.Records, used.State)
		}
	}
}

func TestExplainFor(t *testing.T) {
	d := store(t, datasets.KindTransactions, monthStream(20_000), nil)
	x, err := ExplainFor(context.Background(), fraudSpec(t), d, func(string, int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Groups) < 2 || x.VisibleFeatures() != 15 {
		t.Fatalf("%d groups, %d features", len(x.Groups), x.VisibleFeatures())
	}
	g := featureNamed(x, "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW").Group
	if g == 0 || featureNamed(x, "CUSTOMER_ID_NB_TX_1DAY_WINDOW").Group != g || featureNamed(x, "TERMINAL_ID_RISK_7DAY_WINDOW").Group == g || featureNamed(x, "TX_AMOUNT").Group != 0 {
		t.Errorf("groups %+v", x.Groups)
	}
	e := x.Groups[g-1]
	if !slices.Equal(e.Key, []string{"user_id"}) || e.EntryBytes < 16 || e.HeadBytes < 16 || e.Kept != "31 "+
		"days" || e.NsPerEvent <= 0 || e.StateBytes <= 0 {
		t.Errorf("%+v", e)
	}
	if x.Cost.Rows < 8_000 || x.Cost.Total < x.Cost.Groups || x.Cost.Groups <= 0 {
		t.Errorf("%+v", x.Cost)
	}
	if x.Memory.State <= 0 || x.Memory.Records <= 0 || x.Memory.Keys[0].Distinct != 300 {
		t.Errorf("%+v", x.Memory)
	}
}

// featureNamed finds an explained feature, nil where there is none.
func featureNamed(x *Explanation, name string) *ExplainedFeature {
	i := slices.IndexFunc(x.Features, func(f ExplainedFeature) bool { return slices.Contains(f.Names, name) })
	if i < 0 {
		return nil
	}
	return &x.Features[i]
}
