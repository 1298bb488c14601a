package derive

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/onmart/onmart/datasets"
)

// block is how many rows go through the instructions at a time. From 256 to 4096 all are alike within a tenth
// (BenchmarkRun, processor time): a register of 8 KiB leaves room for a few of them in the first cache.
const block = 1024

// Bits of a mask byte.
const (
	null      uint8 = 1
	undefined uint8 = 2 // of whole numbers; float64 has NaN
)

// vector is a register of the block at hand.
type vector struct {
	ints   []int64
	floats []float64
	texts  []string
	mask   []uint8
	masked bool // whether some row's mask is not 0; mask is not to be read otherwise
}

// machine is the memory of a Program.
type machine struct {
	vectors []vector
	room    int               // rows that vectors hold
	columns []datasets.Column // of the input, and the derived
	nulls   [][]bool          // of derived columns
	rows    int               // that derived columns hold
	text    []byte            // of texts made in this Run
	zone    zoneCache
}

func newMachine(pl *plan) machine {
	return machine{
		vectors: make([]vector, len(pl.regs)),
		columns: make([]datasets.Column, pl.columns+len(pl.fields)),
		nulls:   make([][]bool, len(pl.fields)),
		zone:    newZoneCache(pl.zone),
	}
}

func (m *machine) run(pl *plan, cols []datasets.Column, n int) []datasets.Column {
	if len(cols) != pl.columns {
		panic(fmt.Sprintf("derive: %d columns, and the program was compiled for %d", len(cols), pl.columns))
	}
	copy(m.columns, cols)
	m.reserve(pl, n)
	m.text = m.text[:0]
	for from := 0; from < n; from += block {
		to := min(from+block, n)
		for i := range pl.code {
			m.step(pl, &pl.code[i], from, to)
		}
	}
	return m.columns
}

// reserve makes room for n rows.
func (m *machine) reserve(pl *plan, n int) {
	if want := min(n, block); want > m.room {
		m.room = max(want, min(2*m.room, block))
		for i := range pl.regs {
			m.vectors[i] = newVector(&pl.regs[i], m.room)
		}
	}
	grow := n > m.rows || m.rows == 0
	if grow {
		m.rows = max(n, 1)
	}
	for i, f := range pl.fields {
		c := &m.columns[pl.columns+i]
		switch {
		case f.Type == datasets.Float64:
			if grow {
				c.Floats = make([]float64, m.rows)
			}
			c.Floats = c.Floats[:n]
		case f.Type == datasets.String:
			if grow {
				c.Strings = make([]string, m.rows)
			}
			c.Strings = c.Strings[:n]
		default:
			if grow {
				c.Ints = make([]int64, m.rows)
			}
			c.Ints = c.Ints[:n]
		}
		c.Null = nil
	}
}

func newVector(r *register, n int) vector {
	v := vector{mask: make([]uint8, n)}
	if r.alias {
		return v
	}
	switch r.class {
	case ints:
		v.ints = make([]int64, n)
	case floats:
		v.floats = make([]float64, n)
	case texts:
		v.texts = make([]string, n)
	}
	if r.constant {
		for i := range n {
			switch r.class {
			case ints:
				v.ints[i] = r.i
			case floats:
				v.floats[i] = r.f
			case texts:
				v.texts[i] = r.s
			}
		}
	}
	return v
}

// step runs one instruction over the rows from..to of the batch.
func (m *machine) step(pl *plan, in *instr, from, to int) {
	n := to - from
	switch in.op {
	case opLoad:
		m.load(&m.vectors[in.dst], &m.columns[in.aux], from, to)
		return
	case opStoreI, opStoreF, opStoreS, opStoreDecimal, opStoreHashed:
		m.store(pl, in, from, to)
		return
	}
	d := &m.vectors[in.dst]
	var a, b *vector
	if in.a >= 0 {
		a = &m.vectors[in.a]
	}
	if in.b >= 0 {
		b = &m.vectors[in.b]
	}
	d.join(a, b, n)
	var aux *table
	switch in.op {
	case opAddI:
		d.overflow(in.op, addI(d.ints[:n], a.ints, b.ints), a, b, n)
	case opSubI:
		d.overflow(in.op, subI(d.ints[:n], a.ints, b.ints), a, b, n)
	case opMulI:
		d.overflow(in.op, mulI(d.ints[:n], a.ints, b.ints), a, b, n)
	case opModI:
		d.overflow(in.op, modI(d.ints[:n], a.ints, b.ints), a, b, n)
	case opNegI:
		d.overflow(in.op, negI(d.ints[:n], a.ints), a, b, n)
	case opAbsI:
		d.overflow(in.op, absI(d.ints[:n], a.ints), a, b, n)
	case opMinI:
		least(d.ints[:n], a.ints, b.ints)
	case opMaxI:
		greatest(d.ints[:n], a.ints, b.ints)
	case opAddF:
		addF(d.floats[:n], a.floats, b.floats)
	case opSubF:
		subF(d.floats[:n], a.floats, b.floats)
	case opMulF:
		mulF(d.floats[:n], a.floats, b.floats)
	case opDivF:
		divF(d.floats[:n], a.floats, b.floats)
	case opPowF:
		powF(d.floats[:n], a.floats, b.floats)
	case opMinF:
		least(d.floats[:n], a.floats, b.floats)
	case opMaxF:
		greatest(d.floats[:n], a.floats, b.floats)
	case opNegF, opAbsF, opCeilF, opFloorF, opRoundF, opSqrtF, opLogF, opExpF, opLog1pF:
		mapF(d.floats[:n], a.floats, in.op)
	case opFloatI:
		floatI(d.floats[:n], a.ints)
		d.undefinedToNaN(n)
	case opDecimalI:
		decimalI(d.floats[:n], a.ints, math.Pow10(int(in.aux)))
		d.undefinedToNaN(n)
	case opIntF:
		if intF(d.ints[:n], a.floats) {
			d.unmask(n)
			for i, x := range a.floats[:n] {
				if !fitsInt(x) {
					d.mask[i] |= undefined
				}
			}
		}
	case opBoolI:
		boolI(d.ints[:n], a.ints)
		d.undefinedTo(0, n)
	case opSpanI:
		spanI(d.floats[:n], a.ints, b.ints)
		d.undefinedToNaN(n)
	case opEqualI:
		equal(d.ints[:n], a.ints, b.ints)
		d.undefinedTo(0, n)
	case opUnequalI:
		unequal(d.ints[:n], a.ints, b.ints)
		d.undefinedTo(1, n)
	case opLessI:
		less(d.ints[:n], a.ints, b.ints)
		d.undefinedTo(0, n)
	case opAtMostI:
		atMost(d.ints[:n], a.ints, b.ints)
		d.undefinedTo(0, n)
	case opEqualF:
		equal(d.ints[:n], a.floats, b.floats)
	case opUnequalF:
		unequal(d.ints[:n], a.floats, b.floats)
	case opLessF:
		less(d.ints[:n], a.floats, b.floats)
	case opAtMostF:
		atMost(d.ints[:n], a.floats, b.floats)
	case opEqualS:
		equal(d.ints[:n], a.texts, b.texts)
	case opUnequalS:
		unequal(d.ints[:n], a.texts, b.texts)
	case opLessS:
		less(d.ints[:n], a.texts, b.texts)
	case opAtMostS:
		atMost(d.ints[:n], a.texts, b.texts)
	case opAnd:
		and(d.ints[:n], a.ints, b.ints)
		d.known(0, a, b, n)
	case opOr:
		or(d.ints[:n], a.ints, b.ints)
		d.known(1, a, b, n)
	case opNot:
		not(d.ints[:n], a.ints)
	case opNull:
		clear(d.ints[:n])
		if a.masked {
			for i, x := range a.mask[:n] {
				d.ints[i] = int64(x & null)
			}
		}
		d.masked = false
	case opSelectI, opSelectF, opSelectS:
		c := &m.vectors[in.c]
		switch in.op {
		case opSelectI:
			choose(d.ints[:n], a.ints, b.ints, c.ints)
		case opSelectF:
			choose(d.floats[:n], a.ints, b.floats, c.floats)
		case opSelectS:
			choose(d.texts[:n], a.ints, b.texts, c.texts)
		}
		d.chosen(a, b, c, n)
	case opElseI:
		copy(d.ints[:n], a.ints)
		elsewhere(d.ints[:n], a, b.ints)
		d.substituted(a, b, n)
	case opElseF:
		copy(d.floats[:n], a.floats)
		elsewhere(d.floats[:n], a, b.floats)
		d.substituted(a, b, n)
	case opElseS:
		copy(d.texts[:n], a.texts)
		elsewhere(d.texts[:n], a, b.texts)
		d.substituted(a, b, n)
	case opInI:
		inI(d.ints[:n], a.ints, &pl.tables[in.aux])
		d.undefinedTo(0, n)
	case opInF:
		inF(d.ints[:n], a.floats, &pl.tables[in.aux])
	case opInS:
		inS(d.ints[:n], a.texts, &pl.tables[in.aux])
	case opContains:
		relate(d.ints[:n], a.texts, b.texts, strings.Contains)
	case opPrefix:
		relate(d.ints[:n], a.texts, b.texts, strings.HasPrefix)
	case opSuffix:
		relate(d.ints[:n], a.texts, b.texts, strings.HasSuffix)
	case opMatches:
		matches(d.ints[:n], a.texts, &pl.tables[in.aux])
	case opLen:
		measure(d.ints[:n], a.texts, utf8.RuneCountInString)
	case opWords:
		measure(d.ints[:n], a.texts, countWords)
	case opSentiment:
		sentiment(d.floats[:n], a.texts, lexicon())
	case opLower:
		m.text = recase(d.texts[:n], a.texts, m.text, lowerRune)
	case opUpper:
		m.text = recase(d.texts[:n], a.texts, m.text, upperRune)
	case opTrim:
		trim(d.texts[:n], a.texts)
	case opLocal:
		m.zone.local(d.ints[:n], a.ints)
	case opDay:
		dayOf(d.ints[:n], a.ints)
	case opClock:
		aux = &pl.tables[in.aux]
		if aux.day != nil {
			ofDays(d.ints[:n], b.ints, aux.day)
		} else {
			ofClock(d.ints[:n], a.ints, b.ints, aux.clock)
		}
	case opTableF:
		lookF(d.floats[:n], a.ints, pl.tables[in.aux].floats)
	case opClipI:
		aux = &pl.tables[in.aux]
		clipI(d.ints[:n], a.ints, aux.ints[0], aux.ints[1])
	case opClipF:
		aux = &pl.tables[in.aux]
		clipF(d.floats[:n], a.floats, aux.floats[0], aux.floats[1])
	case opBinsF:
		if binsF(d.ints[:n], a.floats, pl.tables[in.aux].floats) {
			d.unmask(n)
			for i, x := range a.floats[:n] {
				if !finite(x) {
					d.mask[i] |= undefined
				}
			}
		}
	case opHashI:
		hashI(d.ints[:n], a.ints, uint64(in.aux))
	case opHashS:
		hashS(d.ints[:n], a.texts, uint64(in.aux))
	case opVocabularyI:
		vocabularyI(d.ints[:n], a.ints, pl.tables[in.aux].intSet)
	case opVocabularyS:
		vocabularyS(d.ints[:n], a.texts, pl.tables[in.aux].textSet)
	default:
		panic(fmt.Sprintf("derive: instruction %d is not there", in.op))
	}
}

// load points a register at rows of a column.
func (m *machine) load(d *vector, c *datasets.Column, from, to int) {
	switch {
	case c.Ints != nil:
		d.ints = c.Ints[from:to]
	case c.Floats != nil:
		d.floats = c.Floats[from:to]
	default:
		d.texts = c.Strings[from:to]
	}
	d.masked = false
	if c.Null == nil {
		return
	}
	var any bool
	for i, x := range c.Null[from:to] {
		d.mask[i] = uint8(b2i(x))
		any = any || x
	}
	d.masked = any
}

// join makes the mask of a result that is null or undefined where one of its operands is.
func (d *vector) join(a, b *vector, n int) {
	ma, mb := a != nil && a.masked, b != nil && b.masked
	d.masked = ma || mb
	switch {
	case ma && mb:
		x, y, z := a.mask[:n], b.mask[:n], d.mask[:n]
		for i := range z {
			z[i] = x[i] | y[i]
		}
	case ma:
		copy(d.mask[:n], a.mask)
	case mb:
		copy(d.mask[:n], b.mask)
	}
}

// unmask makes sure that there is a mask to write into.
func (d *vector) unmask(n int) {
	if !d.masked {
		clear(d.mask[:n])
		d.masked = true
	}
}

func (d *vector) overflow(o op, over bool, a, b *vector, n int) {
	if !over {
		return
	}
	d.unmask(n)
	var right []int64
	if b != nil {
		right = b.ints[:n]
	}
	overflowed(o, d.mask[:n], a.ints[:n], right)
}

// undefinedToNaN ends the way of undefined whole numbers in float64.
func (d *vector) undefinedToNaN(n int) {
	if !d.masked {
		return
	}
	for i, x := range d.mask[:n] {
		if x&undefined != 0 {
			d.floats[i] = math.NaN()
			d.mask[i] &^= undefined
		}
	}
}

// undefinedTo ends it in a condition.
func (d *vector) undefinedTo(v int64, n int) {
	if !d.masked {
		return
	}
	for i, x := range d.mask[:n] {
		if x&undefined != 0 {
			d.ints[i] = v
			d.mask[i] &^= undefined
		}
	}
}

// known ends an and (decisive 0) or an or (1): it has a value where one of its sides decides.
func (d *vector) known(decisive int64, a, b *vector, n int) {
	if !d.masked {
		return
	}
	decides := func(v *vector, i int) bool { return v.ints[i] == decisive && !(v.masked && v.mask[i] != 0) }
	for i := range d.mask[:n] {
		if d.mask[i] != 0 && (decides(a, i) || decides(b, i)) {
			d.ints[i], d.mask[i] = decisive, 0
		}
	}
}

// chosen makes the mask of a choice.
func (d *vector) chosen(when, b, c *vector, n int) {
	d.masked = when.masked || b.masked || c.masked
	if !d.masked {
		return
	}
	for i := range d.mask[:n] {
		taken := c
		if when.ints[i] != 0 {
			taken = b
		}
		var x uint8
		if when.masked {
			x = when.mask[i]
		}
		if x == 0 && taken.masked {
			x = taken.mask[i]
		}
		d.mask[i] = x
	}
}

// elsewhere puts b where a is null.
func elsewhere[T any](d []T, a *vector, b []T) {
	if !a.masked {
		return
	}
	mask, b := a.mask[:len(d)], b[:len(d)]
	for i := range d { // without a branch where T is a number: nulls come at random
		v := d[i]
		if mask[i]&null != 0 {
			v = b[i]
		}
		d[i] = v
	}
}

// substituted makes the mask of a ?? b.
func (d *vector) substituted(a, b *vector, n int) {
	d.masked = a.masked && (b.masked || slices.Contains(a.mask[:n], undefined))
	if !d.masked {
		return
	}
	for i, x := range a.mask[:n] {
		if x&null != 0 {
			x = 0
			if b.masked {
				x = b.mask[i]
			}
		}
		d.mask[i] = x
	}
}

// store writes a block of a derived column, with what stands for null and undefined.
func (m *machine) store(pl *plan, in *instr, from, to int) {
	a, s := &m.vectors[in.a], &pl.tables[in.aux].store
	if in.op == opStoreHashed {
		m.storeHashed(pl, int(in.dst), a, s, from, to)
		return
	}
	field, n := int(in.dst), to-from
	c := &m.columns[pl.columns+field]
	switch in.op {
	case opStoreI:
		copy(c.Ints[from:to], a.ints)
		if a.masked {
			for i, x := range a.mask[:n] {
				if x&undefined != 0 {
					c.Ints[from+i] = s.emptyI
				}
			}
		}
	case opStoreF:
		d, x := c.Floats[from:to], a.floats[:n]
		for i := range d {
			v := x[i]
			if !finite(v) {
				v = s.emptyF
			}
			d[i] = v
		}
	case opStoreDecimal:
		for i, x := range a.floats[:n] {
			v, ok := toScale(x, s.scale)
			if !ok {
				v = s.emptyI
			}
			c.Ints[from+i] = v
		}
	case opStoreS:
		copy(c.Strings[from:to], a.texts)
	}
	if a.masked {
		m.storeNulls(pl, field, a.mask[:n], s, from)
	}
}

// storeNulls goes over the nulls of a block that has been stored.
func (m *machine) storeNulls(pl *plan, field int, mask []uint8, s *substitutes, from int) {
	c := &m.columns[pl.columns+field]
	for i, x := range mask {
		if x&null == 0 {
			continue
		}
		if !s.null {
			m.nullsOf(pl, field)[from+i] = true
		}
		switch {
		case c.Ints != nil:
			c.Ints[from+i] = s.nullI
		case c.Floats != nil:
			c.Floats[from+i] = s.nullF
		default:
			c.Strings[from+i] = ""
		}
	}
}

// nullsOf is the mask of a derived column, made when the first null of a Run comes.
func (m *machine) nullsOf(pl *plan, field int) []bool {
	c := &m.columns[pl.columns+field]
	if c.Null == nil {
		n := len(c.Ints) + len(c.Floats) + len(c.Strings) // one of them
		if len(m.nulls[field]) < n {
			m.nulls[field] = make([]bool, m.rows)
		}
		c.Null = m.nulls[field][:n]
		clear(c.Null)
	}
	return c.Null
}

// storeHashed counts the words of a block of texts in its columns.
func (m *machine) storeHashed(pl *plan, field int, a *vector, s *substitutes, from, to int) {
	out := m.columns[pl.columns+field : pl.columns+field+s.buckets]
	for i := range out {
		clear(out[i].Ints[from:to])
	}
	for i, x := range a.texts[:to-from] {
		for w := (wordScanner{text: x}); w.next(); {
			out[w.hash()%uint64(s.buckets)].Ints[from+i]++
		}
	}
	if a.masked {
		for i := range out {
			m.storeNulls(pl, field+i, a.mask[:to-from], s, from)
		}
	}
}

// textOf is bytes as a text, without a copy: they are not written again while it is in use.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
