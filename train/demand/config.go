package demand

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/program"
)

// auto leaves a setting to the data.
const auto = "auto"

// Config is everything about a training that is not data. DefaultConfig has the defaults, Set changes them by name.
// Where a field says so, a value of 0 or "auto" takes what suits the panel.
type Config struct {
	Network    bool    // train a network; without it only classical methods are combined
	Hidden     []int   // widths of the hidden layers; nil: by the scaling
	Activation string  // of the hidden layers
	Dropout    float64 // after each hidden layer
	Towers     int     // networks trained side by side, their quantiles averaged
	Batch      int     // rows of a step
	Epochs     int     // at most; 0: by the scaling
	train.Optim
	ValueWeight float64   // share of a training row's weight that goes by its series' value, rather than being alike
	Rows        int       // of training at most: windows are sampled down to it; 0: by the scaling
	Scaling     string    // ratio, shift or auto
	Point       string    // mean, median or auto
	Folds       int       // rolling windows that the weights of the combination are fitted on
	Members     []string  // methods that are combined; nil: by the scaling
	Levels      []float64 // of the quantiles
}

// DefaultConfig was chosen on rolling folds: docs/BENCHMARKS.md has the table.
func DefaultConfig() Config {
	return Config{
		Network: true, Activation: "silu", Dropout: .1, Towers: 2, Batch: 512, Optim: train.DefaultOptim(2e-3),
		ValueWeight: .5,
		Scaling:     auto, Point: auto, Folds: 3, Levels: forecast.DefaultLevels(),
	}
}

// resolved is the config with everything that was left to the data.
func (c Config) resolved(d *forecaster.Design) Config {
	ratio := d.Scaling == forecaster.Ratio
	if c.Hidden == nil {
		c.Hidden = []int{128, 128}
		if ratio {
			c.Hidden = []int{256, 256}
		}
	}
	if c.Epochs == 0 {
		c.Epochs = pickInt(ratio, 4, 8)
	}
	if c.Rows == 0 {
		c.Rows = pickInt(ratio, 400_000, 80_000)
	}
	if c.Point == auto {
		c.Point = forecaster.PointMedian
		if ratio {
			c.Point = forecaster.PointMean
		}
	}
	if c.Members == nil {
		// Of hours, exponential smoothing takes long and is beaten by the autoregression (docs/BENCHMARKS.md).
		c.Members = []string{"ar", "dynamic-theta", "seasonal-naive", "seasonal-naive-long"}
		if d.Step != forecast.Hour {
			c.Members = []string{"ar", "ets", "dynamic-theta", "seasonal-naive", "seasonal-window-average"}
		}
		if ratio {
			c.Members = []string{"pooled", "tsb", "adida", "window-average", "seasonal-window-average"}
		}
	}
	return c
}

func pickInt(first bool, a, b int) int {
	if first {
		return a
	}
	return b
}

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
		train.Flag("network", "train a network beside the classical methods: true or false", func(c *Config) *bool { return &c.Network }),
		{Name: "hidden", Words: "widths of the hidden layers, such as 128,128, or auto",
			Get: func(c *Config) string { return list(c.Hidden, strconv.Itoa) },
			Put: func(c *Config, v string) (err error) { c.Hidden, err = widths(v); return err }},
		train.Choice(
			"activation",
			"of the hidden layers",
			[]string{string(program.Relu), string(program.Silu)},
			func(c *Config) *string { return &c.Activation },
		),
		train.Number(
			"dropout",
			"share of hidden units left out in a training step",
			0,
			.95,
			func(c *Config) *float64 { return &c.Dropout },
		),
		train.Count(
			"towers",
			"networks trained side by side; their quantiles are averaged",
			1,
			64,
			func(c *Config) *int { return &c.Towers },
		),
		train.Count("batch", "rows of a training step", 1, 1<<20, func(c *Config) *int { return &c.Batch }),
		train.Count(
			"epochs",
			"passes over the training rows, at most; 0 for what suits the data",
			0,
			10_000,
			func(c *Config) *int { return &c.Epochs },
		),
	}, train.OptimSettings(func(c *Config) *train.Optim { return &c.Optim }), []Setting{
		train.Number(
			"value_weight",
			"share of a training row's weight that goes by the value of its series",
			0,
			1,
			func(c *Config) *float64 { return &c.ValueWeight },
		),
		train.Count(
			"rows",
			"training rows at most, drawn from all series, origins and steps ahead; 0 for what suits the data",
			0,
			1<<28,
			func(c *Config) *int { return &c.Rows },
		),
		train.Choice(
			"scaling",
			"of series: ratio for counts with zeros, shift for others",
			[]string{auto, forecaster.Ratio, forecaster.Shift},
			func(c *Config) *string { return &c.Scaling },
		),
		train.Choice("point", "what the forecast itself is: the mean (least squared error) or the median (least absolute error)",
			[]string{auto, forecaster.PointMean, forecaster.PointMedian}, func(c *Config) *string { return &c.Point }),
		train.Count(
			"folds",
			"rolling windows that the combination is weighted on",
			1,
			50,
			func(c *Config) *int { return &c.Folds },
		),
		{Name: "members", Words: "classical methods that are combined, with commas between, or auto",
			Get: func(c *Config) string { return list(c.Members, func(s string) string { return s }) },
			Put: func(c *Config, v string) (err error) { c.Members, err = members(v); return err }},
		{Name: "levels", Words: "quantile levels, ascending, with commas between",
			Get: func(c *Config) string {
				return list(c.Levels, func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) })
			},
			Put: func(c *Config, v string) (err error) { c.Levels, err = levels(v); return err }},
	})
}

func list[T any](xs []T, text func(T) string) string {
	if xs == nil {
		return auto
	}
	s := make([]string, len(xs))
	for i, x := range xs {
		s[i] = text(x)
	}
	return strings.Join(s, ",")
}

// Bounds of the hidden layers: far above what pays on one workstation.
const (
	maxLayers = 16
	maxWidth  = 8192
	maxLevels = 99
)

func widths(v string) ([]int, error) {
	if v == auto {
		return nil, nil
	}
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

func members(v string) ([]string, error) {
	if v == auto {
		return nil, nil
	}
	var out []string
	for _, name := range strings.Split(v, ",") {
		name = strings.TrimSpace(name)
		if _, err := forecast.Lookup(name); err != nil {
			return nil, err
		}
		if slices.Contains(out, name) {
			return nil, fmt.Errorf("%s is named twice", name)
		}
		out = append(out, name)
	}
	return out, nil
}

func levels(v string) ([]float64, error) {
	var out []float64
	for _, p := range strings.Split(v, ",") {
		x, err := strconv.ParseFloat(strings.TrimSpace(p), 64)
		if err != nil || !(x > 0 && x < 1) || len(out) > 0 && !(x > out[len(out)-1]) || len(out) == maxLevels {
			return nil, fmt.Errorf("want up to %d ascending numbers between 0 and 1, such as .1,.5,.9", maxLevels)
		}
		out = append(out, x)
	}
	return out, nil
}
