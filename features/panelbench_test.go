package features

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// benchSales are a year's sales of many products in the order of time: a Zipf share of them sells most.
func benchSales(products, rows int) []*datasets.Batch {
	r := rand.New(rand.NewPCG(1, 2))
	z := rand.NewZipf(r, 1.1, 20, uint64(products-1))
	names := make([]string, products)
	for i := range names {
		names[i] = fmt.Sprintf("P%07d", i)
	}
	var list []*datasets.Batch
	step := 365 * datasets.Day / int64(rows)
	for at := 0; at < rows; at += 1 << 16 {
		var sales []sale
		for i := at; i < min(at+1<<16, rows); i++ {
			p := int(z.Uint64())
			if i < products {
				p = i // each product sells
			}
			sales = append(sales, sale{t: int64(i) * step, seq: int64(i), trans: names[i/3%products], product: names[p], store: 1, user: int64(r.IntN(100_000)) + 1,
				quantity: int64(r.IntN(5)) + 1, price: 12300, back: r.IntN(50) == 0})
		}
		list = append(list, salesBatch(sales))
	}
	return list
}

// A year of 100,000 series by day, 2 million sales: what the engine takes in and gives out.
func BenchmarkPanel(b *testing.B) {
	for _, products := range []int{5_000, 100_000} {
		rows := 2_000_000
		batches := benchSales(products, rows)
		b.Run(fmt.Sprint(products), func(b *testing.B) {
			s, err := Parse("t", []byte(`name: t
panel:
  keys: [product_id]
  step: day
  returns: {flag: is_return, undo: [user_id]}
  demand: {of: quantity}
  measures:
    - {name: returned, rows: returned, of: quantity}
    - {name: purchases, kind: distinct, of: trans_id}
  covariates:
    - {name: price, kind: last, of: unit_price}
`))
			if err != nil {
				b.Fatal(err)
			}
			p, err := s.Plan(saleSchema)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			given, from := 0, processTime(b)
			for b.Loop() {
				q := p.NewPanel()
				out := datasets.NewBatch(p.Schema(), 0)
				q.flush = func(rows *datasets.Batch) error {
					given += rows.N
					empty(rows)
					return nil
				}
				for _, in := range batches {
					if err := q.Process(in, out); err != nil {
						b.Fatal(err)
					}
				}
				if err := q.Advance(366*datasets.Day, out); err != nil {
					b.Fatal(err)
				}
				given += out.N
			}
			seconds := float64(processTime(b)-from) / 1e9
			b.ReportMetric(float64(rows)*float64(b.N)/seconds, "rows_in/cpu_s")
			b.ReportMetric(float64(given)/seconds, "rows_out/cpu_s")
		})
	}
}

func BenchmarkInteractions(b *testing.B) {
	batches := benchSales(20_000, 2_000_000)
	s, err := Parse("t", []byte("name: t\nlateness: 10m\ninteractions:\n  user: user_id\n  item: product_id\n  hold: 1h\n  returns: {flag: is_return, policy: remove}\n"))
	if err != nil {
		b.Fatal(err)
	}
	p, err := s.Plan(saleSchema)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	from := processTime(b)
	for b.Loop() {
		e := p.NewInteractions()
		out := datasets.NewBatch(p.Schema(), 0)
		for _, in := range batches {
			if err := e.Process(in, out); err != nil {
				b.Fatal(err)
			}
			empty(out)
		}
	}
	b.ReportMetric(2e6*float64(b.N)/(float64(processTime(b)-from)/1e9), "rows_in/cpu_s")
}
