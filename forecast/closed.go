package forecast

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Closed knows the steps on which a shop sells nothing: slots of the week that are always closed, and single steps.
// FindClosed finds them in a panel; a zero Closed is always open.
type Closed struct {
	step  Step
	zone  *time.Location
	slot  []bool         // by hour or day of the week, Monday first; nil where none is closed
	dates map[int64]bool // starts of single steps that were closed though their slot is open
	again map[[2]int]bool
}

// AlwaysOpen is a Closed without a closed step: every zero of a history counts as no demand.
func AlwaysOpen() *Closed { return &Closed{} }

const (
	// closedTurns is the number of latest weeks that must all be without a sale before a slot of the week counts as
	// closed, and the least number of weeks that must be known.
	closedTurns, closedLeast = 8, 3
	// closedChance is the greatest probability that an open step would have had no sale by chance.
	closedChance = 1e-4
	// longBreak is the number of closed days in a row from which a break is expected again on the same dates of the
	// next year: the turn of the year in practice. Shorter holidays move from year to year.
	longBreak = 5
)

// FindClosed finds the closed steps of a panel of hours or days. A slot of the week (a weekday, or an hour of it) is
// closed where no series sold anything on its last eight occurrences (at least three), though chance would have left
// them empty with a probability below 1e-4 at the rate of the other slots. A single step is closed where no series
// sold anything though, by the sales of its neighbours in the same slot, at least -log(1e-4) series were expected to.
// Panels of weeks have no closed slots, only single closed steps.
func FindClosed(p *Panel) *Closed {
	c := &Closed{step: p.Step, zone: p.Zone, dates: map[int64]bool{}, again: map[[2]int]bool{}}
	if c.zone == nil {
		c.zone = time.UTC
	}
	n := len(p.Times)
	sold := make([]float64, n) // series that sold something
	for i := range p.Series {
		s := &p.Series[i]
		for t, v := range s.Y {
			if v != 0 {
				sold[s.First+t]++
			}
		}
	}
	first := 0 // before the first sale nothing is known
	for first < n && sold[first] == 0 {
		first++
	}
	if first == n {
		return c
	}
	slots := slotsOf(p.Step)
	index := make([]int, n)
	bySlot := make([][]int, slots)
	for t := range n {
		index[t] = c.slotOf(p.Times[t])
		if t >= first {
			bySlot[index[t]] = append(bySlot[index[t]], t)
		}
	}
	if slots > 1 {
		c.findSlots(sold, bySlot)
	}
	for t := first; t < n; t++ {
		if sold[t] == 0 && !c.closedSlot(index[t]) && neighbours(sold, bySlot[index[t]], t) > -math.Log(closedChance) {
			c.dates[p.Times[t]] = true
		}
	}
	c.findBreaks(p.Times)
	return c
}

// slotsOf is the number of slots of the week.
func slotsOf(s Step) int {
	switch s {
	case Hour:
		return 168
	case Day:
		return 7
	}
	return 1
}

func (c *Closed) slotOf(t int64) int {
	if c.step != Hour && c.step != Day {
		return 0
	}
	at := time.UnixMicro(t).In(c.zone)
	d := (int(at.Weekday()) + 6) % 7
	if c.step == Day {
		return d
	}
	return d*24 + at.Hour()
}

func (c *Closed) closedSlot(k int) bool { return c.slot != nil && c.slot[k] }

// findSlots marks slots whose latest occurrences are all empty.
func (c *Closed) findSlots(sold []float64, bySlot [][]int) {
	empty := make([]bool, len(bySlot))
	var with, all float64
	for k, ts := range bySlot {
		ts = ts[max(0, len(ts)-closedTurns):]
		empty[k] = len(ts) >= closedLeast
		for _, t := range ts {
			if sold[t] > 0 {
				empty[k] = false
			}
		}
		if empty[k] {
			continue
		}
		for _, t := range ts {
			all++
			if sold[t] > 0 {
				with++
			}
		}
	}
	if all == 0 || with == 0 {
		return
	}
	share := with / all
	for k, e := range empty {
		turns := float64(min(len(bySlot[k]), closedTurns))
		if e && math.Pow(1-share, turns) < closedChance {
			if c.slot == nil {
				c.slot = make([]bool, len(bySlot))
			}
			c.slot[k] = true
		}
	}
}

// neighbours is the mean number of series that sold something on up to four occurrences of a slot before and after t;
// empty ones are passed over, so that a break of several weeks is one.
func neighbours(sold []float64, ts []int, t int) float64 {
	var sum, n float64
	at := 0
	for at < len(ts) && ts[at] < t {
		at++
	}
	take := func(from, by int) {
		found := 0
		for i := from; i >= 0 && i < len(ts) && found < 4; i += by {
			if sold[ts[i]] > 0 {
				sum += sold[ts[i]]
				n++
				found++
			}
		}
	}
	take(at-1, -1)
	take(at+1, 1)
	if n == 0 {
		return 0
	}
	return sum / n
}

// findBreaks notes month and day of the long breaks.
func (c *Closed) findBreaks(times []int64) {
	if c.step != Day {
		return
	}
	for from := 0; from < len(times); {
		to := from
		for to < len(times) && (c.dates[times[to]] || c.closedSlot(c.slotOf(times[to]))) {
			to++
		}
		if to-from >= longBreak {
			for _, t := range times[from:to] {
				at := time.UnixMicro(t).In(c.zone)
				c.again[[2]int{int(at.Month()), at.Day()}] = true
			}
		}
		from = max(to, from+1)
	}
}

// At says whether the step that starts at t (microseconds UTC) is closed. For a step after the panel it is a
// forecast: closed slots stay closed, and breaks of five days and more come again on the same dates.
func (c *Closed) At(t int64) bool {
	if c.step == 0 {
		return false
	}
	return c.weekly(t) || c.single(t)
}

func (c *Closed) weekly(t int64) bool { return c.slot != nil && c.slot[c.slotOf(t)] }

func (c *Closed) single(t int64) bool {
	if c.dates[t] {
		return true
	}
	if len(c.again) == 0 {
		return false
	}
	at := time.UnixMicro(t).In(c.zone)
	return c.again[[2]int{int(at.Month()), at.Day()}]
}

// String says what is closed, for people: "Saturdays; 2010-12-24 .. 2011-01-03".
func (c *Closed) String() string {
	var parts []string
	if c.slot != nil && c.step == Day {
		for k, s := range c.slot {
			if s {
				parts = append(parts, time.Weekday((k+1)%7).String()+"s")
			}
		}
	}
	if c.slot != nil && c.step == Hour {
		n := 0
		for _, s := range c.slot {
			if s {
				n++
			}
		}
		parts = append(parts, fmt.Sprintf("%d hours of the week", n))
	}
	if n := len(c.dates); n > 0 {
		parts = append(parts, fmt.Sprintf("%d single %ss", n, c.step))
	}
	if len(parts) == 0 {
		return "always open"
	}
	return "closed: " + strings.Join(parts, ", ")
}
