package mock

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/testkit"
)

func days(t *testing.T, o Options) ([]*datasets.Batch, *Stream) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	var all []*datasets.Batch
	for b := s.Next(); b != nil; b = s.Next() {
		all = append(all, b)
	}
	return all, s
}

// write makes a shop on disk and returns its directory.
func write(t *testing.T, o Options) string {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "shop")
	if _, err := s.Write(context.Background(), dir, false, datasets.Created{}, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSameSeedSameRows(t *testing.T) {
	a, _ := days(t, Options{Seed: 3, Rows: 5000, Days: 20})
	b, _ := days(t, Options{Seed: 3, Rows: 5000, Days: 20})
	c, _ := days(t, Options{Seed: 4, Rows: 5000, Days: 20})
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed gave other rows")
	}
	if reflect.DeepEqual(a, c) {
		t.Error("another seed gave the same rows")
	}
}

// TestSameBytes: every file of a shop but the manifest, which has the time it was made, on any number of threads.
func TestSameBytes(t *testing.T) {
	o := Options{Seed: 5, Rows: 20000, Days: 60}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	a := write(t, o)
	runtime.GOMAXPROCS(4)
	b := write(t, o)
	files, err := os.ReadDir(a)
	if err != nil || len(files) != 16 {
		t.Fatalf("%d files (%v), want 14 tables, a part and the manifest", len(files), err)
	}
	for _, f := range files {
		if f.Name() == "manifest.json" {
			continue
		}
		x, err1 := os.ReadFile(filepath.Join(a, f.Name()))
		y, err2 := os.ReadFile(filepath.Join(b, f.Name()))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s has other bytes (%v)", f.Name(), err)
		}
	}
}

// TestEntitiesAreIndependent: who users and products are does not depend on how many there are, nor on the rows.
func TestEntitiesAreIndependent(t *testing.T) {
	_, small := days(t, Options{Seed: 2, Rows: 2000, Days: 10, Users: 40, Products: 96})
	_, large := days(t, Options{Seed: 2, Rows: 9000, Days: 10, Users: 90, Products: 160})
	for i := range small.users {
		a, b := &small.users[i], &large.users[i]
		if a.taste != b.taste || a.budget != b.budget || a.lat != b.lat || a.segment != b.segment || a.joined != b.joined {
			t.Fatalf("user %d is another in a larger shop", i)
		}
	}
	for i := range small.products {
		if !reflect.DeepEqual(small.products[i], large.products[i]) || !reflect.DeepEqual(small.prices[i], large.prices[i]) {
			t.Fatalf("product %d is another in a larger shop", i)
		}
	}
}

func TestRowsAreAPlausibleLog(t *testing.T) {
	const rows = 40000
	batches, s := days(t, Options{Seed: 1, Rows: rows, Days: 60})
	var n, lastTime, lastID, lastLine, multi, returns int64
	lastID = -1
	fraud := int64(0)
	for day, b := range batches {
		col := func(name string) []int64 { return b.Column(name).Ints }
		for i := range b.N {
			at, id, line := col(datasets.TransDatetime)[i], col(datasets.TransID)[i], col(datasets.Line)[i]
			if at < lastTime || at < s.instant(day) || at >= s.instant(day+1) {
				t.Fatalf("row %d goes back in time, or is of another day", n)
			}
			switch {
			case id == lastID && line == lastLine+1 && at == lastTime:
				multi++
			case id == lastID+1 && line == 0 || lastID < 0:
			default:
				t.Fatalf("row %d: purchase %d line %d after purchase %d line %d", n, id, line, lastID, lastLine)
			}
			q, p, a, back := col(datasets.Quantity)[i], col(datasets.UnitPrice)[i], col(datasets.Amount)[i],
				col(datasets.IsReturn)[i]
			if q == 0 || (q < 0) != (back == 1) || p < 100 || a != p*q {
				t.Fatalf("row %d: quantity %d, price %d, amount %d, return %d", n, q, p, a, back)
			}
			if want := channelOf(int(col(datasets.StoreID)[i])); b.Column(datasets.Channel).Strings[i] != want {
				t.Fatalf("row %d: store %d sells %s", n, col(datasets.StoreID)[i], b.Column(datasets.Channel).Strings[i])
			}
			if rating, review := b.Column(datasets.Rating), b.Column(datasets.Review); rating.IsNull(i) &&
				!review.IsNull(i) || !rating.IsNull(i) && (rating.Floats[i] < 1 || rating.Floats[i] > 5 || back == 1) {
				t.Fatalf("row %d: rating %v, review %q", n, rating.Floats[i], review.Strings[i])
			}
			fraud += col(datasets.IsFraud)[i]
			returns += back
			lastTime, lastID, lastLine = at, id, line
			n++
		}
	}
	if n < rows*8/10 || n > rows*12/10 {
		t.Errorf("%d rows, asked for about %d", n, rows)
	}
	if multi < n/4 || returns < n/50 {
		t.Errorf("%d of %d rows are further lines of a purchase, %d are returns", multi, n, returns)
	}
	truth := s.Truth()
	var planted int64
	for _, k := range []Kind{LargeAmount, BadStore, StolenCard} {
		if truth.FraudLines[k.String()] == 0 {
			t.Errorf("no fraud of kind %s", k)
		}
		planted += truth.FraudLines[k.String()]
	}
	if planted != fraud || fraud > n/20 || truth.Lines != n || truth.Returns.Lines != returns ||
		truth.Purchases != lastID {
		t.Errorf("%d fraud rows, %d planted, of %d; truth %+v", fraud, planted, n, truth)
	}
}

// TestRowsAreAsManyAsAsked over sizes: within a tenth, but for what chance does to a few.
func TestRowsAreAsManyAsAsked(t *testing.T) {
	for _, o := range []Options{{Rows: 20000, Days: 30}, {Rows: 30000, Days: 400}, {Rows: 60000}, {Rows: 50000,
		Days: 90, Users: 200, Products: 400}} {
		_, s := days(t, o)
		if got := s.Truth().Lines; !(math.Abs(float64(got)/float64(o.Rows)-1) < .12) {
			t.Errorf("%+v gave %d lines", o, got)
		}
	}
}

func TestSmallestShops(t *testing.T) {
	for _, o := range []Options{{Rows: 1}, {Rows: 1, Days: 1}, {Rows: 300, Days: 3, Users: 1, Products: 8, Stores: 4},
		{Rows: 500, Days: 400, Users: 2, Products: 9}} {
		dir := write(t, o)
		if _, err := Check(context.Background(), dir); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestOptionsOutOfRange(t *testing.T) {
	for want, o := range map[string]Options{
		"days is -1: want 1 to 3650":              {Days: -1},
		"rows is -5":                              {Rows: -5},
		"users is 20000000":                       {Users: 20_000_000},
		"stores is 3: want 4":                     {Stores: 3},
		"products is 70000: want 8 to 65536":      {Products: 70_000},
		"200000 users and 60000 products":         {Users: 200_000, Products: 60_000},
		"the first day is 2026-01-05T00:00:01Z":   {Start: 1767571200*datasets.Second + datasets.Second},
		"the first day is 2243-10-17T00:00:00Z: ": {Start: 100_000 * datasets.Day},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

// TestEaster against the tables of the US Census Bureau.
func TestEaster(t *testing.T) {
	for _, want := range []string{"2000-04-23", "2008-03-23", "2011-04-24", "2024-03-31", "2025-04-20", "2026-04-05",
		"2038-04-25"} {
		day, err := parseDay(want)
		if err != nil {
			t.Fatal(err)
		}
		if got := afterEaster(0)(day.Year()); !got.Equal(day) {
			t.Errorf("Easter of %d is %s, want %s", day.Year(), got.Format(dayLayout), want)
		}
	}
	for _, c := range []struct {
		name string
		want string
	}{{"Mother's Day", "2026-05-10"}, {"Black Friday", "2025-11-28"}, {"Easter Monday", "2025-04-21"}} {
		for _, h := range holidays {
			if day, _ := parseDay(c.want); h.name == c.name && !h.on(day.Year()).Equal(day) {
				t.Errorf("%s of %d is %s, want %s", c.name, day.Year(), h.on(day.Year()).Format(dayLayout), c.want)
			}
		}
	}
}

// TestAliasTable: the table's shares are the weights'.
func TestAliasTable(t *testing.T) {
	r := newDice(7).of(forStock, 0, 0)
	weights := make([]float64, 37)
	total := 0.0
	for i := range weights {
		weights[i] = math.Exp(2 * r.NormFloat64())
		total += weights[i]
	}
	table := make([]aliasCell, len(weights))
	aliasTable(table, weights)
	share := make([]float64, len(weights))
	for i, c := range table {
		p := float64(c.cut) / 65536
		share[i] += p / 37
		share[c.other] += (1 - p) / 37
	}
	for i, w := range weights {
		if !(math.Abs(share[i]-w/total) < 2e-5) {
			t.Errorf("weight %d has a share of %g, want %g", i, share[i], w/total)
		}
	}
	counts := make([]float64, len(weights))
	const draws = 200_000
	for range draws {
		counts[pick(table, r.Uint64())]++
	}
	for i, n := range counts {
		if want := draws * share[i]; !(math.Abs(n-want) < 5*math.Sqrt(want)+3) {
			t.Errorf("%v draws of %d, want %.0f", n, i, want)
		}
	}
}

// TestKeysAreComplete: every key of the transactions and of a table is in the table that it names.
func TestKeysAreComplete(t *testing.T) {
	dir := write(t, Options{Seed: 1, Rows: 30000, Days: 120})
	keys := map[string]map[any]bool{}
	read := func(file string) *datasets.Batch {
		b, err := datasets.ReadTable(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	value := func(b *datasets.Batch, column string, i int) any {
		c := b.Column(column)
		if c.IsNull(i) {
			return nil
		}
		if c.Strings != nil {
			return c.Strings[i]
		}
		return c.Ints[i]
	}
	for _, k := range []struct{ file, column, name string }{
		{UsersFile, "user_id", "user"}, {StoresFile, "store_id", "store"}, {ProductsFile, "product_id", "product"},
		{CalendarFile, "date", "day"},
		{ProductsFile, "name", "name"},
	} {
		b := read(k.file)
		keys[k.name] = map[any]bool{}
		for i := range b.N {
			if v := value(b, k.column, i); v == nil || keys[k.name][v] {
				t.Fatalf("%s: %s %v is there twice, or null", k.file, k.column, v)
			}
			keys[k.name][value(b, k.column, i)] = true
		}
	}
	keys["category"] = map[any]bool{}
	for products, i := read(ProductsFile), 0; i < products.N; i++ {
		keys["category"][value(products, "category", i)] = true
	}
	check := func(b *datasets.Batch, file, column, key string) {
		for i := range b.N {
			if v := value(b, column, i); v != nil && !keys[key][v] {
				t.Fatalf("%s: %s %v of row %d is in no table", file, column, v, i)
			}
		}
	}
	for _, r := range []struct{ file, column, key string }{
		{PricesFile, "product_id", "product"}, {PricesFile, "valid_from", "day"}, {PromotionsFile, "product_id",
			"product"}, {PromotionsFile, "category", "category"},
		{PromotionsFile, "first_day", "day"}, {PromotionsFile, "last_day", "day"}, {StockoutsFile, "product_id",
			"product"}, {StockoutsFile, "date", "day"},
		{StockFile, "product_id", "product"}, {InfluenceFile, "user_id", "user"}, {InfluenceFile, "influencer_id", "user"},
		{LostFile, "product_id", "product"}, {TasteUsersFile, "user_id", "user"}, {TasteProductsFile, "product_id",
			"product"},
	} {
		check(read(r.file), r.file, r.column, r.key)
	}
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	frauds, calendar := read(FraudsFile), read(CalendarFile)
	kinds := map[int64]bool{}
	for i := range frauds.N {
		kinds[frauds.Column("trans_id").Ints[i]] = true
	}
	err = d.Read(context.Background(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		check(b, "transactions", "product_id", "product")
		check(b, "transactions", "user_id", "user")
		check(b, "transactions", "store_id", "store")
		for i := range b.N {
			if id := b.Column("trans_id").Ints[i]; kinds[id] != (b.Column("is_fraud").Ints[i] == 1) {
				t.Fatalf("purchase %d: fraud %d, and in %s: %v", id, b.Column("is_fraud").Ints[i], FraudsFile, kinds[id])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calendar.N != 120+HorizonDays {
		t.Errorf("the calendar has %d days, want %d", calendar.N, 120+HorizonDays)
	}
}

// TestSellingPriceIsOfTheTables: unit_price is the list price of the day less the discount of the day.
func TestSellingPriceIsOfTheTables(t *testing.T) {
	dir := write(t, Options{Seed: 8, Rows: 20000, Days: 200})
	d, err := readShop(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	promoted := 0
	for i := range d.lines {
		l := &d.lines[i]
		if l.back { // at the price of its day
			continue
		}
		cell := int(l.product)*d.days + int(l.day)
		want := d.products[l.product].list * math.Exp(d.price[cell])
		if got := float64(l.amount) / float64(l.quantity); !(math.Abs(got-want) <= 50.001) { // half a cent
			t.Fatalf("%s costs %g on day %d, by the tables %g", d.products[l.product].id, got, l.day, want)
		}
		promoted += int(flag(d.promoted[cell]))
	}
	if promoted < 500 {
		t.Errorf("%d lines in promotions", promoted)
	}
}

// TestReviewsAgreeWithRatings: praise goes with four and five stars only.
func TestReviewsAgreeWithRatings(t *testing.T) {
	batches, _ := days(t, Options{Seed: 1, Rows: 30000, Days: 60})
	words := map[string][2]float64{"Love this": {4, 5}, "all right": {3, 3}, "Disappointed": {1, 2}}
	seen := map[string]int{}
	for _, b := range batches {
		for i := range b.N {
			for w, r := range words {
				if strings.Contains(b.Column(datasets.Review).Strings[i], w) {
					seen[w]++
					if v := b.Column(datasets.Rating).Floats[i]; v < r[0] || v > r[1] {
						t.Fatalf("%q with a rating of %v", b.Column(datasets.Review).Strings[i], v)
					}
				}
			}
		}
	}
	for w := range words {
		if seen[w] < 5 {
			t.Errorf("%d reviews say %q", seen[w], w)
		}
	}
}

func TestWriteStopsWithItsContext(t *testing.T) {
	s, err := New(Options{Rows: 5000, Days: 20})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	dir := filepath.Join(t.TempDir(), "shop")
	_, err = s.Write(ctx, dir, false, datasets.Created{}, func(done, total int) {
		if done == 5 && total == 20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// TestPyarrow: other readers see the tables with the types that schema.go says.
func TestPyarrow(t *testing.T) {
	python := testkit.Python(t, "pyarrow")
	dir := write(t, Options{Seed: 1, Rows: 20000, Days: 90})
	out, err := exec.Command(python, "-c", `
import sys, glob, os
import pyarrow.parquet as pq
for f in sorted(glob.glob(os.path.join(sys.argv[1], "*.parquet"))):
    t = pq.read_table(f)
    t.validate(full=True)
    print(os.path.basename(f), ", ".join(f"{c.name} {c.type}" for c in t.schema))
`, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	testkit.Golden(t, "pyarrow.golden", out)
}

// BenchmarkGenerate says how many lines a second are made, without writing them.
func BenchmarkGenerate(b *testing.B) {
	start := time.Now()
	var lines int64
	for b.Loop() {
		s, err := New(Options{Seed: 1, Rows: 100_000})
		if err != nil {
			b.Fatal(err)
		}
		for s.Next() != nil {
		}
		lines += s.Truth().Lines
	}
	b.ReportMetric(float64(lines)/time.Since(start).Seconds(), "lines/s")
}
