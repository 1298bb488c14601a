package features

import (
	"fmt"
	"time"

	"github.com/onmart/onmart/datasets"
)

// Step is the length of a panel's steps on the clock of its time zone.
type Step string

const (
	Hour Step = "hour" // the hours of the clock; one that the clock shows twice is two steps
	Day  Step = "day"  // from local midnight to the next: 23 or 25 hours where clocks are changed
	Week Step = "week" // from Monday's midnight to the next
)

var steps = []string{string(Hour), string(Day), string(Week)}

// Seasons are the periods of a step that sales commonly follow, in steps: a day and a week of hours, a week of
// days, a year of weeks.
func (s Step) Seasons() []int {
	switch s {
	case Hour:
		return []int{24, 168}
	case Week:
		return []int{52}
	}
	return []int{7}
}

// Grid cuts time into steps without gaps or overlaps. Instants are microseconds since 1970 UTC.
//
// An hour ends where the clock's minutes come to 00, or where the zone's offset changes in between. A day or week
// begins at the first instant whose date is that day (or later, where a date was left out), and an hour that
// clocks repeat across midnight belongs to the day that had begun already.
type Grid struct {
	step Step
	loc  *time.Location
	// The step last asked for: events come in the order of time.
	from, to int64
}

// NewGrid is the steps of a time zone.
func NewGrid(s Step, loc *time.Location) (*Grid, error) {
	if s != Hour && s != Day && s != Week {
		return nil, fmt.Errorf("step %q: want hour, day or week", string(s))
	}
	return &Grid{step: s, loc: loc}, nil
}

// Step returns the step that t is in, [from, to).
func (g *Grid) Step(t int64) (from, to int64) {
	if t < g.from || t >= g.to {
		g.from, g.to = g.find(t)
	}
	return g.from, g.to
}

// Location is the zone whose clock the steps follow.
func (g *Grid) Location() *time.Location { return g.loc }

// period is the span of time around t in which the zone's offset does not change.
type period struct {
	offset   int64
	from, to int64 // [from, to); far ends where there is none
}

const farAway = int64(1) << 62

func (g *Grid) period(t int64) period {
	at := time.UnixMicro(t).In(g.loc)
	_, offset := at.Zone()
	p := period{int64(offset) * datasets.Second, -farAway, farAway}
	from, to := at.ZoneBounds()
	if !from.IsZero() {
		p.from = from.UnixMicro()
	}
	if !to.IsZero() && !to.After(at) {
		// ZoneBounds of Go 1.26 ends the period too early on 31 December of leap years past the zone's table: what holds
		// two days later holds now, since no zone changes its clocks between.
		_, to = at.AddDate(0, 0, 2).ZoneBounds()
	}
	if !to.IsZero() {
		p.to = to.UnixMicro()
	}
	return p
}

func (g *Grid) find(t int64) (from, to int64) {
	if g.step == Hour {
		p := g.period(t)
		from = floorTo(t+p.offset, datasets.Hour) - p.offset
		return max(from, p.from), min(from+datasets.Hour, p.to)
	}
	from, n := g.begin(t)
	p := g.period(from)
	for {
		to = g.clock(n+1) - p.offset
		if to < p.to {
			return from, to
		}
		// The zone's offset changes first: the next step begins with the change if its number is reached there.
		p = g.period(p.to)
		if g.number(p.from+p.offset) > n {
			return from, p.from
		}
	}
}

// begin finds the first instant of the day or week of t, and its number. A clock that is put back over midnight
// shows a date again that had ended: what counts is the greatest date so far.
func (g *Grid) begin(t int64) (from, number int64) {
	p := g.period(t)
	n := g.number(t + p.offset)
	for p.from > -farAway {
		before := g.period(p.from - 1)
		m := g.number(p.from - 1 + before.offset)
		if m < n {
			break
		}
		n, p = m, before
	}
	return max(g.clock(n)-p.offset, p.from), n
}

// mondays moves the week so that it begins on a Monday: 1970-01-01 was a Thursday.
const mondays = 3 * datasets.Day

// number counts days or weeks on a clock that shows local microseconds since 1970.
func (g *Grid) number(local int64) int64 {
	if g.step == Week {
		return floorDiv(local+mondays, 7*datasets.Day)
	}
	return floorDiv(local, datasets.Day)
}

// clock is what a clock shows when the day or week n begins.
func (g *Grid) clock(n int64) int64 {
	if g.step == Week {
		return n*7*datasets.Day - mondays
	}
	return n * datasets.Day
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorTo(a, b int64) int64 { return floorDiv(a, b) * b }
