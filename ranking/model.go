package ranking

import (
	"fmt"
	"math"
	"slices"
)

// Kind names a way to score the items for a user.
type Kind string

const (
	Popular Kind = "popular"   // lines sold in the latest 28 days
	Own     Kind = "own"       // how often the user has bought the item, then popularity
	KNN     Kind = "knn"       // ItemNeighbours, recent purchases counting more
	EASER   Kind = "ease"      // EASE
	ALSKind Kind = "als"       // TrainALS, the user's vector folded in from the items bought
	Vector  Kind = "embedding" // Embedding
	Users   Kind = "users"     // the users who buy most alike
	Blended Kind = "blend"     // all of it and the rhythm of buying again, weighted by Blend
)

// Kinds lists all, the default first.
func Kinds() []Kind { return []Kind{Blended, Vector, ALSKind, EASER, KNN, Users, Own, Popular} }

// components are what a Blend may weigh, in the order in which it does.
var components = []string{"ease", "als", "knn", "users", "users_recent", "embedding"}

const (
	compEASE = iota
	compALS
	compKNN
	compUsers
	compUsersRecent
	compEmbedding
	nComponents
)

// Parts are the fitted pieces that a Model scores with. What its kind does not use may be nil.
type Parts struct {
	EASE, KNN *Matrix // items by items: row i is what having bought i adds
	ALS       *ALS    // of which Items are used
	Embedding *Embedding
	Blend     *Blend
}

// Embedding is vectors of items, and what makes a user's vector: the score of an item is the inner product of both.
type Embedding struct {
	Dim    int
	Recent int       // how many of the latest different items a user's vector is made of
	Items  []float32 // row i the vector of item i
	// NewVector returns a function for one goroutine that writes the vector of a user, -1 for one that the model does
	// not know, whose latest different items, the latest first and at most Recent, are given.
	NewVector func() (func(dst []float32, user int32, recent []int32) error, error)
}

// Model scores all items for one user as of an instant. It does not change and may be used from several goroutines,
// each with a Scorer of its own.
type Model struct {
	kind  Kind
	parts Parts
	now   int64
	items int
	pop   *popularity
	users *userNeighbours
	fold  *FoldIn
	als   *Index
	emb   *Index
	// Of a blend: what the facts of an item add to its score, new to the user or not.
	newBase, ownBase []float32
	meanBase         float32 // of newBase
	comp             []int   // components in use
	own              [][]Line
}

// NewModel reads a log up to the instant now, the time at which every answer is given.
func NewModel(kind Kind, l *Log, now int64, parts Parts) (*Model, error) {
	if !slices.Contains(Kinds(), kind) {
		return nil, fmt.Errorf("ranking: no model %q; there is %v", kind, Kinds())
	}
	if err := l.Check(); err != nil {
		return nil, err
	}
	if l.Items == 0 {
		return nil, fmt.Errorf("ranking: a catalogue without items: there is nothing to recommend")
	}
	m := &Model{kind: kind, parts: parts, now: now, items: l.Items, own: l.Histories()}
	var err error
	if m.pop, err = newPopularity(l, now); err != nil {
		return nil, err
	}
	if err := m.checkParts(l); err != nil {
		return nil, err
	}
	if m.needs(compUsers) || m.needs(compUsersRecent) {
		if m.users, err = newUserNeighbours(l, now); err != nil {
			return nil, err
		}
	}
	if m.needs(compALS) {
		if m.fold, err = NewFoldIn(parts.ALS); err != nil {
			return nil, err
		}
		if m.als, err = NewIndex(parts.ALS.Items, parts.ALS.Factors); err != nil {
			return nil, err
		}
	}
	if m.needs(compEmbedding) {
		if m.emb, err = NewIndex(parts.Embedding.Items, parts.Embedding.Dim); err != nil {
			return nil, err
		}
	}
	if kind == Blended {
		m.newBase, m.ownBase = parts.Blend.bases(m.pop)
		for _, v := range m.newBase {
			m.meanBase += v
		}
		m.meanBase /= float32(m.items)
	}
	return m, nil
}

// needs tells whether the kind uses a component.
func (m *Model) needs(c int) bool { return slices.Contains(m.comp, c) }

// checkParts sees that what the kind uses is there and fits the log, and fills in comp.
func (m *Model) checkParts(l *Log) error {
	switch m.kind {
	case Blended:
		if m.parts.Blend == nil {
			return fmt.Errorf("ranking: a model of kind blend needs the weights of FitBlend")
		}
		if err := m.parts.Blend.check(); err != nil {
			return err
		}
		for _, name := range m.parts.Blend.Components {
			m.comp = append(m.comp, slices.Index(components, name))
		}
	case EASER:
		m.comp = []int{compEASE}
	case ALSKind:
		m.comp = []int{compALS}
	case KNN:
		m.comp = []int{compKNN}
	case Users:
		m.comp = []int{compUsersRecent}
	case Vector:
		m.comp = []int{compEmbedding}
	}
	square := func(what string, x *Matrix) error {
		if x == nil {
			return fmt.Errorf("ranking: a model of kind %s needs %s, which is not there", m.kind, what)
		}
		if x.Rows != l.Items || x.Cols != l.Items {
			return fmt.Errorf("ranking: %s of %d x %d items for a log of %d items", what, x.Rows, x.Cols, l.Items)
		}
		return x.Validate()
	}
	for _, c := range m.comp {
		var err error
		switch c {
		case compEASE:
			err = square("EASE", m.parts.EASE)
		case compKNN:
			err = square("item neighbours", m.parts.KNN)
		case compALS:
			if a := m.parts.ALS; a == nil || len(a.Items) != l.Items*a.Factors {
				err = fmt.Errorf("ranking: a model of kind %s needs ALS factors of %d items", m.kind, l.Items)
			}
		case compEmbedding:
			e := m.parts.Embedding
			if e == nil || e.Dim < 1 || e.Recent < 1 || len(e.Items) != l.Items*e.Dim || e.NewVector == nil {
				err = fmt.Errorf("ranking: a model of kind %s needs embeddings of %d items", m.kind, l.Items)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Items is the size of the catalogue.
func (m *Model) Items() int { return m.items }

// Now is the instant that answers are given at.
func (m *Model) Now() int64 { return m.now }

// Kind is the way it scores.
func (m *Model) Kind() Kind { return m.kind }

// History is what the log has of a user, in the order of time; it is not to be changed.
func (m *Model) History(user int32) []Line {
	if user < 0 || int(user) >= len(m.own) {
		return nil
	}
	return m.own[user]
}

// Scorer is the memory of one goroutine that asks a Model.
type Scorer struct {
	m      *Model
	past   *past
	near   *near
	raw    [nComponents][]float32 // by component: scores of all items
	scaled [nComponents][]float32 // of a blend: their logarithms
	own    []float32
	vector []float32
	query  []float32
	embed  func(dst []float32, user int32, recent []int32) error
	values []float32
	index  []int32
	scores []float32
}

// NewScorer makes a Scorer.
func (m *Model) NewScorer() *Scorer {
	s := &Scorer{m: m, past: newPast(m.items), own: make([]float32, len(ownFacts))}
	for _, c := range m.comp {
		s.raw[c], s.scaled[c] = make([]float32, m.items), make([]float32, m.items)
	}
	if m.users != nil {
		s.near = m.users.newNear()
		for _, c := range []int{compUsers, compUsersRecent} {
			if s.raw[c] == nil {
				s.raw[c] = make([]float32, m.items)
			}
		}
	}
	s.scores = make([]float32, m.items)
	return s
}

// Scores gives the score of every item for a user with the history, which is in the order of time; user is its
// number in the model, or -1. The slice is valid until the next call.
func (s *Scorer) Scores(user int32, history []Line) ([]float32, error) {
	m := s.m
	for i, l := range history {
		if l.Item < 0 || int(l.Item) >= m.items {
			return nil, fmt.Errorf("ranking: the history has item %d, the catalogue %d", l.Item, m.items)
		}
		if i > 0 && l.Time < history[i-1].Time {
			return nil, fmt.Errorf("ranking: line %d of the history is earlier than the one before it", i)
		}
	}
	s.past.read(user, history, m.now)
	if err := s.components(history); err != nil {
		return nil, err
	}
	switch m.kind {
	case Popular:
		for i, n := range m.pop.month {
			s.scores[i] = float32(n)
		}
	case Own:
		most := slices.Max(m.pop.month)
		for i, n := range m.pop.month {
			s.scores[i] = float32(n) / float32(most+1)
		}
		for i := range s.past.items {
			o := &s.past.items[i]
			s.scores[o.item] += float32(o.times)
		}
	case Blended:
		s.blend()
	default:
		copy(s.scores, s.raw[m.comp[0]])
	}
	return s.scores, nil
}

// components fills raw.
func (s *Scorer) components(history []Line) error {
	m, p := s.m, s.past
	for _, raw := range s.raw {
		clear(raw)
	}
	if m.users != nil {
		m.users.find(s.near, p)
		set, recent := s.raw[compUsers], s.raw[compUsersRecent]
		m.users.score(s.near, set, recent)
	}
	for _, c := range m.comp {
		raw := s.raw[c]
		var err error
		switch c {
		case compEASE:
			for i := range p.items {
				addRow(raw, m.parts.EASE, p.items[i].item, 1)
			}
		case compKNN:
			for i := range p.items {
				addRow(raw, m.parts.KNN, p.items[i].item, float32(p.items[i].recent))
			}
		case compALS:
			err = s.alsScores(raw)
		case compEmbedding:
			err = s.embeddingScores(raw, history)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// alsScores folds the user in. Without items every score is 0.
func (s *Scorer) alsScores(dst []float32) error {
	p := s.past
	if len(p.items) == 0 {
		return nil
	}
	s.index, s.values = s.index[:0], s.values[:0]
	for i := range p.items {
		s.index, s.values = append(s.index, p.items[i].item), append(s.values, 1)
	}
	var err error
	if s.vector, err = s.m.fold.User(s.vector[:0], s.index, s.values); err != nil {
		return err
	}
	_, err = s.m.als.Scores(dst[:0], s.vector)
	return err
}

// embeddingScores makes the user's vector of the user's own and of the latest items.
func (s *Scorer) embeddingScores(dst []float32, history []Line) error {
	e := s.m.parts.Embedding
	if s.embed == nil {
		var err error
		if s.embed, err = e.NewVector(); err != nil {
			return err
		}
		s.query = make([]float32, e.Dim)
	}
	s.index = RecentItems(s.index[:0], history, e.Recent)
	if err := s.embed(s.query, s.past.user, s.index); err != nil {
		return err
	}
	_, err := s.m.emb.Scores(dst[:0], s.query)
	return err
}

// RecentItems appends to dst the latest n different items of a history, the latest first.
func RecentItems(dst []int32, history []Line, n int) []int32 {
	for i := len(history) - 1; i >= 0 && len(dst) < n; i-- {
		if !slices.Contains(dst, history[i].Item) {
			dst = append(dst, history[i].Item)
		}
	}
	return dst
}

// Best gives the best k items by the scores of the last call of Scores, without those excluded.
func (s *Scorer) Best(dst []Scored, k int, excluded Bitmap) []Scored {
	return best(dst, s.scores, k, excluded)
}

// best is the k greatest scores among items that are not excluded, best first.
func best(dst []Scored, scores []float32, k int, excluded Bitmap) []Scored {
	k = min(k, len(scores))
	t := top{list: slices.Grow(dst[:0], k), k: k}
	if k <= 0 {
		return t.list
	}
	least := t.threshold()
	for i, v := range scores {
		if v >= least && !excluded.Has(int32(i)) {
			t.offer(Scored{int32(i), v})
			least = t.threshold()
		}
	}
	t.sort()
	return t.list
}

// Bought puts into a set the items of the last history; with false it takes them out.
func (s *Scorer) Bought(set Bitmap, in bool) {
	for i := range s.past.items {
		if in {
			set.Set(s.past.items[i].item)
		} else {
			set.Clear(s.past.items[i].item)
		}
	}
}

// logScale writes log(max(x,0) + 0.3 mean + 1e-6) of all scores less its mean: scores of methods with different
// scales become comparable, and the tail of one is not flat.
func logScale(dst, x []float32) {
	mean := 0.0
	for _, v := range x {
		mean += float64(max(v, 0))
	}
	mean /= float64(len(x))
	floor := .3*mean + 1e-6
	sum := 0.0
	for i, v := range x {
		l := math.Log(float64(max(v, 0)) + floor)
		dst[i] = float32(l)
		sum += l
	}
	shift := float32(sum / float64(len(x)))
	for i := range dst {
		dst[i] -= shift
	}
}
