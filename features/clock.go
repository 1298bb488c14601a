package features

import (
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/derive"
)

// calendarNames are what a calendar covariate can be of. Holidays come to a panel from a joined table.
func calendarNames() []string {
	return []string{"hour", "weekday", "day", "yearday", "week", "month", "year", "weekend", "month_end"}
}

// clock is a calendar value of the step that begins at `from`.
func (pan *panelPlan) clock(name string, from int64) float64 {
	v, _ := derive.CalendarValue(name, pan.grid.clockTime(from)) // Parse knows the names
	return float64(v)
}

// local is what the clock shows at the beginning of a step. A day that begins late, because its midnight was left
// out, has its own date all the same.
func (g *Grid) local(from int64) time.Time { return time.UnixMicro(from).In(g.loc) }

// clockTime is local in microseconds since 1970 on that clock.
func (g *Grid) clockTime(from int64) int64 {
	_, offset := g.local(from).Zone()
	return from + int64(offset)*datasets.Second
}

// date is the local date on which a step begins, in days since 1970.
func (g *Grid) date(from int64) int64 { return floorDiv(g.clockTime(from), datasets.Day) }
