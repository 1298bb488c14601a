package ranking

import (
	"fmt"
	"math"
)

// facts are what is known of an item alone at an instant, one number each. Counts are lines of purchases.
var facts = []string{
	"lines_3d", "lines_7d", "lines_14d", "lines_28d", "lines_56d", "lines_365d", // log(n + 0.5) of the latest days
	"lines_half_7d", "lines_half_14d", "lines_half_30d", // the same of counts that lose half in so many days
	"new_buyers_half_7d", "new_buyers_half_14d", "new_buyers_half_30d", // of a user's first purchase of the item
	"trend",        // log of the last week's sales against the last month's
	"new",          // e^(-days since its first sale / 30)
	"days_unsold",  // log(days since its last sale + 1)
	"bought_again", // log(1 + further purchases for each buyer)
}

var (
	factSpans  = [...]float64{3, 7, 14, 28, 56, 365}
	factHalves = [...]float64{7, 14, 30}
)

// popularity is the facts of all items as of an instant.
type popularity struct {
	items int
	value []float32 // item after item, len(facts) each
	// Lines of the latest 28 days, for the simple models and for reasons.
	month []int32
	first []float32 // days since the first sale
}

// newPopularity reads the log up to now. Lines after now are an error, since they could not be known.
func newPopularity(l *Log, now int64) (*popularity, error) {
	if n := len(l.Time); n > 0 && l.Time[n-1] > now {
		return nil, fmt.Errorf("ranking: the log goes on after the instant that it is read at; cut it there")
	}
	n := l.Items
	p := &popularity{items: n, value: make([]float32, n*len(facts)), month: make([]int32, n), first: make([]float32, n)}
	const spans, halves = len(factSpans), len(factHalves)
	sums := make([][spans + 2*halves]float64, n)
	first, last := make([]float64, n), make([]float64, n)
	lines, buyers := make([]float64, n), make([]float64, n)
	for i := range n {
		last[i] = math.Inf(1)
	}
	seen := newPairs(l)
	for i, item := range l.Item {
		age := days(now - l.Time[i])
		s := &sums[item]
		for k, d := range factSpans {
			if age <= d {
				s[k]++
			}
		}
		fresh := seen[i]
		for k, h := range factHalves {
			w := math.Exp2(-age / h)
			s[spans+k] += w
			if fresh {
				s[spans+halves+k] += w
			}
		}
		if age <= 28 {
			p.month[item]++
		}
		first[item], last[item] = max(first[item], age), min(last[item], age)
		lines[item]++
		if fresh {
			buyers[item]++
		}
	}
	for i := range n {
		v := p.value[i*len(facts):][:len(facts)]
		s := &sums[i]
		for k, x := range s {
			v[k] = float32(math.Log(x + .5))
		}
		p.first[i] = float32(first[i])
		at := len(s)
		v[at] = float32(math.Log((s[spans] + 1) / (s[spans+2]/4 + 1)))
		v[at+1] = float32(math.Exp(-first[i] / 30))
		v[at+2] = float32(math.Log(min(last[i], 999) + 1))
		v[at+3] = float32(math.Log1p((lines[i] - buyers[i]) / max(buyers[i], 1)))
	}
	return p, nil
}

// newPairs tells for each line whether it is the first of its user and item.
func newPairs(l *Log) []bool {
	first := make([]bool, len(l.User))
	byItem := countingSort(l.Items, l.Item, nil)
	order := countingSort(l.Users, l.User, byItem) // by user, then item, then time: both sorts are stable
	for k, i := range order {
		first[i] = k == 0 || l.User[order[k-1]] != l.User[i] || l.Item[order[k-1]] != l.Item[i]
	}
	return first
}

func (p *popularity) of(item int32) []float32 { return p.value[int(item)*len(facts):][:len(facts)] }
