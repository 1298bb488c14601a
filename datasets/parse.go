package datasets

import (
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// Values come as bytes from a file or an event. The parsers here do not allocate where the value is good,
// and their errors are the reasons that stand in rejects: short, without the value.

var (
	errNotInt       = errors.New("is not a whole number")
	errNotNumber    = errors.New("is not a number")
	errComma        = errors.New("has a comma: write a point before decimals and nothing between thousands")
	errNotFinite    = errors.New("is not a finite number")
	errTooLarge     = errors.New("is too large")
	errNotFlag      = errors.New("is not 0, 1, true or false")
	errNotTime      = errors.New("is not a time that the mapping's layouts or RFC 3339 describe")
	errNoSuchTime   = errors.New("does not exist in the mapping's time zone: clocks were set forward over it")
	errTimeFar      = errors.New("is outside the years 1677 to 2262")
	errNegative     = errors.New("is negative; returns: true in the mapping allows it")
	errNegativeLine = errors.New("is negative, and lines count from 0")
)

// decimalLimit is one past the greatest value of a DECIMAL(18) column.
const decimalLimit = 1_000_000_000_000_000_000

// text views bytes as a string for the standard library's parsers, which do not keep it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// trimSpace cuts spaces and tabs around numbers and times.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// parseInt reads a whole number. Zeros after a point are allowed, because spreadsheets and data frames
// write ids as 17850.0.
func parseInt(b []byte) (int64, error) {
	digits := b
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		digits = b[1:]
	}
	var v uint64
	i := 0
	for ; i < len(digits) && isDigit(digits[i]); i++ {
		if v > math.MaxUint64/10-1 {
			return 0, errTooLarge
		}
		v = v*10 + uint64(digits[i]-'0')
	}
	if i == 0 {
		return 0, errNotInt
	}
	if i < len(digits) {
		if digits[i] != '.' || i+1 == len(digits) {
			return 0, errNotInt
		}
		for _, d := range digits[i+1:] {
			if d != '0' {
				return 0, errNotInt
			}
		}
	}
	switch {
	case neg && v <= 1<<63:
		return -int64(v), nil
	case !neg && v <= math.MaxInt64:
		return int64(v), nil
	}
	return 0, errTooLarge
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// pow10 holds 10^0 .. 10^19.
var pow10 = func() (p [20]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

// maxDecimalDigits bounds the digits of a number's text: no number that fits has a reason for more.
const maxDecimalDigits = 400

// parseDecimal reads a number as a whole count of 10^-scale. Digits past the scale are rounded half to
// even, and rounded tells that some of them were not zero.
func parseDecimal(b []byte, scale int) (v int64, rounded bool, err error) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	intEnd, digits, exp, err := decimalShape(b)
	if err != nil {
		return 0, false, err
	}
	// keep is how many of the digits stand before the last place kept; it may lie outside of them.
	keep := intEnd + exp + scale
	var u uint64
	i, seen := 0, 0
	for ; i < len(b) && seen < min(keep, digits); i++ {
		if b[i] == '.' {
			continue
		}
		seen++
		hi, lo := bits.Mul64(u, 10)
		u = lo + uint64(b[i]-'0')
		if hi != 0 || u >= decimalLimit {
			return 0, false, errTooLarge
		}
	}
	if keep > digits && u != 0 {
		if keep-digits >= len(pow10) {
			return 0, false, errTooLarge
		}
		hi, lo := bits.Mul64(u, pow10[keep-digits])
		if hi != 0 || lo >= decimalLimit {
			return 0, false, errTooLarge
		}
		u = lo
	}
	half, rest := restOf(b[i:], digits-seen, keep < 0)
	if half > 0 || half == 0 && u&1 == 1 {
		u++
	}
	if u >= decimalLimit {
		return 0, false, errTooLarge
	}
	if neg {
		return -int64(u), rest, nil
	}
	return int64(u), rest, nil
}

// decimalShape checks a number without its sign: how many digits before the point, how many in all, and
// its exponent.
func decimalShape(b []byte) (intEnd, digits, exp int, err error) {
	i := 0
	for ; i < len(b) && isDigit(b[i]); i++ {
	}
	intEnd = i
	digits = i
	if i < len(b) && b[i] == '.' {
		for i++; i < len(b) && isDigit(b[i]); i++ {
			digits++
		}
	}
	if digits == 0 {
		return 0, 0, 0, notNumber(b)
	}
	if digits > maxDecimalDigits {
		return 0, 0, 0, errTooLarge
	}
	if i == len(b) {
		return intEnd, digits, 0, nil
	}
	if b[i] != 'e' && b[i] != 'E' {
		if b[i] == ',' {
			return 0, 0, 0, errComma
		}
		return 0, 0, 0, errNotNumber
	}
	i++
	neg := i < len(b) && b[i] == '-'
	if neg || i < len(b) && b[i] == '+' {
		i++
	}
	start := i
	for ; i < len(b) && isDigit(b[i]); i++ {
		exp = min(exp*10+int(b[i]-'0'), 100_000)
	}
	if i == start || i < len(b) {
		return 0, 0, 0, errNotNumber
	}
	if neg {
		exp = -exp
	}
	return intEnd, digits, exp, nil
}

// notNumber tells NaN and infinities, as data frames write them, from other text.
func notNumber(b []byte) error {
	switch string(b) {
	case "nan", "NaN", "NAN", "inf", "Inf", "INF", "+inf", "infinity", "Infinity":
		return errNotFinite
	}
	return errNotNumber
}

// restOf looks at the n digits that are cut off: half is their sign against one half of the last place
// kept (-1 below, 0 equal, 1 above) and rest whether any is not zero. Where zeros stand between the last
// place kept and the first of them, they are below one half.
func restOf(b []byte, n int, far bool) (half int, rest bool) {
	half = -1
	first := true
	for i := 0; i < len(b) && n > 0; i++ {
		if b[i] == '.' {
			continue
		}
		d := b[i]
		n--
		if d != '0' {
			rest = true
		}
		switch {
		case far:
		case first && d == '5':
			half = 0
		case first && d > '5':
			half = 1
		case !first && half == 0 && d != '0':
			half = 1
		}
		first = false
	}
	return half, rest
}

// parseFloat reads a finite number in decimal notation.
func parseFloat(b []byte) (float64, error) {
	for _, c := range b {
		if !isDigit(c) && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, notNumber(b)
		}
	}
	v, err := strconv.ParseFloat(text(b), 64)
	if err != nil {
		if math.IsInf(v, 0) {
			return 0, errTooLarge
		}
		return 0, errNotNumber
	}
	return v, nil
}

// parseFlag reads a yes or no as 1 or 0.
func parseFlag(b []byte) (int64, error) {
	switch string(b) {
	case "0", "0.0", "false", "False", "FALSE":
		return 0, nil
	case "1", "1.0", "true", "True", "TRUE":
		return 1, nil
	}
	return 0, errNotFlag
}

// Layouts of times that are numbers: since 1970-01-01 UTC.
const (
	layoutUnix      = "unix"
	layoutUnixMilli = "unix_ms"
	layoutUnixMicro = "unix_us"
)

// clock turns times of one zone into microseconds UTC. It is used by one goroutine.
type clock struct {
	loc        *time.Location
	offset     int64 // of the zone, seconds east, that holds for the local seconds [from, to)
	from, to   int64
	everywhere bool // the zone has one offset
}

func newClock(loc *time.Location) *clock {
	return &clock{loc: loc, everywhere: loc == time.UTC}
}

// parse reads a time: by the layouts first, then RFC 3339, which carries its own zone.
func (c *clock) parse(b []byte, layouts []string) (int64, error) {
	for _, layout := range layouts {
		us, err := c.parseLayout(b, layout)
		if err == nil || errors.Is(err, errNoSuchTime) {
			return us, err
		}
	}
	return parseRFC3339(b)
}

func (c *clock) parseLayout(b []byte, layout string) (int64, error) {
	switch layout {
	case time.DateTime:
		sec, ok := fixedDateTime(b)
		if !ok {
			return 0, errNotTime
		}
		return c.local(sec, 0)
	case layoutUnix, layoutUnixMilli, layoutUnixMicro:
		return parseUnix(b, layout)
	}
	t, err := time.ParseInLocation(layout, text(b), time.UTC)
	if err != nil {
		return 0, errNotTime
	}
	if strings.Contains(layout, "Z07") || strings.Contains(layout, "-07") {
		return unixMicro(t.Unix(), int64(t.Nanosecond()/1000))
	}
	return c.local(t.Unix(), int64(t.Nanosecond()/1000))
}

// local turns seconds of a wall clock, counted as if it stood at UTC, into microseconds UTC. A time that
// occurs twice, when clocks are set back, is the first of the two.
func (c *clock) local(sec, micros int64) (int64, error) {
	if c.everywhere {
		return unixMicro(sec, micros)
	}
	if sec < c.from || sec >= c.to {
		if err := c.find(sec); err != nil {
			return 0, err
		}
	}
	return unixMicro(sec-c.offset, micros)
}

// find sets the offset for local second sec, and the span of local seconds for which it certainly holds.
func (c *clock) find(sec int64) error {
	// No zone is more than a day from UTC: the offset before and after are the candidates.
	for _, probe := range []int64{sec - 86400, sec, sec + 86400} {
		t := time.Unix(probe, 0).In(c.loc)
		_, off := t.Zone()
		offset := int64(off)
		start, end := t.ZoneBounds()
		utc := sec - offset
		if !start.IsZero() && utc < start.Unix() || !end.IsZero() && utc >= end.Unix() {
			continue
		}
		c.offset, c.from, c.to = offset, math.MinInt64, math.MaxInt64
		if !start.IsZero() {
			// In the day after a change the wall clock may show times of the zone before it.
			c.from = start.Unix() + offset + 86400
		}
		if !end.IsZero() {
			c.to = end.Unix() + offset
		}
		if sec < c.from {
			c.from, c.to = sec, sec+1
		}
		return nil
	}
	return errNoSuchTime
}

func unixMicro(sec, micros int64) (int64, error) {
	// The bounds are those of nanoseconds in an int64, which data frames use.
	if sec < -9_223_372_036 || sec > 9_223_372_036 {
		return 0, errTimeFar
	}
	return sec*Second + micros, nil
}

// digits2 reads two digits; ok is false in the sign where they are not.
func digits2(b []byte) int {
	x, y := b[0]-'0', b[1]-'0'
	if x > 9 || y > 9 {
		return -1 << 20
	}
	return int(x)*10 + int(y)
}

// fixedDateTime reads 2006-01-02 15:04:05 (or a T between) as seconds since 1970 on the clock shown.
func fixedDateTime(b []byte) (int64, bool) {
	if len(b) != 19 || b[4] != '-' || b[7] != '-' || b[10] != ' ' && b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	year := digits2(b)*100 + digits2(b[2:])
	month, day := digits2(b[5:]), digits2(b[8:])
	h, m, s := digits2(b[11:]), digits2(b[14:]), digits2(b[17:])
	if year < 0 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		h < 0 || h > 23 || m < 0 || m > 59 || s < 0 || s > 59 {
		return 0, false
	}
	return daysSince1970(year, month, day)*86400 + int64(h*3600+m*60+s), true
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSince1970 counts days of the Gregorian calendar, years beginning in March so that the leap day is
// the last (Howard Hinnant, chrono-compatible low-level date algorithms, days_from_civil). Year >= 0.
func daysSince1970(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := (year + 400) / 400 // year -1 occurs
	yearOfEra := year + 400 - era*400
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return int64((era-1)*146097 + dayOfEra - 719468)
}

// parseRFC3339 reads a date and time with its offset, to the microsecond; further digits are cut off.
func parseRFC3339(b []byte) (int64, error) {
	if len(b) < 20 {
		return 0, errNotTime
	}
	sec, ok := fixedDateTime(b[:19])
	if !ok {
		return 0, errNotTime
	}
	b = b[19:]
	var micros int64
	if b[0] == '.' {
		unit := int64(100_000)
		i := 1
		for ; i < len(b) && isDigit(b[i]); i++ {
			micros += int64(b[i]-'0') * unit
			unit /= 10
		}
		if i == 1 || i == len(b) {
			return 0, errNotTime
		}
		b = b[i:]
	}
	if len(b) == 1 && (b[0] == 'Z' || b[0] == 'z') {
		return unixMicro(sec, micros)
	}
	if len(b) != 6 || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, errNotTime
	}
	h, m := digits2(b[1:]), digits2(b[4:])
	if h < 0 || h > 23 || m < 0 || m > 59 {
		return 0, errNotTime
	}
	offset := int64(h*3600 + m*60)
	if b[0] == '-' {
		offset = -offset
	}
	return unixMicro(sec-offset, micros)
}

// parseUnix reads a number of seconds, milliseconds or microseconds; fractions are kept to the microsecond.
func parseUnix(b []byte, layout string) (int64, error) {
	scale := 6
	switch layout {
	case layoutUnixMilli:
		scale = 3
	case layoutUnixMicro:
		scale = 0
	}
	us, _, err := parseDecimal(b, scale)
	if err != nil {
		return 0, errNotTime
	}
	if us < -9_223_372_036*Second || us > 9_223_372_036*Second {
		return 0, errTimeFar
	}
	return us, nil
}
