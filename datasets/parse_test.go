package datasets

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestParseInt(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		err  error
	}{
		{"0", 0, nil}, {"-0", 0, nil}, {"17850.0", 17850, nil}, {"17850.000", 17850, nil}, {"007", 7, nil},
		{"9223372036854775807", math.MaxInt64, nil}, {"-9223372036854775808", math.MinInt64, nil},
		{"9223372036854775808", 0, errTooLarge}, {"-9223372036854775809", 0, errTooLarge},
		{"99999999999999999999999", 0, errTooLarge}, {"18446744073709551616", 0, errTooLarge},
		{"", 0, errNotInt}, {"-", 0, errNotInt}, {"12.", 0, errNotInt}, {"12.5", 0, errNotInt}, {".0", 0, errNotInt},
		{"1e3", 0, errNotInt}, {"x", 0, errNotInt}, {"1 2", 0, errNotInt}, {"+1", 0, errNotInt}, {"1_000", 0, errNotInt},
	} {
		got, err := parseInt([]byte(c.in))
		if got != c.want || err != c.err {
			t.Errorf("%q: %d, %v; want %d, %v", c.in, got, err, c.want, c.err)
		}
	}
}

// exactDecimal is the oracle of parseDecimal: a fraction, rounded half to even.
func exactDecimal(s string, scale int) (v int64, rounded, ok bool) {
	r, good := new(big.Rat).SetString(s)
	if !good {
		return 0, false, false
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
	q, rest := new(big.Int).QuoRem(new(big.Int).Abs(r.Num()), r.Denom(), new(big.Int))
	twice := new(big.Int).Lsh(rest, 1).Cmp(r.Denom())
	if twice > 0 || twice == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	if q.Cmp(big.NewInt(decimalLimit)) >= 0 {
		return 0, false, false
	}
	v = q.Int64()
	if r.Sign() < 0 {
		v = -v
	}
	return v, rest.Sign() != 0, true
}

func TestParseDecimalAgainstFractions(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	digits := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte("0055123456789"[r.IntN(13)])
		}
		return b.String()
	}
	for range 200_000 {
		s := digits(r.IntN(12))
		if r.IntN(3) > 0 {
			s += "." + digits(r.IntN(12))
		}
		if strings.Trim(s, ".") == "" {
			s = "5" + s
		}
		if r.IntN(3) == 0 {
			s = "-" + s
		}
		if r.IntN(4) == 0 {
			s += fmt.Sprintf("%c%s%d", "eE"[r.IntN(2)], []string{"", "+", "-"}[r.IntN(3)], r.IntN(30))
		}
		scale := r.IntN(10)
		got, gotRounded, err := parseDecimal([]byte(s), scale)
		want, wantRounded, ok := exactDecimal(s, scale)
		if (err == nil) != ok || got != want || ok && gotRounded != wantRounded {
			t.Fatalf("%q at scale %d: %d %t %v; want %d %t %t", s, scale, got, gotRounded, err, want, wantRounded, ok)
		}
	}
}

func TestParseDecimalRefuses(t *testing.T) {
	for _, c := range []struct {
		in  string
		err error
	}{
		{"", errNotNumber}, {"-", errNotNumber}, {".", errNotNumber}, {"abc", errNotNumber}, {"1,5", errComma}, {"1,234.5", errComma}, {"1.2.3", errNotNumber},
		{"1e", errNotNumber}, {"1e+", errNotNumber}, {"0x10", errNotNumber}, {"1 ", errNotNumber}, {"--1", errNotNumber}, {"+1", errNotNumber},
		{"NaN", errNotFinite}, {"nan", errNotFinite}, {"inf", errNotFinite}, {"-Inf", errNotFinite}, {"Infinity", errNotFinite},
		{"100000000000000", errTooLarge}, {"1e99999999999999999999", errTooLarge}, {"99999999999999.99999", errTooLarge},
		{strings.Repeat("1", 500), errTooLarge},
	} {
		if v, _, err := parseDecimal([]byte(c.in), 4); err != c.err {
			t.Errorf("%.30q: %d, %v; want %v", c.in, v, err, c.err)
		}
	}
}

func TestParseFloat(t *testing.T) {
	for in, want := range map[string]float64{"1.5": 1.5, "-2e-3": -0.002, "51.5074": 51.5074, "1e-400": 0} {
		if got, err := parseFloat([]byte(in)); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for in, want := range map[string]error{"NaN": errNotFinite, "inf": errNotFinite, "1e400": errTooLarge, "": errNotNumber,
		"0x1p3": errNotNumber, "1_0": errNotNumber, "1,5": errNotNumber, "1-2": errNotNumber} {
		if v, err := parseFloat([]byte(in)); err != want {
			t.Errorf("%q: %v, %v; want %v", in, v, err, want)
		}
	}
}

func TestFixedDateTimeAgainstTime(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		s := fmt.Sprintf("%04d-%02d-%02d %02d:%02d:%02d", r.IntN(10000), r.IntN(14), r.IntN(33), r.IntN(26), r.IntN(62), r.IntN(62))
		want, err := time.Parse(time.DateTime, s)
		got, ok := fixedDateTime([]byte(s))
		if ok != (err == nil) || ok && got != want.Unix() {
			t.Fatalf("%s: %d %t, want %d %v", s, got, ok, want.Unix(), err)
		}
	}
	for _, s := range []string{"", "2018-04-01", "2018-04-01 00:00:0x", "2018/04/01 00:00:00", "2018-04-01 00:00:00 "} {
		if _, ok := fixedDateTime([]byte(s)); ok {
			t.Errorf("%q was read", s)
		}
	}
}

func TestParseRFC3339AgainstTime(t *testing.T) {
	for _, s := range []string{
		"2018-04-01T00:00:31Z", "2018-04-01 00:00:31Z", "2018-04-01T00:00:31.5Z", "2018-04-01T00:00:31.123456789+02:00",
		"2018-04-01T23:59:59-11:30", "1969-12-31T23:59:59.999999Z", "2016-02-29T12:00:00z", "2018-04-01T00:00:31.1234567Z",
	} {
		want, err := time.Parse(time.RFC3339Nano, strings.ToUpper(strings.Replace(s, " ", "T", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseRFC3339([]byte(s)); err != nil || got != want.UnixMicro() {
			t.Errorf("%s: %d, %v; want %d", s, got, err, want.UnixMicro())
		}
	}
	for _, s := range []string{"2018-04-01T00:00:31", "2018-04-01T00:00:31.Z", "2018-04-01T00:00:31.5", "2018-04-01T00:00:31+0200",
		"2018-04-01T00:00:31+24:00", "2018-02-30T00:00:31Z", "2018-04-01T24:00:00Z", "2018-04-01T00:00:31Zx"} {
		if got, err := parseRFC3339([]byte(s)); err != errNotTime {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
}

// Every half hour of two years in zones that change their clocks, against the definition: the first UTC
// instant at which the zone's wall clock shows that time.
func TestClockOfZones(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/London", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		first := map[string]int64{}
		from := time.Date(2010, 12, 1, 0, 0, 0, 0, time.UTC)
		for i := range 2 * 366 * 48 {
			at := from.Add(time.Duration(i) * 30 * time.Minute)
			shown := at.In(loc).Format(time.DateTime)
			if _, ok := first[shown]; !ok {
				first[shown] = at.UnixMicro()
			}
		}
		c := newClock(loc)
		gaps := 0
		for i := 96; i < 2*366*48-96; i++ {
			shown := from.Add(time.Duration(i) * 30 * time.Minute).Format(time.DateTime)
			got, err := c.parse([]byte(shown), []string{time.DateTime})
			want, ok := first[shown]
			if !ok {
				gaps++
			}
			if ok && (err != nil || got != want) || !ok && err != errNoSuchTime {
				t.Fatalf("%s %s: %d, %v; want %d, %t", zone, shown, got, err, want, ok)
			}
		}
		if changes := zone != "UTC" && zone != "Asia/Kolkata"; changes != (gaps > 0) {
			t.Errorf("%s has %d times that do not exist", zone, gaps)
		}
	}
}

func TestClockLayouts(t *testing.T) {
	loc, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Fatal(err)
	}
	c := newClock(loc)
	for _, x := range []struct{ layout, in, want string }{
		{"1/2/2006 15:04", "6/1/2011 8:26", "2011-06-01T07:26:00Z"},
		{"2006-01-02T15:04:05Z07:00", "2011-06-01T08:26:00Z", "2011-06-01T08:26:00Z"},
		{"2006-01-02 15:04:05 -0700", "2011-06-01 08:26:00 +0200", "2011-06-01T06:26:00Z"},
		{"unix", "1306913160", "2011-06-01T07:26:00Z"},
		{"unix", "1306913160.25", "2011-06-01T07:26:00.25Z"},
		{"unix_ms", "1306913160250", "2011-06-01T07:26:00.25Z"},
		{"unix_us", "1306913160250001", "2011-06-01T07:26:00.250001Z"},
		{"1/2/2006 15:04", "2011-06-01T08:26:00+01:00", "2011-06-01T07:26:00Z"}, // RFC 3339 is always read
	} {
		got, err := c.parse([]byte(x.in), []string{x.layout})
		if err != nil || FormatTime(got) != x.want {
			t.Errorf("%s %s: %s, %v; want %s", x.layout, x.in, FormatTime(got), err, x.want)
		}
	}
	for _, in := range []string{"", "yesterday", "99999999999999999", "NaN"} {
		if got, err := c.parse([]byte(in), []string{"unix", time.DateTime}); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

func TestMultiplyAgainstBig(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 100_000 {
		x, y := r.Int64N(1<<r.IntN(62)+1)-r.Int64N(3), r.Int64N(1<<r.IntN(62)+1)-r.Int64N(1000)
		shift := r.IntN(14) - 4
		got, rounded, err := multiply(x, y, shift)
		s := new(big.Int).Mul(big.NewInt(x), big.NewInt(y)).String()
		want, wantRounded, ok := exactDecimal(fmt.Sprintf("%se%d", s, -shift), 0)
		if (err == nil) != ok || got != want || ok && rounded != wantRounded {
			t.Fatalf("%d * %d >> %d: %d %t %v; want %d %t %t", x, y, shift, got, rounded, err, want, wantRounded, ok)
		}
	}
}

func TestFormatDecimalReadsBack(t *testing.T) {
	for _, c := range []struct {
		v     int64
		scale int
		want  string
	}{{0, 4, "0"}, {571600, 4, "57.16"}, {-5, 4, "-0.0005"}, {10000, 4, "1"}, {math.MinInt64, 2, "-92233720368547758.08"}, {12, 0, "12"}} {
		if got := FormatDecimal(c.v, c.scale); got != c.want {
			t.Errorf("%d at %d: %s, want %s", c.v, c.scale, got, c.want)
		}
	}
}
