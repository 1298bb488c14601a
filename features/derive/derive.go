package derive

import (
	"time"

	"github.com/onmart/onmart/datasets"
)

// Def defines one feature of the row. Which fields are used depends on Kind (see the package comment).
type Def struct {
	Name    string
	Kind    string
	Of      string    // column of `in`, column of an earlier definition, or the calendar value's name
	Expr    string    // of expr and condition
	Edges   []float64 // of bins, ascending
	Min     *float64  // of clip, in the column's unit
	Max     *float64
	Buckets int      // of hash and hashed_words
	Values  []string // of vocabulary
	Null    *float64 // stands for null; nil leaves null
	Empty   *float64 // stands for what is not a finite number; nil is 0

	// Scale is how many decimals the result of an expr or log is rounded to, half to even: it is then Decimal, or
	// Int64 with 0 decimals. -1 leaves float64 as it is. Whole numbers and conditions stay Int64 at 0 and -1.
	Scale int
}

// Options are what all definitions share.
type Options struct {
	Zone     *time.Location // on whose clock calendar values are read; nil is UTC
	Holidays []string       // local dates, 2026-12-25, or 12-25 for every year; looked at where one asks for holiday
	Time     string         // column of the event time, of type Time
}

// Fault is one thing that is wrong with a definition.
type Fault struct {
	Def    int    // its place among the definitions
	Offset int    // byte of Def.Expr that it is about, or -1
	Field  string // "of", "expr", "edges" ...; "holidays" where those of Options are wrong
	Text   string // what is wrong and what to do
}

func (f Fault) Error() string { return f.Text }

// Names of the kinds.
const (
	kindValue       = "value"
	kindCalendar    = "calendar"
	kindCyclic      = "cyclic"
	kindLog         = "log"
	kindClip        = "clip"
	kindBins        = "bins"
	kindHash        = "hash"
	kindVocabulary  = "vocabulary"
	kindExpr        = "expr"
	kindCondition   = "condition"
	kindLength      = "length"
	kindWords       = "words"
	kindSentiment   = "sentiment"
	kindHashedWords = "hashed_words"
)

var kinds = []string{kindValue, kindCalendar, kindCyclic, kindLog, kindClip, kindBins, kindHash, kindVocabulary,
	kindExpr,
	kindCondition, kindLength, kindWords, kindSentiment, kindHashedWords}

const (
	maxBuckets     = 1 << 30 // of hash
	maxWordBuckets = 4096    // of hashed_words: each is a column
	maxScale       = 18      // of Decimal; 10^18 is a float64 exactly
	maxExpr        = 4096    // bytes of an expression: what bounds the depth of its tree
)

// Program computes the derived columns of rows. It is not for concurrent use: Clone gives one for another goroutine.
type Program struct {
	plan *plan
	mem  machine
}

// plan is what a Program and its clones share. It is not changed once compiled.
type plan struct {
	fields  []datasets.Field // derived columns
	spans   []int            // definition i has the columns spans[i] to spans[i+1]
	inputs  []string
	columns int // of `in`
	regs    []register
	code    []instr
	tables  []table
	zone    *time.Location
}

// Fields describes the derived columns, in order. A definition of kind cyclic has two, one of hashed_words as many as
// it has buckets, all others one. Nullable says that a null can come out.
func (p *Program) Fields() []datasets.Field { return p.plan.fields }

// Columns tells which derived columns, Fields()[from:to], are those of a definition.
func (p *Program) Columns(def int) (from, to int) { return p.plan.spans[def], p.plan.spans[def+1] }

// Inputs names the columns of `in` that are read, in their order there.
func (p *Program) Inputs() []string { return p.plan.inputs }

// Run computes n rows. cols are the columns that Compile was told of, with n rows each; those that Inputs does not name
// may be empty. It returns cols with the derived columns behind them. The derived columns and the slice itself are the
// Program's and hold until its next Run, texts made by lower and upper included; columns of the input are handed on as
// they are. Once it has seen its largest n it allocates nothing.
func (p *Program) Run(cols []datasets.Column, n int) []datasets.Column {
	return p.mem.run(p.plan, cols, n)
}

// Clone is the same Program with memory of its own.
func (p *Program) Clone() *Program { return newProgram(p.plan) }

func newProgram(pl *plan) *Program { return &Program{plan: pl, mem: newMachine(pl)} }
