package mock

import (
	"fmt"
	"math"

	"github.com/onmart/onmart/datasets"
)

// category is what its products have in common. The numbers of the literals are before the seed moves them.
type category struct {
	name, department string
	price            float64 // median, in currency units
	peakWeekday      int     // 0 is Monday
	peakDay          float64 // of the year
	season           float64 // amplitude of the logarithm of demand over the year
	christmas        float64 // height of the Christmas bump of the logarithm
	elasticity       float64
	rhythm           bool // many products are used up and bought again
	lead             int  // days from order to arrival
	nouns            []string

	weekly [7]float64 // factors with mean 1
}

// categories by rising price, then falling: neighbours cost about the same.
var categories = []category{
	{name: "grocery", department: "food", price: 5, peakWeekday: 5, peakDay: 350, season: .15, christmas: .3,
		elasticity: -.9, rhythm: true, lead: 2,
		nouns: []string{"coffee", "rice", "olive oil", "muesli", "tea", "pasta", "honey", "crackers", "tomato sauce",
			"oats"}},
	{name: "household", department: "home", price: 9, peakWeekday: 5, peakDay: 95, season: .2, christmas: 0,
		elasticity: -1.2, rhythm: true, lead: 4,
		nouns: []string{"detergent", "sponges", "candles", "paper towels", "light bulbs", "bin liners", "dish soap",
			"batteries", "napkins", "foil"}},
	{name: "books", department: "leisure", price: 14, peakWeekday: 6, peakDay: 325, season: .3, christmas: .6,
		elasticity: -1.4, lead: 5,
		nouns: []string{"novel", "cookbook", "atlas", "biography", "travel guide", "poems", "thriller", "comic",
			"dictionary", "diary"}},
	{name: "toys", department: "leisure", price: 22, peakWeekday: 5, peakDay: 330, season: .4, christmas: .9,
		elasticity: -1.7, lead: 12,
		nouns: []string{"puzzle", "blocks", "doll", "board game", "kite", "train set", "teddy", "marbles", "robot",
			"crayons"}},
	{name: "electronics", department: "tech", price: 60, peakWeekday: 4, peakDay: 330, season: .25, christmas: .6,
		elasticity: -2.1, lead: 14,
		nouns: []string{"headphones", "speaker", "charger", "keyboard", "camera", "lamp", "router", "radio", "watch",
			"tablet"}},
	{name: "clothing", department: "fashion", price: 34, peakWeekday: 5, peakDay: 275, season: .35, christmas: .35,
		elasticity: -2.2, lead: 10,
		nouns: []string{"shirt", "scarf", "jacket", "socks", "jeans", "sweater", "hat", "gloves", "dress", "belt"}},
	{name: "garden", department: "home", price: 20, peakWeekday: 6, peakDay: 138, season: .55, christmas: 0,
		elasticity: -1.5, lead: 8,
		nouns: []string{"seeds", "hose", "planter", "spade", "lantern", "bird feeder", "bench", "shears", "compost",
			"trellis"}},
	{name: "health", department: "care", price: 11, peakWeekday: 0, peakDay: 25, season: .25, christmas: 0,
		elasticity: -1.0, rhythm: true, lead: 3,
		nouns: []string{"toothpaste", "vitamins", "shampoo", "soap", "sun cream", "lotion", "plasters", "razor blades",
			"cotton pads", "tissues"}},
}

var adjectives = []string{"plain", "fine", "classic", "large", "small", "green", "blue", "organic", "everyday",
	"deluxe",
	"soft", "sturdy", "light", "family", "travel", "winter", "summer", "rustic", "modern", "tiny"}

const (
	tasteDims = 6 // latent dimensions of taste, beside the price level
	// tasteSize is the variance of the product of a user's and a product's vector: a user's favourites are some ten
	// times as likely as what is indifferent.
	tasteSize = 1.25
	// A user's budget is a price level; prices a factor e^budgetWidth away are bought less by exp(-1/2).
	budgetWidth = .45
	priceSpread = .5 // of the logarithm of prices within a category
	popularity  = .8 // of the logarithm of popularity
	// ownTaste is how much of a product's vector is its own; the rest is its category's.
	ownTaste = .6
	// rhythmShare of the products of a category that is used up have a rhythm.
	rhythmShare = .55
)

// intervals are the days after which products with a rhythm are bought again.
var intervals = []int{10, 14, 21, 28, 42, 60}

// product of the catalogue. Days count from the stream's first.
type product struct {
	id           string
	name         string
	category     int
	price        int64 // first list price in 1e-4
	cost         int64
	popularity   float64
	taste        [tasteDims]float64
	launched     int
	discontinued int // first day not sold, or beyond the horizon
	interval     int // days of the rhythm, 0 without
	lead, review int
	outages      []span
}

// span of days, the last one excluded.
type span struct{ from, until int }

// makeCategories moves the numbers of each category by the seed.
func (s *Stream) makeCategories() {
	s.categories = make([]category, len(categories))
	for i := range categories {
		r := s.dice.of(forCategory, i, 0)
		c := categories[i]
		c.elasticity *= r.between(.88, 1.12)
		c.season *= r.between(.88, 1.12)
		c.christmas *= r.between(.88, 1.12)
		c.peakDay += r.between(-15, 15)
		depth, total := r.between(.25, .45), 0.0
		for d := range c.weekly {
			c.weekly[d] = math.Exp(depth * math.Cos(2*math.Pi*float64(d-c.peakWeekday)/7))
			total += c.weekly[d] / 7
		}
		for d := range c.weekly {
			c.weekly[d] /= total
		}
		s.categories[i] = c
	}
}

func (s *Stream) makeProducts() {
	centres := make([][tasteDims]float64, len(categories))
	for c := range centres {
		r := s.dice.of(forTaste, c, 1)
		for d := range centres[c] {
			centres[c][d] = r.NormFloat64()
		}
	}
	s.products = make([]product, s.o.Products)
	for i := range s.products {
		p := &s.products[i]
		r := s.dice.of(forProduct, i, 0)
		p.id, p.category = fmt.Sprintf("P%04d", i), i%len(categories)
		c := &s.categories[p.category]
		k := i / len(categories)
		p.name = adjectives[(k/len(c.nouns)+3*k)%len(adjectives)] + " " + c.nouns[k%len(c.nouns)]
		if model := k / (len(c.nouns) * len(adjectives)); model > 0 {
			p.name += fmt.Sprintf(" %d", model+1)
		}
		p.price = cents(c.price * math.Exp(priceSpread*r.NormFloat64()))
		p.cost = cents(float64(p.price) / 1e4 * r.between(.45, .7))
		p.popularity = popularity * r.NormFloat64()
		scale := math.Sqrt(tasteSize / tasteDims)
		for d := range p.taste {
			p.taste[d] = scale * (math.Sqrt(1-ownTaste)*centres[p.category][d] + math.Sqrt(ownTaste)*r.NormFloat64())
		}
		p.lead, p.review = max(1, c.lead+r.IntN(3)-1), []int{1, 3, 7}[r.IntN(3)]
		p.discontinued = math.MaxInt
		switch x := r.Float64(); {
		case x < .12:
			p.launched = int(r.between(.1, .8) * float64(s.o.Days))
		case x < .18:
			p.discontinued = int(r.between(.4, .95) * float64(s.o.Days))
		}
		if c.rhythm && r.chance(rhythmShare) {
			p.interval, p.launched, p.discontinued = intervals[r.IntN(len(intervals))], 0, math.MaxInt
		}
		p.outages = s.outages(i, p)
	}
}

// outages are the times without stock: one in five months for each product, nine days long in the mean.
func (s *Stream) outages(i int, p *product) []span {
	r := s.dice.of(forOutages, i, 0)
	var all []span
	for day := p.launched + int(r.between(5, 150)); day < min(s.o.Days, p.discontinued); {
		until := day + 4 + r.poisson(5)
		all = append(all, span{day, min(until, s.o.Days)})
		day = until + 20 + int(r.ExpFloat64()*130)
	}
	return all
}

// price is one list price and the day from which it holds.
type price struct {
	day  int
	list int64
}

// promotion lowers the price of a product, or of a category where product is -1, on days of a span.
type promotion struct {
	name     string
	category int
	product  int
	span
	discount float64
}

// makePrices gives each product its list prices: a new one every four months, each a step away from the first so
// that prices do not wander off.
func (s *Stream) makePrices() {
	s.prices = make([][]price, len(s.products))
	for i := range s.products {
		r := s.dice.of(forPrices, i, 0)
		p := &s.products[i]
		s.prices[i] = []price{{0, p.price}}
		for day := int(r.between(20, 120)); day < len(s.calendar); day += 45 + int(r.ExpFloat64()*75) {
			s.prices[i] = append(s.prices[i], price{day, cents(float64(p.price) / 1e4 * math.Exp(.14*r.NormFloat64()))})
		}
	}
}

// makePromotions plans campaigns of one or two weeks: of whole categories about every four months each, and of
// single products where none of their category is near.
func (s *Stream) makePromotions() {
	const gap = 7 // days between two of one product
	taken := make([][]span, len(s.products))
	free := func(i int, w span) bool {
		for _, t := range taken[i] {
			if w.from < t.until+gap && t.from < w.until+gap {
				return false
			}
		}
		return true
	}
	for c := range s.categories {
		r := s.dice.of(forCampaigns, c, 1)
		for day := int(r.between(5, 110)); day < len(s.calendar); day += 80 + int(r.ExpFloat64()*40) {
			w := span{day, min(day+7, len(s.calendar))}
			s.promotions = append(s.promotions, promotion{s.categories[c].name + " week", c, -1, w, discount(r, .08, .22)})
			for i := c; i < len(s.products); i += len(categories) {
				taken[i] = append(taken[i], w)
			}
		}
	}
	for i := range s.products {
		r := s.dice.of(forCampaigns, i, 2)
		for day := int(r.between(3, 120)); day < len(s.calendar); day += 60 + int(r.ExpFloat64()*60) {
			w := span{day, min(day+7+7*r.IntN(2), len(s.calendar))}
			off := discount(r, .10, .35)
			if day >= s.products[i].launched && w.until <= s.products[i].discontinued && free(i, w) {
				s.promotions = append(s.promotions, promotion{s.products[i].name, s.products[i].category, i, w, off})
				taken[i] = append(taken[i], w)
			}
		}
	}
}

func discount(r *dice, lo, hi float64) float64 { return math.Round(r.between(lo, hi)*100) / 100 }

// cents rounds an amount to whole cents, at least one, in units of 1e-4.
func cents(v float64) int64 { return max(int64(math.Round(v*100)), 1) * 100 }

// makeDemand computes for each day and product the selling price and the factor on demand, by the plans alone.
// Factors are kept relative to the greatest one, because they are used as probabilities.
func (s *Stream) makeDemand() {
	days, n := len(s.calendar), len(s.products)
	s.price = make([]int64, days*n)
	s.factor = make([]float32, days*n)
	off := make([]float64, days*n)
	for _, p := range s.promotions {
		for i := p.category; i < n; i += len(categories) {
			if p.product < 0 || p.product == i {
				for d := p.from; d < p.until; d++ {
					off[d*n+i] = p.discount
				}
			}
		}
	}
	most := float32(0)
	for i := range s.products {
		p, at := &s.products[i], 0
		c := &s.categories[p.category]
		for d := range days {
			for at+1 < len(s.prices[i]) && s.prices[i][at+1].day <= d {
				at++
			}
			cell := d*n + i
			s.price[cell] = cents(float64(s.prices[i][at].list) / 1e4 * (1 - off[cell]))
			if d < p.launched || d >= p.discontinued || s.calendar[d].closed {
				continue
			}
			day := &s.calendar[d]
			log := c.season*math.Cos(2*math.Pi*(day.yearPart-c.peakDay/365.25)) + c.christmas*christmas(day.yearPart) +
				c.elasticity*math.Log(float64(s.price[cell])/float64(p.price))
			if off[cell] > 0 {
				log += math.Log(s.lift)
			}
			s.factor[cell] = float32(math.Exp(log) * c.weekly[day.weekday] / s.weekly[day.weekday])
			if d < s.o.Days {
				most = max(most, s.factor[cell])
			}
		}
	}
	s.most = float64(most)
	for i := range s.factor {
		s.factor[i] /= most
	}
}

// makeWeekly is the mean week of the categories: it moves the number of purchases, and each category's own week,
// relative to it, what is in them.
func (s *Stream) makeWeekly() {
	for d := range s.weekly {
		for c := range s.categories {
			s.weekly[d] += s.categories[c].weekly[d] / float64(len(s.categories))
		}
	}
}

// rule says: whoever has all of the first in the basket takes then too, with a probability.
type rule struct {
	first       []int
	then        int
	probability float64
}

const (
	pairRules   = 8
	tripleRules = 3
)

// makeRules plants rules among popular products that are always sold and have no rhythm. A triple A, B -> C comes
// with A -> B, so that A and B meet often enough for it to be seen.
func (s *Stream) makeRules() {
	r := s.dice.of(forRules, 0, 0)
	var able []int
	for i := range s.products {
		p := &s.products[i]
		if p.interval == 0 && p.launched == 0 && p.discontinued == math.MaxInt && p.popularity > -.4 {
			able = append(able, i)
		}
	}
	need := 2*pairRules + 3*tripleRules
	if len(able) < need {
		s.rules = nil
		return
	}
	// The first half by popularity leads, so that there is enough to see.
	lead := bestFirst(able, func(i int) float64 { return s.share[i] })
	leads, rest := lead[:pairRules+tripleRules], lead[pairRules+tripleRules:]
	order := r.Perm(len(rest))
	next := 0
	take := func() int { next++; return rest[order[next-1]] }
	for k := range pairRules {
		s.rules = append(s.rules, rule{[]int{leads[k]}, take(), r.between(.2, .4)})
	}
	for k := range tripleRules {
		a, b, c := leads[pairRules+k], take(), take()
		s.rules = append(s.rules, rule{[]int{a}, b, r.between(.25, .35)}, rule{[]int{a, b}, c, r.between(.4, .6)})
	}
	s.ruled = make([]bool, len(s.products))
	for _, t := range s.rules {
		s.ruled[t.first[0]] = true
	}
}

// day is the instant at which day n begins.
func (s *Stream) instant(n int) int64 { return s.o.Start + int64(n)*datasets.Day }
