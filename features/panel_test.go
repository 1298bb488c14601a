package features

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

// sale is a transaction of the panel tests.
type sale struct {
	t        int64
	part     int64
	seq      int64
	trans    string
	product  string // "" is null
	store    int64
	user     int64 // 0 is null
	quantity int64
	noQty    bool
	price    int64 // 1e-4; negative is null
	back     bool
}

var saleSchema = &datasets.Schema{Fields: []datasets.Field{
	{Name: datasets.TransID, Type: datasets.String}, {Name: datasets.TransDatetime, Type: datasets.Time},
	{Name: datasets.ProductID, Type: datasets.String, Nullable: true}, {Name: datasets.StoreID, Type: datasets.Int64},
	{Name: datasets.UserID, Type: datasets.Int64, Nullable: true}, {Name: datasets.Quantity, Type: datasets.Int64, Nullable: true},
	{Name: datasets.UnitPrice, Type: datasets.Decimal, Scale: 4, Nullable: true}, {Name: datasets.IsReturn, Type: datasets.Int64},
	{Name: Partition, Type: datasets.Int64}, {Name: datasets.Seq, Type: datasets.Int64},
}}

func salesBatch(sales []sale) *datasets.Batch {
	b := datasets.NewBatch(saleSchema, len(sales))
	for i := range b.Columns {
		if saleSchema.Fields[i].Nullable {
			b.Columns[i].Null = make([]bool, 0, len(sales))
		}
	}
	for _, s := range sales {
		c := b.Columns
		c[0].Strings = append(c[0].Strings, s.trans)
		c[1].Ints = append(c[1].Ints, s.t)
		c[2].Strings, c[2].Null = append(c[2].Strings, s.product), append(c[2].Null, s.product == "")
		c[3].Ints = append(c[3].Ints, s.store)
		c[4].Ints, c[4].Null = append(c[4].Ints, s.user), append(c[4].Null, s.user == 0)
		c[5].Ints, c[5].Null = append(c[5].Ints, s.quantity), append(c[5].Null, s.noQty)
		c[6].Ints, c[6].Null = append(c[6].Ints, max(0, s.price)), append(c[6].Null, s.price < 0)
		c[7].Ints = append(c[7].Ints, int64(btoi(s.back)))
		c[8].Ints = append(c[8].Ints, s.part)
		c[9].Ints = append(c[9].Ints, s.seq)
		b.N++
	}
	return b
}

const panelSpec = `name: t
timezone: %s
lateness: %s
where:
  - {column: product_id, not_in: [POST], matches: "^[^x]"}
panel:
  keys: [%s]
  step: %s
  fill: %s
  returns: {flag: is_return, undo: [user_id]}
  demand: {of: quantity}
  measures:
    - {name: sold, rows: sold, of: quantity}
    - {name: undone, rows: undone, of: quantity}
    - {name: returned, rows: returned, of: quantity}
    - {name: net, rows: all, of: quantity}
    - {name: mean_price, kind: mean, of: unit_price}
    - {name: lines, kind: count, rows: all}
    - {name: purchases, kind: distinct, of: trans_id}
  covariates:
    - {name: price, kind: last, of: unit_price}
    - {name: top_price, kind: max, of: unit_price}
    - {name: weekday, kind: calendar, of: weekday}
    - {name: hour, kind: calendar, of: hour}
    - {name: "demand_{n}", kind: lag, of: demand, lags: [1, 3]}
`

// naivePanel computes a panel of panelSpec from all sales at once: step after step, series after series, row after
// row, with nothing carried but what the definition says. It gives the rows as text.
type naivePanel struct {
	zone     *time.Location
	step     Step
	twoKeys  bool
	fillLast bool
	lateness int64
}

// start is when the step of t begins, by the clock: these zones change it by whole hours, not at midnight.
func (n *naivePanel) start(t int64) int64 {
	at := time.UnixMicro(t).In(n.zone)
	y, m, d := at.Date()
	switch n.step {
	case Hour:
		return t - int64(at.Minute())*datasets.Minute - int64(at.Second())*datasets.Second - int64(at.Nanosecond()/1000)
	case Week:
		d -= (int(at.Weekday()) + 6) % 7
	}
	return time.Date(y, m, d, 0, 0, 0, 0, n.zone).UnixMicro()
}

func (n *naivePanel) end(start int64) int64 {
	at := time.UnixMicro(start).In(n.zone)
	switch n.step {
	case Hour:
		return start + datasets.Hour
	case Week:
		return at.AddDate(0, 0, 7).UnixMicro()
	}
	return at.AddDate(0, 0, 1).UnixMicro()
}

func (n *naivePanel) series(s *sale) string {
	if n.twoKeys {
		return strings.NewReplacer(`\`, `\\`, `|`, `\|`).Replace(s.product) + "|" + fmt.Sprint(s.store)
	}
	return s.product
}

// rows are those of the steps that have ended by the bound, which is past all that is on time.
func (n *naivePanel) rows(sales []sale, upTo int64) (rows []string, late int) {
	watermark := int64(math.MinInt64)
	var kept []sale
	for _, s := range sales {
		watermark = max(watermark, s.t)
		if s.product == "POST" || strings.HasPrefix(s.product, "x") || s.product == "" || s.noQty {
			continue
		}
		if n.end(n.start(s.t)) <= watermark-n.lateness {
			late++
			continue
		}
		kept = append(kept, s)
	}
	if len(kept) == 0 {
		return nil, late
	}
	slices.SortFunc(kept, func(a, b sale) int {
		return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(a.part, b.part), cmp.Compare(a.seq, b.seq))
	})
	type cell struct {
		name string
		step int64
	}
	names, cells := map[string]bool{}, map[cell][]sale{}
	for i := range kept {
		c := cell{n.series(&kept[i]), n.start(kept[i].t)}
		names[c.name] = true
		cells[c] = append(cells[c], kept[i])
	}
	begun := map[string]bool{}
	price, last := map[string]float64{}, map[string]float64{}
	demands := map[string][]float64{}
	for step := n.start(kept[0].t); n.end(step) <= upTo; step = n.end(step) {
		for _, name := range slices.Sorted(keysOf(names)) {
			row, sold := n.row(cells[cell{name, step}])
			if !begun[name] && !sold {
				continue
			}
			begun[name] = true
			if !sold && n.fillLast {
				row[0] = last[name]
			}
			last[name] = row[0]
			if row[8] != 0 || row[9] != 0 {
				price[name] = row[8]
			}
			row[8] = price[name]
			at := time.UnixMicro(step).In(n.zone)
			row[9] = max(0, row[10])
			h := demands[name]
			lag := func(k int) float64 {
				if len(h) < k {
					return 0
				}
				return h[len(h)-k]
			}
			row = append(row[:10], float64((int(at.Weekday())+6)%7), float64(at.Hour()), lag(1), lag(3))
			demands[name] = append(h, row[0])
			rows = append(rows, fmt.Sprint(step, name, row))
		}
	}
	return rows, late
}

// keysOf are the keys of a set.
func keysOf(m map[string]bool) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// row is demand and the measures, then: the last price of a sale, whether there is one, and the highest price.
func (n *naivePanel) row(mine []sale) (row []float64, sold bool) {
	row = make([]float64, 11)
	undone := map[int]bool{}
	for i, r := range mine {
		if !r.back && r.quantity >= 0 {
			continue
		}
		for j := i - 1; j >= 0; j-- {
			s := mine[j]
			if !s.back && s.quantity > 0 && !undone[j] && s.user != 0 && s.user == r.user && (s.quantity == r.quantity || s.quantity == -r.quantity) {
				undone[i], undone[j] = true, true
				break
			}
		}
	}
	trans := map[string]bool{}
	var prices []int64
	for i, s := range mine {
		q := s.quantity
		back := s.back || q < 0
		if back && q > 0 {
			q = -q
		}
		row[4] += float64(q)
		row[6]++
		switch {
		case back && !undone[i]:
			row[3] = row[3] + math.Abs(float64(q))
		case back:
		case undone[i]:
			row[1] += float64(q)
			row[2] += float64(q)
		default:
			sold = true
			row[0] += float64(q)
			row[1] += float64(q)
			trans[s.trans] = true
			if s.price >= 0 {
				prices = append(prices, s.price)
			}
		}
		if !back && s.price >= 0 {
			row[8], row[9] = float64(s.price)/1e4, 1
			row[10] = max(row[10], float64(s.price)/1e4)
		}
	}
	row[7] = float64(len(trans))
	if len(prices) > 0 {
		var sum int64
		for _, p := range prices {
			sum += p
		}
		row[5] = float64(sum) / (float64(len(prices)) * 1e4)
	}
	return row, sold
}

// panelRows shows a panel's rows as naivePanel does.
func panelRows(b *datasets.Batch, keys int) []string {
	var list []string
	for i := range b.N {
		var v []float64
		for _, c := range b.Columns[2+keys:] {
			v = append(v, c.Floats[i])
		}
		list = append(list, fmt.Sprint(b.Columns[1+keys].Ints[i], b.Columns[0].Strings[i], v))
	}
	return list
}

func drawSales(t *rapid.T, around int64, jitter int64) []sale {
	n := rapid.IntRange(0, 60).Draw(t, "sales")
	var sales []sale
	for i := range n {
		s := sale{
			t: around + rapid.Int64Range(0, 6*24*60).Draw(t, "minute")*datasets.Minute, part: rapid.Int64Range(0, 2).Draw(t, "part"),
			trans: fmt.Sprint("t", rapid.IntRange(0, 8).Draw(t, "trans")), store: rapid.Int64Range(1, 2).Draw(t, "store"),
			product: rapid.SampledFrom([]string{"a", "b", "a|1", `c\`, "xx", "POST", ""}).Draw(t, "product"),
			user:    rapid.Int64Range(0, 2).Draw(t, "user"), quantity: rapid.Int64Range(-3, 3).Draw(t, "quantity"),
			noQty: rapid.IntRange(0, 19).Draw(t, "no quantity") == 0, price: rapid.Int64Range(-1, 3).Draw(t, "price") * 12345,
			back: rapid.IntRange(0, 3).Draw(t, "return") == 0, seq: int64(i),
		}
		if rapid.Bool().Draw(t, "on the hour") {
			s.t -= s.t % datasets.Hour
		}
		if s.noQty {
			s.quantity = 0
		}
		sales = append(sales, s)
	}
	// Log order: by time, each up to jitter late.
	at := make(map[int64]int64, n)
	for i := range sales {
		at[sales[i].seq] = sales[i].t + rapid.Int64Range(0, jitter/datasets.Minute).Draw(t, "late by")*datasets.Minute
	}
	slices.SortStableFunc(sales, func(a, b sale) int { return cmp.Compare(at[a.seq], at[b.seq]) })
	return sales
}

// runPanel folds a log cut into batches, restarting from a snapshot at each cut where asked, and ends all steps.
func runPanel(t rapid.TB, p *Plan, sales []sale, cuts []int, restart bool, upTo int64) ([]string, []byte, Counts) {
	t.Helper()
	q := p.NewPanel()
	out := datasets.NewBatch(p.Schema(), 0)
	from := 0
	for _, to := range append(slices.Clone(cuts), len(sales)) {
		if err := q.Process(salesBatch(sales[from:to]), out); err != nil {
			t.Fatal(err)
		}
		from = to
		if restart {
			q = restarted(t, p, q)
		}
	}
	var state bytes.Buffer
	if err := q.Snapshot(&state); err != nil {
		t.Fatal(err)
	}
	if err := q.Advance(upTo, out); err != nil {
		t.Fatal(err)
	}
	return panelRows(out, len(p.panel.keys)), state.Bytes(), q.Counts()
}

func restarted(t rapid.TB, p *Plan, q *Panel) *Panel {
	t.Helper()
	var state, again bytes.Buffer
	if err := q.Snapshot(&state); err != nil {
		t.Fatal(err)
	}
	next := p.NewPanel()
	next.counts = q.counts
	if err := next.Restore(bytes.NewReader(state.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := next.Snapshot(&again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(state.Bytes(), again.Bytes()) {
		t.Fatal("a restored state writes another snapshot")
	}
	return next
}

func equalRows(t *rapid.T, what string, want, got []string) {
	for i := range max(len(want), len(got)) {
		w, g := "nothing", "nothing"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			t.Fatalf("%s: row %d is\n%s; want\n%s", what, i, g, w)
		}
	}
}

// A panel is what its definition says, however the log is cut, whenever it is stopped and taken up, and in whatever
// order the partitions come.
func TestPanelOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"UTC", "Europe/London", "Asia/Kolkata", "America/New_York"}).Draw(t, "zone")
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		n := naivePanel{zone: loc, step: Step(rapid.SampledFrom(steps).Draw(t, "step")), twoKeys: rapid.Bool().Draw(t, "two keys"), fillLast: rapid.Bool().Draw(t, "fill")}
		n.lateness = rapid.SampledFrom([]int64{0, datasets.Hour, 36 * datasets.Hour}).Draw(t, "lateness")
		keys, fill := "product_id", "zero"
		if n.twoKeys {
			keys = "product_id, store_id"
		}
		if n.fillLast {
			fill = "last"
		}
		p := mustPlan(t, fmt.Sprintf(panelSpec, zone, datasets.FormatDuration(n.lateness), keys, n.step, fill), saleSchema)
		// Around both changes of the clock.
		around := time.Date(2011, rapid.SampledFrom([]time.Month{3, 10}).Draw(t, "month"), 25, 0, 0, 0, 0, time.UTC).UnixMicro()
		upTo := around + 9*datasets.Day
		if n.step == Week {
			upTo += 21 * datasets.Day
		}
		log := drawSales(t, around, rapid.SampledFrom([]int64{0, datasets.Hour, 3 * datasets.Day}).Draw(t, "jitter"))
		want, late := n.rows(log, upTo)
		got, state, counts := runPanel(t, p, log, nil, false, upTo)
		equalRows(t, "at once", want, got)
		if counts.Late != int64(late) {
			t.Fatalf("%d late; want %d", counts.Late, late)
		}
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(log)), 0, 5).Draw(t, "cuts")
		slices.Sort(cuts)
		for _, restart := range []bool{false, true} {
			got, s, c := runPanel(t, p, log, cuts, restart, upTo)
			equalRows(t, fmt.Sprintf("cut, restarted %v", restart), want, got)
			if !bytes.Equal(s, state) || c != counts {
				t.Fatalf("cut, restarted %v: another state or other counts: %+v; want %+v", restart, c, counts)
			}
		}
		// Another order of arrival, nobody later than the lateness.
		order := func(a, b sale) int {
			return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(a.part, b.part), cmp.Compare(a.seq, b.seq))
		}
		slices.SortFunc(log, order)
		want, _ = n.rows(log, upTo)
		wantRows, wantState, _ := runPanel(t, p, log, nil, false, upTo)
		equalRows(t, "sorted", want, wantRows)
		arrival := make(map[int64]int64, len(log))
		for i := range log {
			arrival[log[i].seq] = log[i].t + rapid.Int64Range(0, n.lateness/datasets.Minute).Draw(t, "delay")*datasets.Minute
		}
		shuffled := slices.Clone(log)
		slices.SortStableFunc(shuffled, func(a, b sale) int { return cmp.Compare(arrival[a.seq], arrival[b.seq]) })
		got, s, c := runPanel(t, p, shuffled, nil, true, upTo)
		equalRows(t, "another order of arrival", wantRows, got)
		if !bytes.Equal(s, wantState) || c.Late != 0 {
			t.Fatalf("another order of arrival: another state, %d late", c.Late)
		}
	})
}

// A damaged snapshot of either shape is refused, or is another sound state; it never panics.
func TestShapeSnapshotDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var sales []sale
	for i := range 200 {
		sales = append(sales, sale{t: int64(i) * datasets.Hour, seq: int64(i), trans: fmt.Sprint(i / 3), product: fmt.Sprint("p", i%7), user: int64(i%5) + 1, quantity: 1, price: 100})
	}
	for _, src := range []string{fmt.Sprintf(panelSpec, "UTC", "2d", "product_id, store_id", "day", "zero"), interSpec("1d", "2d", returnsRemove)} {
		p := mustPlan(t, src, saleSchema)
		fresh := func() saved {
			if p.panel != nil {
				return p.NewPanel()
			}
			return p.NewInteractions()
		}
		e := fresh()
		out := datasets.NewBatch(p.Schema(), 0)
		if err := e.(interface {
			Process(in, out *datasets.Batch) error
		}).Process(salesBatch(sales), out); err != nil {
			t.Fatal(err)
		}
		var state bytes.Buffer
		if err := e.Snapshot(&state); err != nil {
			t.Fatal(err)
		}
		if err := fresh().Restore(bytes.NewReader(state.Bytes())); err != nil {
			t.Fatal(err)
		}
		for range 3000 {
			bad := slices.Clone(state.Bytes())
			if r.IntN(4) == 0 {
				bad = bad[:r.IntN(len(bad))]
			} else {
				bad[r.IntN(len(bad))] ^= byte(1 + r.IntN(255))
			}
			if err := fresh().Restore(bytes.NewReader(bad)); err == nil {
				t.Fatal("a damaged state was taken up")
			}
		}
		other := mustPlan(t, strings.Replace(strings.Replace(src, "of: quantity", "of: unit_price", 1), "user: user_id", "user: store_id", 1), saleSchema)
		var err error
		if other.panel != nil {
			s, _ := Parse("t", []byte(strings.Replace(src, "step: day", "step: week", 1)))
			other, err = s.Plan(saleSchema)
			if err != nil {
				t.Fatal(err)
			}
			err = other.NewPanel().Restore(bytes.NewReader(state.Bytes()))
		} else {
			err = other.NewInteractions().Restore(bytes.NewReader(state.Bytes()))
		}
		if err == nil || !strings.Contains(err.Error(), "another definition") {
			t.Errorf("a state of another spec: %v", err)
		}
	}
}

// SeriesKeys takes apart what panels put together.
func TestSeriesKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(rapid.StringOf(rapid.RuneFrom([]rune(`a|\`+"`é"))), 2, 4).Draw(t, "keys")
		var escaped []string
		for _, k := range keys {
			escaped = append(escaped, seriesEscape.Replace(k))
		}
		text := strings.Join(escaped, "|")
		if got := SeriesKeys(text, len(keys)); !slices.Equal(got, keys) {
			t.Fatalf("%q is %q, want %q", text, got, keys)
		}
		if got := SeriesKeys(text, len(keys)+1); got != nil {
			t.Fatalf("%q has %d keys: %q", text, len(keys)+1, got)
		}
		if got := SeriesKeys(text, 1); len(got) != 1 || got[0] != text {
			t.Fatalf("%q as one key is %q", text, got)
		}
	})
}
