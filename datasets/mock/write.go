package mock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// TruthFile stands beside the data set and says what was planted.
const TruthFile = "truth.json"

// Write generates all days of the stream into the data set dir: purchases, with users.parquet, stores.parquet,
// products.parquet, frauds.parquet (the kind of each fraudulent purchase) and truth.json beside them. progress
// may be nil; it is given days. Nothing is left behind when ctx ends.
func (s *Stream) Write(ctx context.Context, dir string, force bool, created datasets.Created, progress func(done, total int)) (*datasets.Manifest, error) {
	w, err := datasets.Create(dir, datasets.KindTransactions, Schema(), force)
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	for b := s.Next(); b != nil; b = s.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := w.Write(b); err != nil {
			return nil, err
		}
		if progress != nil {
			progress(s.day, s.o.Days)
		}
	}
	for name, table := range map[string]*datasets.Batch{
		"users.parquet": s.userTable(), "stores.parquet": s.storeTable(), "products.parquet": s.productTable(),
		"frauds.parquet": s.fraudTable(),
	} {
		if err := sideTable(w, name, table); err != nil {
			return nil, err
		}
	}
	truth := s.Truth()
	f, err := w.SideFile(TruthFile)
	if err != nil {
		return nil, err
	}
	enc := json.NewEncoder(f)
	enc.SetIndent("", "  ")
	if err := errors.Join(enc.Encode(truth), f.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", TruthFile, err)
	}
	created.Time = w.Manifest().Created.Time
	w.Manifest().Created = created
	for kind, n := range truth.FraudLines {
		w.Manifest().Counts["fraud_"+kind] = n
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	return w.Manifest(), nil
}

func sideTable(w *datasets.Writer, name string, b *datasets.Batch) error {
	f, err := w.SideFile(name)
	if err != nil {
		return err
	}
	if err := errors.Join(datasets.WriteTable(f, b), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (s *Stream) userTable() *datasets.Batch {
	b := newTable(len(s.users),
		datasets.Field{Name: datasets.UserID, Type: datasets.Int64},
		datasets.Field{Name: "home_long", Type: datasets.Float64}, datasets.Field{Name: "home_lat", Type: datasets.Float64})
	for i, u := range s.users {
		b.Columns[0].Ints = append(b.Columns[0].Ints, int64(i))
		b.Columns[1].Floats = append(b.Columns[1].Floats, u.long)
		b.Columns[2].Floats = append(b.Columns[2].Floats, u.lat)
	}
	return b
}

func (s *Stream) storeTable() *datasets.Batch {
	b := newTable(len(s.stores),
		datasets.Field{Name: datasets.StoreID, Type: datasets.Int64},
		datasets.Field{Name: "long", Type: datasets.Float64}, datasets.Field{Name: "lat", Type: datasets.Float64})
	for i, t := range s.stores {
		b.Columns[0].Ints = append(b.Columns[0].Ints, int64(i))
		b.Columns[1].Floats = append(b.Columns[1].Floats, t.long)
		b.Columns[2].Floats = append(b.Columns[2].Floats, t.lat)
	}
	return b
}

func (s *Stream) productTable() *datasets.Batch {
	b := newTable(len(s.products),
		datasets.Field{Name: datasets.ProductID, Type: datasets.String},
		datasets.Field{Name: "category", Type: datasets.String},
		datasets.Field{Name: datasets.UnitPrice, Type: datasets.Decimal, Scale: datasets.AmountScale})
	for i, p := range s.products {
		b.Columns[0].Strings = append(b.Columns[0].Strings, productID(i))
		b.Columns[1].Strings = append(b.Columns[1].Strings, categories[p.category])
		b.Columns[2].Ints = append(b.Columns[2].Ints, p.price)
	}
	return b
}

func (s *Stream) fraudTable() *datasets.Batch {
	b := newTable(len(s.frauds),
		datasets.Field{Name: datasets.TransID, Type: datasets.Int64}, datasets.Field{Name: "kind", Type: datasets.String})
	for _, id := range slices.Sorted(maps.Keys(s.frauds)) {
		b.Columns[0].Ints = append(b.Columns[0].Ints, id)
		b.Columns[1].Strings = append(b.Columns[1].Strings, s.frauds[id].String())
	}
	return b
}

func newTable(n int, fields ...datasets.Field) *datasets.Batch {
	b := datasets.NewBatch(&datasets.Schema{Fields: fields}, n)
	b.N = n
	return b
}
