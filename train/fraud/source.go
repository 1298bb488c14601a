package fraud

import (
	"fmt"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

// Source is the data of a training and what is known of its making.
type Source struct {
	Features *datasets.Dataset
	Spec     *features.Spec
	Input    *datasets.Schema // of the transactions
	Plan     *features.Plan
	Delay    int64            // of the labels, microseconds
	From     string           // id of the transactions
	Tables   *features.Tables // dimension tables that the spec joins
	// Transactions are what the features were made from, nil where they are not there any more;
	// NoTransactions says why.
	Transactions   *datasets.Dataset
	NoTransactions string
}

// OpenSource reads from a features data set how it was made, and looks for the transactions it was made from.
func OpenSource(d *datasets.Dataset) (Source, error) {
	made, err := features.MadeFrom(d)
	if err != nil {
		return Source{}, err
	}
	s := Source{Features: d, From: made.Data, Input: made.Input}
	if s.Spec, err = features.Parse("the spec of "+d.Dir(), []byte(made.Spec)); err != nil {
		return Source{}, err
	}
	s.Delay = s.Spec.Delay()
	s.Transactions, s.NoTransactions = transactionsOf(d, made)
	if s.Transactions != nil {
		s.Input = s.Transactions.Schema()
	}
	if s.Input == nil {
		return Source{}, fmt.Errorf("%s does not say which columns its transactions had: make the features again", d.Dir())
	}
	if s.Tables, err = features.OpenTables(d.Dir(), s.Spec); err != nil {
		return Source{}, err
	}
	if s.Plan, err = s.Spec.Plan(s.Input, s.Tables); err != nil {
		return Source{}, err
	}
	if got := s.Plan.Fingerprint(); got != made.Fingerprint {
		return Source{}, fmt.Errorf("%s was made by another version of onmart or changed since (its features have fingerprint %.12s, the spec in it gives %.12s): make the features again", d.Dir(), made.Fingerprint, got)
	}
	return s, nil
}

// transactionsOf opens the data set that features were made from, or says why it cannot be had.
func transactionsOf(d *datasets.Dataset, made *features.Made) (*datasets.Dataset, string) {
	sources := d.Manifest().Sources
	if len(sources) == 0 {
		return nil, fmt.Sprintf("%s does not say where its transactions were", d.Dir())
	}
	t, err := datasets.Open(sources[0].Path)
	if err != nil {
		return nil, fmt.Sprintf("the transactions of the features cannot be read (%v)", err)
	}
	if t.ID() != made.Data {
		return nil, fmt.Sprintf("%s is not the data set any more that the features were made from", sources[0].Path)
	}
	return t, ""
}
