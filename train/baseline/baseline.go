// Package baseline holds the classical models that a trained one has to beat: logistic regression, one
// decision tree, and an isolation forest that sees no labels.
//
// Features enter as columns of finite numbers, best standardised; scores leave, greater for more
// suspicious. The tree and the forest are golearn's, of which only package trees is used: others need
// cgo, pair rows with the wrong labels or panic. It may not be assumed that golearn checks its input,
// so this package does, and turns its panics into errors.
package baseline

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Model is one baseline. Fit and Score take features as columns: x[f][row].
type Model interface {
	// Name is what tables print; Key is the same in snake_case, for JSON.
	Name() string
	Key() string
	// Probabilities tells whether scores are probabilities of fraud, so that log loss means something.
	Probabilities() bool
	// Fit learns from rows x with labels y. The same seed gives the same model. It returns what a reader
	// should know about the fit, such as rows left out; empty where there is nothing.
	Fit(x [][]float64, y []bool, seed uint64) (note string, err error)
	// Score gives one score a row.
	Score(x [][]float64) ([]float64, error)
}

// All returns the baselines, unfitted, in the order of tables.
func All() []Model {
	return []Model{&Logistic{}, &Tree{}, &Forest{}}
}

// check refuses what the models cannot take and returns the number of rows.
func check(x [][]float64, y []bool) (rows int, err error) {
	if len(x) == 0 || len(x[0]) == 0 {
		return 0, fmt.Errorf("baseline: no rows or no features")
	}
	rows = len(x[0])
	for f, column := range x {
		if len(column) != rows {
			return 0, fmt.Errorf("baseline: feature %d has %d rows, feature 0 has %d", f, len(column), rows)
		}
		for i, v := range column {
			if v-v != 0 {
				return 0, fmt.Errorf("baseline: feature %d is %v in row %d: only finite numbers can be learned from", f, v, i)
			}
		}
	}
	if y == nil {
		return rows, nil
	}
	if len(y) != rows {
		return 0, fmt.Errorf("baseline: %d labels for %d rows", len(y), rows)
	}
	return rows, nil
}

// checkClasses is check for a model that needs both classes.
func checkClasses(x [][]float64, y []bool) (rows, positives int, err error) {
	rows, err = check(x, y)
	if err != nil {
		return 0, 0, err
	}
	for _, v := range y {
		positives += btoi(v)
	}
	if positives == 0 || positives == rows {
		return 0, 0, fmt.Errorf("baseline: %d of %d rows are positive: both classes are needed", positives, rows)
	}
	return rows, positives, nil
}

// sample picks at most limit rows: all of the rarer class where it fits in half, the rest at random.
func sample(y []bool, limit int, seed uint64) []int {
	var classes [2][]int
	for i, v := range y {
		classes[btoi(v)] = append(classes[btoi(v)], i)
	}
	rare, often := classes[1], classes[0]
	if len(rare) > len(often) {
		rare, often = often, rare
	}
	if len(y) <= limit {
		return append(rare, often...)
	}
	r := rand.New(rand.NewPCG(seed, 0))
	shuffle(r, rare)
	shuffle(r, often)
	n := min(len(rare), limit/2)
	return append(rare[:n:n], often[:limit-n]...)
}

func shuffle(r *rand.Rand, s []int) {
	r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

// recovered turns a panic of golearn into an error; defer it with the error to set.
func recovered(what string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("baseline: %s failed inside golearn: %v", what, r)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func sigmoid(z float64) float64 { return 1 / (1 + math.Exp(-z)) }
