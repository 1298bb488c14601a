// Package mock generates a card stream with known truths.
//
// What enters: a size and a seed. What leaves: a data set of purchases (several lines each) with users,
// stores and products beside it, and the frauds that were planted. The same options give the same rows on machines
// of one architecture. It is for demonstrations and tests: figures measured on it say nothing about real cards.
package mock

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// Options of a stream. Zero values take the defaults given.
type Options struct {
	Seed   uint64
	Rows   int   // transaction lines, about; default 300,000
	Users  int   // default Rows/100
	Stores int   // default Users/5
	Days   int   // default 90
	Start  int64 // first day, microseconds UTC, default 2026-01-05, a Monday
}

// Kind of a planted fraud, after the three scenarios of the Fraud Detection Handbook (Le Borgne et al.).
type Kind int

const (
	Genuine Kind = iota
	// LargeAmount: a purchase far above what anybody buys.
	LargeAmount
	// BadStore: a store whose terminal is compromised for four weeks; most of its purchases are fraud.
	BadStore
	// StolenCard: a card in other hands for two weeks; a third of its purchases costs five times as much.
	StolenCard
)

func (k Kind) String() string {
	return [...]string{"genuine", "large_amount", "bad_store", "stolen_card"}[k]
}

// Compromise is one planted cause: an entity and the days (from the start, end exclusive) it lasts.
type Compromise struct {
	Kind     string `json:"kind"`
	ID       int64  `json:"id"`
	FromDay  int    `json:"from_day"`
	UntilDay int    `json:"until_day"`
}

// Truth is what was planted.
type Truth struct {
	Seed        uint64           `json:"seed"`
	Lines       int64            `json:"lines"`
	Purchases   int64            `json:"purchases"`
	FraudLines  map[string]int64 `json:"fraud_lines"`
	Compromises []Compromise     `json:"compromises"`
}

type user struct {
	lat, long float64
	perDay    float64 // purchases
	spend     float64 // scales the prices this user picks
	hour      float64 // favourite hour
	stores    []int   // within reach
	likes     [2]int  // categories
	stolenTo  int     // day until which the card is in other hands
}

type store struct {
	lat, long float64
	badTo     int
}

type product struct {
	category int
	price    int64 // in 1e-4
}

// categories by rising price, then falling: neighbours cost about the same.
var categories = []string{"grocery", "household", "books", "toys", "electronics", "clothing", "garden", "health"}

// categoryPrice is the median price of each category, in currency units.
var categoryPrice = []float64{5, 9, 14, 22, 60, 34, 20, 11}

// Stream generates day after day.
type Stream struct {
	o        Options
	users    []user
	stores   []store
	products []product
	day      int
	truth    Truth
	frauds   map[int64]Kind // by trans_id
}

const (
	badStoreDays   = 28
	badStoreShare  = 0.7 // of its purchases
	stolenCardDays = 14
	stolenShare    = 1.0 / 3
	// The city is a square of about 40 km; users shop within reach of home.
	cityLat, cityLong, citySize = 50.85, 4.35, 0.36
	reachDegrees                = 0.045 // about 5 km
	linesPerPurchase            = 1.7   // mean of lineCount
	productCount                = 400
	favouriteShare              = 0.85 // of lines are of the two categories that a user likes
)

// New plans a stream; errors name the option that is out of range.
func New(o Options) (*Stream, error) {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Rows, 300_000)
	def(&o.Days, 90)
	def(&o.Users, max(o.Rows/100, 20))
	def(&o.Stores, max(o.Users/5, 10))
	if o.Start == 0 {
		o.Start = 1767571200 * datasets.Second
	}
	for _, c := range []struct {
		name    string
		v, most int
	}{{"rows", o.Rows, 1_000_000_000}, {"days", o.Days, 3650}, {"users", o.Users, 10_000_000}, {"stores", o.Stores, 1_000_000}} {
		if c.v < 1 || c.v > c.most {
			return nil, fmt.Errorf("mock: %s is %d: want 1 to %d", c.name, c.v, c.most)
		}
	}
	s := &Stream{o: o, truth: Truth{Seed: o.Seed, FraudLines: map[string]int64{}}, frauds: map[int64]Kind{}}
	s.makeProducts(rand.New(rand.NewPCG(o.Seed, 1)))
	s.makeStores(rand.New(rand.NewPCG(o.Seed, 2)))
	s.makeUsers(rand.New(rand.NewPCG(o.Seed, 3)))
	return s, nil
}

func (s *Stream) makeProducts(r *rand.Rand) {
	s.products = make([]product, productCount)
	for i := range s.products {
		c := i % len(categories)
		p := categoryPrice[c] * math.Exp(0.3*r.NormFloat64())
		s.products[i] = product{c, int64(math.Round(p*100)) * 100}
	}
}

func (s *Stream) makeStores(r *rand.Rand) {
	s.stores = make([]store, s.o.Stores)
	for i := range s.stores {
		s.stores[i] = store{lat: cityLat + citySize*(r.Float64()-.5), long: cityLong + citySize*(r.Float64()-.5)}
	}
}

func (s *Stream) makeUsers(r *rand.Rand) {
	perDay := float64(s.o.Rows) / linesPerPurchase / float64(s.o.Users*s.o.Days)
	s.users = make([]user, s.o.Users)
	for i := range s.users {
		u := &s.users[i]
		u.lat, u.long = cityLat+citySize*(r.Float64()-.5), cityLong+citySize*(r.Float64()-.5)
		u.perDay = perDay * (0.3 + 1.4*r.Float64())
		u.spend = math.Exp(0.35 * r.NormFloat64())
		// Two neighbours by price, so that what a user pays has a habit.
		u.likes[0] = r.IntN(len(categories))
		u.likes[1] = (u.likes[0] + 1) % len(categories)
		u.hour = 9 + 10*r.Float64()
		for j := range s.stores {
			if math.Hypot(s.stores[j].lat-u.lat, s.stores[j].long-u.long) < reachDegrees {
				u.stores = append(u.stores, j)
			}
		}
		if len(u.stores) == 0 {
			u.stores = []int{r.IntN(len(s.stores))}
		}
	}
}

// Schema of the purchases: every canonical column of a card stream.
func Schema() *datasets.Schema {
	return &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.Line, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.ProductID, Type: datasets.String},
		{Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.Int64},
		{Name: datasets.TransLong, Type: datasets.Float64},
		{Name: datasets.TransLat, Type: datasets.Float64},
		{Name: datasets.Quantity, Type: datasets.Int64},
		{Name: datasets.UnitPrice, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
	}}
}

type line struct {
	at       int64
	id       int64
	line     int64
	product  int
	user     int
	store    int
	quantity int64
	price    int64
	kind     Kind
}

// Next returns the lines of the next day by event time, nil after the last day.
func (s *Stream) Next() *datasets.Batch {
	if s.day >= s.o.Days {
		return nil
	}
	r := rand.New(rand.NewPCG(s.o.Seed, 1000+uint64(s.day)))
	s.compromise(r)
	var lines []line
	weekly := 1 + 0.25*math.Sin(2*math.Pi*float64(s.day%7)/7)
	for u := range s.users {
		for range poisson(r, s.users[u].perDay*weekly) {
			lines = s.purchase(r, lines, u)
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id), cmp.Compare(a.line, b.line))
	})
	s.number(lines)
	s.day++
	return s.batch(lines)
}

// number gives purchases ids that rise with time.
func (s *Stream) number(lines []line) {
	last := int64(-1)
	for i := range lines {
		if lines[i].id != last {
			last = lines[i].id
			s.truth.Purchases++
		}
		lines[i].id = s.truth.Purchases
	}
}

// compromise plants today's new causes: about one in 900 cards and one in 2,500 stores a day, so that somewhat
// more than one purchase in a hundred is fraud.
func (s *Stream) compromise(r *rand.Rand) {
	for range poisson(r, float64(len(s.users))/900) {
		u := r.IntN(len(s.users))
		s.users[u].stolenTo = s.day + stolenCardDays
		s.truth.Compromises = append(s.truth.Compromises, Compromise{StolenCard.String(), int64(u), s.day, s.day + stolenCardDays})
	}
	for range poisson(r, float64(len(s.stores))/2500) {
		t := r.IntN(len(s.stores))
		s.stores[t].badTo = s.day + badStoreDays
		s.truth.Compromises = append(s.truth.Compromises, Compromise{BadStore.String(), int64(t), s.day, s.day + badStoreDays})
	}
}

func (s *Stream) purchase(r *rand.Rand, lines []line, u int) []line {
	me := &s.users[u]
	shop := me.stores[r.IntN(len(me.stores))]
	hour := me.hour + 2.5*r.NormFloat64()
	if r.Float64() < 0.06 {
		hour = 24 * r.Float64()
	}
	hour = math.Mod(math.Mod(hour, 24)+24, 24)
	at := s.o.Start + int64(s.day)*datasets.Day + int64(hour*3600)*datasets.Second
	kind, factor := Genuine, 1.0
	switch {
	case r.Float64() < 0.0008:
		kind, factor = LargeAmount, 12+8*r.Float64()
	case s.stores[shop].badTo > s.day && r.Float64() < badStoreShare:
		kind = BadStore
	case me.stolenTo > s.day && r.Float64() < stolenShare:
		kind, factor = StolenCard, 5
	}
	id := int64(len(lines)) // of the day, until number
	for n := range lineCount(r) {
		p := s.pick(r, me)
		price := math.Round(float64(s.products[p].price)*me.spend*factor/100) * 100
		lines = append(lines, line{at, id, int64(n), p, u, shop, int64(1 + poisson(r, 0.3)), max(int64(price), 100), kind})
	}
	return lines
}

// pick chooses a product, mostly of the categories that the user likes.
func (s *Stream) pick(r *rand.Rand, u *user) int {
	if r.Float64() >= favouriteShare {
		return r.IntN(productCount)
	}
	c := u.likes[r.IntN(2)]
	return c + len(categories)*r.IntN(productCount/len(categories))
}

// lineCount is 1, 2, 3 or 4 with mean linesPerPurchase.
func lineCount(r *rand.Rand) int {
	switch x := r.Float64(); {
	case x < 0.55:
		return 1
	case x < 0.82:
		return 2
	case x < 0.93:
		return 3
	}
	return 4
}

func (s *Stream) batch(lines []line) *datasets.Batch {
	b := datasets.NewBatch(Schema(), len(lines))
	b.N = len(lines)
	cols := b.Columns
	add := func(c int, v int64) { cols[c].Ints = append(cols[c].Ints, v) }
	for _, l := range lines {
		fraud := int64(0)
		if l.kind != Genuine {
			fraud = 1
			s.truth.FraudLines[l.kind.String()]++
			s.frauds[l.id] = l.kind
		}
		add(0, l.id)
		add(1, l.line)
		add(2, l.at)
		cols[3].Strings = append(cols[3].Strings, productID(l.product))
		add(4, int64(l.user))
		add(5, int64(l.store))
		cols[6].Floats = append(cols[6].Floats, s.stores[l.store].long)
		cols[7].Floats = append(cols[7].Floats, s.stores[l.store].lat)
		add(8, l.quantity)
		add(9, l.price)
		add(10, l.price*l.quantity)
		add(11, fraud)
	}
	s.truth.Lines += int64(len(lines))
	return b
}

func productID(i int) string { return fmt.Sprintf("P%04d", i) }

// Truth is what was planted in the days generated so far.
func (s *Stream) Truth() Truth { return s.truth }

// Frauds are the kinds of the fraudulent purchases generated so far, by trans_id.
func (s *Stream) Frauds() map[int64]Kind { return s.frauds }

// Days is how many days there are, Start the first one.
func (s *Stream) Days() int    { return s.o.Days }
func (s *Stream) Start() int64 { return s.o.Start }

// poisson draws by Knuth's product of uniforms; rates here are below ten.
func poisson(r *rand.Rand, rate float64) int {
	limit, n := math.Exp(-rate), 0
	for p := r.Float64(); p > limit; p *= r.Float64() {
		n++
	}
	return n
}
