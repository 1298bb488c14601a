package fraud

import (
	"fmt"
	"math"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/train"
)

// fold is rows to fit and later rows to judge by.
type fold struct {
	Split
	fit, valid *Rows
}

// FoldSummary is a fold for --json, with the figures of the network that was trained on its part.
type FoldSummary struct {
	Fit   string `json:"fit"`
	Valid string `json:"valid"`
	// Epoch is the best one there, of all seeds together. Validation is of each network at its own best one.
	Epoch      int                `json:"epoch"`
	Validation map[string]float64 `json:"validation"`
}

// MaxFolds bounds --folds: each is a training.
const MaxFolds = 50

// rolling divides a range of training into folds of rolling origin (Tashman 2000), in the order of time: the last parts of
// the range judge, one after the other, each what was fitted on all that lies before it and a gap as long as the delay.
// One fold is split's, whose gap gives way in a short range; more want the whole delay between.
func rolling(r datasets.Range, delay int64, folds int) ([]Split, error) {
	if folds <= 1 {
		s, err := split(r, delay)
		return []Split{s}, err
	}
	unit := unitOf(r)
	if unit == 0 {
		return nil, fmt.Errorf("--train %s is too short for %d folds", r, folds)
	}
	length := (r.To - r.From) / unit
	fit := int64(math.Ceil(leastFit * float64(length)))
	gap := (delay + unit - 1) / unit
	valid := min(int64(math.Ceil(validShare*float64(length))), (length-gap-fit)/int64(folds))
	if valid < 1 {
		return nil, fmt.Errorf("--train %s is too short for %d folds behind a delay of %s: half of it is fitted on, and nothing "+
			"is left to judge; give fewer --folds or a longer --train", r, folds, datasets.FormatDuration(delay))
	}
	var out []Split
	for k := folds; k >= 1; k-- {
		from := r.To - int64(k)*valid*unit
		out = append(out, Split{Gap: delay,
			Valid: datasets.Range{From: from, To: from + valid*unit},
			Fit:   datasets.Range{From: r.From, To: from - delay}})
	}
	return out, nil
}

// splitTrain takes the folds out of the rows of --train.
func (t *trainer) splitTrain() error {
	delay := t.Source.Delay
	splits, err := rolling(t.span, delay, t.Folds)
	if err != nil {
		return err
	}
	for k, s := range splits {
		f := fold{Split: s, fit: t.rows.In(s.Fit), valid: t.rows.In(s.Valid)}
		name := ""
		if len(splits) > 1 {
			name = fmt.Sprintf("fold %d of %d: ", k+1, len(splits))
		}
		why, end := "", ""
		if s.Gap < delay {
			why = fmt.Sprintf("; the range is too short for the delay of %s between them, the gap is %s", datasets.FormatDuration(delay), datasets.FormatDuration(s.Gap))
		}
		if k == len(splits)-1 {
			end = fmt.Sprintf("; then all of %s (%s) is trained on", t.span, describe(t.rows))
		}
		t.Note("%sepochs are chosen by training on %s (%s) and judging on %s (%s)%s%s",
			name, s.Fit, describe(f.fit), s.Valid, describe(f.valid), why, end)
		for what, rows := range map[string]*Rows{"fitted on": f.fit, "judged on": f.valid} {
			if err := checkClasses(fmt.Sprintf("--train %s, the part that is %s to choose the epoch", t.span, what), rows); err != nil {
				return fmt.Errorf("%s%w, or give --valid", name, err)
			}
		}
		t.folds = append(t.folds, f)
	}
	t.split = t.folds[len(t.folds)-1].Split
	return nil
}

// label names a run among those of all folds and seeds, for people, and part for its checkpoint.
func (t *trainer) label(what string, folds, k, seed int) (label, part string) {
	part = what
	switch what {
	case "choose":
		label = "training"
	default:
		label = what
	}
	if folds > 1 {
		label += fmt.Sprintf(", fold %d of %d", k+1, folds)
		part += fmt.Sprintf("-fold%d", k+1)
	}
	if n := t.Ensemble(); n > 1 {
		label += fmt.Sprintf(", seed %d of %d", seed+1, n)
		part += fmt.Sprintf("-seed%d", seed+1)
	}
	return label, part
}

// foldMetrics judges each fold and says what the folds came to together: the mean of each figure, and its deviation.
func foldMetrics(folds []fold, logits [][]float64, best []int, c *chosen, perDay float64) ([]FoldSummary, map[string]float64, map[string]float64) {
	var out []FoldSummary
	mean, spread := map[string]float64{}, map[string]float64{}
	for k, f := range folds {
		e := Evaluate(f.valid, c.probabilities(logits[k]), Protocol{AlertsPerDay: perDay, Threshold: c.threshold})
		out = append(out, FoldSummary{Fit: f.Fit.String(), Valid: f.Valid.String(), Epoch: best[k], Validation: e.Metrics()})
	}
	for name := range out[0].Validation {
		var xs []float64
		for _, f := range out {
			if x, ok := f.Validation[name]; ok {
				xs = append(xs, x)
			}
		}
		if len(xs) == len(out) { // a figure that one fold lacks has no mean
			mean[name], spread[name] = train.MeanSpread(xs)
		}
	}
	if len(out) == 1 {
		return nil, mean, nil
	}
	return out, mean, spread
}

func describe(r *Rows) string {
	return fmt.Sprintf("%s rows, %s frauds", progress.Count(int64(r.Len())), progress.Count(int64(r.Positives())))
}
