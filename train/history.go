package train

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/tune"
)

// History is how a model came to be: the courses of its runs and the trials before them. An artifact keeps it without what
// differs from run to run, so that equal trainings give equal artifacts.
type History struct {
	Curves []Curve      `json:"curves"`
	Tuning *tune.Result `json:"tuning,omitempty"`
}

// HistoryFile is the artifact's file of a history.
func HistoryFile(curves []Curve, tuning *tune.Result) map[string]func(io.Writer) error {
	h := History{Curves: curves}
	if tuning != nil {
		t := *tuning
		t.Trials = append([]tune.Trial(nil), t.Trials...)
		for i := range t.Trials {
			t.Trials[i].Seconds = 0
		}
		h.Tuning = &t
	}
	return map[string]func(io.Writer) error{model.TrainingFile: func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(h)
	}}
}

// ReadHistory is the history of an artifact, nil of one that was made before there was any.
func ReadHistory(a *model.Artifact) (*History, error) {
	if _, ok := a.Manifest().Files[model.TrainingFile]; !ok {
		return nil, nil
	}
	b, err := a.ReadFile(model.TrainingFile)
	if err != nil {
		return nil, err
	}
	h := &History{}
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("model %s: %s: %w", a.Dir(), model.TrainingFile, err)
	}
	return h, nil
}
