package derive

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// shopRows are n rows of a shop's lines, in order of time.
func shopRows(n int) ([]datasets.Field, []datasets.Column) {
	r := rand.New(rand.NewPCG(1, 2))
	fields := []datasets.Field{
		{Name: "trans_datetime", Type: datasets.Time}, {Name: "amount", Type: datasets.Decimal, Scale: 4},
		{Name: "quantity", Type: datasets.Int64}, {Name: "user_id", Type: datasets.Int64},
		{Name: "channel", Type: datasets.String}, {Name: "rating", Type: datasets.Int64, Nullable: true},
		{Name: "review", Type: datasets.String}, {Name: "distance", Type: datasets.Float64},
		{Name: "unit_price", Type: datasets.Decimal, Scale: 4},
	}
	cols := make([]datasets.Column, len(fields))
	channels := []string{"web", "shop", "app", "phone"}
	reviews := []string{"not good at all, I want a refund", "Great shoes, fast delivery. Would recommend!", "", "It's ok"}
	nulls := make([]bool, n)
	t := int64(1_700_000_000) * datasets.Second
	for i := range n {
		t += r.Int64N(20) * datasets.Second
		cols[0].Ints = append(cols[0].Ints, t)
		cols[1].Ints = append(cols[1].Ints, r.Int64N(5_000_000))
		cols[2].Ints = append(cols[2].Ints, 1+r.Int64N(9))
		cols[3].Ints = append(cols[3].Ints, r.Int64N(1e6))
		cols[4].Strings = append(cols[4].Strings, channels[r.IntN(len(channels))])
		nulls[i] = r.IntN(3) == 0
		rating := 1 + r.Int64N(5)
		if nulls[i] {
			rating = 0
		}
		cols[5].Ints = append(cols[5].Ints, rating)
		cols[6].Strings = append(cols[6].Strings, reviews[r.IntN(len(reviews))])
		cols[7].Floats = append(cols[7].Floats, r.ExpFloat64()*20)
		cols[8].Ints = append(cols[8].Ints, r.Int64N(1_000_000))
	}
	cols[5].Null = nulls
	return fields, cols
}

func benchmarkRun(b *testing.B, n int, options Options, defs ...Def) {
	fields, cols := shopRows(n)
	options.Time = "trans_datetime"
	p, faults := Compile(defs, fields, options)
	if len(faults) > 0 {
		b.Fatal(faults)
	}
	p.Run(cols, n)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		p.Run(cols, n)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}

func expr(s string) Def { return Def{Name: "x", Kind: "expr", Expr: s, Scale: -1} }

// BenchmarkRun has one definition at a time on columns, and a set of them row by row as live events come.
func BenchmarkRun(b *testing.B) {
	brussels := Options{Zone: zone(b, "Europe/Brussels"), Holidays: []string{"12-25"}}
	one := map[string]Def{
		"divide":     expr("amount / quantity"),
		"mixed":      expr("amount > 99.99 and quantity < 5 ? amount / quantity : 0"),
		"filter":     {Kind: "condition", Expr: "amount > 99.99 and channel in ['web', 'app']"},
		"equal":      {Kind: "condition", Expr: "channel == 'web'"},
		"nulls":      expr("(rating ?? 3) * 2"),
		"value":      {Name: "x", Kind: "value", Of: "amount"},
		"log":        {Name: "x", Kind: "log", Of: "amount", Scale: -1},
		"bins":       {Name: "x", Kind: "bins", Of: "amount", Edges: []float64{1, 10, 50, 100, 500}},
		"hash":       {Name: "x", Kind: "hash", Of: "user_id", Buckets: 1000},
		"vocabulary": {Name: "x", Kind: "vocabulary", Of: "channel", Values: []string{"web", "shop", "app"}},
		"scaled":     {Name: "x", Kind: "expr", Expr: "amount / quantity", Scale: 4},
		"hour":       {Name: "x", Kind: "calendar", Of: "hour"},
		"month":      {Name: "x", Kind: "calendar", Of: "month"},
		"cyclic":     {Name: "x", Kind: "cyclic", Of: "minute_of_day"},
		"words":      {Name: "x", Kind: "words", Of: "review"},
		"sentiment":  {Name: "x", Kind: "sentiment", Of: "review"},
		"hashed":     {Name: "x", Kind: "hashed_words", Of: "review", Buckets: 16},
	}
	for _, name := range []string{"divide", "mixed", "filter", "equal", "nulls", "value", "log", "bins", "hash",
		"vocabulary", "scaled",
		"hour", "month", "cyclic", "words", "sentiment", "hashed"} {
		b.Run(name, func(b *testing.B) { benchmarkRun(b, 65536, brussels, one[name]) })
	}
	set := []Def{
		{Name: "amount", Kind: "value", Of: "amount"},
		{Name: "hour", Kind: "calendar", Of: "hour"},
		{Name: "weekday", Kind: "cyclic", Of: "weekday"},
		{Name: "weekend", Kind: "calendar", Of: "weekend"},
		{Name: "each", Kind: "expr", Expr: "amount / quantity", Scale: -1},
		{Name: "log_amount", Kind: "log", Of: "amount", Scale: -1},
		{Name: "online", Kind: "condition", Expr: "channel in ['web', 'app'] and amount > 50"},
		{Name: "segment", Kind: "vocabulary", Of: "channel", Values: []string{"web", "shop"}},
	}
	for _, n := range []int{1, 65536} {
		b.Run(fmt.Sprintf("set/n=%d", n), func(b *testing.B) { benchmarkRun(b, n, brussels, set...) })
	}
}
