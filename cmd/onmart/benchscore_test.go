package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestLatenciesAreThoseOfSortedOnes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var a, b latencies
	var all []time.Duration
	for i := range 100_000 {
		d := time.Duration(r.ExpFloat64() * float64(time.Millisecond))
		if i%1000 == 0 {
			d = time.Duration(i%200) - 1
		}
		all = append(all, max(d, 0))
		if i%2 == 0 {
			a.record(d)
		} else {
			b.record(d)
		}
	}
	a.add(&b)
	slices.Sort(all)
	for _, p := range []float64{.0001, .5, .9, .99, .999, 1} {
		want := all[int(p*float64(len(all)))-1]
		if got := a.quantile(p); got < want || float64(got) > float64(want)*1.016+1 {
			t.Errorf("quantile %v is %v, want %v or up to 1.6 %% more", p, got, want)
		}
	}
	for v := range uint64(100_000) {
		if i := bucket(v); limit(i) < v || i > 0 && limit(i-1) >= v {
			t.Fatalf("%d is in bucket %d, which ends at %d", v, i, limit(i))
		}
	}
}
