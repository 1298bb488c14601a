package tune

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const text = `
# what is searched
learning_rate: {from: 0.0001, to: 0.01, log: true}
hidden: ["64,64", 128]
layers: {from: 1, to: 4}
dropout: {from: 0, to: 0.5}
`

func space(t *testing.T) Space {
	t.Helper()
	s, err := Parse("s.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Check(put); err != nil {
		t.Fatal(err)
	}
	return s
}

// put takes the settings of text.
func put(c Choice) error {
	switch c.Name {
	case "layers":
		_, err := strconv.Atoi(c.Value)
		return err
	case "hidden":
		return nil
	case "learning_rate", "dropout":
		_, err := strconv.ParseFloat(c.Value, 64)
		return err
	}
	return fmt.Errorf("there is no setting %q", c.Name)
}

func TestParse(t *testing.T) {
	s := space(t)
	want := `dropout: {from: 0, to: 0.5}
hidden: ["64,64", 128]
layers: {from: 1, to: 4}
learning_rate: {from: 0.0001, to: 0.01, log: true}
`
	if s.String() != want {
		t.Errorf("got\n%s", s)
	}
	if !s[2].Whole || s[0].Whole || s[3].Whole {
		t.Errorf("whole numbers: %+v", s)
	}
	if again, err := Parse("again", []byte(s.String())); err != nil || again.String() != want {
		t.Errorf("%v\n%s", err, again)
	}
}

func TestParseFaults(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a: 1", "s.yaml:1: a: want a list of values, or {from: A, to: B}"},
		{"a: {from: 1}", "s.yaml:1: a: a range has from and to"},
		{"a: {from: 2, to: 1}", "a: from 2 is not below to 1"},
		{"a: {from: 0, to: 1, log: true}", "a: log wants from above 0, it is 0"},
		{"a: {from: x, to: 1}", `a: from: "x" is no number`},
		{"a: {from: 1, to: 2, step: 1}", "a: step: is not known: there are from, to and log"},
		{"a: {from: 1, to: 2, log: maybe}", "a: log: want true or false"},
		{"a: []", "a: the list is empty"},
		{"a: [[1, 2]]", "want plain values in the list"},
		{"a: [1]\n\nb: {from: 2, to: 2}", "s.yaml:3: b: from 2 is not below to 2"},
		{"- a", "s.yaml:1: want one setting a line"},
		{"", "it names no setting"},
		{"a: [1", "s.yaml:1:"},
	} {
		if _, err := Parse("s.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	s, err := Parse("s.yaml", []byte("layers: {from: 1, to: 2.5}\nwhat: [1]"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.Check(put); err == nil || !strings.Contains(err.Error(), "2.5") || !strings.Contains(err.Error(), `"what"`) {
		t.Errorf("%v", err)
	}
}

// Draws lie in their ranges, reach both ends of whole numbers, do not depend on the rest of the space, and are spread.
func TestDraw(t *testing.T) {
	s := space(t)
	seen := map[string]map[string]int{}
	below := 0
	for trial := range 400 {
		d := s.Draw(7, trial)
		for i, c := range d {
			if err := put(c); err != nil {
				t.Fatal(err)
			}
			if seen[c.Name] == nil {
				seen[c.Name] = map[string]int{}
			}
			seen[c.Name][c.Value]++
			if s[i].List == nil {
				v, err := strconv.ParseFloat(c.Value, 64)
				if err != nil || v < s[i].From || v > s[i].To {
					t.Fatalf("%v is not in %+v", c, s[i])
				}
				if c.Name == "learning_rate" && v < .001 {
					below++
				}
			}
		}
		if one := s[3:].Draw(7, trial); one[0] != d[3] {
			t.Fatalf("alone %v, among others %v", one[0], d[3])
		}
	}
	for n := 1; n <= 4; n++ {
		if k := seen["layers"][strconv.Itoa(n)]; k < 60 || k > 140 {
			t.Errorf("%d layers come %d times of 400", n, k)
		}
	}
	if len(seen["layers"]) != 4 || len(seen["hidden"]) != 2 || len(seen["dropout"]) < 350 {
		t.Errorf("%d layers, %d hidden, %d dropouts", len(seen["layers"]), len(seen["hidden"]), len(seen["dropout"]))
	}
	if below < 150 || below > 250 {
		t.Errorf("%d of 400 learning rates are below the middle of the logarithm", below)
	}
	if slices.Equal(s.Draw(7, 3), s.Draw(8, 3)) {
		t.Error("the seed does nothing")
	}
}

func TestRungs(t *testing.T) {
	for n, want := range map[int][]Rung{
		1: {{1, 1}}, 2: {{2, 1}}, 3: {{3, 1. / 3}, {1, 1}}, 8: {{8, 1. / 3}, {3, 1}}, 20: {{20, 1. / 3}, {7, 1}},
		27: {{27, 1. / 9}, {9, 1. / 3}, {3, 1}}, 50: {{50, 1. / 9}, {17, 1. / 3}, {6, 1}},
	} {
		if got := Rungs(n); !reflect.DeepEqual(got, want) {
			t.Errorf("%d trials: %v, want %v", n, got, want)
		}
	}
}

// valley is best near a learning rate of .001; what is trained longer shows it better. Some draws cannot be trained.
func valley(t Trial, share float64) Outcome {
	for _, c := range t.Settings {
		if c.Name == "dropout" {
			v, _ := strconv.ParseFloat(c.Value, 64)
			if v > .45 && share > .2 {
				return Outcome{Failed: "it diverged"}
			}
			return Outcome{Figure: share - (v-.2)*(v-.2), Epochs: int(18 * share), Best: 1}
		}
	}
	return Outcome{Figure: -1, Epochs: 1}
}

func options(s Space) Options {
	return Options{Space: s, Trials: 30, Seed: 3, Given: []Choice{{"dropout", "0.1"}}, Identity: "x", Parallel: 1,
		Train: func(_ context.Context, t Trial, share float64) (Outcome, error) { return valley(t, share), nil }}
}

// untimed is a result without its times.
func untimed(r *Result) *Result {
	for i := range r.Trials {
		r.Trials[i].Seconds = 0
	}
	return r
}

func TestSearch(t *testing.T) {
	o := options(space(t))
	r, err := Search(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	untimed(r)
	full, third, ninth := 0, 0, 0
	for i, x := range r.Trials {
		switch {
		case x.Failed != "":
			if i+1 < len(r.Trials) && r.Trials[i+1].Failed == "" {
				t.Errorf("trial %d failed and is before %d", x.ID, r.Trials[i+1].ID)
			}
		case x.Share == 1:
			full++
		case x.Share > .2:
			third++
		default:
			ninth++
		}
	}
	if full < 3 || full > 4 || third > 7 || full+third+ninth < 20 {
		t.Errorf("%d, %d, %d trials of each rung: %+v", full, third, ninth, r.Trials)
	}
	best := r.Trials[0]
	for _, x := range r.Trials {
		if x.Share == 1 && x.Figure > best.Figure {
			t.Errorf("trial %d is better than the first, %d", x.ID, best.ID)
		}
	}
	// In parallel, and stopped and resumed anywhere, it is the same.
	o.Parallel = 4
	if p, err := Search(t.Context(), o); err != nil || !reflect.DeepEqual(untimed(p), r) {
		t.Errorf("in parallel: %v\n%+v\n%+v", err, p, r)
	}
	for stop := 1; stop < 40; stop += 4 {
		o := options(o.Space)
		o.Journal = filepath.Join(t.TempDir(), "trials.json")
		ctx, cancel := context.WithCancel(t.Context())
		o.Parallel = 1 + stop%3
		var calls, again atomic.Int64
		o.Train = func(ctx context.Context, x Trial, share float64) (Outcome, error) {
			if calls.Add(1) == int64(stop) {
				cancel()
			}
			if ctx.Err() != nil {
				return Outcome{}, ctx.Err()
			}
			return valley(x, share), nil
		}
		_, err := Search(ctx, o)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at %d of the rungs: %v", stop, err)
		}
		o.Resume = true
		known := map[[2]int]bool{}
		o.Train = func(_ context.Context, x Trial, share float64) (Outcome, error) {
			again.Add(1)
			known[[2]int{x.ID, int(9 * share)}] = true
			return valley(x, share), nil
		}
		o.Parallel = 1
		p, err := Search(t.Context(), o)
		if err != nil || !reflect.DeepEqual(untimed(p), r) {
			t.Errorf("stopped at %d and resumed: %v\n%+v\n%+v", stop, err, p, r)
		}
		if int(again.Load()) > 44-stop+3 || len(known) != int(again.Load()) {
			t.Errorf("stopped at %d: %d rungs were trained again", stop, again.Load())
		}
	}
}

func TestSearchRefuses(t *testing.T) {
	o := options(space(t))
	o.Journal = filepath.Join(t.TempDir(), "trials.json")
	if _, err := Search(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.Resume = true
	for name, change := range map[string]func(*Options){
		"identity": func(o *Options) { o.Identity = "y" }, "seed": func(o *Options) { o.Seed++ },
		"trials": func(o *Options) { o.Trials++ }, "given": func(o *Options) { o.Given = nil },
	} {
		c := o
		change(&c)
		if _, err := Search(t.Context(), c); err == nil || !strings.Contains(err.Error(), "another search") {
			t.Errorf("another %s: %v", name, err)
		}
	}
	o.Resume = false
	o.Train = func(context.Context, Trial, float64) (Outcome, error) { return Outcome{Failed: "too hot"}, nil }
	var none *NoneTrained
	if _, err := Search(t.Context(), o); !errors.As(err, &none) || !strings.Contains(err.Error(), "none of the 30 trials could be trained; the first failed so: too hot") {
		t.Errorf("%v", err)
	}
	broken := errors.New("broken")
	o.Parallel = 3
	o.Trials = 7
	o.Train = func(ctx context.Context, x Trial, share float64) (Outcome, error) {
		if x.ID == 2 {
			return Outcome{}, broken
		}
		return valley(x, share), nil
	}
	if _, err := Search(t.Context(), o); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// Where the time is over, what got furthest is compared.
func TestSearchUntil(t *testing.T) {
	o := options(space(t))
	o.Until = time.Now().Add(40 * time.Millisecond)
	o.Train = func(_ context.Context, x Trial, share float64) (Outcome, error) {
		if x.ID == 7 { // the trial itself comes to the end of the time
			return Outcome{}, ErrTime
		}
		time.Sleep(3 * time.Millisecond)
		return valley(x, share), nil
	}
	r, err := Search(t.Context(), o)
	if err != nil || !r.Short || r.Trials[0].Rung == 0 {
		t.Errorf("%v %+v", err, r)
	}
	o.Until = time.Now().Add(-time.Second)
	if _, err := Search(t.Context(), o); err == nil || !strings.Contains(err.Error(), "longer --max-time") {
		t.Errorf("%v", err)
	}
}

func TestMean(t *testing.T) {
	m := Mean([]Outcome{{Figure: 1, Epochs: 3, Best: 2}, {Figure: 2, Epochs: 5, Best: 4}, {Figure: 3, Epochs: 4, Best: 1}})
	if m.Figure != 2 || m.Spread != 1 || m.Epochs != 5 || m.Best != 2 || !slices.Equal(m.Folds, []float64{1, 2, 3}) {
		t.Errorf("%+v", m)
	}
	if m := Mean([]Outcome{{Figure: 1}, {Failed: "x"}}); m.Failed != "x" {
		t.Errorf("%+v", m)
	}
}

// A search whose time is over before one trial is trained says how long the trials had and how long one takes.
func TestTimeForNoTrial(t *testing.T) {
	o := Options{Space: Must("a: [1, 2, 3]"), Trials: 4, Until: time.Now().Add(2*time.Hour + time.Minute)}
	o.Train = func(_ context.Context, x Trial, _ float64) (Outcome, error) {
		if x.ID == 1 {
			return Outcome{}, &Short{Epoch: 1500 * time.Millisecond, Epochs: 8}
		}
		return Outcome{}, ErrTime
	}
	_, err := Search(t.Context(), o)
	var none *NoTrial
	if !errors.As(err, &none) || none.Short == nil || none.Short.Needed() != 12*time.Second {
		t.Fatalf("%+v", err)
	}
	for _, want := range []string{"the trials had 2h0", "the 8 epochs that a trial takes first need about 12.0 s (1.50 s each)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	o.Until = time.Now().Add(-time.Second)
	if _, err := Search(t.Context(), o); !errors.As(err, &none) || none.Short != nil || none.Had != 0 ||
		!strings.Contains(err.Error(), "the trials had 0.00 s, in which none") {
		t.Errorf("no time at all: %v", err)
	}
}
