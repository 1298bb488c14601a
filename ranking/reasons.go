package ranking

// Reason is why an item is in a list. Kind says which of the fields hold.
type Reason struct {
	Kind ReasonKind
	// Of BoughtBefore: how often, how many days ago the last time, and the mean number of days between purchases, 0
	// for a single one.
	Times        int
	Since, Usual float64
	With         int32 // of BoughtWith: the item of the user's own that says most for this one
	// Of Similar: how many of the Of users who buy most alike have bought it.
	Count, Of int
	// Of PopularNow: lines sold in the latest 28 days, and days since the item was first sold.
	Lines int
	Age   float64
}

// ReasonKind is what speaks for an item.
type ReasonKind int

const (
	BoughtBefore ReasonKind = iota + 1
	BoughtWith
	Similar
	PopularNow
)

// Why tells what speaks most for an item, for the user of the last call of Scores: the user's own purchases of it if
// there are any; otherwise the part of the score that is greatest, of those that a person can follow.
func (s *Scorer) Why(item int32) Reason {
	if at := s.past.slot[item]; at > 0 {
		o := &s.past.items[at-1]
		usual, _ := o.interval()
		return Reason{Kind: BoughtBefore, Times: int(o.times), Since: days(s.m.now - o.last), Usual: usual}
	}
	with, strength := s.closest(item)
	together, similar, popular := s.weights(item)
	count, of := s.alike(item)
	if with >= 0 && strength > 0 && (together >= similar || count == 0) && together >= popular {
		return Reason{Kind: BoughtWith, With: with}
	}
	if count > 0 && similar >= popular {
		return Reason{Kind: Similar, Count: count, Of: of}
	}
	return Reason{Kind: PopularNow, Lines: int(s.m.pop.month[item]), Age: float64(s.m.pop.first[item])}
}

// closest is the item of the user's own from which item-kNN, or else EASE, gives most to an item. One that is bought
// again and again does not count for more than a recent one, so that it is not the reason for everything.
func (s *Scorer) closest(item int32) (with int32, most float32) {
	m := s.m
	with = -1
	from := m.parts.KNN
	if from == nil {
		from = m.parts.EASE
	}
	if from == nil {
		return with, 0
	}
	for i := range s.past.items {
		o := &s.past.items[i]
		if v := from.at(o.item, item) * float32(min(1, o.recent)); v > most {
			with, most = o.item, v
		}
	}
	return with, most
}

// at is one cell, 0 where nothing is stored.
func (m *Matrix) at(r, c int32) float32 {
	cols, values := m.Row(int(r))
	lo, hi := 0, len(cols)
	for lo < hi {
		mid := (lo + hi) / 2
		if cols[mid] < c {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(cols) && cols[lo] == c {
		return values[lo]
	}
	return 0
}

// weights are the parts of an item's score that items bought together, users alike and popularity make up, each
// against the mean over the catalogue. A model of another kind than blend has one part.
func (s *Scorer) weights(item int32) (together, similar, popular float32) {
	m := s.m
	switch m.kind {
	case EASER, KNN, ALSKind, Vector:
		return 1, 0, 0
	case Users:
		return 0, 1, 0
	case Own, Popular:
		return 0, 0, 1
	}
	b := m.parts.Blend
	for k, c := range m.comp {
		v := b.New[len(facts)+k] * s.scaled[c][item]
		if c == compUsers || c == compUsersRecent || c == compALS || c == compEmbedding {
			similar += v
		} else {
			together += v
		}
	}
	return together, similar, m.newBase[item] - m.meanBase
}

// alike counts the nearest users who have bought an item.
func (s *Scorer) alike(item int32) (count, of int) {
	if s.m.users == nil {
		return 0, 0
	}
	for _, n := range s.near.list {
		if s.m.users.set.at(n.Item, item) > 0 {
			count++
		}
	}
	return count, len(s.near.list)
}
