package cpu

import (
	"math"
	"slices"
	"testing"
	"time"
)

// A ceiling grows with nearness, and what is measured is what there is.
func TestCeiling(t *testing.T) {
	b, err := New(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := b.Ceiling(1)
	if len(c.Bandwidths) != len(workingSets()) || c.Threads != 1 || c.RoundTrip != 0 {
		t.Errorf("%+v", c)
	}
	for _, x := range c.Bandwidths {
		if !(x.Bytes > 0) || math.IsInf(x.Bytes, 0) {
			t.Errorf("%s: %v bytes a second", x.Level, x.Bytes)
		}
	}
	if c.Memory() != c.Bandwidths[len(c.Bandwidths)-1].Bytes {
		t.Errorf("memory is %v", c.Memory())
	}
	if !(c.Random > 0) || math.IsInf(c.Random, 0) {
		t.Errorf("%v bytes a second of rows at random", c.Random)
	}
	if (c.FLOPs > 0) != (b.kernels.peak != nil) {
		t.Errorf("%v operations a second", c.FLOPs)
	}
}

func TestMeasureNamesWhatItLeavesOut(t *testing.T) {
	b, err := New(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	m := b.Measure(time.Microsecond, []string{"add", "bce"})
	if len(m.Rates) != 2*len(workingSets()) {
		t.Errorf("%d rates of two kernels, want one for each working set", len(m.Rates))
	}
	for _, r := range m.Rates {
		if !(r.Seconds > 0 && r.Bytes > 0 && r.FLOPs > 0) {
			t.Errorf("%+v", r)
		}
	}
	if none := b.kernels.peak == nil; len(m.Missing) > 0 && (!none || !slices.Equal(m.Missing, []string{"embed.ask"})) {
		t.Errorf("%v have no roofline", m.Missing)
	}
}

// TestEveryProbeRuns: the kernels of tables and of a product's sides at the two smallest working sets of every path.
func TestEveryProbeRuns(t *testing.T) {
	for _, k := range paths() {
		for _, p := range tableProbes() {
			for _, w := range workingSets()[:2] {
				call, c := p.make(k, w.Working)
				if call == nil {
					if p.kernel != "embed.ask" || k.peak != nil {
						t.Errorf("%s: %s is not measured", k.name, p.kernel)
					}
					continue
				}
				for range 300 { // to the end of the rows and around
					call()
				}
				if c.bytes <= 0 || c.flops != 0 != (workOf(p.kernel).flops != 0) {
					t.Errorf("%s: %s costs %+v", k.name, p.kernel, c)
				}
			}
		}
	}
}

// TestCeilingsAreTheBestSpell: what else runs takes nine spells of ten, at times that have nothing to do with the
// works, and the rates are those of a machine that is free.
func TestCeilingsAreTheBestSpell(t *testing.T) {
	now := time.Unix(0, 0)
	calls := 0
	t1 := timing{least: time.Millisecond, rounds: 30, now: func() time.Time { return now }}
	work := func(took time.Duration) func(int) func() float64 {
		return func(int) func() float64 {
			return func() float64 {
				calls++
				if now = now.Add(took); calls > 1000 && now.UnixNano()/int64(5*time.Millisecond)%10 != 7 {
					now = now.Add(took) // the other half is another program's
				}
				return 1000
			}
		}
	}
	got := t1.best([]*effort{t1.effort(1, work(time.Microsecond)), t1.effort(1, work(4*time.Microsecond))})
	for i, want := range []float64{1e9, .25e9} {
		if math.Abs(got[i]/want-1) > 1e-9 {
			t.Errorf("effort %d reaches %v a second, want %v", i, got[i], want)
		}
	}
}

func TestLevels(t *testing.T) {
	sets := workingSets()
	for _, s := range sets {
		if got := levelOf(float64(s.Working)); got != s.Level {
			t.Errorf("%d bytes are of %s, want %s", s.Working, got, s.Level)
		}
	}
	if levelOf(1) != sets[0].Level || levelOf(1e12) != sets[len(sets)-1].Level {
		t.Error("what is smaller or larger than all has no level")
	}
}
