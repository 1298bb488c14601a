// Package mock generates a shop with known truths, and measures them back.
//
// What enters: a size and a seed. What leaves: a data set of purchases with the shop's tables beside it (schema.go
// says which), and what was planted: seasons, trend, holidays, promotions, elasticity, tastes, products that are
// bought together or again, friends who buy what friends bought, returns, stock-outs and frauds. Check measures these
// from the data. Equal options give equal bytes on machines of one architecture, whatever the number of threads:
// every product, user and day has a stream of random numbers of its own, so that a user likes the same things in
// a shop of any size.
//
// How demand comes about: a user goes shopping at a rate of its own, moved by weekday, trend and holiday, and asks
// for products by taste and price level. What is asked for is then kept with a probability: the product's factor of
// the day, from season, weekday, price and promotion. So the expected sales of a product are its share times the
// factors, which is what a regression on logarithms finds. Habits, rules and influence add to that.
//
// It is for demonstrations and tests: figures measured on it say nothing about real shops or cards.
package mock

import (
	"fmt"

	"github.com/onmart/onmart/datasets"
)

// Options of a shop. Zero values take the defaults given.
type Options struct {
	Seed     uint64
	Rows     int   // transaction lines, about; default 350,000
	Days     int   // default 548, a year and a half
	Users    int   // default one for 100 lines in 90 days, and for 350 in a year and a half
	Stores   int   // default one for 5 users; the first three are online
	Products int   // default one for 1,100 lines, 96 to 1,000
	Start    int64 // first day, microseconds UTC; by default the last day is 2026-04-04
}

// lastDay ends a shop that has no Start, 2026-04-04.
const lastDay = 1775260800 * datasets.Second

// bounds of the options. Products are 16 bits in the alias tables.
var bounds = []struct {
	name        string
	value       func(*Options) int
	least, most int
}{
	{"rows", func(o *Options) int { return o.Rows }, 1, 1_000_000_000},
	{"days", func(o *Options) int { return o.Days }, 1, 3650},
	{"users", func(o *Options) int { return o.Users }, 1, 10_000_000},
	{"stores", func(o *Options) int { return o.Stores }, onlineStores + 1, 1_000_000},
	{"products", func(o *Options) int { return o.Products }, len(categories), 1 << 16},
}

// complete fills in the defaults; errors name the option that is out of range.
func (o *Options) complete() error {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Rows, 350_000)
	def(&o.Days, 548)
	def(&o.Users, max(o.Rows/max(100, o.Days*35/55), 20))
	def(&o.Stores, max(o.Users/5, 12)+onlineStores)
	def(&o.Products, min(max(o.Rows/1100, 96), 1000)/len(categories)*len(categories))
	for _, b := range bounds {
		if v := b.value(o); v < b.least || v > b.most {
			return fmt.Errorf("mock: %s is %d: want %d to %d", b.name, v, b.least, b.most)
		}
	}
	if cells := o.Users * o.Products; cells > maxTaste {
		return fmt.Errorf("mock: %d users and %d products need %d MB for their tastes: want fewer of one of them",
			o.Users, o.Products, cells*4>>20)
	}
	if o.Start == 0 {
		o.Start = lastDay - int64(o.Days-1)*datasets.Day
	}
	// Years that a time in microseconds, a manifest and a CSV all hold.
	if o.Start%datasets.Day != 0 || o.Start < 0 || o.Start > 4102444800*datasets.Second {
		return fmt.Errorf("mock: the first day is %s: want a midnight UTC from 1970 to 2100", datasets.FormatTime(o.Start))
	}
	return nil
}

// maxTaste bounds the cells of all users' alias tables: 4 GiB.
const maxTaste = 1 << 30

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

// Stream generates day after day. One goroutine uses it.
type Stream struct {
	o    Options
	dice *dice

	// The plans, fixed by New.
	calendar   []date // HorizonDays longer than the stream
	categories []category
	products   []product
	prices     [][]price
	promotions []promotion
	rules      []rule
	ruled      []bool // by product: leads a rule
	stores     []store
	users      []user
	weekly     [7]float64
	holiday    []float64 // by place in holidays
	trend      float64   // a year
	lift       float64   // of a promotion, beside its price
	returns    []float64 // share, by zip
	price      []int64   // selling price by day and product
	factor     []float32 // on demand, by day and product, relative to most
	most       float64
	taste      []aliasCell // by user and product
	logPrice   []float64
	share      []float64 // of products in what is asked for
	present    []float64 // share of activity that has joined, by day
	asked      float64   // lines asked for in a purchase
	habits     float64   // of a user, mean
	adopt      float64   // that a product with a rhythm becomes a habit
	links      int

	// The stream's state.
	day    int
	truth  Truth
	frauds map[int64]Kind // by trans_id
	today  today
	later  [][]line // returns, by day
	wants  [][]want // by day
	recent []int64  // units by product over the last stockDays
	lost   []lostDemand
	causes [2]float64 // when the next stolen card and the next bad store are due, days
}

// New plans a shop; errors name the option that is out of range.
func New(o Options) (*Stream, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Stream{o: o, dice: newDice(o.Seed), frauds: map[int64]Kind{}}
	s.calendar = makeCalendar(o.Start, o.Days+HorizonDays)
	s.makeShop()
	s.makeCategories()
	s.makeWeekly()
	s.makeProducts()
	s.makePrices()
	s.makePromotions()
	s.makeDemand()
	s.makeStores()
	s.makeUsers()
	s.makeTaste()
	s.makeRules()
	s.makeLinks()
	s.makeState()
	return s, nil
}

// makeShop draws what holds for the shop as a whole.
func (s *Stream) makeShop() {
	r := s.dice.of(forShop, 0, 0)
	s.trend = r.between(1.08, 1.25)
	s.lift = r.between(1.35, 1.6)
	s.holiday = make([]float64, len(holidays))
	for i, h := range holidays {
		s.holiday[i] = h.factor * r.between(.9, 1.1)
	}
	s.returns = make([]float64, zipRows*zipRows)
	for i := range s.returns {
		s.returns[i] = r.between(.02, .14)
	}
}

// Frauds are the kinds of the fraudulent purchases generated so far, by trans_id.
func (s *Stream) Frauds() map[int64]Kind { return s.frauds }

// Days is how many days there are, Start the first one.
func (s *Stream) Days() int    { return s.o.Days }
func (s *Stream) Start() int64 { return s.o.Start }
