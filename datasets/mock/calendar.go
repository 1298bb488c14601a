package mock

import (
	"math"
	"time"

	"github.com/onmart/onmart/datasets"
)

// holiday is a day of the year on which people buy more, or nothing because the shop is closed.
type holiday struct {
	name   string
	closed bool
	factor float64 // of purchases, before the seed moves it by a tenth; 0 where closed
	on     func(year int) time.Time
}

func fixed(m time.Month, day int) func(int) time.Time {
	return func(year int) time.Time { return time.Date(year, m, day, 0, 0, 0, 0, time.UTC) }
}

// nth is the nth weekday of a month.
func nth(n int, wd time.Weekday, m time.Month) func(int) time.Time {
	return func(year int) time.Time {
		first := time.Date(year, m, 1, 0, 0, 0, 0, time.UTC)
		return first.AddDate(0, 0, (int(wd-first.Weekday())+7)%7+7*(n-1))
	}
}

// afterEaster is the day so many days after Easter Sunday, by the anonymous Gregorian computus (Meeus 1991).
func afterEaster(days int) func(int) time.Time {
	return func(y int) time.Time {
		a, b, c := y%19, y/100, y%100
		h := (19*a + b - b/4 - (b-(b+8)/25+1)/3 + 15) % 30
		l := (32 + 2*(b%4) + 2*(c/4) - h - c%4) % 7
		m := (a + 11*h + 22*l) / 451
		n := h + l - 7*m + 114
		return time.Date(y, time.Month(n/31), n%31+1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, days)
	}
}

// holidays of a Belgian shop, in the order of the year.
var holidays = []holiday{
	{"New Year's Day", true, 0, fixed(time.January, 1)},
	{"Valentine's Day", false, 1.6, fixed(time.February, 14)},
	{"Easter Monday", true, 0, afterEaster(1)},
	{"Labour Day", true, 0, fixed(time.May, 1)},
	{"Mother's Day", false, 1.7, nth(2, time.Sunday, time.May)},
	{"National Day", true, 0, fixed(time.July, 21)},
	{"All Saints", true, 0, fixed(time.November, 1)},
	{"Black Friday", false, 2.1, func(y int) time.Time {
		return nth(4, time.Thursday, time.November)(y).AddDate(0, 0,
			1)
	}},
	{"Christmas Day", true, 0, fixed(time.December, 25)},
	{"Boxing Day", true, 0, fixed(time.December, 26)},
}

// date is one day of the calendar.
type date struct {
	weekday  int // 0 on Mondays
	yearPart float64
	holiday  int // place in holidays, or -1
	closed   bool
}

// dayOf names the day with the number n of a stream that starts at start, both in microseconds.
func dayOf(start int64, n int) time.Time {
	return time.UnixMicro(start + int64(n)*datasets.Day).UTC()
}

func makeCalendar(start int64, days int) []date {
	all := make([]date, days)
	for i := range all {
		t := dayOf(start, i)
		all[i] = date{weekday: (int(t.Weekday()) + 6) % 7, yearPart: yearPart(t), holiday: -1}
		for h := range holidays {
			if holidays[h].on(t.Year()).Equal(t) {
				all[i].holiday, all[i].closed = h, holidays[h].closed
			}
		}
	}
	return all
}

// yearPart is where in its year a day lies, 0 on January 1 and below 1.
func yearPart(t time.Time) float64 { return float64(t.YearDay()-1) / 365.25 }

// Christmas shopping is a bump of the logarithm of demand around December 14, ten days wide on either side.
const christmasDay, christmasWidth = 347.0 / 365.25, 10.0 / 365.25

// christmas is the height of the bump at a part of the year, 1 at its top.
func christmas(part float64) float64 {
	z := (part - christmasDay) / christmasWidth
	return math.Exp(-z * z / 2)
}
