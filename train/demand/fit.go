package demand

import (
	"context"
	"math"

	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/program"
)

// fitting is one training of the network, of which a run has two: up to the folds, and up to the end.
type fitting struct {
	config     *Config
	backend    program.Backend
	seed       uint64
	checkpoint string
	resume     bool
	identity   []train.Fact
	progress   func(train.Progress)
	explain    func(*program.Set, program.Data)
}

// fitted is a trained network.
type fitted struct {
	set     *program.Set // forward only, standardisation inside
	weights program.Tensors
	result  *train.Result
	rows    int
}

// bind compiles the model and puts its rows, and those of valid behind them, in its columns.
func (f *fitting) bind(fit, valid *Rows, epochs int) (*program.Set, *standard, program.Data, error) {
	set, err := f.config.Compile(fit.Width, fit.Len())
	if err != nil {
		return nil, nil, program.Data{}, err
	}
	s := newStandard(fit)
	s.apply(fit)
	all := fit
	if valid != nil {
		s.apply(valid)
		all = &Rows{
			Width:  fit.Width,
			X:      append(fit.X, valid.X...),
			Target: append(fit.Target, valid.Target...),
			Weight: append(fit.Weight, valid.Weight...),
		}
	}
	n := all.Len()
	data := program.Data{
		Columns: []program.Column{
			{Name: columnX, Rows: n, Width: fit.Width, F32: all.X},
			{Name: columnTarget, Rows: n, Width: 1, F32: all.Target},
			{Name: columnWeight, Rows: n, Width: 1, F32: all.Weight},
		},
		Schedule: program.Schedule{Seed: f.seed, Train: program.Range{To: fit.Len()}},
	}
	data.Rates = f.config.rates(data.StepsPerEpoch(set.Train.Rows), epochs)
	return set, s, data, nil
}

// run trains on the rows of fit for at most epochs, choosing the epoch on valid where there is one.
func (f *fitting) run(ctx context.Context, fit, valid *Rows, epochs int) (*fitted, error) {
	rows := fit.Len()
	set, s, data, err := f.bind(fit, valid, epochs)
	if err != nil {
		return nil, err
	}
	if f.explain != nil {
		f.explain(set, data)
	}
	task := train.Task{
		Set: set, Data: data, Init: set.Initial(f.seed),
		Checkpoint: f.checkpoint, Identity: f.identity, Resume: f.resume, Progress: f.progress,
	}
	if valid != nil {
		task.Valid = program.Range{From: rows, To: data.Columns[0].Rows}
		target, weight := data.Columns[1].F32[rows:], data.Columns[2].F32[rows:]
		task.Judge = func(y []float32) float64 { return -pinball(y, target, weight, f.config.Levels) }
	}
	out := &fitted{rows: rows}
	if out.result, err = task.Run(ctx, f.backend); err != nil {
		return nil, err
	}
	if out.set, err = wrapped(set, fit.Width); err != nil {
		return nil, err
	}
	out.weights = append(append(program.Tensors{}, out.result.Weights...), s.tensors()...)
	out.weights.Sort()
	return out, nil
}

// pinball is the weighted mean pinball loss of outputs by row and level.
func pinball(y, target, weight []float32, levels []float64) float64 {
	var sum float64
	for i, t := range target {
		var row float64
		for l, q := range levels {
			d := float64(t) - float64(y[i*len(levels)+l])
			row += math.Max(q*d, (q-1)*d)
		}
		sum += row * float64(weight[i])
	}
	return sum / float64(len(target)*len(levels))
}

// net makes a fitted network ready to forecast.
func (m *fitted) net(d *forecaster.Design, levels int) (*forecaster.Net, error) {
	return forecaster.NewNet(d, levels, m.set.Forward, m.weights)
}
