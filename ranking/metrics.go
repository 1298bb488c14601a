package ranking

import (
	"fmt"
	"math"
	"slices"
)

// Metrics of lists of k items against what was bought then, means over the users who bought something that counts.
type Metrics struct {
	Users  int
	NDCG   float64 // gain 1 for each item bought, discount 1/log2(rank+1), against the best possible list
	Recall float64 // of what was bought, the share in the list
	Hit    float64 // share of users with at least one
}

// Report is Metrics by two readings: All, in which every item may be offered, and New, in which what a user has bought
// before is neither offered nor counted.
type Report struct {
	All, New Metrics
}

// gain is the metrics of one list; wanted is the number of items bought that count.
func gain(list []Scored, bought Bitmap, wanted, k int) (ndcg, recall, hit float64) {
	sum, hits := 0.0, 0
	for rank, s := range list[:min(k, len(list))] {
		if bought.Has(s.Item) {
			sum += 1 / math.Log2(float64(rank+2))
			hits++
		}
	}
	ideal := 0.0
	for rank := range min(wanted, k) {
		ideal += 1 / math.Log2(float64(rank+2))
	}
	if hits > 0 {
		hit = 1
	}
	return sum / ideal, float64(hits) / float64(wanted), hit
}

// truth is the different items that each user bought in a log.
func truth(l *Log) [][]int32 {
	t := make([][]int32, l.Users)
	for i, u := range l.User {
		t[u] = append(t[u], l.Item[i])
	}
	for u := range t {
		slices.Sort(t[u])
		t[u] = slices.Compact(t[u])
	}
	return t
}

// Evaluate judges a model on what the users with a history bought later. later has the numbers of the model's log;
// only items that someone had bought before count (an item never sold could not have been offered).
func Evaluate(m *Model, later *Log, k, threads int) (Report, error) {
	if later.Items != m.items || k < 1 {
		return Report{}, fmt.Errorf("ranking: evaluate the best %d of %d items on a log of %d", k, m.items, later.Items)
	}
	bought := truth(later)
	unsold := m.Unsold()
	type row struct {
		ok   [2]bool
		gain [2][3]float64
		err  error
	}
	rows := make([]row, later.Users)
	parallel(threads, later.Users, func() func(int) {
		s := m.NewScorer()
		want, seen := NewBitmap(m.items), NewBitmap(m.items)
		copy(seen, unsold)
		var list []Scored
		return func(u int) {
			r := &rows[u]
			history := m.History(int32(u))
			if len(bought[u]) == 0 || len(history) == 0 {
				return
			}
			if _, r.err = s.Scores(int32(u), history); r.err != nil {
				return
			}
			for reading := range 2 {
				if reading == 1 {
					s.Bought(seen, true)
				}
				n := 0
				for _, i := range bought[u] {
					if !seen.Has(i) {
						want.Set(i)
						n++
					}
				}
				if n > 0 {
					list = s.Best(list, k, seen)
					r.ok[reading] = true
					r.gain[reading][0], r.gain[reading][1], r.gain[reading][2] = gain(list, want, n, k)
				}
				for _, i := range bought[u] {
					want.Clear(i)
				}
			}
			copy(seen, unsold)
		}
	})
	var out Report
	for reading, m := range []*Metrics{&out.All, &out.New} {
		for u := range rows {
			r := &rows[u]
			if r.err != nil {
				return out, r.err
			}
			if r.ok[reading] {
				m.Users++
				m.NDCG += r.gain[reading][0]
				m.Recall += r.gain[reading][1]
				m.Hit += r.gain[reading][2]
			}
		}
		if n := float64(m.Users); n > 0 {
			m.NDCG, m.Recall, m.Hit = m.NDCG/n, m.Recall/n, m.Hit/n
		}
	}
	return out, nil
}

// Unsold is the items that nobody has bought by the model's instant: there is nothing to score them by.
func (m *Model) Unsold() Bitmap {
	b := NewBitmap(m.items)
	for i := range m.items {
		b.Set(int32(i))
	}
	for _, lines := range m.own {
		for _, l := range lines {
			b.Clear(l.Item)
		}
	}
	return b
}
