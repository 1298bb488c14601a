package demand

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/score/model/forecaster"
)

// Source is the data of a training and what is known of its making.
type Source struct {
	Data  *datasets.Dataset // the panel
	Spec  *features.Spec
	Plan  *features.Plan
	Input *datasets.Schema // of the transactions
	From  string           // id of the transactions
	Made  *features.MadePanel
	// Tables are the dimension tables that the spec joins.
	Tables *features.Tables
	// Transactions are what the panel was made from, nil where they are not there any more; NoTransactions says why.
	Transactions   *datasets.Dataset
	NoTransactions string
}

// OpenSource reads from a panel how it was made, and looks for the transactions it was made from.
func OpenSource(d *datasets.Dataset) (Source, error) {
	if kind := d.Manifest().Kind; kind != datasets.KindPanel {
		return Source{}, fmt.Errorf(
			"%s holds %s: want a panel, which onmart features makes with a spec that has `panel:`",
			d.Dir(),
			kind,
		)
	}
	made, err := features.MadeFrom(d)
	if err != nil {
		return Source{}, err
	}
	s := Source{Data: d, From: made.Data, Input: made.Input, Made: made.Panel}
	if s.Made == nil || s.Input == nil {
		return Source{}, fmt.Errorf("%s does not say how its panel was made: make it again with onmart features", d.Dir())
	}
	if s.Spec, err = features.Parse("the spec of "+d.Dir(), []byte(made.Spec)); err != nil {
		return Source{}, err
	}
	s.Transactions, s.NoTransactions = transactionsOf(d, made)
	if s.Tables, err = features.OpenTables(d.Dir(), s.Spec); err != nil {
		return Source{}, err
	}
	if s.Plan, err = s.Spec.Plan(s.Input, s.Tables); err != nil {
		return Source{}, err
	}
	if got := s.Plan.Fingerprint(); got != made.Fingerprint {
		return Source{}, fmt.Errorf(
			"%s was made by another version of onmart or changed since: make the panel again with onmart features",
			d.Dir(),
		)
	}
	return s, nil
}

func transactionsOf(d *datasets.Dataset, made *features.Made) (*datasets.Dataset, string) {
	sources := d.Manifest().Sources
	if len(sources) == 0 {
		return nil, fmt.Sprintf("%s does not say where its transactions were", d.Dir())
	}
	t, err := datasets.Open(sources[0].Path)
	if err != nil {
		return nil, fmt.Sprintf("the transactions of the panel cannot be read (%v)", err)
	}
	if t.ID() != made.Data {
		return nil, fmt.Sprintf("%s is not the data set any more that the panel was made from", sources[0].Path)
	}
	return t, ""
}

// columns are the target and the covariates of a panel. Lags are inputs of the network as it is.
func (s *Source) columns() forecaster.Columns {
	var c forecaster.Columns
	for _, col := range s.Made.Columns {
		switch {
		case col.Role == features.RoleTarget:
			c.Target = col.Name
		case col.Role == features.RolePast && col.Lag == 0:
			c.Covariates = append(c.Covariates, col.Name)
		case col.Role == features.RoleKnown && col.Lag == 0:
			c.Known = append(c.Known, col.Name)
		}
	}
	return c
}

// unit is that of the target.
func (s *Source) unit() string {
	for _, col := range s.Made.Columns {
		if col.Role == features.RoleTarget {
			return col.Unit
		}
	}
	return ""
}

// Load reads the steps of a panel up to an instant.
func (s *Source) Load(ctx context.Context, to int64, threads int) (*forecast.Panel, error) {
	step, err := forecast.ParseStep(string(s.Made.Step))
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(s.Made.Timezone)
	if err != nil {
		return nil, err
	}
	c := s.columns()
	h := forecaster.NewHistory(step, zone, c, s.Made.Fill == "last")
	names := slices.Concat([]string{features.ColumnSeries, features.ColumnStep, c.Target}, c.Covariates, c.Known)
	o := datasets.ReadOptions{Columns: names, Threads: threads, Range: datasets.Range{From: -1 << 63, To: to}}
	err = s.Data.Read(ctx, o, h.Append)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Data.Dir(), err)
	}
	if h.Steps() == 0 {
		return nil, fmt.Errorf("%s has no steps before %s; it reaches from %s to %s", s.Data.Dir(), datasets.FormatTime(to),
			datasets.FormatTime(s.Data.Manifest().From), datasets.FormatTime(s.Data.Manifest().To))
	}
	p := h.Panel()
	return p, p.Check()
}
