package train

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/train/tune"
)

// A budget in which no trial can be trained is refused with what one takes and what would do: 100 epochs of 36 s are an
// hour, of which trials have three fifths, and a twentieth more. What ends them is what a run says of its budget, whether
// it came before the first epoch was done or after some.
func TestMaxTimeForNoTrial(t *testing.T) {
	for name, end := range map[string]func() (tune.Outcome, error){
		"before the first epoch": func() (tune.Outcome, error) {
			return Unfit(&TooShort{Total: time.Minute, Epoch: 36 * time.Second}, 100)
		},
		"after two epochs": func() (tune.Outcome, error) {
			return OutcomeOf(&Result{Budgeted: true, Epochs: []Epoch{{Seconds: 35}, {Seconds: 37}}}, 100)
		},
	} {
		if _, err := end(); !errors.Is(err, tune.ErrTime) {
			t.Errorf("%s: %v ends more than the search", name, err)
		}
		o := Running{MaxTime: time.Minute, Start: time.Now(), Trials: 3, Space: tune.Must("a: [1, 2]")}
		s := o.Session(Output{Dir: filepath.Join(t.TempDir(), "m")}, nil, nil)
		if err := s.Begin(nil); err != nil {
			t.Fatal(err)
		}
		u := Tuning{Running: o, Space: o.Space, Figure: "f",
			Train: func(context.Context, tune.Trial, float64) (tune.Outcome, error) { return end() }}
		_, err := u.Run(t.Context(), s)
		if err == nil {
			t.Fatalf("%s: a search without a trial went through", name)
		}
		for _, want := range []string{"the 100 epochs that a trial takes first need about 1h00m (36.0 s each)",
			"of --max-time 1m0s the trials have 60 % of what is left", "give --max-time 1h4"} { // 1h45m, or more by the start
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in: %v", name, want, err)
			}
		}
	}
}
