// Package fraudtest makes transactions for tests of training: few enough for a second, with frauds that a
// small network can learn. It does not change with the mock stream, so pinned figures stay.
package fraudtest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// Start is the first day, 2026-01-05 UTC, in microseconds.
const Start = 1_767_571_200_000_000

// Schema of the transactions.
func Schema() *datasets.Schema {
	return &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.Int64},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
	}}
}

// Write makes a data set of perDay transactions on each of the days, by 1500 cards in 60 stores. Amounts are
// log-normal about 20; of those above 200 (one in 90) four in five are frauds, of the others one in 500.
func Write(dir string, days, perDay int) error {
	w, err := datasets.Create(dir, datasets.KindTransactions, Schema(), false)
	if err != nil {
		return err
	}
	defer w.Abort()
	r := rand.New(rand.NewPCG(1, 1))
	for day := range days {
		b := datasets.NewBatch(Schema(), perDay)
		b.N = perDay
		at := make([]int64, perDay)
		for i := range at {
			at[i] = Start + int64(day)*datasets.Day + r.Int64N(datasets.Day)
		}
		slices.Sort(at)
		for i, when := range at {
			amount := 20 * math.Exp(r.NormFloat64())
			chance := .002
			if amount > 200 {
				chance = .8
			}
			fraud := int64(0)
			if r.Float64() < chance {
				fraud = 1
			}
			for c, v := range []int64{int64(day*perDay + i), when, r.Int64N(1500), r.Int64N(60), int64(amount * 1e4), fraud} {
				b.Columns[c].Ints = append(b.Columns[c].Ints, v)
			}
		}
		if err := w.Write(b); err != nil {
			return err
		}
	}
	return w.Commit()
}
