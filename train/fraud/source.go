package fraud

import (
	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

// Source is the data of a training and what is known of its making.
type Source struct {
	Features *datasets.Dataset
	Spec     *features.Spec
	Input    *datasets.Schema // of the transactions
	Plan     *features.Plan
	Delay    int64  // of the labels, microseconds
	From     string // id of the transactions, empty where it is not known
	// Transactions are what the features were made from, nil where they are not there any more;
	// NoTransactions says why.
	Transactions   *datasets.Dataset
	NoTransactions string
}
