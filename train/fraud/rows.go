// Package fraud trains and judges classifiers of fraudulent transactions.
//
// A features data set enters (rows with user_id, trans_datetime, is_fraud and feature columns); an
// artifact leaves, and evaluations of scores. A row's features may be assumed to be right in time (package
// features makes them so); its label may not be assumed to be known when the row happened: the delay of
// the protocol says when.
package fraud

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/onmart/onmart/datasets"
)

// Rows is a stretch of a features data set in memory, in log order.
type Rows struct {
	Time []int64 // event time, microseconds
	// Card is the user of each row as a place in Cards, which is sorted (numbers by value, text by
	// bytes): it is the order that breaks ties between cards.
	Card  []int32
	Cards []string
	// Y is the label. A row without one counts as negative; Null marks those, nil where there are none.
	Y    []bool
	Null []bool
	// Features names the columns of Values; Values[f][row].
	Features []string
	Values   [][]float64
}

// Len is the number of rows.
func (r *Rows) Len() int { return len(r.Time) }

// Positives is the number of frauds.
func (r *Rows) Positives() int {
	n := 0
	for _, y := range r.Y {
		n += btoi(y)
	}
	return n
}

// Unlabelled is the number of rows without a label.
func (r *Rows) Unlabelled() int {
	n := 0
	for _, null := range r.Null {
		n += btoi(null)
	}
	return n
}

// Select is the rows at the given places, with the same Cards.
func (r *Rows) Select(places []int) *Rows {
	s := &Rows{Cards: r.Cards, Features: r.Features, Values: make([][]float64, len(r.Values))}
	s.Time = pick(r.Time, places)
	s.Card = pick(r.Card, places)
	s.Y = pick(r.Y, places)
	if r.Null != nil {
		s.Null = pick(r.Null, places)
	}
	for f, v := range r.Values {
		s.Values[f] = pick(v, places)
	}
	return s
}

// In is the rows of a range of event time, with the same Cards.
func (r *Rows) In(span datasets.Range) *Rows {
	var places []int
	for i, t := range r.Time {
		if span.Contains(t) {
			places = append(places, i)
		}
	}
	return r.Select(places)
}

func pick[T any](from []T, places []int) []T {
	to := make([]T, len(places))
	for k, i := range places {
		to[k] = from[i]
	}
	return to
}

// collector appends batches to Rows. Cards get their places in order of appearance; finish sorts them.
type collector struct {
	rows    *Rows
	place   map[string]int32 // text ids
	placeID map[int64]int32  // number ids
	ids     []int64          // number ids by place
	strange *strangeLabel    // the first label that is neither 0 nor 1
}

// strangeLabel is one that says neither fraud nor genuine.
type strangeLabel struct{ value, time int64 }

func newCollector(features []string) *collector {
	return &collector{
		rows:  &Rows{Features: features, Values: make([][]float64, len(features))},
		place: map[string]int32{}, placeID: map[int64]int32{},
	}
}

// checkColumns reports every column of a features data set that the fraud task lacks.
func checkColumns(s *datasets.Schema, features []string) error {
	var missing []string
	want := func(name string, types ...datasets.Type) {
		i := s.Index(name)
		if i < 0 {
			missing = append(missing, name)
		} else if !slices.Contains(types, s.Fields[i].Type) {
			missing = append(missing, fmt.Sprintf("%s (it is %s there, want %s)", name, s.Fields[i].Type, types[0]))
		}
	}
	want(datasets.TransDatetime, datasets.Time)
	want(datasets.UserID, datasets.Int64, datasets.String)
	want(datasets.IsFraud, datasets.Int64)
	for _, f := range features {
		want(f, datasets.Float64)
	}
	if missing != nil {
		return fmt.Errorf("columns missing for the fraud task: %v; a features data set keeps trans_datetime, user_id and is_fraud beside its features; a label comes from the mapping of %s in onmart import", missing, datasets.IsFraud)
	}
	return nil
}

func (c *collector) add(b *datasets.Batch) {
	r := c.rows
	r.Time = append(r.Time, b.Column(datasets.TransDatetime).Ints...)
	c.addCards(b.Column(datasets.UserID), b.N)
	label := b.Column(datasets.IsFraud)
	for i := range b.N {
		null := label.IsNull(i)
		if null && r.Null == nil {
			r.Null = make([]bool, len(r.Y))
		}
		if r.Null != nil {
			r.Null = append(r.Null, null)
		}
		y := int64(0)
		if !null {
			y = label.Ints[i]
		}
		if y != 0 && y != 1 && c.strange == nil {
			c.strange = &strangeLabel{y, b.Column(datasets.TransDatetime).Ints[i]}
		}
		r.Y = append(r.Y, y == 1)
	}
	for f, name := range r.Features {
		r.Values[f] = append(r.Values[f], b.Column(name).Floats...)
	}
}

// check refuses what cannot be learned from: labels that are neither 0 nor 1, and values that are no numbers.
func (c *collector) check() error {
	if l := c.strange; l != nil {
		return fmt.Errorf("%s is %d in the transaction of %s: want 1 for a fraud, 0 for a genuine one, or nothing where it is not known; "+
			"correct the mapping and import again", datasets.IsFraud, l.value, datasets.FormatTime(l.time))
	}
	for f, name := range c.rows.Features {
		bad, first := 0, 0
		for i, x := range c.rows.Values[f] {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				if bad == 0 {
					first = i
				}
				bad++
			}
		}
		if bad > 0 {
			return fmt.Errorf("feature %s is %v in the transaction of %s, and no finite number in %d of %d rows: "+
				"make the features again, with a spec that gives it a value there or without it",
				name, c.rows.Values[f][first], datasets.FormatTime(c.rows.Time[first]), bad, c.rows.Len())
		}
	}
	return nil
}

func (c *collector) addCards(user *datasets.Column, n int) {
	r := c.rows
	for i := range n {
		var at int32
		var ok bool
		if user.Strings != nil {
			if at, ok = c.place[user.Strings[i]]; !ok {
				at = int32(len(r.Cards))
				c.place[user.Strings[i]] = at
				r.Cards = append(r.Cards, user.Strings[i])
			}
		} else if at, ok = c.placeID[user.Ints[i]]; !ok {
			at = int32(len(r.Cards))
			c.placeID[user.Ints[i]] = at
			c.ids = append(c.ids, user.Ints[i])
			r.Cards = append(r.Cards, strconv.FormatInt(user.Ints[i], 10))
		}
		r.Card = append(r.Card, at)
	}
}

func (c *collector) finish() *Rows {
	r := c.rows
	order := make([]int, len(r.Cards))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(i, j int) bool {
		if c.ids != nil {
			return c.ids[order[i]] < c.ids[order[j]]
		}
		return r.Cards[order[i]] < r.Cards[order[j]]
	})
	cards, rank := make([]string, len(order)), make([]int32, len(order))
	for k, i := range order {
		cards[k], rank[i] = r.Cards[i], int32(k)
	}
	r.Cards = cards
	for i, at := range r.Card {
		r.Card[i] = rank[at]
	}
	return r
}
