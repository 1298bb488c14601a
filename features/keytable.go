package features

import (
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/slab"
)

// keyTable gives the values of a key dense numbers: those of a column of whole numbers or texts, or pairs of numbers of
// two other tables.
type keyTable struct {
	ints  *slab.Ints
	texts *slab.Texts
	buf   []int64
	null  []bool
}

func newKeyTable(k *keyPlan, a *slab.Arena) keyTable {
	if k.text {
		return keyTable{texts: slab.NewTexts(a)}
	}
	return keyTable{ints: slab.NewInts(a)}
}

// number looks up n values of a column; none is the number of a null.
func (t *keyTable) number(c *datasets.Column, n int, ids []int32) {
	null := c.Null
	if null != nil {
		null = null[:n]
	}
	if t.texts != nil {
		t.texts.IDs(c.Strings[:n], null, ids)
	} else {
		t.ints.IDs(c.Ints[:n], null, ids)
	}
}

// pairs looks up pairs of numbers.
func (t *keyTable) pairs(left, right, ids []int32) {
	t.buf, t.null = t.buf[:0], t.null[:0]
	for i := range left {
		t.buf = append(t.buf, int64(left[i])<<32|int64(uint32(right[i])))
		t.null = append(t.null, left[i] == none || right[i] == none)
	}
	t.ints.IDs(t.buf, t.null, ids)
}

// cap is one more than the highest number in use.
func (t *keyTable) cap() int {
	if t.texts != nil {
		return t.texts.Cap()
	}
	return t.ints.Cap()
}

// len is how many values have a number.
func (t *keyTable) len() int {
	if t.texts != nil {
		return t.texts.Len()
	}
	return t.ints.Len()
}

func (t *keyTable) live(id int32) bool {
	if t.texts != nil {
		return t.texts.Live(uint32(id))
	}
	return t.ints.Live(uint32(id))
}

func (t *keyTable) drop(id int32) {
	if t.texts != nil {
		t.texts.Delete(uint32(id))
	} else {
		t.ints.Delete(uint32(id))
	}
}

// unitClock tells when calendar units begin.
type unitClock struct {
	grid     *Grid
	month    bool
	from, to int64 // of the month last asked for
}

func newUnitClock(unit string, loc *time.Location) unitClock {
	c := unitClock{month: unit == unitMonth}
	step := Step(unit)
	if c.month {
		step = Day
	}
	grid, err := NewGrid(step, loc)
	if err != nil {
		panic(err) // Parse knows the units
	}
	c.grid = grid
	return c
}

// unitMonth is the calendar unit that is no step of a panel.
const unitMonth = "month"

// start is when the unit that t is in began. A month begins with its first day.
func (c *unitClock) start(t int64) int64 {
	if !c.month {
		from, _ := c.grid.Step(t)
		return from
	}
	if t < c.from || t >= c.to {
		day, _ := c.grid.Step(t)
		y, m, _ := c.grid.local(day).Date()
		first := func(m time.Month) int64 {
			from, _ := c.grid.Step(time.Date(y, m, 1, 12, 0, 0, 0, c.grid.loc).UnixMicro())
			return from
		}
		c.from, c.to = first(m), first(m+1)
	}
	return c.from
}
