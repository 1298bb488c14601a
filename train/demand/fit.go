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
	config  *Config
	backend program.Backend
	seed    uint64
	scales  []float64 // of the learning rate by epoch, as an earlier training found them
	explain func(*program.Set, program.Data)
	// do runs the task; nil runs it with nothing around it.
	do func(context.Context, *train.Task) (*train.Result, error)
}

// fitted is a trained network.
type fitted struct {
	set     *program.Set // forward only, standardisation inside
	plain   *program.Set // as it was trained
	weights program.Tensors
	result  *train.Result
	rows    int
}

// prepared is rows as they are bound: standardised, those that judge behind those that are fitted. Several trainings share
// them.
type prepared struct {
	*Rows
	standard *standard
	fit      int // of the rows
}

// prepare standardises the rows of fit and valid, in their place, and joins them.
func prepare(fit, valid *Rows) *prepared {
	p := &prepared{Rows: fit, standard: newStandard(fit), fit: fit.Len()}
	p.standard.apply(fit)
	if valid == nil {
		return p
	}
	p.standard.apply(valid)
	p.Rows = &Rows{
		Width:  fit.Width,
		X:      append(fit.X, valid.X...),
		Target: append(fit.Target, valid.Target...),
		Weight: append(fit.Weight, valid.Weight...),
	}
	return p
}

// bind compiles the model and binds the rows to it.
func (f *fitting) bind(p *prepared, epochs int) (*program.Set, program.Data, error) {
	set, err := f.config.Compile(p.Width, p.fit)
	if err != nil {
		return nil, program.Data{}, err
	}
	n := p.Len()
	data := program.Data{
		Columns: []program.Column{
			{Name: columnX, Rows: n, Width: p.Width, F32: p.X},
			{Name: columnTarget, Rows: n, Width: 1, F32: p.Target},
			{Name: columnWeight, Rows: n, Width: 1, F32: p.Weight},
		},
		Schedule: program.Schedule{Seed: f.seed, Train: program.Range{To: p.fit}},
	}
	steps := data.StepsPerEpoch(set.Train.Rows)
	data.Rates = train.Scaled(f.config.Rates(steps, epochs), steps, f.scales)
	return set, data, nil
}

// run trains on the rows that are fitted for at most epochs, choosing the epoch on the others where there are any.
func (f *fitting) run(ctx context.Context, p *prepared, epochs int) (*fitted, error) {
	set, data, err := f.bind(p, epochs)
	if err != nil {
		return nil, err
	}
	if f.explain != nil {
		f.explain(set, data)
	}
	task := train.Task{Set: set, Data: data, Init: set.Initial(f.seed)}
	if f.scales == nil {
		task.Plateau = f.config.Plateau()
	}
	if p.fit < p.Len() {
		task.Valid = program.Range{From: p.fit, To: p.Len()}
		target, weight := p.Target[p.fit:], p.Weight[p.fit:]
		task.Judge = func(y []float32) float64 { return -pinball(y, target, weight, f.config.Levels) }
	}
	do := f.do
	if do == nil {
		do = func(ctx context.Context, t *train.Task) (*train.Result, error) { return t.Run(ctx, f.backend) }
	}
	out := &fitted{rows: p.fit, plain: set}
	if out.result, err = do(ctx, &task); err != nil {
		return nil, err
	}
	if out.set, err = wrapped(set, p.Width); err != nil {
		return nil, err
	}
	out.weights = append(append(program.Tensors{}, out.result.Weights...), p.standard.tensors()...)
	out.weights.Sort()
	return out, nil
}

// together is the networks of several seeds as one, whose quantiles are the means of theirs.
func together(nets []*fitted, width int) (*fitted, error) {
	first := nets[0]
	if len(nets) == 1 {
		return first, nil
	}
	set, err := program.Average(first.plain, len(nets))
	if err != nil {
		return nil, err
	}
	var members []program.Tensors
	for _, m := range nets {
		members = append(members, m.weights)
	}
	out := &fitted{weights: program.Members(first.plain, members), result: first.result, rows: first.rows}
	out.set, err = wrapped(set, width)
	return out, err
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
