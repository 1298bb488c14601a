package fraud

import (
	"context"
	"fmt"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
)

// fitting is one training of the network, of which a run has one or more.
type fitting struct {
	config  *Config
	backend program.Backend
	seed    uint64
	threads int
	log     []bool
	scales  []float64 // of the learning rate by epoch, as an earlier training found them
	explain func(*program.Set, program.Data)
	from    string // a part that may have trained the same before, see train.Part
	// do runs the task; nil runs it with nothing around it.
	do func(context.Context, *train.Task) (*train.Result, error)
}

// figureEpochs is over how many epochs the average precision on the validation rows is averaged before epochs are
// compared. With some 170 frauds to judge by, single epochs differ by noise, and the best of them is too early
// (docs/BENCHMARKS.md).
const figureEpochs = 3

// fitted is a trained network.
type fitted struct {
	set      *program.Set
	weights  program.Tensors
	standard *standard
	result   *train.Result
	// logits of the validation rows at the chosen epoch.
	logits []float64
}

// bindings are a model and the data for its training.
type bindings struct {
	set      *program.Set
	standard *standard
	pieces   *pieces
	x        []float32 // standardised rows that are trained on, and then of valid
	trained  int       // rows that are trained on
	data     program.Data
}

// bind compiles the model for the rows of fit and puts them, and those of valid behind them, in its columns.
func (f *fitting) bind(fit, valid *Rows, epochs int) (*bindings, error) {
	b := &bindings{standard: newStandard(fit, f.log)}
	if len(b.standard.constant) == len(fit.Features) {
		return nil, fmt.Errorf("each of the %d features has one value in all %d rows that are fitted: there is nothing to learn from; "+
			"take a longer range or other features", len(fit.Features), fit.Len())
	}
	width := len(fit.Features)
	var err error
	if b.pieces, err = newPieces(b.standard, fit, f.config.Pieces, f.threads); err != nil {
		return nil, err
	}
	fit, fraud, genuine := f.config.thinned(fit, f.seed)
	b.trained = fit.Len()
	all := fit
	if valid != nil {
		all = joined(fit, valid)
	}
	if b.x, err = b.standard.matrix(all.Values, all.Len(), f.threads); err != nil {
		return nil, err
	}
	if b.set, err = f.config.Compile(width, b.pieces.count(), b.trained); err != nil {
		return nil, err
	}
	b.data = program.Data{
		Columns: f.columns(b.x, all, fraud, genuine),
		Schedule: program.Schedule{
			Seed:  f.seed,
			Train: program.Range{To: b.trained},
		},
	}
	steps := b.data.StepsPerEpoch(b.set.Train.Rows)
	b.data.Rates = train.Scaled(f.config.Rates(steps, epochs), steps, f.scales)
	return b, nil
}

// run trains on the rows of fit for at most epochs, choosing the epoch on valid where there is one.
func (f *fitting) run(ctx context.Context, fit, valid *Rows, epochs int) (*fitted, error) {
	b, err := f.bind(fit, valid, epochs)
	if err != nil {
		return nil, err
	}
	if f.explain != nil {
		f.explain(b.set, b.data)
	}
	out := &fitted{set: b.set, standard: b.standard}
	task := train.Task{
		Set: b.set, Data: b.data, Init: b.initial(f.seed), Patience: f.config.Patience, Average: figureEpochs,
	}
	if f.scales == nil {
		task.Plateau = f.config.Plateau()
	}
	if valid != nil {
		task.Valid = program.Range{From: b.trained, To: b.trained + valid.Len()}
		scores := make([]float64, valid.Len())
		task.Judge = func(z []float32) float64 {
			for i, v := range z {
				scores[i] = float64(v)
			}
			return train.AveragePrecision(valid.Y, scores)
		}
		// The output is the mean of the towers' logits, and the loss the sum of theirs.
		task.Loss = func(z []float32) float64 {
			return float64(f.config.Towers) * logLoss(z, valid.Y, f.config.PositiveWeight)
		}
	}
	do := f.do
	if do == nil {
		do = func(ctx context.Context, t *train.Task) (*train.Result, error) { return t.Run(ctx, f.backend) }
	}
	if out.result, err = do(ctx, &task); err != nil {
		return nil, err
	}
	out.weights = append(out.result.Weights, b.pieces.tensors(len(fit.Features))...)
	out.weights.Sort()
	if valid != nil {
		out.logits, err = out.logitsOf(b.x[b.trained*len(fit.Features):], valid.Len())
	}
	return out, err
}

// logitsOf runs the chosen weights over standardised rows, as the training's own Eval does.
func (m *fitted) logitsOf(x []float32, rows int) ([]float64, error) {
	f, err := cpu.NewForward(m.set.Served(), m.weights)
	if err != nil {
		return nil, err
	}
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	z := make([]float64, rows)
	return z, f.Run(wide, rows, z)
}

// initial is the first weights and the constants.
func (b *bindings) initial(seed uint64) program.Tensors {
	ts := append(b.set.Initial(seed), b.pieces.tensors(len(b.standard.mean))...)
	ts.Sort()
	return ts
}

// columns binds features, labels and weights of the rows: what a fraud and what another row counts.
func (f *fitting) columns(x []float32, rows *Rows, fraud, genuine float64) []program.Column {
	n := rows.Len()
	y := make([]float32, n)
	for i, v := range rows.Y {
		y[i] = float32(btoi(v))
	}
	columns := []program.Column{
		{Name: columnX, Rows: n, Width: len(rows.Features), F32: x},
		{Name: columnY, Rows: n, Width: 1, F32: y},
	}
	if f.config.weighted() {
		w := make([]float32, n)
		for i, v := range rows.Y {
			w[i] = float32(genuine)
			if v {
				w[i] = float32(fraud)
			}
		}
		columns = append(columns, program.Column{Name: columnWeight, Rows: n, Width: 1, F32: w})
	}
	return columns
}

// joined is the rows of a and then of b, which have the same Cards.
func joined(a, b *Rows) *Rows {
	r := &Rows{Cards: a.Cards, Features: a.Features, Values: make([][]float64, len(a.Values))}
	r.Time = append(append(r.Time, a.Time...), b.Time...)
	r.Card = append(append(r.Card, a.Card...), b.Card...)
	r.Y = append(append(r.Y, a.Y...), b.Y...)
	for f := range r.Values {
		r.Values[f] = append(append(r.Values[f], a.Values[f]...), b.Values[f]...)
	}
	return r
}

// checkClasses refuses rows of one class with what to do about it.
func checkClasses(what string, rows *Rows) error {
	n, pos := rows.Len(), rows.Positives()
	switch {
	case n == 0:
		return fmt.Errorf("%s: no rows", what)
	case rows.Unlabelled() == n:
		return fmt.Errorf("%s: none of the %d rows has a label: import the transactions with a mapping of %s", what, n, datasets.IsFraud)
	case pos == 0:
		return fmt.Errorf("%s: none of the %d rows is a fraud (%d have no label): nothing can be learned from one class; take a longer range", what, n, rows.Unlabelled())
	case pos == n:
		return fmt.Errorf("%s: all %d rows are frauds: nothing can be learned from one class; take a longer range", what, n)
	}
	return nil
}
