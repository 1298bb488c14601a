package mock

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

// segments of users: how they live moves how much they buy, at what price level and what they like.
var segments = []struct {
	name           string
	share          float64
	activity       float64
	budget, online float64 // of the logarithm of prices; share of purchases made online, twice the mean
	hour           float64
}{
	{"family", .35, 1.3, 0, .3, 16},
	{"single", .3, .9, .1, .4, 17},
	{"senior", .2, .9, .05, .15, 11},
	{"student", .15, .7, -.35, .55, 18},
}

const (
	// The city is a square of about 40 km; users shop within reach of home.
	cityLat, cityLong, citySize = 50.85, 4.35, 0.36
	reachDegrees                = 0.05 // about 5 km
	zipRows                     = 4    // the city has zipRows x zipRows zip codes
	onlineStores                = 3
	budgetMedian                = 15  // currency units
	budgetSpread                = .65 // of its logarithm between users
	joinShare                   = .15 // of users come after the first day
)

type user struct {
	segment   int
	lat, long float64
	zip       int
	activity  float64 // relative
	perDay    float64 // purchases on a plain day
	online    float64 // share of purchases
	hour      float64 // favourite hour
	budget    float64 // logarithm of the price level
	meanPrice float64 // of what the user picks, currency units
	taste     [tasteDims]float64
	joined    int
	stores    []int // within reach
	stolenTo  int   // day until which the card is in other hands
	followers []int // who may buy what this user buys
	habits    []habit
}

// habit is a product that a user buys again and again, and the day on which it is due.
type habit struct{ product, due int }

type store struct {
	lat, long float64
	zip       int
	badTo     int
}

// zipOf is the place of a point of the city in the grid of zip codes.
func zipOf(lat, long float64) int {
	cell := func(v, centre float64) int {
		return min(max(int((v-centre+citySize/2)/citySize*zipRows), 0), zipRows-1)
	}
	return cell(lat, cityLat)*zipRows + cell(long, cityLong)
}

// zipCode writes a zip as people do.
func zipCode(zip int) string { return strconv.Itoa(1000 + 10*zip) }

func (s *Stream) makeStores() {
	s.stores = make([]store, s.o.Stores)
	for i := range s.stores {
		r := s.dice.of(forStore, i, 0)
		t := &s.stores[i]
		t.lat, t.long = cityLat+citySize*(r.Float64()-.5), cityLong+citySize*(r.Float64()-.5)
		t.zip = zipOf(t.lat, t.long)
	}
}

func (s *Stream) makeUsers() {
	likes := make([][tasteDims]float64, len(segments))
	for g := range likes {
		r := s.dice.of(forTaste, g, 2)
		for d := range likes[g] {
			likes[g][d] = r.NormFloat64()
		}
	}
	shares := make([]float64, len(segments))
	for g := range segments {
		shares[g] = segments[g].share
	}
	s.users = make([]user, s.o.Users)
	for i := range s.users {
		r, u := s.dice.of(forUser, i, 0), &s.users[i]
		u.segment = r.weighted(shares)
		g := &segments[u.segment]
		u.lat, u.long = cityLat+citySize*(r.Float64()-.5), cityLong+citySize*(r.Float64()-.5)
		u.zip = zipOf(u.lat, u.long)
		u.activity = g.activity * r.between(.35, 1.65)
		u.online = g.online * r.Float64()
		u.hour = math.Mod(g.hour+2.5*r.NormFloat64()+24, 24)
		u.budget = math.Log(budgetMedian) + g.budget + budgetSpread*r.NormFloat64()
		for d := range u.taste {
			u.taste[d] = .5*likes[u.segment][d] + math.Sqrt(.75)*r.NormFloat64()
		}
		if r.chance(joinShare) {
			u.joined = int(r.between(0, .9) * float64(s.o.Days))
		}
		u.stores = s.reach(u)
	}
}

// reach is the stores near a user's home, or the nearest one.
func (s *Stream) reach(u *user) []int {
	var near []int
	nearest, least := onlineStores, math.Inf(1)
	for j := onlineStores; j < len(s.stores); j++ {
		d := math.Hypot(s.stores[j].lat-u.lat, s.stores[j].long-u.long)
		if d < reachDegrees {
			near = append(near, j)
		}
		if d < least {
			nearest, least = j, d
		}
	}
	if len(near) == 0 {
		near = []int{nearest}
	}
	return near
}

// affinity is how well a user's and a product's vectors agree.
func affinity(u *user, p *product) float64 {
	sum := 0.0
	for d := range u.taste {
		sum += u.taste[d] * p.taste[d]
	}
	return sum
}

// weights are a user's for all products, before season, price and stock.
func (s *Stream) weights(u *user, dst []float64) {
	for i := range s.products {
		p := &s.products[i]
		z := (s.logPrice[i] - u.budget) / budgetWidth
		dst[i] = math.Exp(p.popularity + affinity(u, p) - z*z/2)
	}
}

// makeTaste makes each user's alias table, habits at the start, the share of each product in what is asked for,
// and from those how much everybody buys, so that the lines come to about as many as asked.
func (s *Stream) makeTaste() {
	n := len(s.products)
	s.logPrice = make([]float64, n)
	for i := range s.products {
		s.logPrice[i] = math.Log(float64(s.products[i].price) / 1e4)
	}
	s.taste = make([]aliasCell, len(s.users)*n)
	s.share = make([]float64, n)
	w, total := make([]float64, n), 0.0
	for i := range s.users {
		u := &s.users[i]
		s.weights(u, w)
		aliasTable(s.taste[i*n:(i+1)*n], w)
		sum, paid := 0.0, 0.0
		for k, v := range w {
			sum += v
			paid += v * math.Exp(s.logPrice[k])
		}
		u.meanPrice = paid / sum
		for k, v := range w {
			s.share[k] += u.activity * v / sum
		}
		total += u.activity
	}
	for k := range s.share {
		s.share[k] /= total
	}
	s.balance(total)
	s.startHabits(w)
}

const (
	linesPerPurchase = 1.8 // asked for in a purchase on a mean day
	habitLines       = .26 // of all lines are bought by rhythm
	// ordinaryLines are asked for at random; the rest follows from rules, influence and returns.
	ordinaryLines = .77
	lapse         = .06 // a habit ends after a purchase
)

// balance sets the purchases a day of each user, the lines that a purchase asks for before the factors thin them,
// the habits at the start and how many new ones begin.
func (s *Stream) balance(activity float64) {
	s.present = make([]float64, s.o.Days)
	for i := range s.users {
		for d := s.users[i].joined; d < s.o.Days; d++ {
			s.present[d] += s.users[i].activity / activity
		}
	}
	n, purchases, kept := len(s.products), 0.0, 0.0
	rhythmic := 0.0
	for d := range s.o.Days {
		pace := s.pace(d)
		purchases += pace * s.present[d]
		for i := range s.products {
			k := pace * s.present[d] * s.share[i] * float64(s.factor[d*n+i])
			kept += k
			if s.products[i].interval > 0 {
				rhythmic += k
			}
		}
	}
	// kept/purchases of the lines asked for survive the factors.
	s.asked = linesPerPurchase * purchases / max(kept, 1e-300)
	rows, userDays := float64(s.o.Rows), float64(len(s.users)*s.o.Days)
	mean, rhythms := s.meanInterval()
	habitual := 0.0 // share of the lines
	if mean > 0 {
		s.habits = min(habitLines*rows/userDays*mean, float64(rhythms)/2)
		habitual = s.habits * userDays / mean / rows
	}
	ordinary := ordinaryLines + habitLines - habitual
	perDay := ordinary * rows / linesPerPurchase / max(purchases, 1e-300) / activity
	for i := range s.users {
		s.users[i].perDay = perDay * s.users[i].activity
	}
	if mean > 0 { // as many begin as lapse
		begin := ordinary * rows * rhythmic / max(kept, 1e-300) / userDays
		s.adopt = min(s.habits/mean*lapse/max(begin, 1e-300), .9)
	}
}

// meanInterval is the mean of the rhythms and how many products have one.
func (s *Stream) meanInterval() (mean float64, n int) {
	for i := range s.products {
		if s.products[i].interval > 0 {
			mean += float64(s.products[i].interval)
			n++
		}
	}
	return mean / max(float64(n), 1), n
}

// pace is how many purchases there are on a day, relative to a plain day of the start.
func (s *Stream) pace(day int) float64 {
	d := &s.calendar[day]
	if d.closed || s.present[day] <= 0 {
		return 0
	}
	pace := s.weekly[d.weekday] * math.Pow(s.trend, float64(day)/365.25) / s.present[day]
	if d.holiday >= 0 {
		pace *= s.holiday[d.holiday]
	}
	return pace
}

// startHabits gives each user the habits that it has on its first day, each somewhere in its interval.
func (s *Stream) startHabits(w []float64) {
	for i := range s.users {
		u, r := &s.users[i], s.dice.of(forTaste, i, 3)
		s.weights(u, w)
		for k := range w {
			if s.products[k].interval == 0 {
				w[k] = 0
			}
		}
		for range r.poisson(s.habits * u.activity) {
			k := r.weighted(w)
			if w[k] > 0 {
				u.habits = append(u.habits, habit{k, u.joined + int(r.Float64()*float64(s.products[k].interval))})
				w[k] = 0
			}
		}
	}
}

const (
	followerShare   = .3  // of users follow others
	influenceChance = .09 // that a follower buys what was bought
	influenceLag    = 3.0 // days beyond the first, mean
	influenceMost   = 14  // days
)

// makeLinks draws who follows whom: a quarter of the users lead, and each follower has one to three of them.
// Nobody does both, so that influence goes one step.
func (s *Stream) makeLinks() {
	var leaders []int
	for i := range s.users {
		if s.dice.of(forLinks, i, 0).chance(.25) && s.users[i].joined == 0 {
			leaders = append(leaders, i)
		}
	}
	if len(leaders) == 0 {
		return
	}
	for i := range s.users {
		r := s.dice.of(forLinks, i, 1)
		if _, leads := slices.BinarySearch(leaders, i); leads || !r.chance(followerShare/.75) {
			continue
		}
		for _, k := range r.apart(min(1+r.IntN(3), len(leaders)), len(leaders)) {
			s.users[leaders[k]].followers = append(s.users[leaders[k]].followers, i)
			s.links++
		}
	}
}

// bestFirst sorts items by falling value.
func bestFirst(items []int, value func(int) float64) []int {
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b int) int { return cmp.Compare(value(b), value(a)) })
	return sorted
}
