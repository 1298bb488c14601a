package fraud

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/traintest"
)

// network is the classifier of a configuration with made-up rows that it can learn, for so many steps.
func network(t testing.TB, c Config, rows, steps int) traintest.Case {
	t.Helper()
	const width = 15
	set, err := c.Compile(width, 0, rows)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	x, y, w := make([]float32, rows*width), make([]float32, rows), make([]float32, rows)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range y {
		y[i] = float32(btoi(x[i*width]*x[i*width+1]+x[i*width+2] > 1))
		w[i] = 1 + y[i]*float32(c.PositiveWeight-1)
	}
	columns := []program.Column{
		{Name: columnX, Rows: rows, Width: width, F32: x}, {Name: columnY, Rows: rows, Width: 1, F32: y},
	}
	if c.PositiveWeight != 1 {
		columns = append(columns, program.Column{Name: columnWeight, Rows: rows, Width: 1, F32: w})
	}
	return traintest.Case{Set: set, Learns: .1, Data: program.Data{
		Columns: columns, Schedule: program.Schedule{Seed: 3, Train: program.Range{To: rows}, Rates: c.Rates(steps, 1)},
	}}
}

// TestDefaultNetwork is the network that is trained unless told otherwise, for 200 steps.
func TestDefaultNetwork(t *testing.T) {
	steps := 200
	if testing.Short() {
		steps = 20
	}
	traintest.Run(t, network(t, DefaultConfig(), 2000, steps))
}

// TestWeightedNetwork has the other activation, one tower, weights, and a batch that leaves a rest of one row.
func TestWeightedNetwork(t *testing.T) {
	c := DefaultConfig()
	c.Hidden, c.Activation, c.Towers, c.Batch, c.PositiveWeight, c.LearningRate = []int{33, 5}, "relu", 1, 64, 3, 1e-2
	traintest.Run(t, network(t, c, 321, 60))
}

// TestTrainOnTheGPU is a whole training, and the same one on a device that is lost in the middle, with the resume.
func TestTrainOnTheGPU(t *testing.T) {
	o := quick(t, &notes{})
	reference, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := model.Open(traintest.TaskOnGPU(t, task))
	if err != nil {
		t.Fatal(err)
	}
	got, want := a.Manifest().Validation.Metrics["average_precision"], reference.Validation["average_precision"]
	if !(math.Abs(got-want) < .02) {
		t.Errorf("average precision %v, on the CPU %v", got, want)
	}
	if got := a.Manifest().Created.Backend; !strings.HasPrefix(got, "cuda sm_") {
		t.Errorf("the artifact was made on %q", got)
	}
}
