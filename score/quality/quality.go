// Package quality says how good a model in service is, from what comes: scores, and later labels.
//
// What enters: scored transactions in the order of the log, and labels, which name a transaction. What leaves: by
// version of a model, the figures that evaluate has, over the transactions of a window that could be judged; and how
// far features and scores have moved from those of the training (Drift). A transaction is judged once its label's
// delay has passed, with the label that there is then: without one it counts as genuine, as in the feature spec, and a
// label that comes later replaces that. Labels that come before the delay wait for it, so that frauds that are known
// early do not stand against genuine purchases that nobody can know yet.
//
// It may not be assumed that all transactions are kept: of more than Options.Keep within the window a sample of
// purchases is, chosen by a hash of trans_id; Figures.Sampled is its share. The most suspect of each day are kept apart
// from it and are exact. Adding and labelling allocate nothing once the memory has its size.
package quality

import (
	"math"
	"slices"
	"sync"

	"github.com/onmart/onmart/datasets"
)

// Options of a Live.
type Options struct {
	Delay  int64 // of labels, microseconds
	Window int64 // how far back judged transactions count, microseconds; 0 is DefaultWindow
	Budget int   // alerts a day of Figures.Budget; 0 is DefaultBudget
	Keep   int   // transactions of each version; 0 is DefaultKeep
}

// Defaults of Options. A transaction that is kept takes 66 bytes at the most, so that a version takes 9 MB; with one
// fraud in 200 the standard error of an AUC of .9 is then about a hundredth.
const (
	DefaultWindow = 30 * datasets.Day
	DefaultBudget = 100
	DefaultKeep   = 1 << 17

	maxBudget  = 10_000
	maxTracks  = 8       // versions that are followed; of more the one that was scored longest ago is forgotten
	maxWaiting = 1 << 16 // labels that came before their transaction
)

// NoLine stands for a transaction without a line, and in a label for all lines of a purchase.
const NoLine = math.MinInt64

// Label values of a transaction.
const (
	Unlabelled = int8(-1)
	Genuine    = int8(0)
	Fraud      = int8(1)
)

// Live follows the versions of one task. Its methods may be called from several goroutines.
type Live struct {
	o Options

	mu        sync.Mutex
	watermark int64
	tracks    []*track
	number    int64 // of scorings
	waiting   map[uint64][]waitingLabel
	order     []uint64 // of waiting, oldest first
}

type waitingLabel struct {
	line int64
	y    int8
}

// New follows nothing yet.
func New(o Options) *Live {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.Keep <= 0 {
		o.Keep = DefaultKeep
	}
	if o.Budget <= 0 {
		o.Budget = DefaultBudget
	}
	o.Budget = min(o.Budget, maxBudget)
	return &Live{o: o, watermark: math.MinInt64, waiting: map[uint64][]waitingLabel{}}
}

// HashInt and HashText name a purchase by 64 bits of its trans_id. Two purchases of a window of 131,072 share them in
// one case of a billion.
func HashInt(id int64) uint64 { return mix(uint64(id)) }

// HashText is HashInt of a text id.
func HashText(id string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Scored is one transaction.
type Scored struct {
	ID   uint64 // of its purchase
	Line int64  // NoLine: none
	Time int64
	// Label is one that the transaction carries itself, or Unlabelled.
	Label int8
}

// Add notes the score that a version gave. threshold is its own, for figures of its alerts.
func (l *Live) Add(version string, threshold float64, x Scored, score float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watermark = max(l.watermark, x.Time)
	t := l.track(version)
	l.number++
	t.threshold, t.last = threshold, l.number
	if len(l.waiting) > 0 && x.Label == Unlabelled {
		for _, w := range l.waiting[x.ID] {
			if w.line == NoLine || w.line == x.Line {
				x.Label = w.y
			}
		}
	}
	t.add(&l.o, l.bound(), x, score)
}

// bound is the event time up to which nothing is judged any more.
func (l *Live) bound() int64 {
	if l.watermark < math.MinInt64+l.o.Delay+l.o.Window {
		return math.MinInt64
	}
	return l.watermark - l.o.Delay - l.o.Window
}

// track finds or makes that of a version.
func (l *Live) track(version string) *track {
	for _, t := range l.tracks {
		if t.version == version {
			return t
		}
	}
	if len(l.tracks) == maxTracks {
		oldest := 0
		for i, t := range l.tracks {
			if t.last < l.tracks[oldest].last {
				oldest = i
			}
		}
		l.tracks = slices.Delete(l.tracks, oldest, oldest+1)
	}
	t := newTrack(version)
	l.tracks = append(l.tracks, t)
	return t
}

// Label settles a transaction, or all lines of its purchase where line is NoLine.
func (l *Live) Label(id uint64, line int64, fraud bool) {
	y := Genuine
	if fraud {
		y = Fraud
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found := false
	for _, t := range l.tracks {
		found = t.label(id, line, y) || found
	}
	if found || len(l.tracks) == 0 {
		return
	}
	if len(l.order) == maxWaiting {
		delete(l.waiting, l.order[0])
		l.order = append(l.order[:0], l.order[1:]...)
	}
	if _, known := l.waiting[id]; !known {
		l.order = append(l.order, id)
	}
	w := slices.DeleteFunc(l.waiting[id], func(w waitingLabel) bool { return w.line == line })
	l.waiting[id] = append(w, waitingLabel{line, y})
}

// track is what is known of one version.
type track struct {
	version   string
	threshold float64
	last      int64  // number of its last scoring
	keep      uint64 // purchases with a hash up to it are in rows

	rows  rows
	head  int   // of rows: those before are gone
	index index // of rows by id
	days  []day // ascending
}

// rows are transactions in the order of their coming.
type rows struct {
	id    []uint64
	line  []int64
	at    []int64
	score []float64
	y     []int8
}

func (r *rows) len() int { return len(r.id) }

func (r *rows) push(x Scored, score float64) {
	r.id, r.line, r.at = append(r.id, x.ID), append(r.line, x.Line), append(r.at, x.Time)
	r.score, r.y = append(r.score, score), append(r.y, x.Label)
}

// compact keeps the rows that keep names, in their order.
func (r *rows) compact(keep func(i int) bool) {
	n := 0
	for i := range r.id {
		if !keep(i) {
			continue
		}
		r.id[n], r.line[n], r.at[n], r.score[n], r.y[n] = r.id[i], r.line[i], r.at[i], r.score[i], r.y[i]
		n++
	}
	r.id, r.line, r.at, r.score, r.y = r.id[:n], r.line[:n], r.at[:n], r.score[:n], r.y[:n]
}

// day is the most suspect of one UTC day: a heap, the least of them first.
type day struct {
	start int64
	top   []top
}

type top struct {
	id     uint64
	line   int64
	score  float64
	number int64 // of its coming: of equal scores the first counts
	y      int8
}

func (a *top) less(b *top) bool {
	return a.score < b.score || a.score == b.score && a.number > b.number
}

func newTrack(version string) *track { return &track{version: version, keep: math.MaxUint64} }

func (t *track) add(o *Options, bound int64, x Scored, score float64) {
	t.addTop(o, bound, x, score)
	for t.head < t.rows.len() && t.rows.at[t.head] <= bound {
		t.head++
	}
	if x.ID > t.keep || x.Time <= bound {
		return
	}
	if t.rows.len() >= 2*o.Keep || t.rows.len()-t.head >= o.Keep {
		t.makeRoom(o, bound)
	}
	if x.ID <= t.keep {
		t.rows.push(x, score)
		t.index.add(&t.rows, t.rows.len()-1)
	}
}

// makeRoom forgets the rows that are gone, and half of the purchases while there are too many.
func (t *track) makeRoom(o *Options, bound int64) {
	t.rows.compact(func(i int) bool { return t.rows.at[i] > bound })
	for t.rows.len() >= o.Keep && t.keep > 0 {
		t.keep /= 2
		t.rows.compact(func(i int) bool { return t.rows.id[i] <= t.keep })
	}
	t.head = 0
	t.index.rebuild(&t.rows)
}

// addTop keeps the transaction if it is among the most suspect of its day.
func (t *track) addTop(o *Options, bound int64, x Scored, score float64) {
	for len(t.days) > 0 && t.days[0].start+datasets.Day <= bound {
		t.days = slices.Delete(t.days, 0, 1)
	}
	start := startOfDay(x.Time)
	if start <= bound {
		return
	}
	i := len(t.days)
	for i > 0 && t.days[i-1].start > start {
		i--
	}
	if i == 0 || t.days[i-1].start != start {
		t.days = slices.Insert(t.days, i, day{start: start})
		i++
	}
	d := &t.days[i-1]
	e := top{x.ID, x.Line, score, t.last, x.Label}
	switch {
	case len(d.top) < o.Budget:
		d.top = append(d.top, e)
		for k := len(d.top) - 1; k > 0; {
			p := (k - 1) / 2
			if !d.top[k].less(&d.top[p]) {
				break
			}
			d.top[k], d.top[p] = d.top[p], d.top[k]
			k = p
		}
	case d.top[0].less(&e):
		d.top[0] = e
		for k := 0; ; {
			c := 2*k + 1
			if c+1 < len(d.top) && d.top[c+1].less(&d.top[c]) {
				c++
			}
			if c >= len(d.top) || !d.top[c].less(&d.top[k]) {
				break
			}
			d.top[k], d.top[c] = d.top[c], d.top[k]
			k = c
		}
	}
}

func startOfDay(t int64) int64 {
	d := t % datasets.Day
	if d < 0 {
		d += datasets.Day
	}
	return t - d
}

// label tells whether the version has scored the transaction, as far as it is kept, and no other line of the purchase
// can come that the label is of too.
func (t *track) label(id uint64, line int64, y int8) (found bool) {
	for at := t.index.first(&t.rows, id); at.row >= 0; at = t.index.next(&t.rows, at, id) {
		if at.row >= t.head && (line == NoLine || t.rows.line[at.row] == line) {
			t.rows.y[at.row] = y
			found = found || line == t.rows.line[at.row]
		}
	}
	for i := range t.days {
		for k := range t.days[i].top {
			if e := &t.days[i].top[k]; e.id == id && (line == NoLine || e.line == line) {
				e.y = y
				found = found || line == e.line
			}
		}
	}
	return found
}

// index finds the rows of a purchase: open addressing over numbers of rows, counted from 1.
type index struct {
	slots []int32
	used  int
}

type found struct{ slot, row int }

// add enters row i, the newest.
func (x *index) add(r *rows, i int) {
	if 2*(x.used+1) > len(x.slots) {
		x.rebuild(r) // with room; row i is in it then
		return
	}
	x.put(r.id[i], i)
}

func (x *index) put(id uint64, i int) {
	mask := len(x.slots) - 1
	at := int(id>>1) & mask
	for x.slots[at] != 0 {
		at = (at + 1) & mask
	}
	x.slots[at] = int32(i + 1)
	x.used++
}

// rebuild makes the index of all rows anew, in memory that is used again where it is enough.
func (x *index) rebuild(r *rows) {
	n := 64
	for n < 4*(r.len()+1) {
		n *= 2
	}
	if n > len(x.slots) {
		x.slots = make([]int32, n)
	} else {
		clear(x.slots)
	}
	x.used = 0
	for i, id := range r.id {
		x.put(id, i)
	}
}

func (x *index) first(r *rows, id uint64) found {
	if len(x.slots) == 0 {
		return found{row: -1}
	}
	mask := len(x.slots) - 1
	return x.next(r, found{slot: int(id>>1)&mask - 1}, id)
}

func (x *index) next(r *rows, after found, id uint64) found {
	mask := len(x.slots) - 1
	for at := (after.slot + 1) & mask; ; at = (at + 1) & mask {
		switch i := int(x.slots[at]) - 1; {
		case i < 0:
			return found{row: -1}
		case r.id[i] == id:
			return found{at, i}
		}
	}
}
