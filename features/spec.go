package features

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/onmart/onmart/datasets"
)

// Kind says what a feature computes.
type Kind string

const (
	Value    Kind = "value"    // a column of the event itself
	Calendar Kind = "calendar" // a flag of the event's local time
	Count    Kind = "count"    // entries in the window
	Sum      Kind = "sum"      // their sum
	Mean     Kind = "mean"     // their mean, 0 where there are none
	Risk     Kind = "risk"     // the mean of the labels known in the window, 0 where there are none
)

var kinds = []string{string(Value), string(Calendar), string(Count), string(Sum), string(Mean), string(Risk)}

// calendars are what a calendar feature can be of.
var calendars = []string{
	"weekend", // Saturday or Sunday
	"night",   // hour <= 6: up to 06:59:59, as the code of the fraud handbook has it (its text says before 6)
}

// Defaults of a spec. Thirty days is how long card holders commonly have to dispute a purchase on a
// statement; a day covers feeds that deliver by nightly file.
const (
	defaultAcceptFor = 30 * datasets.Day
	defaultLateness  = datasets.Day
)

// Spec is a feature spec as written in YAML: what to compute for each transaction. It is not changed once
// made.
type Spec struct {
	name     string
	file     string // where the text came from, for the places of faults
	timezone string
	label    *labelDef
	lateness int64
	keep     []text
	features []featureDef // templates; windows expand them
	where    []whereDef
	joins    []joinDef
	panel    *panelDef
	inter    *interDef
	source   []byte
}

// text is a value with its place in the YAML.
type text struct {
	s   string
	pos position
}

type labelDef struct {
	column           text
	delay, acceptFor int64
}

// featureDef is one template.
type featureDef struct {
	name           text
	kind           Kind
	of, key        text
	windows        []text // as written: 7d
	shift          int64
	shiftByDelay   bool // shift: delay
	includeCurrent bool
	log            bool
	words          string
	unit           string
}

//go:embed builtin/*.yaml
var builtin embed.FS

// Builtins lists the specs that come with the program.
func Builtins() []string {
	return []string{"fraud-handbook", "online-retail-daily", "online-retail-baskets", "m4-hourly", "shop-daily",
		"shop-baskets", "returns-by-zip"}
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

// WithDelay is the spec with another label delay, in microseconds; shifts written as `delay` follow.
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
	c := *s
	l := *s.label
	l.delay = delay
	c.label = &l
	src, err := c.render()
	if err != nil {
		return nil, err
	}
	return Parse(s.name, src)
}

// The YAML form, for writing a changed spec. Parse reads it by hand, for the places of faults.
type (
	specYAML struct {
		Name     string        `yaml:"name"`
		Timezone string        `yaml:"timezone"`
		Label    *labelYAML    `yaml:"label,omitempty"`
		Lateness string        `yaml:"lateness"`
		Keep     []string      `yaml:"keep,flow"`
		Features []featureYAML `yaml:"features"`
	}
	labelYAML struct {
		Column    string `yaml:"column"`
		Delay     string `yaml:"delay"`
		AcceptFor string `yaml:"accept_for"`
	}
	featureYAML struct {
		Name           string   `yaml:"name"`
		Kind           string   `yaml:"kind"`
		Of             string   `yaml:"of,omitempty"`
		Key            string   `yaml:"key,omitempty"`
		Windows        []string `yaml:"windows,omitempty,flow"`
		Shift          string   `yaml:"shift,omitempty"`
		IncludeCurrent bool     `yaml:"include_current,omitempty"`
		Log            bool     `yaml:"log,omitempty"`
		Unit           string   `yaml:"unit,omitempty"`
		Words          string   `yaml:"words,omitempty"`
	}
)

func (s *Spec) render() ([]byte, error) {
	y := specYAML{Name: s.name, Timezone: s.timezone, Lateness: datasets.FormatDuration(s.lateness), Keep: plain(s.keep)}
	if l := s.label; l != nil {
		y.Label = &labelYAML{l.column.s, datasets.FormatDuration(l.delay), datasets.FormatDuration(l.acceptFor)}
	}
	for _, f := range s.features {
		d := featureYAML{
			Name: f.name.s, Kind: string(f.kind), Of: f.of.s, Key: f.key.s, Windows: plain(f.windows),
			IncludeCurrent: f.includeCurrent, Log: f.log, Unit: f.unit, Words: f.words,
		}
		if f.shiftByDelay {
			d.Shift = "delay"
		} else if f.shift != 0 {
			d.Shift = datasets.FormatDuration(f.shift)
		}
		y.Features = append(y.Features, d)
	}
	return yaml.Marshal(y)
}

func plain(ts []text) []string {
	var s []string
	for _, t := range ts {
		s = append(s, t.s)
	}
	return s
}
