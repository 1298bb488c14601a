// Package forecaster answers what will be sold, from an artifact alone: the history of a panel, a network's program,
// classical methods and the weights that combine them.
//
// What enters: an artifact of task demand, or the parts of one while it is trained; then transactions, in the order of
// the log, or rows of closed steps. What leaves: forecasts with quantiles, for any series and horizon. It may not be
// assumed that every series is long: one of a single step has an answer, from the members that can give one. The inputs
// of the network are made here, for training and for answers alike.
//
// In the order of processing: inputs.go makes numbers of a panel, network.go runs the program on them, combine.go
// weights the members, panel.go keeps the history, forecaster.go answers.
package forecaster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/onmart/onmart/forecast"
)

// Files of the artifact that are the task's own.
const (
	ModelFile   = "demand.json"
	HistoryFile = "context/history.parquet"
)

// formatVersion is that of ModelFile.
const formatVersion = 1

// Model is what a training found out, beside the network's weights: demand.json.
type Model struct {
	FormatVersion int       `json:"format_version"`
	Design        Design    `json:"design"`
	Levels        []float64 `json:"levels"`
	Point         string    `json:"point"`  // what Mean is: mean or median
	Signed        bool      `json:"signed"` // the history has negative values, so that forecasts may
	// Members are the methods whose points are combined, in the order of Mixture.Point; Spreads those whose quantiles
	// are.
	Members []string `json:"members"`
	Spreads []string `json:"spreads"`
	// Mixtures by class of series.
	Mixtures map[string]*Mixture `json:"mixtures"`
	// Target names the column of the panel that is forecast.
	Target string `json:"target"`
	Unit   string `json:"unit,omitempty"`
	// Zone is the name of the time zone of the steps.
	Zone string `json:"zone"`
	// Least is how many open steps a series must have had for its network and classical members to be trusted; a
	// younger one is answered by Young alone.
	Least int `json:"least"`
}

// Young is the method of series that are younger than Model.Least.
const Young = "window-average"

// Encode writes demand.json.
func (m *Model) Encode(w io.Writer) error {
	m.FormatVersion = formatVersion
	if err := m.check(); err != nil {
		return fmt.Errorf("%s: %w", ModelFile, err)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(m)
}

// decodeModel reads demand.json and checks all of it.
func decodeModel(b []byte) (*Model, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	m := &Model{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; copy the artifact again or train again", ModelFile, err)
	}
	if m.FormatVersion != formatVersion {
		return nil, fmt.Errorf(
			"%s has format %d and this onmart reads format %d: train again",
			ModelFile,
			m.FormatVersion,
			formatVersion,
		)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; copy the artifact again or train again", ModelFile, err)
	}
	return m, nil
}

func (m *Model) check() error {
	if err := m.Design.check(); err != nil {
		return err
	}
	if len(m.Levels) == 0 {
		return errors.New("no quantile levels")
	}
	for i, q := range m.Levels {
		if !(q > 0 && q < 1) || i > 0 && !(q > m.Levels[i-1]) {
			return fmt.Errorf("the levels %v: want ascending numbers between 0 and 1", m.Levels)
		}
	}
	if m.Point != PointMean && m.Point != PointMedian {
		return fmt.Errorf("the point %q", m.Point)
	}
	if len(m.Members) == 0 || len(m.Spreads) == 0 {
		return errors.New("nothing to combine")
	}
	for _, name := range m.Members {
		if name == Network {
			continue
		}
		if _, err := forecast.Lookup(name); err != nil {
			return err
		}
	}
	for _, name := range m.Spreads {
		if name == Network || name == Climatology || name == Errors {
			continue
		}
		if c, err := forecast.Lookup(name); err != nil || !c.Quantiles || !slices.Contains(m.Members, name) {
			return fmt.Errorf("the spread %q", name)
		}
	}
	for _, class := range []string{Regular, Intermittent} {
		if m.Mixtures[class] == nil {
			return fmt.Errorf("no weights for %s series", class)
		}
	}
	for class, x := range m.Mixtures {
		if err := x.check(m); err != nil {
			return fmt.Errorf("weights of %s series: %w", class, err)
		}
	}
	if m.Least < 0 {
		return fmt.Errorf("least age %d", m.Least)
	}
	return nil
}

// networked tells whether the model has a network.
func (m *Model) networked() bool {
	return slices.Contains(m.Members, Network) || slices.Contains(m.Spreads, Network)
}

// Methods lists what can be asked for by name: the combination, the network where there is one, and every classical
// method.
func (m *Model) Methods() []string {
	out := []string{Combination}
	if m.networked() {
		out = append(out, Network)
	}
	for _, c := range forecast.Methods() {
		out = append(out, c.Name)
	}
	return out
}

// columns are those of the panel that the model reads.
func (m *Model) columns() Columns { return Columns{m.Target, m.Design.Covariates, m.Design.Known} }
