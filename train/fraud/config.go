package fraud

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/program"
)

// Config is everything about a training that is not data. DefaultConfig has the defaults, Set changes
// them by name.
type Config struct {
	Hidden     []int   // widths of the hidden layers
	Dropout    float64 // after each hidden layer
	Activation string  // of the hidden layers: relu or silu
	Towers     int     // networks trained side by side, their logits averaged
	Batch      int     // rows of a step
	Epochs     int     // at most
	Patience   int     // epochs without a better validation figure; 0: no early end
	train.Optim
	PositiveWeight float64 // how much a fraud counts in the loss
	Log            bool    // log1p on the features whose spec says log
}

// DefaultConfig was chosen on seven earlier weeks of the fraud handbook's stream (training weeks from 2018-05-23 to
// 2018-07-04, each judged two weeks later): docs/BENCHMARKS.md has the table and says what was seen of the week that
// is reported.
func DefaultConfig() Config {
	return Config{
		Hidden: []int{64, 64, 64}, Dropout: .2, Activation: "silu", Towers: 3, Batch: 256, Epochs: 20, Patience: 8,
		Optim: train.DefaultOptim(3e-3), PositiveWeight: 1, Log: true,
	}
}

var activations = []string{string(program.Relu), string(program.Silu)}

// Setting is one name that --set takes.
type Setting = train.Setting[Config]

// Set applies NAME=VALUE pairs in order and reports every fault.
func (c *Config) Set(pairs []string) error {
	return errors.Join(train.Set(c, Settings(), pairs), c.Optim.Check())
}

// facts are the settings for a checkpoint's identity.
func (c *Config) facts() []train.Fact { return train.FactsOf(c, Settings()) }

// Settings lists what --set takes, in the order of the documentation.
func Settings() []Setting {
	return slices.Concat([]Setting{
		{Name: "hidden", Words: "widths of the hidden layers, such as 128,128",
			Get: func(c *Config) string { return joinInts(c.Hidden) },
			Put: func(c *Config, v string) (err error) { c.Hidden, err = splitInts(v); return err }},
		train.Number("dropout", "share of hidden units left out in a training step", 0, .95, func(c *Config) *float64 { return &c.Dropout }),
		train.Choice("activation", "of the hidden layers", activations, func(c *Config) *string { return &c.Activation }),
		train.Count("towers", "networks trained side by side; their logits are averaged", 1, 64, func(c *Config) *int { return &c.Towers }),
		train.Count("batch", "rows of a training step", 1, 1<<20, func(c *Config) *int { return &c.Batch }),
		train.Count("epochs", "passes over the training rows, at most", 1, 10_000, func(c *Config) *int { return &c.Epochs }),
		train.Count("patience", "epochs without a better validation figure before the training ends; 0 for never", 0, 10_000, func(c *Config) *int { return &c.Patience }),
	}, train.OptimSettings(func(c *Config) *train.Optim { return &c.Optim }), []Setting{
		train.Number("positive_weight", "how often a fraud counts in the loss", 1e-3, 1e6, func(c *Config) *float64 { return &c.PositiveWeight }),
		train.Flag("log", "take the logarithm of counts and amounts: true or false", func(c *Config) *bool { return &c.Log }),
	})
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
