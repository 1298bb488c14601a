package features

import (
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

func mustGrid(t testing.TB, s Step, zone string) *Grid {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGrid(s, loc)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// The steps around changes of the clock, as their local beginnings and lengths.
func TestGridAtClockChanges(t *testing.T) {
	for _, c := range []struct {
		name string
		step Step
		zone string
		at   string // an instant
		from string // local beginning of its step
		long time.Duration
	}{
		{"plain day", Day, "Europe/London", "2011-06-01T12:00:00Z", "2011-06-01T00:00:00+01:00", 24 * time.Hour},
		{"clocks forward", Day, "Europe/London", "2011-03-27T12:00:00Z", "2011-03-27T00:00:00Z", 23 * time.Hour},
		{"clocks back", Day, "Europe/London", "2011-10-30T12:00:00Z", "2011-10-30T00:00:00+01:00", 25 * time.Hour},
		{"week with clocks back", Week, "Europe/London", "2011-10-30T12:00:00Z", "2011-10-24T00:00:00+01:00", 7*24*time.Hour + time.Hour},
		{"a Monday", Week, "UTC", "2011-10-31T00:00:00Z", "2011-10-31T00:00:00Z", 7 * 24 * time.Hour},
		{"the moment before", Week, "UTC", "2011-10-30T23:59:59.999999Z", "2011-10-24T00:00:00Z", 7 * 24 * time.Hour},
		{"repeated hour, first", Hour, "Europe/London", "2011-10-30T00:30:00Z", "2011-10-30T01:00:00+01:00", time.Hour},
		{"repeated hour, second", Hour, "Europe/London", "2011-10-30T01:30:00Z", "2011-10-30T01:00:00Z", time.Hour},
		{"half-hour zone", Hour, "Asia/Kolkata", "2011-10-30T01:15:00Z", "2011-10-30T06:00:00+05:30", time.Hour},
		{"before 1970", Day, "UTC", "1969-12-31T12:00:00Z", "1969-12-31T00:00:00Z", 24 * time.Hour},
		// Midnight does not exist: clocks go from 24:00 to 01:00.
		{"no midnight", Day, "America/Sao_Paulo", "2011-10-16T12:00:00Z", "2011-10-16T01:00:00-02:00", 23 * time.Hour},
		// The hour before midnight comes twice and stays with its day.
		{"23:00 twice", Day, "America/Sao_Paulo", "2012-02-26T02:30:00Z", "2012-02-25T00:00:00-02:00", 25 * time.Hour},
		{"the day after", Day, "America/Sao_Paulo", "2012-02-26T12:00:00Z", "2012-02-26T00:00:00-03:00", 24 * time.Hour},
		// 00:00 comes twice: the day begins with the first.
		{"00:00 twice", Day, "America/Havana", "2012-11-04T05:30:00Z", "2012-11-04T00:00:00-04:00", 25 * time.Hour},
		// Clocks go from 00:01 of the day back to 23:01 of the day before: the day had begun.
		{"back over midnight", Day, "America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-07T00:00:00-02:30", 25 * time.Hour},
		{"day before that", Day, "America/St_Johns", "2010-11-07T02:29:00Z", "2010-11-06T00:00:00-02:30", 24 * time.Hour},
		// The 30th was left out.
		{"a missing date", Day, "Pacific/Apia", "2011-12-30T10:30:00Z", "2011-12-31T00:00:00+14:00", 24 * time.Hour},
		{"half an hour forward", Hour, "Australia/Lord_Howe", "2011-10-01T15:45:00Z", "2011-10-02T02:30:00+11:00", 30 * time.Minute},
	} {
		at, err := time.Parse(time.RFC3339Nano, c.at)
		if err != nil {
			t.Fatal(err)
		}
		g := mustGrid(t, c.step, c.zone)
		from, to := g.Step(at.UnixMicro())
		if got := time.UnixMicro(from).In(g.Location()).Format(time.RFC3339); got != c.from {
			t.Errorf("%s: begins at %s; want %s", c.name, got, c.from)
		}
		if got := time.Duration(to-from) * time.Microsecond; got != c.long {
			t.Errorf("%s: is %v long; want %v", c.name, got, c.long)
		}
	}
}

// A day of 23 hours has 23 steps of an hour, one of 25 has 25.
func TestGridHoursOfDays(t *testing.T) {
	day, hour := mustGrid(t, Day, "Europe/Berlin"), mustGrid(t, Hour, "Europe/Berlin")
	for date, want := range map[string]int{"2024-03-31": 23, "2024-10-27": 25, "2024-06-01": 24} {
		at, err := time.ParseInLocation(time.DateOnly, date, day.Location())
		if err != nil {
			t.Fatal(err)
		}
		from, to := day.Step(at.UnixMicro())
		n := 0
		for from < to {
			_, from = hour.Step(from)
			n++
		}
		if n != want || from != to {
			t.Errorf("%s: %d hours; want %d", date, n, want)
		}
	}
}

// Steps tile time: every instant of a step gives the step, and the next begins where it ends. A step is found
// the same whatever was asked before.
func TestGridTiles(t *testing.T) {
	zones := []string{"UTC", "Europe/London", "America/Sao_Paulo", "America/Havana", "America/St_Johns", "Pacific/Apia",
		"Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca", "Asia/Kathmandu", "America/Caracas"}
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		step := Step(rapid.SampledFrom(steps).Draw(t, "step"))
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		g, _ := NewGrid(step, loc)
		at := rapid.Int64Range(-40*365*datasets.Day, 60*365*datasets.Day).Draw(t, "at")
		from, to := g.Step(at)
		if from > at || to <= at {
			t.Fatalf("%d is not in [%d, %d)", at, from, to)
		}
		for _, x := range []int64{from, (from + to) / 2, to - 1} {
			fresh, _ := NewGrid(step, loc)
			if f, e := fresh.Step(x); f != from || e != to {
				t.Fatalf("step of %d is [%d, %d); want [%d, %d)", x, f, e, from, to)
			}
		}
		fresh, _ := NewGrid(step, loc)
		if f, _ := fresh.Step(to); f != to {
			t.Fatalf("the step after [%d, %d) begins at %d", from, to, f)
		}
		if f, e := fresh.Step(from - 1); e != from {
			t.Fatalf("the step before [%d, %d) is [%d, %d)", from, to, f, e)
		}
	})
}

// ZoneBounds gives an end before the instant itself on the last days of far leap years.
func TestGridOfFarLeapYears(t *testing.T) {
	for _, zone := range []string{"Europe/Brussels", "America/New_York", "Australia/Lord_Howe"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []Step{Hour, Day, Week} {
			g, err := NewGrid(step, loc)
			if err != nil {
				t.Fatal(err)
			}
			at := time.Date(2040, 12, 29, 0, 30, 0, 0, loc).UnixMicro()
			for range 100 {
				if from, to := g.Step(at); from > at || to <= at {
					t.Fatalf("%s of %s: %d is not in [%d, %d)", step, zone, at, from, to)
				}
				at += datasets.Hour
			}
		}
	}
}
