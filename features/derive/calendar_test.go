package derive

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// timeOracle reads calendar values off package time.
func timeOracle(t time.Time, name string) int64 {
	_, week := t.ISOWeek()
	weekday := (int(t.Weekday()) + 6) % 7
	return int64(map[string]int{
		"hour": t.Hour(), "minute_of_day": t.Hour()*60 + t.Minute(), "night": int(b2i(t.Hour() <= 6)), "weekday": weekday,
		"weekend": int(b2i(weekday >= 5)), "day": t.Day(), "yearday": t.YearDay(), "week": week, "month": int(t.Month()),
		"month_end": time.Date(t.Year(), t.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day() - t.Day(), "year": t.Year(),
		"holiday": int(b2i(slices.Contains([]string{"12-25", "02-29"}, t.Format("01-02")) ||
			t.Format(time.DateOnly) == "2024-05-01")),
	}[name])
}

func calendarProgram(t testing.TB, z *time.Location) *Program {
	t.Helper()
	var defs []Def
	for _, name := range CalendarNames() {
		defs = append(defs, Def{Name: name, Kind: "calendar", Of: name})
	}
	o := Options{Zone: z, Time: "at", Holidays: []string{"12-25", "02-29", "2024-05-01"}}
	p, faults := Compile(defs, []datasets.Field{{Name: "at", Type: datasets.Time}}, o)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

func checkCalendar(t rapid.TB, p *Program, z *time.Location, at []int64) {
	t.Helper()
	out := p.Run([]datasets.Column{{Ints: at}}, len(at))
	for k, name := range CalendarNames() {
		for i, us := range at {
			local := time.UnixMicro(us).In(z)
			if got, want := out[1+k].Ints[i], timeOracle(local, name); got != want {
				t.Fatalf("%s of %s is %d, want %d", name, local, got, want)
			}
		}
	}
}

// Calendar values are those of package time: at every change of the clocks, at the ends of years and leap days of 1970
// to 2262, and at random times.
func TestCalendarIsTimes(t *testing.T) {
	zones := []string{"UTC", "Europe/Brussels", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia",
		"Asia/Kathmandu",
		"America/New_York", "Africa/Casablanca"}
	for _, name := range zones {
		z := zone(t, name)
		p := calendarProgram(t, z)
		var at []int64
		for year := 1970; year <= 2262; year++ {
			for _, md := range [][2]int{{1, 1}, {2, 28}, {2, 29}, {3, 1}, {12, 25}, {12, 31}} {
				midnight := time.Date(year, time.Month(md[0]), md[1], 0, 0, 0, 0, z).UnixMicro()
				at = append(at, midnight-1, midnight, midnight+7*datasets.Hour-1, midnight+7*datasets.Hour)
			}
		}
		for change := time.Date(1969, 6, 1, 0, 0, 0, 0, z); change.Year() < 2060; {
			_, next := change.ZoneBounds()
			if next.IsZero() {
				break
			}
			at = append(at, next.UnixMicro()-1, next.UnixMicro(), next.UnixMicro()+datasets.Hour)
			if next.Before(change) { // as Go 1.26 has it on the last day of some leap years
				next = change.AddDate(0, 0, 1)
			}
			change = next.Add(time.Second)
		}
		checkCalendar(t, p, z, at)
		slices.Reverse(at)
		checkCalendar(t, p, z, at)
		rapid.Check(t, func(t *rapid.T) {
			checkCalendar(t, p, z,
				rapid.SliceOfN(rapid.Int64Range(-datasets.Day*400, datasets.Day*365*400), 1, 50).Draw(t, "at"))
		})
	}
}

// Every 64-bit time has values, and the last ones are clamped by two days.
func TestCalendarFarAway(t *testing.T) {
	zones := []*time.Location{time.UTC, zone(t, "Europe/Brussels"), zone(t, "Pacific/Kiritimati"),
		time.FixedZone("east", 14*3600), time.FixedZone("west", -12*3600)}
	for _, name := range zones {
		p := calendarProgram(t, name)
		out := p.Run([]datasets.Column{{Ints: []int64{math.MinInt64, math.MaxInt64, 0}}}, 3)
		year := out[1+slices.Index(CalendarNames(), "year")].Ints
		if year[0] != -290308 || year[1] != 294247 || year[2] < 1969 || year[2] > 1970 {
			t.Errorf("%s: years %v", name, year)
		}
	}
}

func TestCalendarValue(t *testing.T) {
	at := time.Date(2024, 2, 29, 6, 59, 0, 0, time.UTC)
	for _, name := range CalendarNames() {
		got, ok := CalendarValue(name, at.UnixMicro())
		if ok != (name != holiday) || ok && got != timeOracle(at, name) {
			t.Errorf("%s: %d, %t", name, got, ok)
		}
	}
}

// The hour of 2024-03-31 in Brussels that is left out and that of 2024-10-27 that comes twice.
func TestClockChanges(t *testing.T) {
	p := calendarProgram(t, zone(t, "Europe/Brussels"))
	spring := time.Date(2024, 3, 31, 0, 59, 59, 999_999_000, time.UTC).UnixMicro()
	autumn := time.Date(2024, 10, 27, 0, 59, 59, 999_999_000, time.UTC).UnixMicro()
	out := p.Run([]datasets.Column{{Ints: []int64{spring, spring + 1, autumn, autumn + 1, autumn + datasets.Hour + 1}}}, 5)
	if got := fmt.Sprint(out[1].Ints); got != "[1 3 2 2 3]" {
		t.Errorf("hours %s", got)
	}
}

func TestCyclic(t *testing.T) {
	var defs []Def
	for _, v := range calendarValues {
		if v.period > 0 {
			defs = append(defs, Def{Name: v.name, Kind: "cyclic", Of: v.name})
		}
	}
	p, faults := Compile(defs, []datasets.Field{{Name: "at", Type: datasets.Time}}, Options{Time: "at"})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var at []int64
	for i := range int64(5000) {
		at = append(at, i*7919*datasets.Minute)
	}
	out := p.Run([]datasets.Column{{Ints: at}}, len(at))[1:]
	sines := map[string]float64{}
	for k, d := range defs {
		if got := p.Fields()[2*k].Name + " " + p.Fields()[2*k+1].Name; got != d.Name+"_sin "+d.Name+"_cos" {
			t.Errorf("columns %s", got)
		}
		period := calendarValues[slices.IndexFunc(calendarValues,
			func(v calendarValue) bool { return v.name == d.Of })].period
		for i, us := range at {
			v, _ := CalendarValue(d.Of, us)
			angle := 2 * math.Pi * float64(v) / float64(period)
			sine, cosine := out[2*k].Floats[i], out[2*k+1].Floats[i]
			if !(math.Abs(sine-math.Sin(angle)) < 1e-12) || !(math.Abs(cosine-math.Cos(angle)) < 1e-12) {
				t.Fatalf("%s of %d: %v %v", d.Of, v, sine, cosine)
			}
			if v == period {
				sines[d.Of] = sine
			}
		}
	}
	if v, ok := sines["month"]; !ok || v != 0 {
		t.Errorf("December's sine is %v, and the circle's is 0", v)
	}
}
