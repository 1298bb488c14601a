package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
)

// topSeries is how many series, or items, inspect shows by name.
const topSeries = 5

// panelReport is what inspect says of a panel beside its columns.
type panelReport struct {
	Spec     string         `json:"spec"` // name
	Step     features.Step  `json:"step"`
	Timezone string         `json:"timezone"`
	Seasons  []int          `json:"seasons"`
	Keys     []string       `json:"keys"`
	Series   int            `json:"series"`
	Steps    int            `json:"steps"`
	Zeros    float64        `json:"zero_share"` // of the rows
	Demand   float64        `json:"demand"`     // of all series and steps
	Partial  string         `json:"partial,omitempty"`
	Largest  []seriesReport `json:"largest"` // by demand

	roles  map[string]features.Role
	totals []float64 // demand by step
}

// seriesReport is one series of a panel.
type seriesReport struct {
	Series string  `json:"series"`
	First  string  `json:"first"` // step
	Steps  int     `json:"steps"`
	Demand float64 `json:"demand"`
	Zeros  float64 `json:"zero_share"`

	values []float64 // by step of the panel
}

// inspectPanel reads the demand of a panel: once for the sums, once more for the largest series.
func inspectPanel(ctx context.Context, d *datasets.Dataset) (*panelReport, error) {
	made, err := features.MadeFrom(d)
	if err != nil || made.Panel == nil {
		return nil, err
	}
	p := made.Panel
	r := &panelReport{Step: p.Step, Timezone: p.Timezone, Seasons: p.Seasons, Keys: p.Keys, Partial: p.Partial,
		roles: map[string]features.Role{}}
	if spec, err := features.Parse(d.Dir(), []byte(made.Spec)); err == nil {
		r.Spec = spec.Name()
	}
	for _, c := range p.Columns {
		r.roles[c.Name] = c.Role
	}
	all := map[string]*seriesReport{}
	zeros, rows := map[string]int{}, 0
	step := int64(0)
	if err := readPanel(ctx, d, func(name string, at int64, demand float64) {
		if r.Steps == 0 || at != step {
			step = at
			r.Steps++
			r.totals = append(r.totals, 0)
		}
		s := all[name]
		if s == nil {
			s = &seriesReport{Series: strings.Clone(name), First: datasets.FormatTime(at)}
			all[s.Series] = s
		}
		s.Steps++
		s.Demand += demand
		r.totals[len(r.totals)-1] += demand
		if demand == 0 {
			zeros[s.Series]++
		}
		rows++
	}); err != nil {
		return nil, err
	}
	r.Series = len(all)
	for name, s := range all {
		s.Zeros = float64(zeros[name]) / float64(s.Steps)
		r.Zeros += float64(zeros[name]) / float64(max(1, rows))
		r.Largest = append(r.Largest, *s)
	}
	for _, v := range r.totals {
		r.Demand += v
	}
	slices.SortFunc(r.Largest, func(a, b seriesReport) int {
		return cmp.Or(cmp.Compare(b.Demand, a.Demand), cmp.Compare(a.Series, b.Series))
	})
	r.Largest = r.Largest[:min(topSeries, len(r.Largest))]
	return r, r.curves(ctx, d)
}

// curves reads the demand of the largest series step by step.
func (r *panelReport) curves(ctx context.Context, d *datasets.Dataset) error {
	at := map[string]int{}
	for i := range r.Largest {
		at[r.Largest[i].Series] = i
		r.Largest[i].values = make([]float64, r.Steps)
	}
	number, step := -1, int64(0)
	return readPanel(ctx, d, func(name string, t int64, demand float64) {
		if number < 0 || t != step {
			step = t
			number++
		}
		if i, ok := at[name]; ok {
			r.Largest[i].values[number] = demand
		}
	})
}

func readPanel(ctx context.Context, d *datasets.Dataset, f func(series string, step int64, demand float64)) error {
	columns := []string{features.ColumnSeries, features.ColumnStep, features.ColumnDemand}
	return d.Read(ctx, datasets.ReadOptions{Columns: columns}, func(b *datasets.Batch) error {
		for i := range b.N {
			f(b.Columns[0].Strings[i], b.Columns[1].Ints[i], b.Columns[2].Floats[i])
		}
		return nil
	})
}

// sparkline draws values from 0 as bars of eighths, sums of several steps where there are more than fit.
func sparkline(values []float64, width int) string {
	per := max(1, (len(values)+width-1)/width)
	var sums []float64
	for i, v := range values {
		if i%per == 0 {
			sums = append(sums, 0)
		}
		sums[len(sums)-1] += v
	}
	top := 0.0
	for _, v := range sums {
		top = max(top, v)
	}
	bars := []rune(" ▁▂▃▄▅▆▇█")
	var line strings.Builder
	for _, v := range sums {
		at := 0
		if v > 0 {
			at = max(1, min(8, int(v/top*8+.5))) // a step with any demand shows
		}
		line.WriteRune(bars[at])
	}
	return line.String()
}

// seriesWidth is the most columns of a series' curve beside its figures.
const seriesWidth = 48

func (r *panelReport) write(w io.Writer) error {
	fmt.Fprintf(w, "\na panel of %s: %s series of %s by %s steps of %s (%s), seasons %s\n", r.Spec,
		progress.Count(int64(r.Series)), strings.Join(r.Keys, " and "),
		progress.Count(int64(r.Steps)), oneStep(r.Step), r.Timezone, joinInts(r.Seasons))
	roles := map[features.Role][]string{}
	for name, role := range r.roles {
		roles[role] = append(roles[role], name)
	}
	for _, x := range []struct {
		role  features.Role
		words string
	}{{features.RoleMeasure, "measures"}, {features.RolePast, "known up to now"}, {features.RoleKnown,
		"known in advance"}} {
		if names := roles[x.role]; len(names) > 0 {
			fmt.Fprintf(w, "  %-17s %s\n", x.words, strings.Join(slices.Sorted(slices.Values(names)), ", "))
		}
	}
	fmt.Fprintf(w, "  %-17s %s in all; %.0f %% of the rows are 0\n", "demand", short(r.Demand), 100*r.Zeros)
	if r.Partial != "" {
		fmt.Fprintf(w, "  the data end inside the last step, which begins at %s\n", r.Partial)
	}
	if r.Steps == 0 {
		return nil
	}
	per := (r.Steps + daysWidth - 1) / daysWidth
	fmt.Fprintf(w, "\ndemand of all series, %d %s a column:\n%s\n\n", per, plural(per, string(r.Step)),
		sparkline(r.totals, daysWidth))
	t := newTable("largest series", "demand", "per "+string(r.Step), "zeros", "from the panel's first step to its last")
	for _, s := range r.Largest {
		t.add(s.Series, short(s.Demand), short(s.Demand/float64(s.Steps)), fmt.Sprintf("%.0f %%", 100*s.Zeros),
			sparkline(s.values, seriesWidth))
	}
	return t.write(w)
}

// interactionsReport is what inspect says of interactions beside their columns.
type interactionsReport struct {
	Spec    string       `json:"spec"` // name
	User    string       `json:"user"`
	Item    string       `json:"item"`
	Weight  string       `json:"weight"` // the column that it sums, or 1
	Users   int          `json:"users"`
	Items   int          `json:"items"`
	Pairs   int          `json:"pairs"` // of a user and an item
	Largest []itemReport `json:"largest"`
}

// itemReport is one item.
type itemReport struct {
	Item  string `json:"item"`
	Rows  int    `json:"rows"`
	Users int    `json:"users"`
}

func inspectInteractions(ctx context.Context, d *datasets.Dataset) (*interactionsReport, error) {
	made, err := features.MadeFrom(d)
	if err != nil || made.Interactions == nil {
		return nil, err
	}
	m := made.Interactions
	r := &interactionsReport{User: m.User, Item: m.Item, Weight: m.Weight}
	if spec, err := features.Parse(d.Dir(), []byte(made.Spec)); err == nil {
		r.Spec = spec.Name()
	}
	type pair struct{ user, item int32 }
	users, items, pairs := map[string]int32{}, map[string]int32{}, map[pair]struct{}{}
	number := func(m map[string]int32, c *datasets.Column, i int) int32 {
		var name string
		if c.Strings != nil {
			name = c.Strings[i]
		} else {
			name = strconv.FormatInt(c.Ints[i], 10)
		}
		id, ok := m[name]
		if !ok {
			id = int32(len(m))
			m[strings.Clone(name)] = id
		}
		return id
	}
	var rows, buyers []int
	if err := d.Read(ctx, datasets.ReadOptions{Columns: []string{m.User, m.Item}}, func(b *datasets.Batch) error {
		for i := range b.N {
			p := pair{number(users, &b.Columns[0], i), number(items, &b.Columns[1], i)}
			if int(p.item) == len(rows) {
				rows, buyers = append(rows, 0), append(buyers, 0)
			}
			rows[p.item]++
			if _, seen := pairs[p]; !seen {
				pairs[p] = struct{}{}
				buyers[p.item]++
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	r.Users, r.Items, r.Pairs = len(users), len(items), len(pairs)
	for name, id := range items {
		r.Largest = append(r.Largest, itemReport{name, rows[id], buyers[id]})
	}
	slices.SortFunc(r.Largest, func(a, b itemReport) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows),
			cmp.Compare(a.Item, b.Item))
	})
	r.Largest = r.Largest[:min(topSeries, len(r.Largest))]
	return r, nil
}

func (r *interactionsReport) write(w io.Writer) error {
	fmt.Fprintf(w, "\ninteractions of %s: %s users (%s), %s items (%s), %s different pairs\n\n", r.Spec,
		progress.Count(int64(r.Users)), r.User,
		progress.Count(int64(r.Items)), r.Item, progress.Count(int64(r.Pairs)))
	t := newTable("most frequent items", "rows", "users")
	for _, x := range r.Largest {
		t.add(x.Item, progress.Count(int64(x.Rows)), progress.Count(int64(x.Users)))
	}
	return t.write(w)
}

func short(v float64) string {
	if v == float64(int64(v)) && v < 1e15 && v > -1e15 {
		return progress.Count(int64(v))
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

func oneStep(s features.Step) string {
	if s == features.Hour {
		return "an hour"
	}
	return "a " + string(s)
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func joinInts(list []int) string {
	var words []string
	for _, n := range list {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, " and ")
}
