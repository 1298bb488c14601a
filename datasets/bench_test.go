package datasets

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// benchRows is the rows of a benchmark's data set: five parts, the last one not full.
const benchRows = 1_300_000

// featureSchema is that of the handbook's features as onmart features writes them.
func featureSchema() *Schema {
	s := &Schema{Fields: []Field{{Name: TransID, Type: Int64}, {Name: TransDatetime, Type: Time},
		{Name: UserID, Type: Int64}, {Name: StoreID, Type: Int64}, {Name: IsFraud, Type: Int64, Nullable: true}}}
	for _, name := range []string{"TX_AMOUNT", "WEEKEND", "NIGHT", "NB_1", "NB_7", "NB_30", "AVG_1", "AVG_7", "AVG_30",
		"TNB_1", "TNB_7", "TNB_30", "RISK_1", "RISK_7", "RISK_30"} {
		s.Fields = append(s.Fields, Field{Name: name, Type: Float64})
	}
	return s
}

// featureRows has n rows of featureSchema from row number first on, distributed as those of the handbook.
func featureRows(first, n int) *Batch {
	b := NewBatch(featureSchema(), n)
	b.N = n
	r := rand.New(rand.NewPCG(uint64(first), 1))
	put := func(c int, v float64) { b.Columns[c].Floats = append(b.Columns[c].Floats, v) }
	flag := func(p bool) float64 {
		if p {
			return 1
		}
		return 0
	}
	for i := range n {
		row := first + i
		us := 1522540800e6 + int64(row)*9*Second + r.Int64N(9)*Second
		fraud := int64(flag(r.IntN(120) == 0))
		for c, v := range []int64{int64(row), us, r.Int64N(5000), r.Int64N(10000), fraud} {
			b.Columns[c].Ints = append(b.Columns[c].Ints, v)
		}
		amount := math.Round(r.ExpFloat64()*5000) / 100
		put(5, amount)
		put(6, flag(us/(86400*Second)%7 >= 5))
		put(7, flag(us/(3600*Second)%24 < 7))
		nb1 := 1 + r.IntN(1+r.IntN(9))
		nb7, nb30 := 5*nb1+r.IntN(12), 20*nb1+r.IntN(40)
		for c, v := range []int{nb1, nb7, nb30} {
			put(8+c, float64(v))
		}
		for c, k := range []int{nb1, nb7, nb30} {
			sum := int64(amount * 100)
			if k > 1 {
				sum += r.Int64N(int64(k) * 10000)
			}
			put(11+c, float64(sum)/100/float64(k))
		}
		for c, m := range []int{4, 16, 50} {
			put(14+c, float64(r.IntN(m)+r.IntN(m/2)))
		}
		for c, m := range []int{100, 20, 5} {
			v := 0.0
			if r.IntN(m) == 0 {
				den := 1 + r.IntN(7*(c+1))
				v = float64(1+r.IntN(den)) / float64(den)
			}
			put(17+c, v)
		}
	}
	return b
}

// cpuTime is the processor time of this process, of all its threads, in nanoseconds.
func cpuTime(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// perRow reports what f costs a row in processor time and in wall time.
func perRow(b *testing.B, rows int, f func()) {
	var start float64
	for b.Loop() {
		if start == 0 {
			start = cpuTime(b)
		}
		f()
	}
	n := float64(b.N) * float64(rows)
	b.ReportMetric((cpuTime(b)-start)/n, "cpu-ns/row")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "wall-ns/row")
	b.ReportMetric(0, "ns/op")
}

func setBytes(b *testing.B, dir string) (n int64) {
	for _, p := range open(b, dir).Manifest().Parts {
		n += p.Bytes
	}
	return n
}

// benchIn is the data set that a benchmark reads: the one named by DATASETS_BENCH, or rows made up.
func benchIn(b *testing.B) string {
	if dir := os.Getenv("DATASETS_BENCH"); dir != "" {
		return dir
	}
	dir := filepath.Join(b.TempDir(), "in")
	w, err := Create(dir, KindFeatures, featureSchema(), false)
	if err != nil {
		b.Fatal(err)
	}
	defer w.Abort()
	for at := 0; at < benchRows; at += readRows {
		if err := w.Write(featureRows(at, min(readRows, benchRows-at))); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkReadColumns reads what the handbook's features are computed from.
func BenchmarkReadColumns(b *testing.B) {
	d := open(b, benchIn(b))
	for name, reuse := range map[string]bool{"keep": false, "reuse": true} {
		b.Run(name, func(b *testing.B) {
			o := ReadOptions{Columns: fieldNames(d.Schema())[:6], Reuse: reuse}
			perRow(b, int(d.Manifest().Rows), func() {
				if err := d.Read(context.Background(), o, func(*Batch) error { return nil }); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkWriteFeatures writes what onmart features writes, from one goroutine that does nothing else.
func BenchmarkWriteFeatures(b *testing.B) {
	d := open(b, benchIn(b))
	var batches []*Batch
	keep := func(b *Batch) error { batches = append(batches, b); return nil }
	if err := d.Read(context.Background(), ReadOptions{}, keep); err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(b.TempDir(), "out")
	perRow(b, int(d.Manifest().Rows), func() {
		w, err := Create(dir, KindFeatures, d.Schema(), true)
		if err != nil {
			b.Fatal(err)
		}
		defer w.Abort()
		for _, rows := range batches {
			if err := w.Write(rows); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			b.Fatal(err)
		}
	})
	b.ReportMetric(float64(setBytes(b, dir))/float64(d.Manifest().Rows), "B/row")
}
