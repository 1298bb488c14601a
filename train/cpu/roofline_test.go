package cpu

import (
	"math"
	"reflect"
	"strings"
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
	// The kernels of tables are measured as instructions of whole steps: see bench kernels --instructions.
	for _, name := range m.Missing {
		if !strings.HasPrefix(name, "embed.") {
			t.Errorf("%s is said to be missing", name)
		}
	}
	if want := reflect.TypeFor[embedKernels]().NumField(); len(m.Missing) != want {
		t.Errorf("%d kernels are said to be missing, want the %d of tables: %v", len(m.Missing), want, m.Missing)
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
