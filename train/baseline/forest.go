package baseline

import (
	"fmt"
	"math/rand"
	"slices"
	"sync"

	"github.com/sjwhitworth/golearn/trees"
)

const (
	// forestRows bounds the rows that golearn keeps; it draws each tree's sample from them.
	forestRows = 20_000
	// The forest of Liu, Ting & Zhou 2008: 100 trees on 256 rows each, to depth log2(256).
	forestTrees  = 100
	forestSample = 256
	forestDepth  = 8
)

// Forest is golearn's isolation forest (Liu, Ting & Zhou 2008): it never sees a label and scores how odd
// a row is. Scores are in 0..1 but are no probabilities.
type Forest struct {
	forest   trees.IsolationForest
	features int
}

func (*Forest) Name() string        { return "isolation forest (golearn)" }
func (*Forest) Key() string         { return "isolation_forest" }
func (*Forest) Probabilities() bool { return false }

// globalRand guards math/rand's generator, the only one that golearn draws from.
var globalRand sync.Mutex

// Fit takes y for its length only.
func (m *Forest) Fit(x [][]float64, y []bool, seed uint64) (note string, err error) {
	rows, err := check(x, y)
	if err != nil {
		return "", err
	}
	m.features = len(x)
	chosen := sample(make([]bool, rows), forestRows, seed) // one class for all: the labels stay out
	defer recovered("the isolation forest", &err)
	// The class attribute that golearn asks for is treated as one more feature, so a feature takes the
	// place, never the label.
	g, err := grid(m.columns(x), chosen)
	if err != nil {
		return "", err
	}
	m.forest = trees.NewIsolationForest(forestTrees, forestDepth, min(forestSample, len(chosen)))
	globalRand.Lock()
	defer globalRand.Unlock()
	rand.Seed(int64(seed)) //lint:ignore SA1019 golearn draws from the global generator; go.mod has randseednop=0
	m.forest.Fit(g)
	if len(chosen) < rows {
		note = fmt.Sprintf("draws its trees from %d of %d rows", len(chosen), rows)
	}
	return note, nil
}

// columns gives a lone feature a constant companion: golearn wants a class attribute beside the features.
func (m *Forest) columns(x [][]float64) [][]float64 {
	if len(x) > 1 {
		return x
	}
	return append(slices.Clone(x), make([]float64, len(x[0])))
}

// Score gives the anomaly score.
func (m *Forest) Score(x [][]float64) (scores []float64, err error) {
	rows, err := check(x, nil)
	if err != nil {
		return nil, err
	}
	if len(x) != m.features {
		return nil, fmt.Errorf("baseline: %d features, fitted on %d", len(x), m.features)
	}
	defer recovered("the isolation forest", &err)
	g, err := grid(m.columns(x), everyRow(rows))
	if err != nil {
		return nil, err
	}
	return m.forest.Predict(g), nil
}
