package ranking

import (
	"math"
	"slices"
)

// ownFacts are what a user's own purchases say of an item that the user has bought, one number each.
var ownFacts = []string{
	"owned",           // 1
	"times",           // log(1 + purchases of the item)
	"times_half_15d",  // log(n + 0.05) of purchases that count half after so many days
	"times_half_30d",  //
	"times_half_60d",  //
	"times_half_120d", //
	"times_half_1",    // the same, half after so many purchases of the user
	"times_half_2",    //
	"times_half_4",    //
	"days_since",      // log(days since the last purchase of the item + 3)
	"share",           // share of the user's purchases that have it
	"share_since",     // the same of those since the first that has it
	"log_share",       //
	"overdue",         // log of the days since the last purchase against the usual interval, within 3
	"user_days_since", // log(days since the user's last purchase + 3)
	"user_visits",     // log of the user's purchases
	"user_items",      // log of the user's different items
}

var (
	ownHalves   = [...]float64{15, 30, 60, 120} // days
	visitHalves = [...]float64{1, 2, 4}
)

// owned is what a user's lines say about one item.
type owned struct {
	item          int32
	times         int32
	first, last   int64 // times of the first and last purchase
	fv, lv        int32 // their visits
	decayed       [len(ownHalves)]float64
	visitsDecayed [len(visitHalves)]float64
	recent        float64 // of a half life of recencyHalf, for item-kNN
}

// recencyHalf is the half life by which a user's purchases weigh in item-kNN: a season.
const recencyHalf = 90 * day

// past is a user's history, counted. It is memory that is used again.
type past struct {
	user   int32 // -1: none of the model's
	visits int
	last   int64 // of any purchase
	items  []owned
	slot   []int32 // by item: place in items + 1
}

func newPast(items int) *past { return &past{slot: make([]int32, items)} }

// read counts the lines before now. Lines must be in the order of time.
func (p *past) read(user int32, lines []Line, now int64) {
	for i := range p.items {
		p.slot[p.items[i].item] = 0
	}
	p.items, p.user, p.visits, p.last = p.items[:0], user, 0, 0
	newest := int32(-1)
	for _, l := range lines {
		newest = max(newest, l.Visit)
	}
	p.visits = int(newest) + 1
	for _, l := range lines {
		at := p.slot[l.Item]
		if at == 0 {
			p.items = append(p.items, owned{item: l.Item, first: l.Time, fv: l.Visit})
			at = int32(len(p.items))
			p.slot[l.Item] = at
		}
		o := &p.items[at-1]
		o.times++
		o.last, o.lv = max(o.last, l.Time), max(o.lv, l.Visit)
		if o.times == 1 {
			o.last = l.Time
		}
		age := days(now - l.Time)
		for k, h := range ownHalves {
			o.decayed[k] += math.Exp2(-age / h)
		}
		for k, h := range visitHalves {
			o.visitsDecayed[k] += math.Exp2(-float64(newest-l.Visit) / h)
		}
		o.recent += math.Exp2(-age / (recencyHalf / day))
		p.last = max(p.last, l.Time)
	}
	// Sums over a user's items are taken in the order of items, whatever the order in which they were bought.
	slices.SortFunc(p.items, func(a, b owned) int { return int(a.item) - int(b.item) })
	for i := range p.items {
		p.slot[p.items[i].item] = int32(i) + 1
	}
}

// interval is the mean number of days between purchases of the item, and whether there were two.
func (o *owned) interval() (float64, bool) {
	if o.times < 2 {
		return 0, false
	}
	return days(o.last-o.first) / float64(o.times-1), true
}

// facts writes ownFacts of an item.
func (p *past) facts(dst []float32, o *owned, now int64) {
	visits := float64(p.visits)
	times := float64(o.times)
	since := days(now - o.last)
	k := 0
	put := func(v float64) { dst[k] = float32(v); k++ }
	put(1)
	put(math.Log1p(times))
	for _, d := range o.decayed {
		put(math.Log(d + .05))
	}
	for _, d := range o.visitsDecayed {
		put(math.Log(d + .05))
	}
	put(math.Log(since + 3))
	put(times / visits)
	put(times / (visits - float64(o.fv)))
	put(math.Log(times / visits))
	over := 0.0
	if iv, ok := o.interval(); ok {
		over = min(3, max(-3, math.Log((since+3)/(iv+3))))
	}
	put(over)
	put(math.Log(days(now-p.last) + 3))
	put(math.Log(visits))
	put(math.Log(float64(len(p.items))))
}
