package fraud

import (
	"context"
	"fmt"

	"github.com/onmart/onmart/datasets"
)

// Load reads the rows of a range of a features data set, with the named feature columns.
func Load(ctx context.Context, d *datasets.Dataset, r datasets.Range, features []string, threads int) (*Rows, error) {
	if err := checkColumns(d.Schema(), features); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Dir(), err)
	}
	columns := append([]string{datasets.TransDatetime, datasets.UserID, datasets.IsFraud}, features...)
	c := newCollector(features)
	err := d.Read(ctx, datasets.ReadOptions{Columns: columns, Range: r, Threads: threads}, func(b *datasets.Batch) error {
		c.add(b)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Dir(), err)
	}
	return c.finish(), nil
}

// LoadKnown reads when the cards of a range were first defrauded.
func LoadKnown(ctx context.Context, d *datasets.Dataset, r datasets.Range, threads int) (*Known, error) {
	rows, err := Load(ctx, d, r, nil, threads)
	if err != nil {
		return nil, err
	}
	return newKnown(rows, r), nil
}
