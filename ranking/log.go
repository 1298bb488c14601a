package ranking

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Log is who bought what and when, in the order of time. Users, items and purchases are numbered from 0; a purchase
// (one visit to the till) has one user and any number of lines.
type Log struct {
	Users, Items int
	User, Item   []int32 // by line
	Basket       []int32 // by line: the number of the purchase
	Time         []int64 // by line: microseconds since 1970 UTC, not descending
}

// Line is one item of one of a user's purchases.
type Line struct {
	Item  int32
	Visit int32 // number of the purchase among the user's own, from 0, in the order of their first lines
	Time  int64 // microseconds since 1970 UTC
}

// day is a day in the unit of times.
const day = 24 * 60 * 60 * 1e6

// Check reports the first fault of a log: columns of unequal length, numbers outside their range, times that
// descend, a purchase of two users.
func (l *Log) Check() error {
	if l.Users < 0 || l.Items < 0 || l.Users > math.MaxInt32 || l.Items > math.MaxInt32 {
		return fmt.Errorf("ranking: a log of %d users and %d items: want 0 to %d each", l.Users, l.Items, math.MaxInt32)
	}
	n := len(l.User)
	if len(l.Item) != n || len(l.Basket) != n || len(l.Time) != n {
		return fmt.Errorf("ranking: a log of %d users, %d items, %d purchases and %d times: want one of each for every line",
			n, len(l.Item), len(l.Basket), len(l.Time))
	}
	owner := make([]int32, l.baskets())
	for i := range owner {
		owner[i] = -1
	}
	for i := range n {
		switch {
		case l.User[i] < 0 || int(l.User[i]) >= l.Users || l.Item[i] < 0 || int(l.Item[i]) >= l.Items:
			return fmt.Errorf("ranking: line %d is of user %d and item %d, in a log of %d and %d", i, l.User[i],
				l.Item[i], l.Users, l.Items)
		case l.Basket[i] < 0:
			return fmt.Errorf("ranking: line %d is of purchase %d: want 0 or more", i, l.Basket[i])
		case i > 0 && l.Time[i] < l.Time[i-1]:
			return fmt.Errorf("ranking: line %d is earlier than the one before it: sort the log by time", i)
		}
		o := &owner[l.Basket[i]]
		if *o >= 0 && *o != l.User[i] {
			return fmt.Errorf("ranking: purchase %d is of user %d and of user %d: number them apart", l.Basket[i], *o,
				l.User[i])
		}
		*o = l.User[i]
	}
	return nil
}

// baskets is one more than the greatest number of a purchase.
func (l *Log) baskets() int {
	most := int32(-1)
	for _, b := range l.Basket {
		most = max(most, b)
	}
	return int(most) + 1
}

// Until is the part of the log before an instant. It shares the lines.
func (l *Log) Until(t int64) *Log {
	n := sort.Search(len(l.Time), func(i int) bool { return l.Time[i] >= t })
	return &Log{Users: l.Users, Items: l.Items, User: l.User[:n:n], Item: l.Item[:n:n], Basket: l.Basket[:n:n],
		Time: l.Time[:n:n]}
}

// Histories is the log by user: the lines of each in the order of time.
func (l *Log) Histories() [][]Line {
	start := make([]int, l.Users+1)
	for _, u := range l.User {
		start[u+1]++
	}
	for u := range l.Users {
		start[u+1] += start[u]
	}
	lines, next := make([]Line, len(l.User)), slices.Clone(start)
	visit := make([]int32, l.baskets())
	for b := range visit {
		visit[b] = -1
	}
	visits := make([]int32, l.Users)
	for i, u := range l.User {
		v := &visit[l.Basket[i]]
		if *v < 0 {
			*v = visits[u]
			visits[u]++
		}
		lines[next[u]] = Line{Item: l.Item[i], Visit: *v, Time: l.Time[i]}
		next[u]++
	}
	all := make([][]Line, l.Users)
	for u := range all {
		all[u] = lines[start[u]:start[u+1]:start[u+1]]
	}
	return all
}

// Matrix is users by items with the sum over a user's lines of an item of 0.5^(age/halfLife), age before now and both
// in microseconds; halfLife 0 counts every line as 1.
func (l *Log) Matrix(now, halfLife int64) (*Matrix, error) {
	w := make([]float32, len(l.User))
	for i, t := range l.Time {
		w[i] = decay(now-t, halfLife)
	}
	return NewMatrix(l.Users, l.Items, l.User, l.Item, w)
}

// binary replaces every stored value by 1, in a copy.
func binary(m *Matrix) *Matrix {
	b := *m
	b.Value = make([]float32, len(m.Value))
	for i := range b.Value {
		b.Value[i] = 1
	}
	return &b
}

// decay is 0.5^(age/halfLife); ages below 0 count as 0.
func decay(age, halfLife int64) float32 {
	if halfLife == 0 || age <= 0 {
		return 1
	}
	return float32(math.Exp2(-float64(age) / float64(halfLife)))
}

// days is a time span in days, not below 0.
func days(us int64) float64 { return math.Max(0, float64(us)/day) }
