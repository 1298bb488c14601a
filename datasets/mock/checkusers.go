package mock

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// checkRules: of the purchases that have what comes first, the share that has what follows too, less what comes
// along anyway; on days on which it was in stock. And of all pairs of products, which meet most often beyond chance.
func checkRules(d *shopData) []Effect {
	baskets := d.baskets()
	effects := make([]Effect, 0, len(d.truth.Rules)+1)
	for _, rule := range d.truth.Rules {
		first := make([]int32, len(rule.First))
		for i, id := range rule.First {
			first[i] = d.byProduct[id]
		}
		then := d.byProduct[rule.Then]
		var with, both, without, other float64
		for _, b := range baskets {
			if d.out[int(then)*d.days+b.day] {
				continue
			}
			has := float64(flag(slices.Contains(b.products, then)))
			if containsAll(b.products, first) {
				with++
				both += has
			} else {
				without++
				other += has
			}
		}
		base := other / without
		e := proportion(both, with, .03)
		e.value, e.se = (e.value-base)/(1-base), e.se/(1-base)
		effects = append(effects, judge("rules", strings.Join(rule.First, ", ")+" -> "+rule.Then, rule.Probability, 0, e,
			fmt.Sprintf("%.0f purchases, %.1f%% of the others", with, 100*base)))
	}
	if len(d.truth.Rules) == 0 {
		return nil
	}
	return append(effects, d.strongest(baskets))
}

// proportion is k of n, with the error of Agresti and Coull (1998), which is not 0 where k is.
func proportion(k, n, tolerance float64) estimate {
	p := (k + 2) / (n + 4)
	return estimate{k / n, math.Sqrt(p * (1 - p) / (n + 4)), tolerance}
}

// basket is the products of a genuine purchase.
type basket struct {
	day      int
	products []int32
}

func (d *shopData) baskets() []basket {
	at := map[int64]int{}
	var all []basket
	for i := range d.lines {
		l := &d.lines[i]
		if !l.genuine() {
			continue
		}
		k, ok := at[l.trans]
		if !ok {
			k = len(all)
			at[l.trans] = k
			all = append(all, basket{day: int(l.day)})
		}
		if b := &all[k]; !slices.Contains(b.products, l.product) {
			b.products = append(b.products, l.product)
		}
	}
	return all
}

func containsAll(have, want []int32) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

// strongest counts the planted pairs among as many pairs as were planted, of those that meet most often beyond
// chance: by the share of one's purchases that have the other, less the other's share of all and three errors, so that
// rare pairs do not lead by chance.
func (d *shopData) strongest(baskets []basket) Effect {
	type two struct{ a, b int32 } // a < b
	single, double := map[int32]float64{}, map[two]float64{}
	for _, b := range baskets {
		for i, x := range b.products {
			single[x]++
			for _, y := range b.products[i+1:] {
				double[two{min(x, y), max(x, y)}]++
			}
		}
	}
	type found struct {
		two
		gain float64
	}
	var pairs []found
	const least = 10 // purchases with both
	gain := func(both, first, second float64) float64 {
		p := both / first
		return p - second/float64(len(baskets)) - 3*math.Sqrt(p*(1-p)/first)
	}
	for t, n := range double {
		if n >= least {
			pairs = append(pairs, found{t, max(gain(n, single[t.a], single[t.b]), gain(n, single[t.b], single[t.a]))})
		}
	}
	slices.SortFunc(pairs, func(x, y found) int {
		return cmp.Or(cmp.Compare(y.gain, x.gain), cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b))
	})
	planted := map[two]bool{}
	for _, r := range d.truth.Rules {
		for _, f := range r.First {
			x, y := d.byProduct[f], d.byProduct[r.Then]
			planted[two{min(x, y), max(x, y)}] = true
		}
	}
	hits := 0
	for _, p := range pairs[:min(len(pairs), len(planted))] {
		hits += int(flag(planted[p.two]))
	}
	n := float64(len(planted))
	f := Effect{Group: "rules", Name: "planted among the strongest pairs", Planted: n, Measured: float64(hits),
		Low: float64(hits), High: float64(hits),
		Verdict: Found, Note: fmt.Sprintf("of %d pairs of products that meet", len(pairs))}
	// A pair with too few purchases to be told from chance is not looked for: see the rules above.
	if float64(hits) < .6*n {
		f.Verdict = Unclear
		if len(d.lines) > 200_000 {
			f.Verdict = Missing
		}
	}
	return f
}

// checkRhythms: the days between a user's purchases of a product, for products with the same planted interval.
func checkRhythms(d *shopData) []Effect {
	gaps := map[float64][]float64{}
	for key, lines := range d.byPair(func(l *sold) bool { return l.genuine() && d.products[l.product].rhythm > 0 }) {
		want := d.products[key.product].rhythm
		for i := 1; i < len(lines); i++ {
			if days := d.lines[lines[i]].day - d.lines[lines[i-1]].day; days > 0 {
				gaps[want] = append(gaps[want], float64(days))
			}
		}
	}
	products := map[float64]int{}
	for _, r := range d.truth.Rhythms {
		products[r.Days]++
	}
	var effects []Effect
	for _, want := range intervals {
		w := float64(want)
		if products[w] == 0 {
			continue
		}
		value, se := dayMedian(gaps[w])
		e := estimate{value, se, .07 * w}
		if w > float64(d.days)/6 { // the longer gaps lie outside the data
			e.value = math.NaN()
		}
		effects = append(effects, judge("rhythm", fmt.Sprintf("days, %d products of %d", products[w], want), w, 0, e,
			fmt.Sprintf("median of %d", len(gaps[w]))))
	}
	return effects
}

// dayMedian is the median of whole days, taking each as spread over its day.
func dayMedian(days []float64) (value, se float64) {
	value, se = median(days)
	var below, at float64
	for _, v := range days {
		switch {
		case v < value:
			below++
		case v == value:
			at++
		}
	}
	if at > 0 {
		value += (float64(len(days))/2-below)/at - .5
	}
	return value, max(se, .5/math.Sqrt(float64(len(days))))
}

// checkInfluence: how often a follower buys what the influencer bought in the days after, against somebody who follows
// others. Only what the influencer bought once in that time counts, so that the days are those to its cause. The
// control is drawn by the data's own seed.
func checkInfluence(d *shopData) []Effect {
	t, err := d.table(InfluenceFile, influenceSchema)
	if err != nil || t.N == 0 {
		return nil
	}
	const most = influenceMost
	bought := map[pair][]int32{}
	led := make([][]*sold, len(d.users))
	for i := range d.lines {
		l := &d.lines[i]
		if !l.genuine() || d.products[l.product].rhythm > 0 {
			continue
		}
		key := pair{l.user, l.product}
		bought[key] = append(bought[key], l.day)
	}
	for i := range d.lines {
		l := &d.lines[i]
		if days := bought[pair{l.user, l.product}]; l.genuine() && int(l.day) < d.days-most-2 && alone(days, l.day, most) {
			led[l.user] = append(led[l.user], l)
		}
	}
	// after is in how many days, of 1 to most, the user buys the product.
	after := func(user int64, l *sold) int {
		for _, day := range bought[pair{int32(user), l.product}] {
			if lag := int(day - l.day); lag >= 1 && lag <= most {
				return lag
			}
		}
		return 0
	}
	follower, leader := t.Columns[0].Ints, t.Columns[1].Ints
	linked := map[[2]int64]bool{}
	for i := range follower {
		linked[[2]int64{follower[i], leader[i]}] = true
	}
	r := newDice(d.truth.Seed).of(forShuffle, 0, 0)
	var gain []float64
	var plus, minus [most + 1]float64
	for i := range follower {
		control := follower[r.IntN(len(follower))]
		for tries := 0; linked[[2]int64{control, leader[i]}] && tries < 100; tries++ {
			control = follower[r.IntN(len(follower))]
		}
		from := max(d.users[follower[i]].joined, d.users[control].joined)
		var n, hit, miss float64
		for _, l := range led[leader[i]] {
			if int(l.day) < from {
				continue
			}
			n++
			if lag := after(follower[i], l); lag > 0 {
				hit++
				plus[lag]++
			}
			if lag := after(control, l); lag > 0 {
				miss++
				minus[lag]++
			}
		}
		if n >= 5 {
			gain = append(gain, (hit-miss)/(n-miss+.5))
		}
	}
	truth := &d.truth.Influence
	value, se := meanAndError(gain)
	effects := []Effect{judge("influence", "a follower buys it too", truth.Probability, 0, estimate{value, se,
		.15 * truth.Probability},
		fmt.Sprintf("beyond the control, over %d links", len(gain)))}
	var net, days, noise float64
	for lag := 1; lag <= most; lag++ {
		net += plus[lag] - minus[lag]
		days += float64(lag) * (plus[lag] - minus[lag])
	}
	lag := days / net
	if all := sum(plus[:]) + sum(minus[:]); net < sigmas*math.Sqrt(all) { // nothing to divide by
		lag = math.NaN()
	}
	for l := 1; l <= most; l++ {
		noise += (float64(l) - lag) * (float64(l) - lag) * (plus[l] + minus[l])
	}
	return append(effects, judge("influence", "days until then, mean", truth.MeanLag, 0, estimate{lag,
		math.Sqrt(noise) / net, .12 * truth.MeanLag}, ""))
}

func sum(v []float64) (total float64) {
	for _, x := range v {
		total += x
	}
	return total
}

// alone tells whether a day is among the days once, and no other is within so many of it.
func alone(days []int32, day int32, within int32) bool {
	n := 0
	for _, v := range days {
		if v > day-within && v < day+within {
			n++
		}
	}
	return n == 1
}

// checkReturns: the share of genuine lines that come back, by zip of the user. Only lines count with no other
// purchase of the product by the user within the time for a return, so that there is no doubt what a return undoes.
func checkReturns(d *shopData) []Effect {
	lines, returned := map[string]float64{}, map[string]float64{}
	wait := int32(d.truth.Returns.Most + 2) // closed days move a return
	for _, at := range d.byPair(func(l *sold) bool { return !l.fraud && !l.undone }) {
		var bought, back []int32 // days
		for _, i := range at {
			if l := &d.lines[i]; l.back {
				back = append(back, l.day)
			} else {
				bought = append(bought, l.day)
			}
		}
		for _, day := range bought {
			if int(day+wait) >= d.days || !alone(bought, day, wait+1) {
				continue
			}
			zip := d.users[d.lines[at[0]].user].zip
			lines[zip]++
			returned[zip] += float64(flag(slices.ContainsFunc(back, func(b int32) bool { return b >= day && b <= day+wait })))
		}
	}
	var effects []Effect
	for _, z := range d.truth.Returns.Rates {
		effects = append(effects, judge("returns", "zip "+z.Zip, z.Rate, 0, proportion(returned[z.Zip], lines[z.Zip],
			.03*z.Rate),
			fmt.Sprintf("of %.0f lines", lines[z.Zip])))
	}
	return effects
}

// checkFrauds: the fraudulent lines are as many as planted, a stolen card pays a multiple, and most of what a
// compromised store sells is fraud.
func checkFrauds(d *shopData) []Effect {
	t, err := d.table(FraudsFile, fraudsSchema)
	if err != nil {
		return []Effect{{Group: "fraud", Name: "kinds", Verdict: Missing, Note: err.Error()}}
	}
	kind := map[int64]string{}
	for i := range t.N {
		kind[t.Columns[0].Ints[i]] = t.Columns[1].Strings[i]
	}
	paid, count := make([]float64, len(d.users)), make([]float64, len(d.users))
	lines := map[string]float64{}
	for i := range d.lines {
		switch l := &d.lines[i]; {
		case l.genuine():
			paid[l.user] += float64(l.amount)
			count[l.user]++
		case l.fraud:
			lines[kind[l.trans]]++
		}
	}
	// By kind and card, because the purchases of a card are alike.
	times := map[string]map[int32][]float64{LargeAmount.String(): {}, StolenCard.String(): {}}
	for i := range d.lines {
		if l := &d.lines[i]; l.fraud && count[l.user] > 0 && times[kind[l.trans]] != nil {
			times[kind[l.trans]][l.user] = append(times[kind[l.trans]][l.user], float64(l.amount)*count[l.user]/paid[l.user])
		}
	}
	var effects []Effect
	for _, k := range []Kind{LargeAmount, BadStore, StolenCard} {
		effects = append(effects, exact("fraud", k.String()+" lines", float64(d.truth.FraudLines[k.String()]),
			lines[k.String()]))
	}
	for _, f := range []struct {
		kind  Kind
		times float64
	}{{LargeAmount, largeTimes}, {StolenCard, d.truth.FraudTimes}} {
		var cards []float64
		for _, v := range times[f.kind.String()] {
			m, _ := median(v)
			cards = append(cards, m)
		}
		value, se := median(cards)
		if len(cards) < 8 { // too few for an error
			se = math.NaN()
		}
		effects = append(effects, judge("fraud", f.kind.String()+", times the usual amount", f.times, 1, estimate{value,
			se, .25 * f.times},
			fmt.Sprintf("median of %d cards", len(cards))))
	}
	return append(effects, d.badStores())
}

func (d *shopData) badStores() Effect {
	bad := map[[2]int64]bool{}
	for _, c := range d.truth.Compromises {
		for day := c.FromDay; c.Kind == BadStore.String() && day < c.UntilDay; day++ {
			bad[[2]int64{c.ID, int64(day)}] = true
		}
	}
	seen := map[int64]bool{}
	var all, fraud float64
	for i := range d.lines {
		l := &d.lines[i]
		if !seen[l.trans] && !l.back && bad[[2]int64{l.store, int64(l.day)}] {
			seen[l.trans] = true
			all++
			fraud += float64(flag(l.fraud))
		}
	}
	return judge("fraud", "share at a compromised store", d.truth.BadStoreShare, 0, proportion(fraud, all, .03),
		fmt.Sprintf("of %.0f purchases", all))
}
