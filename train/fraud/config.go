package fraud

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/program"
)

// Config is everything about a training that is not data. DefaultConfig has the defaults, Set changes
// them by name.
type Config struct {
	Hidden         []int   // widths of the hidden layers
	Dropout        float64 // after each hidden layer
	Activation     string  // of the hidden layers: relu or silu
	Towers         int     // networks trained side by side, their logits averaged
	Batch          int     // rows of a step
	Epochs         int     // at most
	Patience       int     // epochs without a better validation figure; 0: no early end
	LearningRate   float64 // the greatest
	Schedule       string  // of the learning rate: one-cycle, cosine or constant
	WarmUp         float64 // share of the steps in which the rate rises
	Beta1, Beta2   float64
	Epsilon        float64
	WeightDecay    float64
	PositiveWeight float64 // how much a fraud counts in the loss
	Log            bool    // log1p on the features whose spec says log
}

// DefaultConfig was chosen on seven earlier weeks of the fraud handbook's stream (training weeks from 2018-05-23 to
// 2018-07-04, each judged two weeks later): docs/BENCHMARKS.md has the table and says what was seen of the week that
// is reported.
func DefaultConfig() Config {
	return Config{
		Hidden: []int{64, 64, 64}, Dropout: .2, Activation: "silu", Towers: 3, Batch: 256, Epochs: 20, Patience: 8,
		LearningRate: 3e-3, Schedule: "cosine", WarmUp: .1,
		Beta1: .9, Beta2: .999, Epsilon: 1e-8, WeightDecay: 0, PositiveWeight: 1, Log: true,
	}
}

var (
	schedules   = []string{"one-cycle", "cosine", "constant"}
	activations = []string{string(program.Relu), string(program.Silu)}
)

// Setting is one name that --set takes.
type Setting = train.Setting[Config]

// Set applies NAME=VALUE pairs in order and reports every fault.
func (c *Config) Set(pairs []string) error { return train.Set(c, Settings(), pairs) }

// facts are the settings for a checkpoint's identity.
func (c *Config) facts() []train.Fact { return train.FactsOf(c, Settings()) }

// Settings lists what --set takes, in the order of the documentation.
func Settings() []Setting {
	return []Setting{
		{Name: "hidden", Words: "widths of the hidden layers, such as 128,128",
			Get: func(c *Config) string { return joinInts(c.Hidden) },
			Put: func(c *Config, v string) (err error) { c.Hidden, err = splitInts(v); return err }},
		train.Number("dropout", "share of hidden units left out in a training step", 0, .95, func(c *Config) *float64 { return &c.Dropout }),
		train.Choice("activation", "of the hidden layers", activations, func(c *Config) *string { return &c.Activation }),
		train.Count("towers", "networks trained side by side; their logits are averaged", 1, 64, func(c *Config) *int { return &c.Towers }),
		train.Count("batch", "rows of a training step", 1, 1<<20, func(c *Config) *int { return &c.Batch }),
		train.Count("epochs", "passes over the training rows, at most", 1, 10_000, func(c *Config) *int { return &c.Epochs }),
		train.Count("patience", "epochs without a better validation figure before the training ends; 0 for never", 0, 10_000, func(c *Config) *int { return &c.Patience }),
		train.Number("learning_rate", "the greatest learning rate", 1e-8, 10, func(c *Config) *float64 { return &c.LearningRate }),
		train.Choice("schedule", "course of the learning rate", schedules, func(c *Config) *string { return &c.Schedule }),
		train.Number("warm_up", "share of the steps in which the learning rate rises", 0, .9, func(c *Config) *float64 { return &c.WarmUp }),
		train.Number("beta1", "AdamW's decay of the mean gradient", 0, .9999, func(c *Config) *float64 { return &c.Beta1 }),
		train.Number("beta2", "AdamW's decay of the mean squared gradient", 0, .999999, func(c *Config) *float64 { return &c.Beta2 }),
		train.Number("epsilon", "AdamW's floor of the denominator", 1e-12, 1, func(c *Config) *float64 { return &c.Epsilon }),
		train.Number("weight_decay", "AdamW's decay of the weights, per step times the learning rate", 0, 10, func(c *Config) *float64 { return &c.WeightDecay }),
		train.Number("positive_weight", "how often a fraud counts in the loss", 1e-3, 1e6, func(c *Config) *float64 { return &c.PositiveWeight }),
		train.Flag("log", "take the logarithm of counts and amounts: true or false", func(c *Config) *bool { return &c.Log }),
	}
}

func joinInts(xs []int) string {
	s := make([]string, len(xs))
	for i, x := range xs {
		s[i] = strconv.Itoa(x)
	}
	return strings.Join(s, ",")
}

// Bounds of the hidden layers: far above what pays on one workstation.
const (
	maxLayers = 16
	maxWidth  = 8192
)

func splitInts(v string) ([]int, error) {
	parts := strings.Split(v, ",")
	var xs []int
	for _, p := range parts {
		x, err := strconv.Atoi(strings.TrimSpace(p))
		if err != nil || x < 1 || x > maxWidth || len(parts) > maxLayers {
			return nil, fmt.Errorf("want up to %d widths from 1 to %d with commas between, such as 128,128", maxLayers, maxWidth)
		}
		xs = append(xs, x)
	}
	return xs, nil
}

// oneCycleStart is how far below the greatest rate a one-cycle begins: Smith & Topin 2018 take 1/25.
const oneCycleStart = 25

// rates is the learning rate of each step of a training of so many epochs. The schedule always runs to its end:
// a refit of fewer epochs is annealed in them, which on the handbook's week finds more (14 epochs: average
// precision .688) than stopping the longer schedule half-way (.682).
func (c *Config) rates(stepsPerEpoch, epochs int) []float32 {
	out := make([]float32, stepsPerEpoch*epochs)
	total := float64(len(out))
	rise := c.WarmUp * total
	for i := range out {
		at := float64(i) + .5 // the middle of the step
		up := 1.0
		if at < rise {
			up = at / rise
		}
		down := 1.0
		if at >= rise && c.Schedule != "constant" {
			down = (1 + math.Cos(math.Pi*(at-rise)/(total-rise))) / 2
		}
		if c.Schedule == "one-cycle" && at < rise {
			up = 1/float64(oneCycleStart) + (1-1/float64(oneCycleStart))*(1-math.Cos(math.Pi*up))/2
		}
		out[i] = float32(c.LearningRate * up * down)
	}
	return out
}
