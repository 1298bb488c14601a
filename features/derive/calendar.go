package derive

import (
	"fmt"
	"math"
	"time"

	"github.com/onmart/onmart/datasets"
)

// calendarValue is something that a calendar or a clock shows: of the local day, in days since 1970, or of the time of
// the day, in microseconds.
type calendarValue struct {
	name   string
	day    func(day int64) int64
	clock  func(us int64) int64
	period int64 // of cyclic; 0 where the value has none
}

// calendarValues are all but holiday, which depends on the holidays.
var calendarValues = []calendarValue{
	{"hour", nil, func(us int64) int64 { return us / datasets.Hour }, 24},              // 0 to 23
	{"minute_of_day", nil, func(us int64) int64 { return us / datasets.Minute }, 1440}, // 0 to 1439
	{"night", nil, func(us int64) int64 { return b2i(us < 7*datasets.Hour) }, 0},       // 1 from 00:00:00 to 06:59:59
	{"weekday", weekday, nil, 7}, // 0 is Monday, 6 Sunday
	{"weekend", func(day int64) int64 { return b2i(weekday(day) >= 5) }, nil, 0}, // 1 on Saturday and Sunday
	{"day", func(day int64) int64 { _, _, d := civil(day); return d }, nil, 31},  // of the month, from 1
	{"yearday", yearday, nil, 366}, // from 1
	{"week", isoWeek, nil, 53},     // of ISO 8601, from 1
	{"month", func(day int64) int64 { _, m, _ := civil(day); return m }, nil, 12}, // from 1
	{"month_end", daysToMonth, nil, 0},                                            // days to the last, 0 on it
	{"year", func(day int64) int64 { y, _, _ := civil(day); return y }, nil, 0},   //
}

const holiday = "holiday"

// CalendarNames are what calendar can be of, in the order of the documentation: holiday last, which is of the day and
// depends on Options.Holidays.
func CalendarNames() []string {
	var list []string
	for _, c := range calendarValues {
		list = append(list, c.name)
	}
	return append(list, holiday)
}

// CalendarValue is a calendar value, but not holiday, at a local time: microseconds since 1970 on the zone's clock.
func CalendarValue(name string, local int64) (value int64, ok bool) {
	for i := range calendarValues {
		if c := &calendarValues[i]; c.name == name {
			day := floorDiv(local, datasets.Day)
			if c.day != nil {
				return c.day(day), true
			}
			return c.clock(local - day*datasets.Day), true
		}
	}
	return 0, false
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// weekday: 1970-01-01 was a Thursday.
func weekday(day int64) int64 {
	w := (day + 3) % 7
	if w < 0 {
		w += 7
	}
	return w
}

// civil is the date of a day in the Gregorian calendar, by Hinnant's chrono-compatible algorithm: eras of 400 years
// that begin on March 1st.
func civil(day int64) (year, month, dayOfMonth int64) {
	z := day + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	month = mp + 3
	if month > 12 {
		month -= 12
	}
	return yoe + era*400 + b2i(month <= 2), month, doy - (153*mp+2)/5 + 1
}

var daysBefore = [...]int64{1: 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365}

func isLeap(year int64) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func yearday(day int64) int64 {
	y, m, d := civil(day)
	return daysBefore[m] + d + b2i(m > 2 && isLeap(y))
}

// isoWeek is the week that has the day's Thursday.
func isoWeek(day int64) int64 { return (yearday(day-weekday(day)+3)-1)/7 + 1 }

func daysToMonth(day int64) int64 {
	y, m, d := civil(day)
	return daysBefore[m+1] - daysBefore[m] + b2i(m == 2 && isLeap(y)) - d
}

func dayOf(d, local []int64) {
	local = local[:len(d)]
	for i, x := range local {
		d[i] = floorDiv(x, datasets.Day)
	}
}

// ofDays computes a value where the day changes.
func ofDays(d, day []int64, f func(int64) int64) {
	day = day[:len(d)]
	last, v := day[0], f(day[0])
	for i, x := range day {
		if x != last {
			last, v = x, f(x)
		}
		d[i] = v
	}
}

func ofClock(d, local, day []int64, f func(int64) int64) {
	local, day = local[:len(d)], day[:len(d)]
	for i := range d {
		d[i] = f(local[i] - day[i]*datasets.Day)
	}
}

// holidays are dates and days of every year.
type holidays struct {
	dates  map[int64]bool // by days since 1970
	yearly [13][32]bool   // by month and day
}

func parseHolidays(list []string) (*holidays, []string) {
	h := &holidays{dates: map[int64]bool{}}
	var faults []string
	for _, s := range list {
		if t, err := time.Parse(time.DateOnly, s); err == nil {
			h.dates[floorDiv(t.UnixMicro(), datasets.Day)] = true
		} else if t, err := time.Parse(time.DateOnly, "2000-"+s); err == nil { // a leap year, for 02-29
			h.yearly[t.Month()][t.Day()] = true
		} else {
			faults = append(faults, fmt.Sprintf("holiday %q: want a date such as 2026-12-25, or 12-25 for every year", s))
		}
	}
	return h, faults
}

func (h *holidays) of(day int64) int64 {
	_, m, d := civil(day)
	return b2i(h.yearly[m][d] || h.dates[day])
}

// zoneCache finds the zone's offset from UTC. A cell holds the span around the last time looked up there in which the
// offset stays: times of one month share a cell, and clocks change twice a year.
type zoneCache struct {
	zone  *time.Location
	fixed bool
	cells []zoneCell
}

// zoneCell says that the offset, in microseconds, holds from..to.
type zoneCell struct{ from, to, offset int64 }

const (
	zoneCells = 256
	zoneShift = 41 // 2^41 us are 25 days
	// farTime keeps a local time within 64 bits.
	farTime = math.MaxInt64 - 2*datasets.Day
)

func newZoneCache(zone *time.Location) zoneCache {
	c := zoneCache{zone: zone}
	first := c.find(0)
	c.fixed = first.from == math.MinInt64 && first.to == math.MaxInt64
	c.cells = []zoneCell{first}
	if !c.fixed {
		c.cells = make([]zoneCell, zoneCells)
	}
	return c
}

// local turns times into what the zone's clock shows.
func (c *zoneCache) local(d, at []int64) {
	at = at[:len(d)]
	if c.fixed {
		offset := c.cells[0].offset
		for i, t := range at {
			d[i] = min(max(t, -farTime), farTime) + offset
		}
		return
	}
	var cell zoneCell
	for i, t := range at {
		t = min(max(t, -farTime), farTime)
		if t < cell.from || t >= cell.to {
			p := &c.cells[uint64(t>>zoneShift)%zoneCells]
			if t < p.from || t >= p.to {
				*p = c.find(t)
			}
			cell = *p
		}
		d[i] = t + cell.offset
	}
}

func (c *zoneCache) find(t int64) zoneCell {
	at := time.UnixMicro(t).In(c.zone)
	_, offset := at.Zone()
	cell := zoneCell{math.MinInt64, math.MaxInt64, int64(offset) * datasets.Second}
	from, to := at.ZoneBounds()
	if !from.IsZero() {
		cell.from = from.UnixMicro()
	}
	if !to.IsZero() {
		// On December 31st of leap years that only the zone's rule covers, after 2037, ZoneBounds of Go 1.26 ends the
		// day before; the offset is right.
		cell.to = max(to.UnixMicro(), t+1)
	}
	return cell
}
