package features

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
)

// Defaults of a spec. Thirty days is how long card holders commonly have to dispute a purchase on a
// statement; a day covers feeds that deliver by nightly file. A clock that is wrong is wrong by years more often than
// by weeks, and no shop that is open pauses for a season.
const (
	defaultAcceptFor = 30 * datasets.Day
	defaultLateness  = datasets.Day
	defaultFuture    = 90 * datasets.Day
)

// Spec is a feature spec as written in YAML: what to compute for each transaction. It is not changed once
// made.
type Spec struct {
	name       string
	file       string // where the text came from, for the places of faults
	timezone   string
	label      *labelDef
	lateness   int64
	late       latePolicy
	duplicates int64 // microseconds within which a second copy is not computed; 0: only where the caller asks
	future     int64 // microseconds beyond the watermark from which a transaction is set aside; 0: none is
	holidays   []text
	keep       []text
	features   []featureDef // in the order of their columns
	where      []whereDef
	joins      []joinDef
	panel      *panelDef
	inter      *interDef
	source     []byte
}

// text is a value with its place in the YAML.
type text struct {
	s   string
	pos position
}

type labelDef struct {
	column           text
	delay, acceptFor int64
	delayAt          text // the delay as written, for WithDelay
}

// latePolicy says what becomes of a transaction that is more than the lateness behind the newest one. It is counted
// either way.
type latePolicy struct {
	skip bool // neither computed nor folded
}

// form is how a window chooses entries.
type form uint8

const (
	sliding      form = iota + 1 // those of the last span of time
	calendarUnit                 // those since the hour, day, week or month began
	lastN                        // the last n
	ever                         // all
)

// windowDef is one window of a windowed feature.
type windowDef struct {
	form form
	span int64  // of a sliding one, microseconds
	unit string // of a calendar one: hour, day, week or month
	n    int    // of a last one
	text text   // as written: 7d, day, last 5, ever
}

// featureDef is one feature: one column of output, but for the kinds whose columns method says otherwise. Parse has
// expanded the templates.
type featureDef struct {
	name           text // with its placeholders filled in; the place is the template's
	kind           Kind
	of             text    // "" for none
	place          [2]text // columns of longitude and latitude, of Distance and Speed
	keys           []text  // columns that together are the key
	window         windowDef
	shift          int64 // microseconds
	shiftByDelay   bool  // shift: delay
	where          text  // an expression, "" for none; its place is that of its first character
	includeCurrent bool
	nth            int   // of Last, from 1
	halfLife       int64 // of EWMA, microseconds
	priorRate      float64
	priorWeight    float64
	empty          *float64 // nil: the kind's own
	null           *float64 // of row kinds: in place of a null; nil: none
	skipNull       bool     // of windowed kinds: what has no value in of is no entry
	expr           text     // its place is that of its first character
	edges          []float64
	min, max       *float64
	buckets        int
	values         []text
	scale          int    // decimals of a row feature's numbers, -1: floating point
	hidden         bool   // no column of output
	last           bool   // an Expr that reads windowed features, itself or through another: computed last
	reads          []name // what where and expr name, each once, in the order of the text
	log            bool
	unit, words    string
	at             position // of the template
}

// name is a name in an expression.
type name struct {
	text
	inWhere bool
}

//go:embed builtin/*.yaml
var builtin embed.FS

// Builtins lists the specs that come with the program.
func Builtins() []string {
	return []string{"fraud-handbook", "fraud-handbook-wide", "shop-fraud", "shop-daily", "shop-interactions", "returns-by-zip",
		"online-retail-daily", "online-retail-baskets", "m4-hourly"}
}

// Builtin returns a spec that comes with the program.
func Builtin(name string) (*Spec, error) {
	if !slices.Contains(Builtins(), name) {
		return nil, fmt.Errorf("no built-in feature spec %q%s; there is %s, or give a YAML file",
			name, suggest(name, Builtins()), strings.Join(Builtins(), ", "))
	}
	src, err := builtin.ReadFile("builtin/" + name + ".yaml")
	if err != nil {
		return nil, err
	}
	return Parse(name, src)
}

// Name is the spec's own name.
func (s *Spec) Name() string { return s.name }

// Delay is the label delay in microseconds, 0 in a spec without labels.
func (s *Spec) Delay() int64 {
	if s.label == nil {
		return 0
	}
	return s.label.delay
}

// YAML is the spec as Parse reads it.
func (s *Spec) YAML() []byte { return s.source }

// WithDelay is the spec with another label delay, in microseconds; shifts written as `delay` follow. In the YAML only
// the value of the delay is changed: comments stay.
func (s *Spec) WithDelay(delay int64) (*Spec, error) {
	if s.label == nil {
		return nil, fmt.Errorf("feature spec %s has no label, so that no delay can be set", s.name)
	}
	if delay < 0 {
		return nil, fmt.Errorf("label delay %s: want 0 or more", datasets.FormatDuration(delay))
	}
	if delay == s.label.delay {
		return s, nil
	}
	src, err := replace(s.source, s.label.delayAt, datasets.FormatDuration(delay))
	if err != nil {
		return nil, fmt.Errorf("feature spec %s: label delay: %w", s.name, err)
	}
	c, err := Parse(s.file, src)
	if err != nil {
		return nil, err
	}
	if c.label == nil || c.label.delay != delay {
		return nil, fmt.Errorf("feature spec %s: the delay cannot be set to %s in its text: write it as `delay: 7d`, "+
			"a whole number of seconds, minutes, hours, days or weeks", s.name, datasets.FormatDuration(delay))
	}
	return c, nil
}

// replace puts a value in the place of one that stands in the source.
func replace(src []byte, old text, with string) ([]byte, error) {
	lines := strings.SplitAfter(string(src), "\n")
	if old.pos.line < 1 || old.pos.line > len(lines) {
		return nil, fmt.Errorf("its place in the text is not known")
	}
	line := []rune(lines[old.pos.line-1])
	at := min(max(old.pos.column-1, 0), len(line))
	rest := string(line[at:])
	quote := ""
	if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
		quote = rest[:1]
	}
	if !strings.HasPrefix(rest, quote+old.s+quote) {
		return nil, fmt.Errorf("line %d does not have %s at column %d", old.pos.line, old.s, old.pos.column)
	}
	lines[old.pos.line-1] = string(line[:at]) + quote + with + rest[len(quote)+len(old.s):]
	return []byte(strings.Join(lines, "")), nil
}

func plain(ts []text) []string {
	var s []string
	for _, t := range ts {
		s = append(s, t.s)
	}
	return s
}
