package recommend

import (
	"context"
	"fmt"
	"math"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/model/recommender"
)

// Source is the data of a training and what is known of its making.
type Source struct {
	Data   *datasets.Dataset // interactions
	Spec   *features.Spec
	Plan   *features.Plan
	Input  *datasets.Schema // of the transactions
	From   string           // id of the transactions
	Tables *features.Tables // that the spec joins
	// Transactions are what the interactions were made from, nil where they are not there any more; NoTransactions
	// says why.
	Transactions   *datasets.Dataset
	NoTransactions string
}

// OpenSource reads from interactions how they were made, and looks for the transactions they were made from.
func OpenSource(d *datasets.Dataset) (Source, error) {
	if kind := d.Manifest().Kind; kind != datasets.KindInteractions {
		return Source{}, fmt.Errorf("%s holds %s: want interactions, which onmart features makes with a spec that has `interactions:`", d.Dir(), kind)
	}
	made, err := features.MadeFrom(d)
	if err != nil {
		return Source{}, err
	}
	s := Source{Data: d, From: made.Data, Input: made.Input}
	if s.Input == nil {
		return Source{}, fmt.Errorf("%s does not say how its interactions were made: make them again with onmart features", d.Dir())
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
		return Source{}, fmt.Errorf("%s was made by another version of onmart or changed since: make the interactions again with onmart features", d.Dir())
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
		return nil, fmt.Sprintf("the transactions of the interactions cannot be read (%v)", err)
	}
	if t.ID() != made.Data {
		return nil, fmt.Sprintf("%s is not the data set any more that the interactions were made from", sources[0].Path)
	}
	return t, ""
}

// Load reads the purchases in [from, to).
func (s *Source) Load(ctx context.Context, from, to int64, threads int) (*recommender.History, error) {
	h, err := recommender.NewHistory(s.Data.Schema())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Data.Dir(), err)
	}
	o := datasets.ReadOptions{Threads: threads, Range: datasets.Range{From: from, To: to}}
	if err := s.Data.Read(ctx, o, h.Append); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Data.Dir(), err)
	}
	if len(h.Log.User) == 0 {
		return h, nil
	}
	return h.Canonical()
}

// LoadLater reads the purchases in [from, to) of users and items that a history knows, and says how many lines were of
// others.
func LoadLater(ctx context.Context, d *datasets.Dataset, h *recommender.History, from, to int64,
	threads int) (later *recommender.History, others int, err error) {
	later = h.Later()
	o := datasets.ReadOptions{Threads: threads, Range: datasets.Range{From: from, To: to}}
	err = d.Read(ctx, o, func(b *datasets.Batch) error {
		n, err := later.AppendKnown(b)
		others += n
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", d.Dir(), err)
	}
	return later, others, nil
}

const microDay = 24 * 60 * 60 * 1e6

// everything is the bounds of all of time.
const (
	beginning = math.MinInt64
	end       = math.MaxInt64
)
