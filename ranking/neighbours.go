package ranking

import (
	"math"
	"slices"
)

// userNeighbours scores items by the users whose items are most like a user's own: cosine of the sets of items, the
// nearest 200, weighted by it. Their purchases count once an item, or by recency (as in TIFU-kNN, Hu et al. 2020).
type userNeighbours struct {
	set     *Matrix   // users by items, 1 where bought
	recent  []float32 // in the cells of set: purchases, half after recentHalf
	buyers  *Matrix   // items by users, at most maxBuyers of each
	inverse []float32 // by user: 1/sqrt(number of items)
}

const (
	nearestUsers = 200
	recentHalf   = 30 * day
	// maxBuyers bounds the work for one user where an item has been bought by very many: the latest to buy it stand
	// for all, as in session-based kNN with sampling (Jannach, Ludewig 2017).
	maxBuyers = 4000
)

func newUserNeighbours(l *Log, now int64) (*userNeighbours, error) {
	recent, err := l.Matrix(now, recentHalf)
	if err != nil {
		return nil, err
	}
	n := &userNeighbours{set: binary(recent), recent: recent.Value, inverse: make([]float32, l.Users)}
	for u := range n.inverse {
		if k := n.set.Start[u+1] - n.set.Start[u]; k > 0 {
			n.inverse[u] = float32(1 / math.Sqrt(float64(k)))
		}
	}
	n.buyers = latestBuyers(n.set, l)
	return n, nil
}

// latestBuyers is items by users, of each item no more than the maxBuyers who bought it last.
func latestBuyers(set *Matrix, l *Log) *Matrix {
	all := set.Transpose()
	over := false
	for i := range all.Rows {
		over = over || all.Start[i+1]-all.Start[i] > maxBuyers
	}
	if !over {
		return all
	}
	lists := make([][]Scored, l.Items)
	taken := map[uint64]bool{}
	for i := len(l.Item) - 1; i >= 0; i-- {
		item := l.Item[i]
		if len(lists[item]) == maxBuyers {
			continue
		}
		if key := uint64(item)<<32 | uint64(l.User[i]); !taken[key] {
			taken[key] = true
			lists[item] = append(lists[item], Scored{l.User[i], 1})
		}
	}
	return fromRows(lists, set.Rows)
}

// near is memory for one search.
type near struct {
	common  []float32 // by user: items in common
	touched []int32
	list    []Scored // the neighbours with weights that sum to 1
}

func (n *userNeighbours) newNear() *near { return &near{common: make([]float32, n.set.Rows)} }

// find leaves the neighbours of a history in w.list.
func (n *userNeighbours) find(w *near, p *past) {
	w.list = w.list[:0]
	for i := range p.items {
		users, _ := n.buyers.Row(int(p.items[i].item))
		for _, u := range users {
			if w.common[u] == 0 {
				w.touched = append(w.touched, u)
			}
			w.common[u]++
		}
	}
	if len(p.items) > 0 {
		own := float32(1 / math.Sqrt(float64(len(p.items))))
		t := top{list: slices.Grow(w.list, nearestUsers), k: nearestUsers}
		for _, u := range w.touched {
			if u != p.user {
				if s := (Scored{u, w.common[u] * n.inverse[u] * own}); s.Score >= t.threshold() {
					t.offer(s)
				}
			}
		}
		t.sort()
		w.list = t.list
	}
	for _, u := range w.touched {
		w.common[u] = 0
	}
	w.touched = w.touched[:0]
	sum := float32(0)
	for _, s := range w.list {
		sum += s.Score
	}
	for i := range w.list {
		w.list[i].Score /= sum
	}
}

// score adds to set and recent, by item, what the neighbours bought.
func (n *userNeighbours) score(w *near, set, recent []float32) {
	for _, s := range w.list {
		lo, hi := n.set.Start[s.Item], n.set.Start[s.Item+1]
		for k := lo; k < hi; k++ {
			set[n.set.Index[k]] += s.Score
			recent[n.set.Index[k]] += float32(s.Score * n.recent[k])
		}
	}
}
