package recommender

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/score/model"
)

// Recommender answers from a model and purchases. It is for one goroutine at a time but for All, which divides the
// users itself; answers of one state are the same bits for any number of threads.
type Recommender struct {
	artifact *model.Artifact // nil for one that New made
	fitted   *Fitted
	plan     *features.Plan
	engine   *features.Interactions // folds transactions into purchases; nil where the artifact carries none
	out      *datasets.Batch
	threads  int

	tail   *datasets.Batch  // rows that came since training, as they came
	lines  map[int32][]line // the same by user
	model  *ranking.Model   // as of its Now
	read   int              // lines of the history that it has read
	scorer *ranking.Scorer
}

// line is a line of a purchase since training.
type line struct {
	item, basket int32
	time         int64
	number       int // lines of the history when it came
}

// Open makes a recommender of an artifact of task recommend, with the purchases and the state that it carries.
func Open(a *model.Artifact, threads int) (*Recommender, error) {
	r, err := open(a, threads)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", a.Dir(), err)
	}
	return r, nil
}

func open(a *model.Artifact, threads int) (*Recommender, error) {
	f, err := read(a)
	if err != nil {
		return nil, err
	}
	r := newRecommender(f, threads)
	r.artifact, r.plan = a, a.Plan()
	if a.Manifest().Context != nil {
		r.engine = r.plan.NewInteractions()
		if err := a.RestoreContext(r.engine); err != nil {
			return nil, err
		}
		r.out = datasets.NewBatch(r.plan.Schema(), 0)
	}
	return r, r.refresh(f.Model.Now)
}

// New makes a recommender of parts, while a model is trained.
func New(f *Fitted, threads int) (*Recommender, error) {
	r := newRecommender(f, threads)
	return r, r.refresh(f.Model.Now)
}

func newRecommender(f *Fitted, threads int) *Recommender {
	return &Recommender{fitted: f, threads: max(1, threads), lines: map[int32][]line{},
		tail: datasets.NewBatch(f.History.schema(), 0)}
}

// Model is not to be changed.
func (r *Recommender) Model() *Model { return r.fitted.Model }

// Item is the column whose values are recommended, "" where the artifact does not say how its interactions are made.
func (r *Recommender) Item() string {
	if r.plan == nil {
		return ""
	}
	return r.plan.Interactions().Item
}

// Ranking is the model as of its instant. It is not changed by purchases that come later.
func (r *Recommender) Ranking() *ranking.Model { return r.model }

// History is all purchases known. It is not to be changed.
func (r *Recommender) History() *History { return r.fitted.History }

// Parts are what the artifact scores with.
func (r *Recommender) Parts() ranking.Parts { return r.fitted.Parts }

// Now is the instant that popularity and neighbours are of; a user's own purchases are always the latest known.
func (r *Recommender) Now() int64 { return r.model.Now() }

// freshFor is how old, by the time of the latest purchase, popularity and the purchases of other users may be: an hour
// in a shop moves neither, and reading them again takes a tenth of a second for a few hundred thousand purchases.
const freshFor = 60 * 60 * 1e6

// latest is the instant of the latest purchase, or the end of training.
func (r *Recommender) latest() int64 {
	t := r.fitted.History.Log.Time
	return max(r.fitted.Model.Now, t[len(t)-1])
}

// refresh reads all purchases up to the instant.
func (r *Recommender) refresh(now int64) error {
	h := r.fitted.History
	m, err := ranking.NewModel(r.fitted.Model.Kind, &h.Log, now, widened(r.fitted.Parts, h.Items.Len()))
	if err != nil {
		return err
	}
	r.model, r.scorer, r.read = m, m.NewScorer(), len(h.Log.User)
	return nil
}

// fresh sees that the model is not older than it may be.
func (r *Recommender) fresh() error {
	if n := len(r.fitted.History.Log.User); n == r.read {
		return nil
	}
	if now := r.latest(); now-r.model.Now() >= freshFor || r.fitted.History.Items.Len() > r.model.Items() {
		return r.refresh(now)
	}
	return nil
}

// widened is the parts with room for items that came after training: nothing is known of them but their purchases.
func widened(p ranking.Parts, items int) ranking.Parts {
	wide := func(m *ranking.Matrix) *ranking.Matrix {
		if m == nil || m.Rows == items {
			return m
		}
		c := *m
		c.Start = slices.Clone(m.Start)
		for len(c.Start) <= items {
			c.Start = append(c.Start, len(m.Index))
		}
		c.Rows, c.Cols = items, items
		return &c
	}
	p.EASE, p.KNN = wide(p.EASE), wide(p.KNN)
	if a := p.ALS; a != nil && len(a.Items) < items*a.Factors {
		c := *a
		c.Items = append(slices.Clone(a.Items), make([]float32, items*a.Factors-len(a.Items))...)
		p.ALS = &c
	}
	if e := p.Embedding; e != nil && len(e.Items) < items*e.Dim {
		c := *e
		c.Items = append(slices.Clone(e.Items), make([]float32, items*e.Dim-len(e.Items))...)
		p.Embedding = &c
	}
	return p
}

// Request is what is asked of a recommender: for a user, or for a basket.
type Request struct {
	User string // empty: none
	// Recent are items that the user has bought lately, beside what is known of the user: enough for one that is not
	// known. They count as one purchase, made now.
	Recent []string
	Basket []string // ask instead for what goes with these
	K      int
	Filter Filter
}

// Filter is what may be offered. It applies before the list is cut to K.
type Filter struct {
	ExcludeBought bool     // nothing that the user has bought, or named as recent
	InStock       []string // only these; nil: everything
	NotForSale    []string // none of these
}

// Answer is one item of a list.
type Answer struct {
	Item  string  `json:"item"`
	Score float64 `json:"score"` // to be compared within a list only
	Why   Why     `json:"why"`
}

// Why is the reason for an answer: Text for people, and its numbers.
type Why struct {
	Kind string `json:"kind"` // bought_before, bought_with, similar_users, popular or together
	Text string `json:"text"`
	// Of bought_before.
	Times         int     `json:"times,omitempty"`
	DaysSince     float64 `json:"days_since,omitempty"`
	UsualInterval float64 `json:"usual_interval_days,omitempty"`
	// Of bought_with and together.
	With string `json:"with,omitempty"`
	// Of similar_users: how many of how many.
	Users int `json:"users,omitempty"`
	Of    int `json:"of,omitempty"`
	// Of popular: purchases in 28 days.
	Purchases int `json:"purchases,omitempty"`
	// Of together.
	Support    int     `json:"support,omitempty"` // purchases with both
	Confidence float64 `json:"confidence,omitempty"`
	Lift       float64 `json:"lift,omitempty"`
	Cosine     float64 `json:"cosine,omitempty"`
}

// List is the answer to a Request.
type List struct {
	Known  bool     // the user has purchases
	Ignore []string // items of the request that were never sold
	Items  []Answer
}

// MaxK bounds a list.
const MaxK = 10_000

// Recommend answers. A user without purchases and without recent items gets what sells now.
func (r *Recommender) Recommend(q Request) (*List, error) {
	if q.K < 1 || q.K > MaxK {
		return nil, fmt.Errorf("k is %d: want 1 to %d", q.K, MaxK)
	}
	if len(q.Basket) > 0 && (q.User != "" || len(q.Recent) > 0) {
		return nil, errors.New("both a basket and a user: ask for one of them")
	}
	if err := r.fresh(); err != nil {
		return nil, err
	}
	out := &List{Items: []Answer{}}
	excluded, err := r.excluded(q.Filter)
	if err != nil {
		return nil, err
	}
	if len(q.Basket) > 0 {
		return out, r.basket(out, q, excluded)
	}
	user, history := r.historyOf(q.User)
	out.Known = len(history) > 0
	if recent := r.known(q.Recent, &out.Ignore); len(recent) > 0 {
		history = slices.Clone(history)
		visit, now := int32(0), r.latest()
		if n := len(history); n > 0 {
			visit = history[n-1].Visit + 1
		}
		for _, i := range recent {
			history = append(history, ranking.Line{Item: i, Visit: visit, Time: now})
		}
	}
	out.Items, err = r.list(r.scorer, user, history, q, excluded)
	return out, err
}

// list is the answer for one user.
func (r *Recommender) list(s *ranking.Scorer, user int32, history []ranking.Line, q Request,
	excluded ranking.Bitmap) ([]Answer, error) {
	if _, err := s.Scores(user, history); err != nil {
		return nil, err
	}
	if q.Filter.ExcludeBought {
		s.Bought(excluded, true)
	}
	items := []Answer{}
	for _, x := range s.Best(nil, q.K, excluded) {
		items = append(items, Answer{Item: r.name(x.Item), Score: float64(x.Score), Why: r.why(s.Why(x.Item))})
	}
	return items, nil
}

func (r *Recommender) name(item int32) string { return r.fitted.History.Items.Name(item) }

// known is the numbers of items; those never sold go to ignore.
func (r *Recommender) known(names []string, ignore *[]string) []int32 {
	var out []int32
	for _, name := range names {
		if i, ok := r.fitted.History.Items.Find(name); ok {
			out = append(out, i)
		} else {
			*ignore = append(*ignore, name)
		}
	}
	return out
}

// historyOf is the number of a user, -1 for one that is not known, and all that the user has bought.
func (r *Recommender) historyOf(name string) (int32, []ranking.Line) {
	user, ok := r.fitted.History.Users.Find(name)
	if !ok {
		return -1, nil
	}
	history := r.model.History(user)
	since := r.lines[user]
	if len(since) == 0 {
		return user, history
	}
	// The model may have read some of what came since: what it has not is put behind.
	at := len(since)
	for at > 0 && since[at-1].number >= r.read {
		at--
	}
	if at == len(since) {
		return user, history
	}
	history = slices.Clone(history)
	visits := map[int32]int32{}
	next := int32(0)
	for _, l := range history {
		next = max(next, l.Visit+1)
	}
	for _, l := range since[at:] {
		v, ok := visits[l.basket]
		if !ok {
			v = next
			visits[l.basket] = v
			next++
		}
		history = append(history, ranking.Line{Item: l.item, Visit: v, Time: l.time})
	}
	slices.SortStableFunc(history, func(a, b ranking.Line) int {
		switch {
		case a.Time < b.Time:
			return -1
		case a.Time > b.Time:
			return 1
		}
		return 0
	})
	return user, history
}

// excluded is the set of items that a filter, and that nobody has ever bought, leave out.
func (r *Recommender) excluded(f Filter) (ranking.Bitmap, error) {
	n := r.model.Items()
	set := ranking.NewBitmap(n)
	if f.InStock != nil {
		for i := range n {
			set.Set(int32(i))
		}
		for _, name := range f.InStock {
			if i, ok := r.fitted.History.Items.Find(name); ok && int(i) < n {
				set.Clear(i)
			}
		}
	}
	for _, name := range f.NotForSale {
		if i, ok := r.fitted.History.Items.Find(name); ok && int(i) < n {
			set.Set(i)
		}
	}
	return set, nil
}

// basket answers what goes with the items of a basket.
func (r *Recommender) basket(out *List, q Request, excluded ranking.Bitmap) error {
	items := r.known(q.Basket, &out.Ignore)
	if len(items) == 0 {
		return fmt.Errorf("none of the basket's items (%s) was ever sold before %s: nothing is known to go with them",
			strings.Join(q.Basket, ", "), datasets.FormatTime(r.latest()))
	}
	var old []int32 // items that came after training have no pairs yet
	for _, i := range items {
		if int(i) < len(r.fitted.Together.Sold) {
			old = append(old, i)
		}
	}
	pairs, err := r.fitted.Together.Basket(old, q.K, excluded)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		w := Why{Kind: "together", With: r.name(p.With), Support: p.Support, Confidence: p.Confidence, Lift: p.Lift,
			Cosine: p.Cosine}
		w.Text = fmt.Sprintf("in %d purchases with %s: %.0f%% of those with %s, %.1f times as often as chance",
			p.Support, w.With, 100*p.Confidence, w.With, p.Lift)
		out.Items = append(out.Items, Answer{Item: r.name(p.Item), Score: float64(p.Score), Why: w})
	}
	return nil
}

// why puts a reason in words.
func (r *Recommender) why(x ranking.Reason) Why {
	switch x.Kind {
	case ranking.BoughtBefore:
		w := Why{Kind: "bought_before", Times: x.Times, DaysSince: x.Since, UsualInterval: x.Usual}
		times := fmt.Sprintf("%d times, the last", x.Times)
		if x.Times == 1 {
			times = "once,"
		}
		w.Text = fmt.Sprintf("bought %s %s", times, ago(x.Since))
		if x.Usual >= 1 {
			w.Text += fmt.Sprintf(", usually every %.0f days", x.Usual)
		}
		return w
	case ranking.BoughtWith:
		name := r.name(x.With)
		return Why{Kind: "bought_with", With: name, Text: "buyers of " + name + " buy it too"}
	case ranking.Similar:
		return Why{Kind: "similar_users", Users: x.Count, Of: x.Of,
			Text: fmt.Sprintf("bought by %d of the %d users who buy most alike", x.Count, x.Of)}
	}
	w := Why{Kind: "popular", Purchases: x.Lines, Text: fmt.Sprintf("sells now: in %d purchases of the last 28 days",
		x.Lines)}
	switch {
	case x.Lines == 0:
		w.Text = "has sold before; nothing else speaks for it"
	case x.Age < 28:
		w.Text = fmt.Sprintf("new, first sold %s, and sells: in %d purchases", ago(x.Age), x.Lines)
	}
	return w
}

// ago is a number of days in words.
func ago(days float64) string {
	switch n := math.Round(days); n {
	case 0:
		return "today"
	case 1:
		return "a day ago"
	default:
		return fmt.Sprintf("%.0f days ago", n)
	}
}

// ForUser is the list of one user of All.
type ForUser struct {
	User  string
	Items []Answer
}
