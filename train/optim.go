package train

import (
	"errors"
	"math"

	"github.com/onmart/onmart/train/graph"
)

// Names of optimizers and schedules that settings take.
const (
	adamW   = "adamw"
	adam    = "adam"
	sgd     = "sgd"
	adagrad = "adagrad"

	constant = "constant"
	cosine   = "cosine"
	oneCycle = "one-cycle"
	plateau  = "plateau"
)

var schedules = []string{oneCycle, cosine, constant, plateau}

// Optim is how the weights of a network are found: the part of a task's config that all tasks share.
type Optim struct {
	Optimizer       string  // adamw, adam, sgd or adagrad
	LearningRate    float64 // the greatest
	Schedule        string  // of the learning rate: one-cycle, cosine, constant or plateau
	WarmUp          float64 // share of the steps in which the rate rises
	Momentum        float64 // of sgd
	Nesterov        bool    // of sgd
	Beta1, Beta2    float64 // of adam and adamw
	Epsilon         float64 // of adam, adamw and adagrad
	WeightDecay     float64 // decoupled with adamw, else a part of the gradient
	PlateauFactor   float64
	PlateauPatience int
	ClipNorm        float64 // 0: no clipping
	EMA             float64 // decay of the average of the weights; 0: none
}

// DefaultOptim is AdamW with the betas of its authors, annealed by a cosine.
func DefaultOptim(learningRate float64) Optim {
	return Optim{
		Optimizer: adamW, LearningRate: learningRate, Schedule: cosine, WarmUp: .1, Momentum: .9,
		Beta1: .9, Beta2: .999, Epsilon: 1e-8, PlateauFactor: .5, PlateauPatience: 3,
	}
}

// optimizers are the names that the setting optimizer takes.
var optimizers = []string{adamW, adam, sgd, adagrad}

// OptimSettings are the settings of the Optim in a task's config.
func OptimSettings[C any](at func(*C) *Optim) []Setting[C] {
	number := func(name, words string, least, most float64, field func(*Optim) *float64) Setting[C] {
		return Number(name, words, least, most, func(c *C) *float64 { return field(at(c)) })
	}
	return []Setting[C]{
		Choice("optimizer", "what makes a step of the gradients", optimizers, func(c *C) *string { return &at(c).Optimizer }),
		number("learning_rate", "the greatest learning rate", 1e-8, 10, func(o *Optim) *float64 { return &o.LearningRate }),
		Choice("schedule", "course of the learning rate", schedules, func(c *C) *string { return &at(c).Schedule }),
		number("warm_up", "share of the steps in which the learning rate rises", 0, .9,
			func(o *Optim) *float64 { return &o.WarmUp }),
		Count("plateau_patience", "epochs without a better figure after which the plateau schedule lowers the rate", 1, 10_000,
			func(c *C) *int { return &at(c).PlateauPatience }),
		number("plateau_factor", "what the plateau schedule lowers the rate to, of itself", .001, .999,
			func(o *Optim) *float64 { return &o.PlateauFactor }),
		number("momentum", "sgd's: how much of the last step is in the next", 0, .9999,
			func(o *Optim) *float64 { return &o.Momentum }),
		Flag("nesterov", "sgd's momentum is Nesterov's: true or false", func(c *C) *bool { return &at(c).Nesterov }),
		number("beta1", "adam's and adamw's decay of the mean gradient", 0, .9999,
			func(o *Optim) *float64 { return &o.Beta1 }),
		number("beta2", "adam's and adamw's decay of the mean squared gradient", 0, .999999,
			func(o *Optim) *float64 { return &o.Beta2 }),
		number("epsilon", "adam's, adamw's and adagrad's floor of the denominator", 1e-12, 1,
			func(o *Optim) *float64 { return &o.Epsilon }),
		number("weight_decay", "of the weights: adamw's decay, per step times the learning rate; with the others a part of the gradient", 0, 10,
			func(o *Optim) *float64 { return &o.WeightDecay }),
		number("clip_norm", "greatest norm of all gradients together; 0 clips nothing", 0, 1e9,
			func(o *Optim) *float64 { return &o.ClipNorm }),
		number("ema", "decay of a moving average of the weights, which is judged and exported in their place; 0 for none", 0, .99999,
			func(o *Optim) *float64 { return &o.EMA }),
	}
}

// Check refuses settings that contradict each other.
func (o *Optim) Check() error {
	if o.Nesterov && (o.Optimizer != sgd || o.Momentum == 0) {
		return errors.New("--set nesterov=true: it is a form of sgd's momentum: set optimizer=sgd and a momentum above 0, or nesterov=false")
	}
	return nil
}

// Options of compiling a network of these sizes.
func (o *Optim) Options(batch, rows, tile int) graph.Options {
	out := graph.Options{Batch: batch, Rows: rows, Tile: tile, ClipNorm: o.ClipNorm, Average: o.EMA}
	switch o.Optimizer {
	case adamW:
		out.Optimizer = graph.AdamW{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Epsilon, Decay: o.WeightDecay}
	case adam:
		out.Optimizer = graph.Adam{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Epsilon, Decay: o.WeightDecay}
	case sgd:
		out.Optimizer = graph.SGD{Momentum: o.Momentum, Nesterov: o.Nesterov, Decay: o.WeightDecay}
	case adagrad:
		out.Optimizer = graph.Adagrad{Eps: o.Epsilon, Decay: o.WeightDecay}
	}
	return out // of another name it has no optimizer, which Compile refuses
}

// oneCycleStart is how far below the greatest rate a one-cycle begins: Smith & Topin 2018 take 1/25.
const oneCycleStart = 25

// Rates is the learning rate of each step of a training of so many epochs: a linear rise, then the schedule. cosine ends
// at 0 by half a cosine (Loshchilov & Hutter 2017, without restarts); so does one-cycle, which also rises by one, from a
// 25th (Smith & Topin 2018, without their cycle of the momentum). constant stays, and plateau stays until the loop
// lowers it. The schedule always runs to its end: a refit of fewer epochs is annealed in them, which on the fraud
// handbook's week finds more (14 epochs: average precision .688) than stopping the longer schedule half-way (.682).
func (o *Optim) Rates(stepsPerEpoch, epochs int) []float32 {
	out := make([]float32, stepsPerEpoch*epochs)
	total := float64(len(out))
	rise := o.WarmUp * total
	for i := range out {
		at := float64(i) + .5 // the middle of the step
		up := 1.0
		if at < rise {
			up = at / rise
		}
		down := 1.0
		if at >= rise && (o.Schedule == cosine || o.Schedule == oneCycle) {
			down = (1 + math.Cos(math.Pi*(at-rise)/(total-rise))) / 2
		}
		if o.Schedule == oneCycle && at < rise {
			up = 1/float64(oneCycleStart) + (1-1/float64(oneCycleStart))*(1-math.Cos(math.Pi*up))/2
		}
		out[i] = float32(o.LearningRate * up * down)
	}
	return out
}

// Plateau is the schedule of that name for the loop, nil with another.
func (o *Optim) Plateau() *Plateau {
	if o.Schedule != plateau {
		return nil
	}
	return &Plateau{Factor: o.PlateauFactor, Patience: o.PlateauPatience}
}

// Plateau lowers the learning rate when the training no longer gets better: after Patience epochs in a row without a
// better figure the rate is Factor of what it was, and the count begins again.
type Plateau struct {
	Factor   float64
	Patience int
}

// scales are what the rates of the epochs are multiplied by, of those that the figures are of and of the next one. They
// are a function of the figures alone, so that the checkpoint, which has the figures, needs nothing more.
func (p *Plateau) scales(figures []float64) []float64 {
	scale, best, bad := 1.0, math.Inf(-1), 0
	out := []float64{scale}
	for _, f := range figures {
		if bad++; f > best {
			best, bad = f, 0
		}
		if bad >= p.Patience {
			scale, bad = scale*p.Factor, 0
		}
		out = append(out, scale)
	}
	return out
}

// Scaled is learning rates with those of each epoch multiplied by its scale, as Result.Scales has them; epochs without a
// scale have the last one's. Without scales the rates stay as they are.
func Scaled(rates []float32, stepsPerEpoch int, scales []float64) []float32 {
	if len(scales) == 0 {
		return rates
	}
	out := make([]float32, len(rates))
	for i, r := range rates {
		out[i] = float32(float64(r) * scales[min(i/stepsPerEpoch, len(scales)-1)])
	}
	return out
}

// scales are those of the epochs so far and of the next one, nil without a Plateau.
func (r *run) scales() []float64 {
	if r.Plateau == nil {
		return nil
	}
	figures := make([]float64, len(r.state.Epochs))
	for i, e := range r.state.Epochs {
		figures[i] = -e.Loss
		if r.Valid.Len() > 0 {
			figures[i] = r.merit(i + 1)
		}
	}
	return r.Plateau.scales(figures)
}

// setRates lowers the learning rates for the next epoch where the Plateau says so.
func (r *run) setRates() error {
	scales := r.scales()
	if len(scales) == 0 || scales[len(scales)-1] == r.scale {
		return nil
	}
	rates := Scaled(r.Data.Rates, r.steps, scales)
	if err := r.exec.SetRates(rates); err != nil {
		return err
	}
	r.scale, r.rates = scales[len(scales)-1], rates
	return nil
}
