package datasets

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Microseconds of the common spans; all event times and durations are in microseconds.
const (
	Second int64 = 1_000_000
	Minute       = 60 * Second
	Hour         = 60 * Minute
	Day          = 24 * Hour
)

// Range is the half-open span of event time [From, To), microseconds since 1970 UTC. The zero Range
// is all of time.
type Range struct{ From, To int64 }

// all is the range that holds every event.
var all = Range{math.MinInt64, math.MaxInt64}

// Contains tells whether an event at t is in the range.
func (r Range) Contains(t int64) bool {
	if r == (Range{}) {
		return true
	}
	return t >= r.From && t < r.To
}

// Bounds is the range with the zero Range spelt out.
func (r Range) Bounds() (from, to int64) {
	if r == (Range{}) {
		r = all
	}
	return r.From, r.To
}

// ParseRange reads FROM..TO, each an inclusive date (2018-07-25) or an RFC 3339 time, either left out for
// an open end. A date as TO includes the whole day; a time as TO is excluded. Dates are days in UTC.
func ParseRange(s string) (Range, error) { return ParseRangeIn(s, time.UTC) }

// ParseRangeIn is ParseRange with dates that are days of a time zone.
func ParseRangeIn(s string, loc *time.Location) (Range, error) {
	a, b, ok := strings.Cut(s, "..")
	if !ok {
		return Range{}, fmt.Errorf("range %q: want FROM..TO, such as 2018-07-25..2018-07-31", s)
	}
	r := all
	var err error
	if a != "" {
		if r.From, err = parseInstant(a, loc, 0); err != nil {
			return Range{}, fmt.Errorf("range %q: from: %w", s, err)
		}
	}
	if b != "" {
		if r.To, err = parseInstant(b, loc, 1); err != nil {
			return Range{}, fmt.Errorf("range %q: to: %w", s, err)
		}
	}
	if r.To <= r.From {
		return Range{}, fmt.Errorf("range %q: ends before it begins", s)
	}
	return r, nil
}

// parseInstant reads a time, or a date as its midnight or that of so many days after.
func parseInstant(s string, loc *time.Location, after int) (int64, error) {
	if t, err := time.ParseInLocation(time.DateOnly, s, loc); err == nil {
		return t.AddDate(0, 0, after).UnixMicro(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a date (2018-07-25) nor an RFC 3339 time (2018-07-25T00:00:00Z)", s)
	}
	return t.UnixMicro(), nil
}

// String is the range as ParseRange reads it.
func (r Range) String() string {
	from, to := r.Bounds()
	var a, b string
	if from != math.MinInt64 {
		a = formatInstant(from)
	}
	if to != math.MaxInt64 {
		if to%Day == 0 {
			b = FormatTime(to - Day)[:10]
		} else {
			b = FormatTime(to)
		}
	}
	return a + ".." + b
}

func formatInstant(us int64) string {
	if us%Day == 0 {
		return FormatTime(us)[:10]
	}
	return FormatTime(us)
}

// FormatTime is RFC 3339 in UTC with as many digits of the second as are not zero.
func FormatTime(us int64) string { return time.UnixMicro(us).UTC().Format(time.RFC3339Nano) }

// AppendTime appends FormatTime's text without allocating.
func AppendTime(dst []byte, us int64) []byte {
	// Years of other than four digits do not occur among event times; time knows how to write them.
	if us < -62_135_596_800*Second || us >= 253_402_300_800*Second {
		return time.UnixMicro(us).UTC().AppendFormat(dst, time.RFC3339Nano)
	}
	days := us / Day
	if us < 0 && us%Day != 0 {
		days--
	}
	rest := us - days*Day
	year, month, day := civil(days)
	dst = append2(dst, year/100)
	dst = append2(dst, year%100)
	dst = append2(append(dst, '-'), month)
	dst = append2(append(dst, '-'), day)
	seconds := int(rest / Second)
	dst = append2(append(dst, 'T'), seconds/3600)
	dst = append2(append(dst, ':'), seconds/60%60)
	dst = append2(append(dst, ':'), seconds%60)
	if micros := int(rest % Second); micros != 0 {
		dst = append(dst, '.')
		for unit := 100_000; micros > 0; unit /= 10 {
			dst = append(dst, byte('0'+micros/unit))
			micros %= unit
		}
	}
	return append(dst, 'Z')
}

func append2(dst []byte, v int) []byte { return append(dst, byte('0'+v/10), byte('0'+v%10)) }

// civil is the inverse of daysSince1970 (Howard Hinnant, chrono-compatible low-level date algorithms,
// civil_from_days), for years from 1 on.
func civil(days int64) (year, month, day int) {
	z := days + 719468
	era := z / 146097
	dayOfEra := int(z - era*146097)
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	m := (5*dayOfYear + 2) / 153
	year, month, day = yearOfEra+int(era)*400, m+3, dayOfYear-(153*m+2)/5+1
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, day
}

var units = map[byte]int64{'s': Second, 'm': Minute, 'h': Hour, 'd': Day, 'w': 7 * Day}

// ParseDuration reads a number and a unit: 30s, 30m, 24h, 7d, 2w. It returns microseconds.
func ParseDuration(s string) (int64, error) {
	if len(s) > 1 {
		if u, ok := units[s[len(s)-1]]; ok {
			n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
			if err == nil && n >= 0 && n <= math.MaxInt64/u {
				return n * u, nil
			}
		}
	}
	return 0, fmt.Errorf("duration %q: want a whole number and a unit, such as 30m, 24h or 7d", s)
}

// FormatDuration is the shortest form that ParseDuration reads.
func FormatDuration(us int64) string {
	for _, u := range []struct {
		n int64
		s string
	}{{Day, "d"}, {Hour, "h"}, {Minute, "m"}} {
		if us%u.n == 0 && us != 0 {
			return strconv.FormatInt(us/u.n, 10) + u.s
		}
	}
	return strconv.FormatInt(us/Second, 10) + "s"
}
