package mock

import (
	"cmp"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
)

const (
	badStoreDays   = 28
	badStoreShare  = 0.7 // of its purchases
	stolenCardDays = 14
	stolenShare    = 1.0 / 3
	stolenTimes    = 5.0 // of what the user pays for a line
	largeShare     = 0.0008
	largeTimes     = 16.0
	// A new cause: one card in 900 and one store in 2,500 a day, so that somewhat more than one purchase in a
	// hundred is fraud.
	stolenEvery, badEvery = 900, 2500

	mistakeShare = .0015 // of lines are undone within minutes
	returnMean   = 7.0   // days beyond the first until a return
	returnMost   = 28
	ratedShare   = .12
	reviewShare  = .4 // of the rated
	stockDays    = 56 // of sales by which stock is kept
)

// line is one line of a purchase while its day is made.
type line struct {
	at       int64
	id       int64 // of the day, until number
	line     int64
	product  int
	user     int
	store    int
	quantity int64 // below 0 for a return
	price    int64
	kind     Kind
	rating   int8 // 0 for none
	review   string
	lat      float64
	long     float64
}

// want is a product that a user will buy because a friend did.
type want struct{ user, product int }

// lostDemand is what was asked for of a product on a day without stock.
type lostDemand struct {
	product, day    int
	requests, units int64
}

// today is the day being made.
type today struct {
	lines           []line
	ids             int64
	out             []bool  // by product: no stock
	requests, units []int64 // lost, by product
	basket          []item
	wants           []want // by user
}

// item of a basket.
type item struct {
	product  int
	quantity int64
}

func (s *Stream) makeState() {
	n := len(s.products)
	s.today.out, s.today.requests, s.today.units = make([]bool, n), make([]int64, n), make([]int64, n)
	s.later, s.wants = make([][]line, s.o.Days), make([][]want, s.o.Days)
	s.recent = make([]int64, n)
	s.causes = [2]float64{s.dice.of(forCauses, 0, 0).Float64() / s.causeRate(StolenCard), s.dice.of(forCauses, 1,
		0).Float64() / s.causeRate(BadStore)}
	s.plant()
}

// Next returns the lines of the next day by event time, nil after the last day.
func (s *Stream) Next() *datasets.Batch {
	if s.day >= s.o.Days {
		return nil
	}
	t := &s.today
	t.lines, t.ids = t.lines[:0], 0
	s.takeStock()
	s.compromise()
	if s.calendar[s.day].closed {
		s.postpone()
	} else {
		t.wants = s.wants[s.day]
		slices.SortStableFunc(t.wants, func(a, b want) int { return cmp.Compare(a.user, b.user) })
		pace := s.pace(s.day)
		for u := range s.users {
			if s.users[u].joined <= s.day {
				s.visit(u, pace)
			}
		}
		for _, l := range s.later[s.day] {
			l.id = t.ids
			t.ids++
			t.lines = append(t.lines, l)
		}
	}
	s.later[s.day], s.wants[s.day] = nil, nil
	s.countLost()
	lines := t.lines
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id), cmp.Compare(a.line, b.line))
	})
	s.number(lines)
	s.day++
	return s.batch(lines)
}

// takeStock finds what is out of stock today.
func (s *Stream) takeStock() {
	for i := range s.products {
		s.today.out[i] = slices.ContainsFunc(s.products[i].outages, func(w span) bool {
			return w.from <= s.day &&
				s.day < w.until
		})
	}
}

// postpone moves what was to happen on a closed day to the next one.
func (s *Stream) postpone() {
	if next := s.day + 1; next < s.o.Days {
		for _, l := range s.later[s.day] {
			l.at += datasets.Day
			s.later[next] = append(s.later[next], l)
		}
		s.wants[next] = append(s.wants[next], s.wants[s.day]...)
	}
}

func (s *Stream) countLost() {
	t := &s.today
	for i := range t.requests {
		if t.requests[i] > 0 {
			s.lost = append(s.lost, lostDemand{i, s.day, t.requests[i], t.units[i]})
			s.truth.Stockouts.Requests += t.requests[i]
			t.requests[i], t.units[i] = 0, 0
		}
	}
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

// causeRate is how many cards or stores are compromised a day.
func (s *Stream) causeRate(k Kind) float64 {
	if k == StolenCard {
		return float64(len(s.users)) / stolenEvery
	}
	return float64(len(s.stores)-onlineStores) / badEvery
}

// compromise plants today's new causes. They are spread evenly, each within its turn, so that every season has
// its share of them.
func (s *Stream) compromise() {
	for k, kind := range []Kind{StolenCard, BadStore} {
		rate := s.causeRate(kind)
		for s.causes[k] < float64(s.day+1) {
			turn := math.Floor(s.causes[k] * rate)
			r := s.dice.of(forCauses, k, int(turn)+1)
			c := Compromise{Kind: kind.String(), FromDay: s.day}
			if kind == StolenCard {
				c.ID, c.UntilDay = int64(r.IntN(len(s.users))), s.day+stolenCardDays
				s.users[c.ID].stolenTo = c.UntilDay
			} else {
				c.ID, c.UntilDay = int64(onlineStores+r.IntN(len(s.stores)-onlineStores)), s.day+badStoreDays
				s.stores[c.ID].badTo = c.UntilDay
			}
			s.truth.Compromises = append(s.truth.Compromises, c)
			s.causes[k] = (turn + 1 + r.Float64()) / rate
		}
	}
}

// visit is all that a user buys today.
func (s *Stream) visit(u int, pace float64) {
	me, r, t := &s.users[u], s.dice.of(forDay, u, s.day), &s.today
	carry := s.needs(me, u)
	for range r.poisson(me.perDay * pace) {
		switch {
		case r.chance(largeShare):
			s.steal(r, u, LargeAmount, largeTimes*r.between(.75, 1.25))
		case me.stolenTo > s.day && r.chance(stolenShare):
			s.steal(r, u, StolenCard, stolenTimes)
		default:
			s.purchase(r, u, true)
			carry = false
		}
	}
	if carry {
		s.purchase(r, u, false)
	}
	t.wants = t.wants[s.wanted(u):]
}

// wanted counts the wishes of a user at the head of today's.
func (s *Stream) wanted(u int) int {
	n := 0
	for n < len(s.today.wants) && s.today.wants[n].user <= u {
		n++
	}
	return n
}

// needs tells whether a user would go shopping today for a habit or a wish alone.
func (s *Stream) needs(me *user, u int) bool {
	for _, h := range me.habits {
		if h.due <= s.day && !s.today.out[h.product] {
			return true
		}
	}
	n := s.wanted(u)
	return n > 0 && s.today.wants[n-1].user == u
}

// purchase is one genuine visit to a shop: what is due or wished for, what is asked for, where asking, and what goes
// with it.
func (s *Stream) purchase(r *dice, u int, asking bool) {
	me, t := &s.users[u], &s.today
	t.basket = t.basket[:0]
	s.takeHabits(r, me)
	for k := range s.wanted(u) {
		if w := t.wants[k]; w.user == u && s.sold(w.product) {
			s.put(r, w.product)
		}
	}
	t.wants = t.wants[s.wanted(u):]
	if asking {
		s.ask(r, u, me)
	}
	for _, rule := range s.rules {
		if s.ruled[rule.first[0]] && t.holdsAll(rule.first) && !t.holds(rule.then) && r.chance(rule.probability) &&
			s.sold(rule.then) {
			s.put(r, rule.then)
		}
	}
	if len(t.basket) > 0 {
		s.checkOut(r, u, me)
	}
}

// takeHabits takes what is due, and fixes when it is due again.
func (s *Stream) takeHabits(r *dice, me *user) {
	kept := me.habits[:0]
	for _, h := range me.habits {
		if h.due == s.day && s.today.out[h.product] {
			s.today.requests[h.product]++
			s.today.units[h.product]++
		}
		if h.due <= s.day && !s.today.out[h.product] {
			s.put(r, h.product)
			if r.chance(lapse) {
				continue
			}
			h.due = s.day + s.nextDue(r, h.product)
		}
		kept = append(kept, h)
	}
	me.habits = kept
}

// nextDue is the days to the next purchase of a habit: normal around the interval, with a fifth of it as deviation.
func (s *Stream) nextDue(r *dice, product int) int {
	v := float64(s.products[product].interval)
	return max(int(math.Round(v*(1+.2*r.NormFloat64()))), 1)
}

// ask draws products by taste and keeps each with the probability of its factor.
func (s *Stream) ask(r *dice, u int, me *user) {
	t, n := &s.today, len(s.products)
	table, factor := s.taste[u*n:(u+1)*n], s.factor[s.day*n:(s.day+1)*n]
	for range r.poisson(s.asked) {
		i := pick(table, r.Uint64())
		if r.Float64() >= float64(factor[i]) {
			continue
		}
		q := quantity(r)
		if t.out[i] {
			t.requests[i]++
			t.units[i] += q
			continue
		}
		if s.products[i].interval > 0 {
			if slices.ContainsFunc(me.habits, func(h habit) bool { return h.product == i }) {
				continue // there is some at home
			}
			if r.chance(s.adopt) {
				me.habits = append(me.habits, habit{i, s.day + s.nextDue(r, i)})
			}
		}
		t.add(i, q)
	}
}

// sold tells whether a product can be bought today.
func (s *Stream) sold(i int) bool {
	return s.factor[s.day*len(s.products)+i] > 0 && !s.today.out[i]
}

func quantity(r *dice) int64 { return int64(1 + r.poisson(.3)) }

// put adds a product to the basket unless it is in there.
func (s *Stream) put(r *dice, product int) {
	if q := quantity(r); !s.today.holds(product) {
		s.today.add(product, q)
	}
}

// add adds units of a product to the basket: one line a product.
func (t *today) add(product int, q int64) {
	for i := range t.basket {
		if t.basket[i].product == product {
			t.basket[i].quantity += q
			return
		}
	}
	t.basket = append(t.basket, item{product, q})
}

func (t *today) holds(product int) bool {
	return slices.ContainsFunc(t.basket, func(it item) bool { return it.product == product })
}

func (t *today) holdsAll(products []int) bool {
	for _, p := range products {
		if !t.holds(p) {
			return false
		}
	}
	return true
}

// checkOut turns the basket into lines, and plans what follows from them: returns, and wishes of followers.
func (s *Stream) checkOut(r *dice, u int, me *user) {
	head := s.head(r, u, me, me.online)
	if s.stores[head.store].badTo > s.day && r.chance(badStoreShare) {
		head.kind = BadStore
	}
	n := len(s.products)
	for k, it := range s.today.basket {
		l := head
		l.line, l.product, l.quantity = int64(k), it.product, it.quantity
		l.price = s.price[s.day*n+it.product]
		back := s.planReturn(r, &l, me)
		s.rate(r, &l, me, back)
		s.sell(l)
		if s.products[it.product].interval > 0 {
			continue
		}
		for _, f := range me.followers {
			if r.chance(influenceChance) {
				lag := 1 + int(r.ExpFloat64()*influenceLag)
				if day := s.day + lag; lag <= influenceMost && day < s.o.Days && day >= s.users[f].joined {
					s.wants[day] = append(s.wants[day], want{f, it.product})
				}
			}
		}
	}
}

// head is what the lines of a purchase have in common: time, place and id.
func (s *Stream) head(r *dice, u int, me *user, online float64) line {
	l := line{user: u, id: s.today.ids}
	s.today.ids++
	hour := me.hour + 2.5*r.NormFloat64()
	if r.chance(.06) {
		hour = 24 * r.Float64()
	}
	if r.chance(online) {
		l.store = r.IntN(onlineStores)
		l.lat, l.long = me.lat+.004*r.NormFloat64(), me.long+.004*r.NormFloat64()
	} else {
		l.store = me.stores[r.IntN(len(me.stores))]
		l.lat, l.long = s.stores[l.store].lat, s.stores[l.store].long
	}
	hour = math.Mod(math.Mod(hour, 24)+24, 24)
	l.at = s.instant(s.day) + int64(hour*3600)*datasets.Second
	return l
}

// steal is a purchase by somebody else: one or two things whose amounts are a multiple of what the user pays.
func (s *Stream) steal(r *dice, u int, kind Kind, times float64) {
	me := &s.users[u]
	head := s.head(r, u, me, me.online)
	head.kind = kind
	for k := range 1 + r.IntN(2) {
		l := head
		l.line = int64(k)
		target := times * me.meanPrice * 1.3 * r.between(.8, 1.25)
		if !s.costly(r, &l, target) {
			return
		}
		s.sell(l)
	}
}

// costly picks one of the eight products on sale whose price is nearest to the target, and as many of it as the
// target pays for.
func (s *Stream) costly(r *dice, l *line, target float64) bool {
	const near = 8
	var best [near]int
	var far [near]float64
	found := 0
	for i := range s.products {
		if !s.sold(i) {
			continue
		}
		d := math.Abs(s.logPrice[i] - math.Log(target))
		at := found
		for at > 0 && far[at-1] > d {
			at--
		}
		if at == near {
			continue
		}
		found = min(found+1, near)
		copy(best[at+1:found], best[at:])
		copy(far[at+1:found], far[at:])
		best[at], far[at] = i, d
	}
	if found == 0 {
		return false
	}
	l.product = best[r.IntN(found)]
	l.price = s.price[s.day*len(s.products)+l.product]
	l.quantity = max(int64(math.Round(target*1e4/float64(l.price))), 1)
	return true
}

// planReturn decides whether a line is undone, and when. It tells whether the buyer was not content.
func (s *Stream) planReturn(r *dice, l *line, me *user) bool {
	mistake, back := r.chance(mistakeShare), r.chance(s.returns[me.zip])
	if l.kind != Genuine || !mistake && !back {
		return false
	}
	undo := *l
	undo.line = 0
	if mistake {
		l.quantity *= int64(2 + r.IntN(4))
		undo.quantity = -l.quantity
		undo.at = min(l.at+int64(2+r.IntN(28))*datasets.Minute, s.instant(s.day+1)-datasets.Second)
		undo.id = s.today.ids
		s.today.ids++
		s.today.lines = append(s.today.lines, undo)
		return false
	}
	days := 1 + int(r.ExpFloat64()*returnMean)
	undo.quantity = -l.quantity
	if l.quantity > 1 && r.chance(.3) {
		undo.quantity = -1
	}
	if day := s.day + days; days <= returnMost && day < s.o.Days {
		undo.at = s.instant(day) + (l.at+int64(r.IntN(7200))*datasets.Second-s.instant(s.day))%datasets.Day
		s.later[day] = append(s.later[day], undo)
	}
	return true
}

// rate gives some lines a rating by how well the product fits the buyer, and some of those a review.
func (s *Stream) rate(r *dice, l *line, me *user, back bool) {
	if !r.chance(ratedShare) || l.kind != Genuine {
		return
	}
	p := &s.products[l.product]
	v := ratingBase + ratingSlope*affinity(me, p) + .7*r.NormFloat64()
	if back {
		v -= 1.3
	}
	l.rating = int8(min(max(math.Round(v), 1), 5))
	if r.chance(reviewShare) {
		l.review = review(r, int(l.rating), p.name, affinity(me, p))
	}
}

// The rating is ratingBase + ratingSlope times the product of the taste vectors, with a deviation of .7, within 1 to 5.
const ratingBase, ratingSlope = 3.1, .5

// sell books a line.
func (s *Stream) sell(l line) {
	s.today.lines = append(s.today.lines, l)
	if s.day >= s.o.Days-stockDays {
		s.recent[l.product] += l.quantity
	}
}

func (s *Stream) batch(lines []line) *datasets.Batch {
	b := datasets.NewBatch(Schema(), len(lines))
	b.N = len(lines)
	col := func(name string) *datasets.Column { return b.Column(name) }
	put := func(name string, value func(l *line) int64) {
		c := col(name)
		for i := range lines {
			c.Ints = append(c.Ints, value(&lines[i]))
		}
	}
	put(datasets.TransID, func(l *line) int64 { return l.id })
	put(datasets.Line, func(l *line) int64 { return l.line })
	put(datasets.TransDatetime, func(l *line) int64 { return l.at })
	put(datasets.UserID, func(l *line) int64 { return int64(l.user) })
	put(datasets.StoreID, func(l *line) int64 { return int64(l.store) })
	put(datasets.Quantity, func(l *line) int64 { return l.quantity })
	put(datasets.UnitPrice, func(l *line) int64 { return l.price })
	put(datasets.Amount, func(l *line) int64 { return l.price * l.quantity })
	put(datasets.IsReturn, func(l *line) int64 { return flag(l.quantity < 0) })
	put(datasets.IsFraud, func(l *line) int64 { return flag(l.kind != Genuine) })
	product, long, lat := col(datasets.ProductID), col(datasets.TransLong), col(datasets.TransLat)
	channel, rating, review := col(datasets.Channel), col(datasets.Rating), col(datasets.Review)
	rating.Null, review.Null = make([]bool, len(lines)), make([]bool, len(lines))
	for i := range lines {
		l := &lines[i]
		product.Strings = append(product.Strings, s.products[l.product].id)
		long.Floats, lat.Floats = append(long.Floats, l.long), append(lat.Floats, l.lat)
		channel.Strings = append(channel.Strings, channelOf(l.store))
		rating.Floats, review.Strings = append(rating.Floats, float64(l.rating)), append(review.Strings, l.review)
		rating.Null[i], review.Null[i] = l.rating == 0, l.review == ""
		s.count(l)
	}
	return b
}

// count books a line in the truth.
func (s *Stream) count(l *line) {
	s.truth.Lines++
	if l.kind != Genuine {
		s.truth.FraudLines[l.kind.String()]++
		s.frauds[l.id] = l.kind
	}
	if l.quantity < 0 {
		s.truth.Returns.Lines++
	}
}

// channelOf tells the online shops, which come first, from the others.
func channelOf(store int) string {
	if store < onlineStores {
		return ChannelOnline
	}
	return ChannelStore
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// geometric gives the share of delays of 1 + floor(x) days, x exponential with a mean, that are at most so many
// days, and the mean of those.
func geometric(mean float64, most int) (share, days float64) {
	q := math.Exp(-1 / mean)
	p := 1 - q
	for d := 1; d <= most; d++ {
		share += p
		days += p * float64(d)
		p *= q
	}
	return share, days / share
}

func returnReach() float64 {
	share, _ := geometric(returnMean, returnMost)
	return share
}

func influenceReach() float64 {
	share, _ := geometric(influenceLag, influenceMost)
	return influenceChance * share
}

func influenceMeanLag() float64 {
	_, days := geometric(influenceLag, influenceMost)
	return days
}
