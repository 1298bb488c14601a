package train

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/graph"
)

func TestRates(t *testing.T) {
	o := DefaultOptim(.1)
	o.WarmUp = .2
	falls := func() bool { return o.Schedule == cosine || o.Schedule == oneCycle }
	for _, s := range schedules {
		o.Schedule = s
		r := o.Rates(50, 10)
		peak := slices.Max(r)
		if len(r) != 500 || !(peak <= .1 && peak > .0999) {
			t.Fatalf("%s: %d rates up to %v", s, len(r), peak)
		}
		at := slices.Index(r, peak)
		if at < 95 || at > 105 {
			t.Errorf("%s: greatest rate in step %d, want 100", s, at)
		}
		if !slices.IsSorted(r[:at]) {
			t.Errorf("%s: the warm-up does not rise", s)
		}
		if !falls() {
			if r[499] != peak {
				t.Errorf("%s ends at %v", s, r[499])
			}
		} else if !(r[499] < 1e-5) {
			t.Errorf("%s ends at %v, want about 0", s, r[499])
		}
		if short := o.Rates(50, 4); len(short) != 200 || falls() && !(short[199] < 1e-4) {
			t.Errorf("%s: four epochs end at %v", s, short[199])
		}
		if (o.Plateau() != nil) != (s == plateau) {
			t.Errorf("%s: the loop gets %v", s, o.Plateau())
		}
	}
	o.Schedule = oneCycle
	if r := o.Rates(50, 10)[0]; !(math.Abs(float64(r)-.004) <= 1e-4) {
		t.Errorf("a one-cycle begins at %v, want a 25th", r)
	}
	o.WarmUp = 0
	if r := o.Rates(50, 10)[0]; !(r > .0999) {
		t.Errorf("without a warm-up it begins at %v", r)
	}
}

func TestPlateauScales(t *testing.T) {
	for _, c := range []struct {
		patience int
		figures  []float64
		want     []float64
	}{
		{2, nil, []float64{1}},
		{2, []float64{1, 2, 3, 4}, []float64{1, 1, 1, 1, 1}},
		{2, []float64{3, 2, 1, 1, 1, 4, 4, 4}, []float64{1, 1, 1, .5, .5, .25, .25, .25, .125}},
		{1, []float64{-1, -1, -.5, -.6}, []float64{1, 1, .5, .5, .25}},
	} {
		p := Plateau{Factor: .5, Patience: c.patience}
		got := p.scales(c.figures)
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.figures, got, c.want)
		}
		for n := range c.figures { // what is known in the middle does not change later
			if early := p.scales(c.figures[:n]); !slices.Equal(early, c.want[:n+1]) {
				t.Errorf("%v of %v: %v, want %v", n, c.figures, early, c.want[:n+1])
			}
		}
	}
	if got := Scaled([]float32{1, 2, 3, 4, 5, 6}, 2, []float64{1, .5}); !slices.Equal(got, []float32{1, 2, 1.5, 2, 2.5, 3}) {
		t.Errorf("scaled %v", got)
	}
}

// TestOptimSettings: every name is an optimizer that compiles, and what is refused is said.
func TestOptimSettings(t *testing.T) {
	type config struct{ Optim }
	set := func(pairs ...string) (*config, error) {
		c := &config{DefaultOptim(.1)}
		settings := OptimSettings(func(c *config) *Optim { return &c.Optim })
		return c, errors.Join(Set(c, settings, pairs), c.Check())
	}
	for name, want := range map[string]graph.Optimizer{
		"adamw":   graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: .5},
		"adam":    graph.Adam{Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: .5},
		"sgd":     graph.SGD{Momentum: .9, Decay: .5},
		"adagrad": graph.Adagrad{Eps: 1e-8, Decay: .5},
	} {
		c, err := set("optimizer="+name, "weight_decay=.5", "clip_norm=2", "ema=.9")
		if err != nil {
			t.Fatal(err)
		}
		o := c.Options(1, 2, 3)
		if o.Batch != 1 || o.Rows != 2 || o.Tile != 3 || o.Optimizer != want || o.ClipNorm != 2 || o.Average != .9 {
			t.Errorf("%s: %+v", name, o)
		}
	}
	if len(optimizers) != 4 {
		t.Errorf("optimizers without a test: %v", optimizers)
	}
	for pair, want := range map[string]string{
		"optimizer=lamb": "want one of adamw, adam, sgd, adagrad", "schedule=step": "want one of one-cycle, cosine, constant, plateau",
		"ema=1": "want a number from 0 to 0.99999", "clip_norm=-1": "want a number from 0 to 1e+09", "momentum=1": "to 0.9999",
		"nesterov=true": "set optimizer=sgd and a momentum above 0", "plateau_patience=0": "from 1 to 10000",
	} {
		if _, err := set(pair); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", pair, err, want)
		}
	}
	if _, err := set("optimizer=sgd", "nesterov=true"); err != nil {
		t.Error(err)
	}
}
