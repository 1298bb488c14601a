package features

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

func interSpec(lateness, hold, policy string) string {
	undo := ""
	if policy == returnsRemove {
		undo = ", undo: [store_id]"
	}
	return fmt.Sprintf(`name: t
lateness: %s
where:
  - {column: product_id, not_in: [POST]}
interactions:
  user: user_id
  item: product_id
  weight: quantity
  hold: %s
  returns: {flag: is_return, policy: %s%s}
  keep: [unit_price]
`, lateness, hold, policy, undo)
}

// naiveInteractions computes interactions of interSpec from all lines in canonical order: each line looks for the row
// of its purchase among all rows.
func naiveInteractions(lines []sale, hold int64, policy string) []string {
	type row struct {
		lines []sale
		undo  []bool
		first sale
	}
	var rows []*row
	isBack := func(s *sale) bool { return s.back || s.quantity < 0 }
	for _, l := range lines {
		back := isBack(&l)
		if back && policy == returnsIgnore {
			continue
		}
		if back && policy == returnsRemove {
			var best *bool
			// Lines of several rows interleave: take the latest of all.
			var latest sale
			for _, r := range rows {
				for i := range r.lines {
					s := &r.lines[i]
					if r.first.t+hold < l.t || r.undo[i] || s.user != l.user || s.product != l.product || s.store != l.store || s.t < l.t-hold ||
						s.quantity != l.quantity && s.quantity != -l.quantity {
						continue
					}
					if best == nil || saleOrder(latest, *s) < 0 {
						best, latest = &r.undo[i], *s
					}
				}
			}
			if best != nil {
				*best = true
			}
			continue
		}
		at := slices.IndexFunc(rows, func(r *row) bool {
			return r.first.trans == l.trans && r.first.user == l.user && r.first.product == l.product && isBack(&r.first) == back && r.first.t+hold >= l.t
		})
		if at < 0 {
			rows = append(rows, &row{first: l})
			at = len(rows) - 1
		}
		rows[at].lines, rows[at].undo = append(rows[at].lines, l), append(rows[at].undo, false)
	}
	var list []string
	for _, r := range rows {
		weight, some := 0.0, false
		for i := range r.lines {
			if !r.undo[i] {
				weight, some = weight+math.Abs(float64(r.lines[i].quantity)), true
			}
		}
		if !some {
			continue
		}
		if isBack(&r.first) {
			weight = 0 - weight
		}
		price := "-"
		if r.first.price >= 0 {
			price = fmt.Sprint(r.first.price)
		}
		list = append(list, fmt.Sprint(r.first.user, r.first.product, r.first.t, weight, r.first.trans, price))
	}
	return list
}

func saleOrder(a, b sale) int {
	return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(a.part, b.part), cmp.Compare(a.seq, b.seq))
}

func interRows(b *datasets.Batch) []string {
	var list []string
	for i := range b.N {
		price := "-"
		if !b.Columns[5].IsNull(i) {
			price = fmt.Sprint(b.Columns[5].Ints[i])
		}
		weight := b.Columns[3].Floats[i]
		list = append(list, fmt.Sprint(b.Columns[0].Ints[i], b.Columns[1].Strings[i], b.Columns[2].Ints[i], weight, b.Columns[4].Strings[i], price))
	}
	return list
}

func runInteractions(t *rapid.T, p *Plan, lines []sale, cuts []int, restart bool) ([]string, []byte, Counts) {
	e := p.NewInteractions()
	out := datasets.NewBatch(p.Schema(), 0)
	from := 0
	for _, to := range append(slices.Clone(cuts), len(lines)) {
		if err := e.Process(salesBatch(lines[from:to]), out); err != nil {
			t.Fatal(err)
		}
		from = to
		if !restart {
			continue
		}
		var state, again bytes.Buffer
		if err := e.Snapshot(&state); err != nil {
			t.Fatal(err)
		}
		next := p.NewInteractions()
		next.counts = e.counts
		if err := next.Restore(bytes.NewReader(state.Bytes())); err != nil {
			t.Fatal(err)
		}
		if err := next.Snapshot(&again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(state.Bytes(), again.Bytes()) {
			t.Fatal("a restored state writes another snapshot")
		}
		e = next
	}
	var state bytes.Buffer
	if err := e.Snapshot(&state); err != nil {
		t.Fatal(err)
	}
	if err := e.Advance(math.MaxInt64, out); err != nil {
		t.Fatal(err)
	}
	return interRows(out), state.Bytes(), e.Counts()
}

func TestInteractionsOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lateness := rapid.SampledFrom([]int64{0, datasets.Hour, 2 * datasets.Day}).Draw(t, "lateness")
		hold := rapid.SampledFrom([]int64{0, 2 * datasets.Hour, 2 * datasets.Day}).Draw(t, "hold")
		policy := rapid.SampledFrom(returnPolicies).Draw(t, "policy")
		p := mustPlan(t, interSpec(datasets.FormatDuration(lateness), datasets.FormatDuration(hold), policy), saleSchema)
		lines := drawSales(t, 0, 0)
		slices.SortFunc(lines, saleOrder)
		kept := slices.DeleteFunc(slices.Clone(lines), func(s sale) bool { return s.product == "" || s.product == "POST" || s.user == 0 || s.noQty })
		want := naiveInteractions(kept, hold, policy)
		got, state, counts := runInteractions(t, p, lines, nil, false)
		equalRows(t, "at once", want, got)
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(lines)), 0, 5).Draw(t, "cuts")
		slices.Sort(cuts)
		for _, restart := range []bool{false, true} {
			got, s, c := runInteractions(t, p, lines, cuts, restart)
			equalRows(t, fmt.Sprintf("cut, restarted %v", restart), want, got)
			if !bytes.Equal(s, state) || c != counts {
				t.Fatalf("cut, restarted %v: another state or other counts: %+v; want %+v", restart, c, counts)
			}
		}
		arrival := make(map[int64]int64, len(lines))
		for i := range lines {
			arrival[lines[i].seq] = lines[i].t + rapid.Int64Range(0, lateness/datasets.Minute).Draw(t, "delay")*datasets.Minute
		}
		slices.SortStableFunc(lines, func(a, b sale) int { return cmp.Compare(arrival[a.seq], arrival[b.seq]) })
		got, s, c := runInteractions(t, p, lines, nil, true)
		equalRows(t, "another order of arrival", want, got)
		if !bytes.Equal(s, state) || c.Late != 0 {
			t.Fatalf("another order of arrival: another state, or %d late", c.Late)
		}
	})
}

// Restarts change nothing where lines are late either, and every line that was kept gives its units.
func TestInteractionsLate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := rapid.SampledFrom(returnPolicies).Draw(t, "policy")
		p := mustPlan(t, interSpec("1h", "2h", policy), saleSchema)
		lines := drawSales(t, 0, 3*datasets.Day)
		want, state, counts := runInteractions(t, p, lines, nil, false)
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(lines)), 1, 5).Draw(t, "cuts")
		slices.Sort(cuts)
		got, s, c := runInteractions(t, p, lines, cuts, true)
		equalRows(t, "restarted", want, got)
		if !bytes.Equal(s, state) || c != counts {
			t.Fatal("restarted: another state or other counts")
		}
	})
}

func TestInteractionsText(t *testing.T) {
	p := mustPlan(t, `name: t
lateness: 0s
interactions: {user: user_id, item: product_id, hold: 10m}
`, saleSchema)
	lines := []sale{
		{t: 0, seq: 0, trans: "A", product: "p", user: 1, quantity: 2, price: 5},
		{t: datasets.Minute, seq: 1, trans: "A", product: "q", user: 1, quantity: 1, price: 5},
		{t: datasets.Minute, seq: 2, trans: "A", product: "p", user: 1, quantity: 7, price: 5},
		{t: 2 * datasets.Minute, seq: 3, trans: "B", product: "p", user: 2, quantity: 1, price: 5},
		{t: datasets.Hour, seq: 4, trans: "A", product: "p", user: 1, quantity: 1, price: 5},
	}
	e := p.NewInteractions()
	out := datasets.NewBatch(p.Schema(), 0)
	if err := e.Process(salesBatch(lines), out); err != nil {
		t.Fatal(err)
	}
	if err := e.Advance(math.MaxInt64, out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range out.N {
		got = append(got, fmt.Sprint(out.Columns[0].Ints[i], out.Columns[1].Strings[i], out.Columns[2].Ints[i]/datasets.Minute, out.Columns[3].Floats[i], out.Columns[4].Strings[i]))
	}
	if want := "1p0 1A 1q1 1A 2p2 1B 1p60 1A"; strings.Join(got, " ") != want {
		t.Errorf("got %s; want %s", strings.Join(got, " "), want)
	}
}
