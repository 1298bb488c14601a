package ranking

import (
	"fmt"
	"math"
	"slices"
)

// Together is which items are bought in one purchase.
type Together struct {
	Purchases int     // in all
	Sold      []int32 // by item: purchases that have it
	Pairs     *Matrix // items by items: purchases that have both, of each item's nearest, where chance explains fewer
}

// leastTogether is how many purchases must have two items for them to be called a pair.
const leastTogether = 3

// steady is added to the root of both items' purchases, so that two items that were sold three times each, and
// together, do not outrank a pair that hundreds bought.
const steady = 10

// closeness ranks pairs: the cosine of the purchases of both, drawn towards 0 where they are few.
func closeness(both float64, a, b int32) float64 {
	return both / (math.Sqrt(float64(a)*float64(b)) + steady)
}

// NewTogether counts a log; of each item the keep others closest to it stay.
func NewTogether(l *Log, keep, threads int) (*Together, error) {
	if keep < 1 {
		return nil, fmt.Errorf("ranking: %d items bought together: want 1 or more", keep)
	}
	one := make([]float32, len(l.Item))
	for i := range one {
		one[i] = 1
	}
	x, err := NewMatrix(l.baskets(), l.Items, l.Basket, l.Item, one)
	if err != nil {
		return nil, err
	}
	x = binary(x)
	byItem := x.Transpose()
	t := &Together{Sold: make([]int32, l.Items)}
	for b := range x.Rows {
		if x.Start[b+1] > x.Start[b] {
			t.Purchases++
		}
	}
	for i := range t.Sold {
		t.Sold[i] = int32(byItem.Start[i+1] - byItem.Start[i])
	}
	rows := make([][]Scored, l.Items)
	parallel(threads, l.Items, func() func(int) {
		both, touched := make([]int32, l.Items), []int32{}
		var list []Scored
		return func(i int) {
			baskets, _ := byItem.Row(i)
			for _, b := range baskets {
				items, _ := x.Row(int(b))
				for _, j := range items {
					if both[j] == 0 {
						touched = append(touched, j)
					}
					both[j]++
				}
			}
			list = list[:0]
			for _, j := range touched {
				// Less often than chance is not together, however often.
				expected := float64(t.Sold[i]) * float64(t.Sold[j]) / float64(t.Purchases)
				if int(j) != i && both[j] >= leastTogether && float64(both[j]) > expected {
					list = append(list, Scored{j, float32(closeness(float64(both[j]), t.Sold[i], t.Sold[j]))})
				}
			}
			SortScored(list)
			kept := slices.Clone(list[:min(keep, len(list))])
			for k := range kept {
				kept[k].Score = float32(both[kept[k].Item])
			}
			rows[i] = kept
			for _, j := range touched {
				both[j] = 0
			}
			touched = touched[:0]
		}
	})
	t.Pairs = fromRows(rows, l.Items)
	return t, nil
}

// Pair is an item for a basket, and what is known of it and the item of the basket that says most for it.
type Pair struct {
	Item       int32
	Score      float32 // sum of the closeness to all items of the basket
	With       int32
	Support    int     // purchases with both
	Confidence float64 // of the purchases with With, the share that has Item too
	Lift       float64 // how much greater that is than the share of all purchases that has Item
	Cosine     float64 // Support against the geometric mean of the purchases of both
}

// Basket ranks what is bought together with the items of a basket, at most k, without those of the basket and those
// excluded. It is empty where nothing is known to go with them.
func (t *Together) Basket(items []int32, k int, excluded Bitmap) ([]Pair, error) {
	n := len(t.Sold)
	scores, with, most := make([]float32, n), make([]int32, n), make([]float32, n)
	in := NewBitmap(n)
	var touched []int32
	for at, i := range items {
		if i < 0 || int(i) >= n {
			return nil, fmt.Errorf("ranking: the basket has item %d, the catalogue %d", i, n)
		}
		if slices.Contains(items[:at], i) {
			continue
		}
		in.Set(i)
		cols, both := t.Pairs.Row(int(i))
		for c, j := range cols {
			s := float32(closeness(float64(both[c]), t.Sold[i], t.Sold[j]))
			if scores[j] == 0 {
				touched = append(touched, j)
			}
			scores[j] += s
			if s > most[j] {
				most[j], with[j] = s, i
			}
		}
	}
	k = max(0, min(k, len(touched)))
	best := top{list: make([]Scored, 0, k), k: k}
	for _, j := range touched {
		if k > 0 && !in.Has(j) && !excluded.Has(j) {
			best.offer(Scored{j, scores[j]})
		}
	}
	best.sort()
	pairs := make([]Pair, 0, k)
	for _, s := range best.list {
		j, w := s.Item, with[s.Item]
		both := float64(t.Pairs.at(w, j))
		p := Pair{Item: j, Score: s.Score, With: w, Support: int(both)}
		p.Confidence = both / float64(t.Sold[w])
		p.Lift = p.Confidence * float64(t.Purchases) / float64(t.Sold[j])
		p.Cosine = both / math.Sqrt(float64(t.Sold[w])*float64(t.Sold[j]))
		pairs = append(pairs, p)
	}
	return pairs, nil
}
