package derive

import (
	"math"
	"regexp"
	"slices"
)

// op is an instruction. The letter at its end is the type that it reads: i int64, f float64, s text, b condition.
type op uint8

const (
	opLoad op = iota // dst = column aux
	opAddI
	opSubI
	opMulI
	opModI
	opNegI
	opAbsI
	opMinI
	opMaxI
	opAddF
	opSubF
	opMulF
	opDivF
	opPowF
	opNegF
	opAbsF
	opCeilF
	opFloorF
	opRoundF
	opSqrtF
	opLogF
	opExpF
	opMinF
	opMaxF
	opFloatI   // int64 to float64; undefined becomes NaN
	opDecimalI // int64 to float64, divided by 10^aux
	opIntF     // float64 to int64, towards zero
	opBoolI    // 0 or 1
	opSpanI    // difference of times, seconds
	opEqualI
	opUnequalI
	opLessI
	opAtMostI
	opEqualF
	opUnequalF
	opLessF
	opAtMostF
	opEqualS
	opUnequalS
	opLessS
	opAtMostS
	opAnd
	opOr
	opNot
	opNull    // whether a is null
	opSelectI // a ? b : c
	opSelectF
	opSelectS
	opElseI // a ?? b
	opElseF
	opElseS
	opInI // whether a is in table aux
	opInF
	opInS
	opContains
	opPrefix
	opSuffix
	opMatches // table aux
	opLen
	opLower
	opUpper
	opTrim
	opLocal  // time to microseconds on the zone's clock
	opDay    // those to days
	opClock  // calendar value aux of local microseconds a and days b
	opTableF // float64 of table aux at a
	opLog1pF // ln(1+x), 0 below 0
	opClipI  // to table aux
	opClipF
	opBinsF       // edges of table aux
	opHashI       // aux buckets
	opHashS       //
	opVocabularyI // table aux
	opVocabularyS
	opWords
	opSentiment
	opStoreI // to derived column dst, with the substitutes of table aux
	opStoreF
	opStoreS
	opStoreDecimal
	opStoreHashed // word counts of a to the derived columns from dst, as many as table aux says
)

// instr is one instruction over a block of rows. Registers that it does not use are -1.
type instr struct {
	op      op
	dst     int32
	a, b, c int32
	aux     int32
}

// class is what a register holds.
type class uint8

const (
	ints class = iota
	floats
	texts
)

// register describes one; a constant is filled in once.
type register struct {
	class    class
	alias    bool // of a column: needs no memory of its own but for its mask
	constant bool
	i        int64
	f        float64
	s        string
}

// table is what an instruction needs beside registers.
type table struct {
	floats  []float64 // edges, sines, a set
	ints    []int64   // a set; bounds of clip
	texts   []string  // a set
	intSet  map[int64]int64
	textSet map[string]int64
	re      *regexp.Regexp
	day     func(day int64) int64 // calendar value of a day
	clock   func(us int64) int64  // or of the time of day
	store   substitutes
}

// substitutes are what a stored column has for null and for undefined, in its own unit.
type substitutes struct {
	null    bool // there is one for null
	nullI   int64
	nullF   float64
	emptyI  int64
	emptyF  float64
	scale   float64 // of opStoreDecimal: 10^scale
	buckets int     // of opStoreHashed
}

// builder makes the plan; equal instructions are made once.
type builder struct {
	plan
	made   map[instr]int32    // register by instruction with dst 0
	held   map[register]int32 // register by constant
	shared map[string]int     // table by what it is for
}

// emit adds an instruction with a register of its own for the result, unless there is one like it.
func (b *builder) emit(c class, in instr) int32 {
	in.dst = 0
	if r, ok := b.made[in]; ok {
		return r
	}
	r := int32(len(b.regs))
	b.regs = append(b.regs, register{class: c, alias: in.op == opLoad})
	b.made[in] = r
	in.dst = r
	b.code = append(b.code, in)
	return r
}

func (b *builder) unary(c class, o op, x int32) int32 {
	return b.emit(c, instr{op: o, a: x, b: -1, c: -1})
}

func (b *builder) unaryAux(c class, o op, x int32, aux int) int32 {
	return b.emit(c, instr{op: o, a: x, b: -1, c: -1, aux: int32(aux)})
}

func (b *builder) binary(c class, o op, x, y int32) int32 {
	return b.emit(c, instr{op: o, a: x, b: y, c: -1})
}

// load is the register of a column, input or derived.
func (b *builder) load(c class, column int) int32 {
	return b.emit(c, instr{op: opLoad, a: -1, b: -1, c: -1, aux: int32(column)})
}

// constant is the register that holds a value in every row.
func (b *builder) constant(r register) int32 {
	r.constant = true
	at, ok := b.held[r]
	if !ok {
		at = int32(len(b.regs))
		b.regs = append(b.regs, r)
		b.held[r] = at
	}
	return at
}

func (b *builder) constantI(v int64) int32  { return b.constant(register{class: ints, i: v}) }
func (b *builder) constantS(v string) int32 { return b.constant(register{class: texts, s: v}) }

// constantF keeps the bits too, because 0 and -0 are equal.
func (b *builder) constantF(v float64) int32 {
	return b.constant(register{class: floats, f: v, i: int64(math.Float64bits(v))})
}

func (b *builder) table(t table) int {
	b.tables = append(b.tables, t)
	return len(b.tables) - 1
}

// store ends a definition's column.
func (b *builder) store(o op, field int, x int32, s substitutes) {
	b.code = append(b.code, instr{op: o, dst: int32(field), a: x, b: -1, c: -1, aux: int32(b.table(table{store: s}))})
}

// intSet and textSet are maps for sets that are too long to be gone through.
func intSet(list []int64) map[int64]int64 {
	if len(list) <= 8 {
		return nil
	}
	m := make(map[int64]int64, len(list))
	for _, v := range list {
		m[v] = 1
	}
	return m
}

func textSet(list []string) map[string]int64 {
	if len(list) <= 4 {
		return nil
	}
	m := make(map[string]int64, len(list))
	for _, v := range list {
		m[v] = 1
	}
	return m
}

// floatSet is sorted, for a search.
func floatSet(list []float64) []float64 {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}
