package mock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// Write generates all days of the stream into the data set dir: the purchases, with the tables that schema.go
// describes and truth.json beside them. progress may be nil; it is given days. Nothing is left behind when ctx
// ends.
func (s *Stream) Write(ctx context.Context, dir string, force bool, created datasets.Created, progress func(done,
	total int)) (*datasets.Manifest, error) {
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
	for _, t := range []struct {
		name  string
		table *datasets.Batch
	}{
		{UsersFile, s.userTable()}, {StoresFile, s.storeTable()}, {ProductsFile, s.productTable()}, {PricesFile,
			s.priceTable()},
		{CalendarFile, s.calendarTable()}, {PromotionsFile, s.promotionTable()}, {StockoutsFile, s.stockoutTable()},
		{StockFile, s.stockTable()},
		{InfluenceFile, s.influenceTable()}, {FraudsFile, s.fraudTable()}, {LostFile, s.lostTable()},
		{TasteUsersFile, s.userTastes()}, {TasteProductsFile, s.productTastes()},
	} {
		if err := sideFile(w, t.name, func(f writer) error { return datasets.WriteTable(f, t.table) }); err != nil {
			return nil, err
		}
	}
	truth := s.Truth()
	err = sideFile(w, TruthFile, func(f writer) error {
		enc := json.NewEncoder(f)
		enc.SetIndent("", "  ")
		return enc.Encode(truth)
	})
	if err != nil {
		return nil, err
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

type writer interface{ Write([]byte) (int, error) }

func sideFile(w *datasets.Writer, name string, write func(writer) error) error {
	f, err := w.SideFile(name)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// table is a batch that is filled row by row.
type table struct{ *datasets.Batch }

func newTable(schema *datasets.Schema, rows int) table { return table{datasets.NewBatch(schema, rows)} }

// add appends a row of int, int64, float64, bool and string values; nil is null.
func (t table) add(values ...any) {
	for i, v := range values {
		c := &t.Columns[i]
		if t.Schema.Fields[i].Nullable {
			c.Null = append(c.Null, v == nil)
		}
		switch f := t.Schema.Fields[i]; f.Type {
		case datasets.Float64:
			x, _ := v.(float64)
			c.Floats = append(c.Floats, x)
		case datasets.String:
			x, _ := v.(string)
			c.Strings = append(c.Strings, x)
		default:
			x, _ := v.(int64)
			if n, ok := v.(int); ok {
				x = int64(n)
			}
			c.Ints = append(c.Ints, x)
		}
	}
	t.N++
}

// or is a value, or null where the condition does not hold.
func or[T any](ok bool, v T) any {
	if ok {
		return v
	}
	return nil
}

func (s *Stream) userTable() *datasets.Batch {
	t := newTable(usersSchema, len(s.users))
	for i, u := range s.users {
		t.add(i, segments[u.segment].name, zipCode(u.zip), u.long, u.lat, s.instant(u.joined))
	}
	return t.Batch
}

func (s *Stream) storeTable() *datasets.Batch {
	t := newTable(storesSchema, len(s.stores))
	for i, x := range s.stores {
		t.add(i, channelOf(i), zipCode(x.zip), x.long, x.lat)
	}
	return t.Batch
}

func (s *Stream) productTable() *datasets.Batch {
	t := newTable(productsSchema, len(s.products))
	for i := range s.products {
		p := &s.products[i]
		c := &s.categories[p.category]
		gone := p.discontinued < math.MaxInt
		var last int64
		if gone {
			last = s.instant(p.discontinued)
		}
		t.add(p.id, p.name, c.name, c.department, p.price, p.cost, s.instant(p.launched), or(gone, last), p.lead, p.review)
	}
	return t.Batch
}

func (s *Stream) priceTable() *datasets.Batch {
	t := newTable(pricesSchema, 5*len(s.products))
	for i := range s.prices {
		for _, p := range s.prices[i] {
			t.add(s.products[i].id, s.instant(p.day), p.list)
		}
	}
	return t.Batch
}

func (s *Stream) calendarTable() *datasets.Batch {
	t := newTable(calendarSchema, len(s.calendar))
	campaign := make([]string, len(s.calendar))
	for _, p := range s.promotions {
		for d := p.from; p.product < 0 && d < p.until; d++ {
			if campaign[d] != "" {
				campaign[d] += ", "
			}
			campaign[d] += p.name
		}
	}
	for i, d := range s.calendar {
		var name any
		if d.holiday >= 0 {
			name = holidays[d.holiday].name
		}
		t.add(s.instant(i), d.weekday, name, flag(d.closed), or(campaign[i] != "", campaign[i]))
	}
	return t.Batch
}

func (s *Stream) promotionTable() *datasets.Batch {
	t := newTable(promotionsSchema, len(s.promotions))
	for i, p := range s.promotions {
		var product string
		if p.product >= 0 {
			product = s.products[p.product].id
		}
		t.add(fmt.Sprintf("C%04d", i), p.name, or(p.product < 0, s.categories[p.category].name), or(p.product >= 0, product),
			s.instant(p.from), s.instant(p.until-1), p.discount)
	}
	return t.Batch
}

func (s *Stream) stockoutTable() *datasets.Batch {
	t := newTable(stockoutsSchema, int(s.truth.Stockouts.ProductDays))
	for i := range s.products {
		for _, w := range s.products[i].outages {
			for d := w.from; d < w.until; d++ {
				t.add(s.products[i].id, s.instant(d))
			}
		}
	}
	return t.Batch
}

// stockTable is the stock when the last day ended: for some products too little until the next delivery, for others too
// much. Products that are out, or no longer sold, have none.
func (s *Stream) stockTable() *datasets.Batch {
	t := newTable(stockSchema, len(s.products))
	days := float64(min(stockDays, s.o.Days))
	for i := range s.products {
		p := &s.products[i]
		if p.discontinued < math.MaxInt {
			continue
		}
		r := s.dice.of(forStock, i, 0)
		cover := float64(s.recent[i]) / days * float64(p.lead+p.review)
		hand, order, arrives := int64(math.Round(cover*r.between(.2, 2))), int64(0), int64(0)
		if r.chance(.4) {
			order, arrives = 1+int64(math.Round(cover*r.between(.5, 1.5))), s.instant(s.o.Days+r.IntN(p.lead))
		}
		if s.today.out[i] {
			hand = 0
		}
		t.add(p.id, hand, order, or(order > 0, arrives))
	}
	return t.Batch
}

func (s *Stream) influenceTable() *datasets.Batch {
	t := newTable(influenceSchema, s.links)
	for i := range s.users {
		for _, f := range s.users[i].followers {
			t.add(f, i)
		}
	}
	return t.Batch
}

func (s *Stream) fraudTable() *datasets.Batch {
	t := newTable(fraudsSchema, len(s.frauds))
	for _, id := range slices.Sorted(maps.Keys(s.frauds)) {
		t.add(id, s.frauds[id].String())
	}
	return t.Batch
}

func (s *Stream) lostTable() *datasets.Batch {
	t := newTable(lostSchema, len(s.lost))
	for _, l := range s.lost {
		t.add(s.products[l.product].id, s.instant(l.day), l.requests, l.units)
	}
	return t.Batch
}

func (s *Stream) userTastes() *datasets.Batch {
	t := newTable(userTasteSchema, len(s.users))
	for i := range s.users {
		u := &s.users[i]
		t.add(tasteRow(i, math.Exp(u.budget), &u.taste)...)
	}
	return t.Batch
}

func (s *Stream) productTastes() *datasets.Batch {
	t := newTable(productTasteSchema, len(s.products))
	for i := range s.products {
		p := &s.products[i]
		t.add(tasteRow(p.id, p.popularity, &p.taste)...)
	}
	return t.Batch
}

func tasteRow(id any, own float64, taste *[tasteDims]float64) []any {
	row := []any{id, own}
	for _, v := range taste {
		row = append(row, v)
	}
	return row
}
