package features

import (
	"time"

	"github.com/onmart/onmart/datasets"
)

// clockValues are what a calendar covariate can be of, read off the local time at which a step begins.
var clockValues = []struct {
	name string
	of   func(time.Time) int
}{
	{"hour", time.Time.Hour}, // 0 to 23
	{"weekday", mondayFirst}, // 0 is Monday, 6 Sunday
	{"day", time.Time.Day},   // of the month, from 1
	{"yearday", dayOfYear},   // from 1
	{"week", isoWeek},        // of ISO 8601, from 1
	{"month", monthOfYear},   // from 1
	{"year", time.Time.Year},
	{"weekend", isWeekend},     // 1 on Saturday and Sunday
	{"month_end", daysToMonth}, // days to the last of the month, 0 on it
}

func calendarNames() []string {
	var list []string
	for _, c := range clockValues {
		list = append(list, c.name)
	}
	return list
}

func mondayFirst(t time.Time) int { return (int(t.Weekday()) + 6) % 7 }
func dayOfYear(t time.Time) int   { return t.YearDay() }
func monthOfYear(t time.Time) int { return int(t.Month()) }
func isWeekend(t time.Time) int   { return btoi(mondayFirst(t) >= 5) }
func isoWeek(t time.Time) int     { _, w := t.ISOWeek(); return w }
func daysToMonth(t time.Time) int {
	return time.Date(t.Year(), t.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day() - t.Day()
}

// clock is a calendar value of the step that begins at `from`.
func (pan *panelPlan) clock(name string, from int64) float64 {
	for _, c := range clockValues {
		if c.name == name {
			return float64(c.of(pan.grid.local(from)))
		}
	}
	return 0 // Parse knows the names
}

// local is what the clock shows at the beginning of a step. A day that begins late, because its midnight was left
// out, has its own date all the same.
func (g *Grid) local(from int64) time.Time { return time.UnixMicro(from).In(g.loc) }

// date is the local date on which a step begins, in days since 1970.
func (g *Grid) date(from int64) int64 {
	_, offset := g.local(from).Zone()
	return floorDiv(from+int64(offset)*datasets.Second, datasets.Day)
}
