package features

import "github.com/onmart/onmart/datasets"

// group is the features that read the same entries of a key: same key, same instant K, same filter. What a key has in
// a group is a head of a fixed number of words and, where windows end, a ring of entries.
type group struct {
	key     int   // of Plan.keys
	filter  int   // of Plan.filters, none: every row is an entry
	shift   int64 // microseconds from event time to K; of a label group the delay
	label   bool  // entries are labels: their instants can change
	changes int   // of Plan.labelled, of a label group

	cols []aggColumn
	wins []window
	tabs []bagTable
	outs []output

	// The ring.
	ring       bool
	ordered    bool  // by partition and position too, where K is equal
	stride     int   // words of an entry
	span       int64 // the longest a window reaches back from max(t, W-lateness)
	labels     int64 // the same of windows over labels
	labelsEver bool  // labels are read without a beginning
	reaches    int   // the window with the longest span that has a cursor, none without
	keep       int   // how many entries at or before W-lateness are kept whatever their age

	// What a row brings, packed: words.
	packed   int
	packMark int // 0: not wanted
	packOrd  int
	packVals int // the first value

	// The head: words.
	head        int
	cursors     int   // word of the first cursor; two a word
	blocks      []int // words that refer to blocks: tables, sets and extremes
	acc         int   // word of the accumulators
	ewma        bool
	accumulates bool
}

// Words of a head. A group without a ring begins with its accumulators.
const (
	headRing = iota // slab.Ref of the ring
	headSize        // entries, and room for entries in the upper half
	headHi          // a hint: entries with K <= t; the index of the key's delta, plus 1, in the upper half
	headLo          // the first cursor
)

// Words of accumulators: entries with K <= W.
const (
	accN     = iota
	accFirst // least K
	accLast  // greatest K
	accWords
)

// aggColumn is a column of values in a group. The words of an entry are numbered from 0, which is K; 0 stands for none.
type aggColumn struct {
	val int // of Plan.vals, or labelValue
	sum int // the sum of all entries before this one, modulo 2^64
	sq  int // the same of squares, modulo 2^128, low word first
	raw int // the value
	ext int // head word of the ring's extremes of raw, 0: none

	// Words of the head, 0 for none.
	accSum int // 128 bits
	accSq  int // 192 bits
	accMin int // least and greatest
	accSet int // slab.Set of the values
	accBag int // slab.Multiset of the values
}

// labelValue stands for the label among the value columns of a group.
const labelValue = -1

// window is one window of a group.
type window struct {
	form   form
	span   int64 // sliding: its length; calendar: the longest that its unit may be
	unit   int   // of Plan.units
	start  int   // word of a packed row with the unit's start
	n      int   // of last
	cursor int   // of the ring, none
}

// bagTable counts the values of one column in one window.
type bagTable struct {
	win, col int
	ref      int // head word of its slab.Multiset; the next word has the entries it holds, from and to
}

// output is one feature.
type output struct {
	dest    int // number of the feature
	kind    Kind
	win     int // none: EWMA
	col     int // of group.cols, none
	lon     int // of Distance and Speed: the columns
	lat     int
	tab     int // of group.tabs, none
	nth     int
	current bool
	float   bool // values are floating
	scale   float64
	empty   float64
	rate    float64 // of a prior
	weight  float64
	half    float64 // half-life in microseconds
	slot    int     // of EWMA: its words in the head
}

// maxUnit is the longest that a calendar unit may be, with an hour for clocks that are put back.
func maxUnit(unit string) int64 {
	switch unit {
	case string(Hour):
		return 2 * datasets.Hour
	case string(Day):
		return 25 * datasets.Hour
	case string(Week):
		return 7*datasets.Day + datasets.Hour
	}
	return 31*datasets.Day + datasets.Hour
}

// layout gives words to what a group holds, once all its features are bound.
func (g *group) layout() {
	for i := range g.wins {
		w := &g.wins[i]
		w.cursor = none
		switch w.form {
		case sliding, calendarUnit:
			g.ring, g.span = true, max(g.span, w.span)
		case lastN:
			g.ring, g.ordered, g.keep = true, true, max(g.keep, w.n)
		}
	}
	for i := range g.outs {
		o := &g.outs[i]
		if g.late(o) && o.kind != EWMA {
			g.accumulates = true
			g.labelsEver = g.labelsEver || o.kind == Risk
		}
		switch o.kind {
		case Last, Distance, Speed:
			g.ring, g.ordered = true, true
			if f := g.wins[o.win].form; f == ever {
				g.keep = max(g.keep, o.nth)
			}
		case EWMA:
			g.ewma = true
		case Risk:
			if w := &g.wins[o.win]; w.form == sliding || w.form == calendarUnit {
				g.labels = max(g.labels, w.span)
			}
		}
	}
	if g.pending() {
		g.ring = true // of entries whose time has not come
	}
	g.layoutPack()
	g.layoutEntry()
	g.layoutHead()
}

// Words of a packed row that all groups have.
const (
	packTime = iota
	packTop  // max(t, W-lateness)
	packWords
)

// layoutPack gives words to what the group reads of a row. Rows are packed in the order of their keys,
// in which they are visited: a visit touches one line of memory and not one for each column.
func (g *group) layoutPack() {
	g.packed = packWords
	word := func(want bool) int {
		if !want {
			return 0
		}
		g.packed++
		return g.packed - 1
	}
	g.packMark, g.packOrd = word(g.pending()), word(g.ordered)
	for i := range g.wins {
		if w := &g.wins[i]; w.form == calendarUnit {
			w.start = word(true)
		}
	}
	g.packVals = g.packed
	g.packed += len(g.cols)
}

func (g *group) layoutEntry() {
	g.stride = 1
	if g.ordered {
		g.stride++
	}
	for i := range g.cols {
		c := &g.cols[i]
		word := func(want int, n int) int {
			if want == 0 {
				return 0
			}
			g.stride += n
			return g.stride - n
		}
		c.sum, c.sq = word(c.sum, 1), word(c.sq, 2)
		if c.sum == 0 && g.ring {
			c.raw = 1 // snapshots need the value
		}
		c.raw = word(c.raw, 1)
	}
}

func (g *group) layoutHead() {
	g.head, g.reaches = 0, none
	if g.ring {
		g.head, g.cursors = headLo, headLo
		n := 0
		for i := range g.wins {
			if f := g.wins[i].form; f == sliding || f == calendarUnit {
				g.wins[i].cursor = n
				n++
				if g.reaches < 0 || g.wins[i].span > g.wins[g.reaches].span {
					g.reaches = i
				}
			}
		}
		if g.pending() {
			n++ // the last cursor is of the accumulators: entries up to it are in them
		}
		g.head += (n + 1) / 2
	}
	word := func(want bool, n int) int {
		if !want {
			return 0
		}
		g.head += n
		return g.head - n
	}
	has := func(col int, f func(o *output) bool) bool {
		for i := range g.outs {
			o := &g.outs[i]
			if o.col == col && f(o) {
				return true
			}
		}
		return false
	}
	over := func(forms func(form) bool, kinds ...Kind) func(*output) bool {
		return func(o *output) bool {
			if o.win < 0 || !forms(g.wins[o.win].form) {
				return false
			}
			for _, k := range kinds {
				if o.kind == k {
					return true
				}
			}
			return false
		}
	}
	isEver := func(f form) bool { return f == ever }
	isRing := func(f form) bool { return f != ever }
	if g.accumulates {
		g.acc = word(true, accWords)
	}
	for i := range g.cols {
		c := &g.cols[i]
		c.accSum = word(has(i, over(isEver, Sum, Mean, Std, Ratio, ZScore, Risk)), 2)
		c.accSq = word(has(i, over(isEver, Std, ZScore)), 3)
		c.accMin = word(has(i, over(isEver, Min, Max)), 2)
		c.accSet = word(has(i, over(isEver, Distinct)), 1)
		c.accBag = word(has(i, over(isEver, Mode, Share)), 1)
		c.ext = word(has(i, over(isRing, Min, Max)), 1)
	}
	for i := range g.tabs {
		g.tabs[i].ref = word(true, 2)
	}
	for i := range g.cols {
		c := &g.cols[i]
		for _, at := range []int{c.ext, c.accSet, c.accBag} {
			if at != 0 {
				g.blocks = append(g.blocks, at)
			}
		}
	}
	for i := range g.tabs {
		g.blocks = append(g.blocks, g.tabs[i].ref)
	}
	for i := range g.outs {
		if o := &g.outs[i]; o.kind == EWMA {
			o.slot = word(true, ewmaWords)
		}
	}
	if g.head == 0 {
		g.head = 1
	}
}
