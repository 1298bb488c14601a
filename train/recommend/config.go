package recommend

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/train"
)

// Config is everything about a training that is not data. DefaultConfig has the defaults, Set changes them by name.
type Config struct {
	Model      string   // a ranking.Kind
	Components []string // of the blend
	Horizon    int      // days that the blend looks ahead
	Folds      int      // spans of a horizon each that the blend is fitted on
	Penalty    float64  // of the blend's weights
	NewShare   float64  // of the blend's loss that is about items new to the user

	EASELambda float64
	EASEKeep   int // weights of an item that are kept
	EASEItems  int // with more items there is no EASE in the blend
	Neighbours int // of an item

	ALSFactors        int
	ALSIterations     int
	ALSRegularization float64
	ALSAlpha          float64

	Dim          int // of the embeddings
	Recent       int // items that a user's vector is made of
	Negatives    int // items drawn for each step
	Batch        int
	Epochs       int
	LearningRate float64 // the greatest
	WarmUp       float64 // share of the steps in which it rises
	WeightDecay  float64
	HalfLife     int     // days after which a purchase counts half in the network's loss; 0: all alike
	Anonymous    float64 // share of the network's rows in which the user is not known
}

// Names of components that a Config may list. `users` stands for both readings of the users who buy alike.
var componentNames = []string{"ease", "als", "knn", "users", "embedding"}

// DefaultConfig was chosen on months of Online Retail before those that are reported: docs/BENCHMARKS.md has the table.
func DefaultConfig() Config {
	return Config{
		Model: string(ranking.Blended), Components: slices.Clone(componentNames), Horizon: 30, Folds: 3, Penalty: 8, NewShare: .5,
		EASELambda: 400, EASEKeep: 256, EASEItems: 6000, Neighbours: 100,
		ALSFactors: 128, ALSIterations: 15, ALSRegularization: 20, ALSAlpha: 3,
		Dim: 64, Recent: 20, Negatives: 256, Batch: 512, Epochs: 6, LearningRate: 5e-3, WarmUp: .1,
		WeightDecay: 0, HalfLife: 120, Anonymous: .3,
	}
}

// Setting is one name that --set takes.
type Setting struct {
	Name, Words string
	get         func(*Config) string
	set         func(*Config, string) error
}

// Value is the setting's value in a config, as --set would read it.
func (s *Setting) Value(c *Config) string { return s.get(c) }

// Settings lists what --set takes, in the order of the documentation.
func Settings() []Setting {
	var kinds []string
	for _, k := range ranking.Kinds() {
		kinds = append(kinds, string(k))
	}
	return []Setting{
		choice("model", "what answers", kinds, func(c *Config) *string { return &c.Model }),
		{"components", "what the blend weighs beside a user's own purchases and popularity, of " + strings.Join(componentNames, ","),
			func(c *Config) string { return strings.Join(c.Components, ",") },
			func(c *Config, v string) (err error) { c.Components, err = listOf(v, componentNames); return err }},
		count("horizon", "days that the blend looks ahead", 1, 366, func(c *Config) *int { return &c.Horizon }),
		count("folds", "spans of a horizon, the latest of the training, that the blend is fitted on", 1, 24,
			func(c *Config) *int { return &c.Folds }),
		number("penalty", "of the squares of the blend's weights, beside the losses of all users", 1e-9, 1e6,
			func(c *Config) *float64 { return &c.Penalty }),
		number("new_share", "share of the blend's loss that is about items new to the user", 0.001, .999,
			func(c *Config) *float64 { return &c.NewShare }),
		number("ease_lambda", "ridge of EASE", 1e-6, 1e9, func(c *Config) *float64 { return &c.EASELambda }),
		count("ease_keep", "weights of an item that EASE keeps", 1, 1<<20, func(c *Config) *int { return &c.EASEKeep }),
		count("ease_items", "most items for which the blend has EASE: its time grows with their third power", 0,
			ranking.MaxEASE, func(c *Config) *int { return &c.EASEItems }),
		count("neighbours", "items nearest to an item that knn keeps", 1, 1<<16,
			func(c *Config) *int { return &c.Neighbours }),
		count("als_factors", "numbers in a vector of ALS", 1, 1024, func(c *Config) *int { return &c.ALSFactors }),
		count("als_iterations", "of ALS", 1, 1000, func(c *Config) *int { return &c.ALSIterations }),
		number("als_regularization", "of ALS", 1e-6, 1e9, func(c *Config) *float64 { return &c.ALSRegularization }),
		number("als_alpha", "confidence of a purchase in ALS", 1e-6, 1e6,
			func(c *Config) *float64 { return &c.ALSAlpha }),
		count("dim", "numbers in a vector of the network", 1, 1024, func(c *Config) *int { return &c.Dim }),
		count("recent", "latest items that a user's vector is made of", 1, 500,
			func(c *Config) *int { return &c.Recent }),
		count("negatives", "items drawn by popularity for each step, against which what was bought must win", 1, 1<<16,
			func(c *Config) *int { return &c.Negatives }),
		count("batch", "rows of a training step", 1, 1<<20, func(c *Config) *int { return &c.Batch }),
		count("epochs", "passes over the purchases", 1, 10_000, func(c *Config) *int { return &c.Epochs }),
		number("learning_rate", "the greatest learning rate", 1e-8, 10,
			func(c *Config) *float64 { return &c.LearningRate }),
		number("warm_up", "share of the steps in which the learning rate rises", 0, .9,
			func(c *Config) *float64 { return &c.WarmUp }),
		number("weight_decay", "AdamW's decay of the vectors that a step reads", 0, 10,
			func(c *Config) *float64 { return &c.WeightDecay }),
		count("half_life", "days after which a purchase counts half in the network's loss; 0: all alike", 0, 36_500,
			func(c *Config) *int { return &c.HalfLife }),
		number("anonymous", "share of the network's rows in which the user is hidden, so that it learns to make do without", 0, 1, func(c *Config) *float64 { return &c.Anonymous }),
	}
}

func listOf(v string, from []string) ([]string, error) {
	var out []string
	for _, name := range strings.Split(v, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !slices.Contains(from, name) || slices.Contains(out, name) {
			return nil, fmt.Errorf("want names of %s, each once, with commas between", strings.Join(from, ", "))
		}
		out = append(out, name)
	}
	return out, nil
}

func number(name, words string, least, most float64, at func(*Config) *float64) Setting {
	return Setting{name, words,
		func(c *Config) string { return strconv.FormatFloat(*at(c), 'g', -1, 64) },
		func(c *Config, v string) error {
			x, err := strconv.ParseFloat(v, 64)
			if err != nil || !(x >= least && x <= most) {
				return fmt.Errorf("want a number from %g to %g", least, most)
			}
			*at(c) = x
			return nil
		}}
}

func count(name, words string, least, most int, at func(*Config) *int) Setting {
	return Setting{name, words,
		func(c *Config) string { return strconv.Itoa(*at(c)) },
		func(c *Config, v string) error {
			x, err := strconv.Atoi(v)
			if err != nil || x < least || x > most {
				return fmt.Errorf("want a whole number from %d to %d", least, most)
			}
			*at(c) = x
			return nil
		}}
}

func choice(name, words string, from []string, at func(*Config) *string) Setting {
	words += ": " + strings.Join(from, ", ")
	return Setting{name, words,
		func(c *Config) string { return *at(c) },
		func(c *Config, v string) error {
			if !slices.Contains(from, v) {
				return fmt.Errorf("want one of %s", strings.Join(from, ", "))
			}
			*at(c) = v
			return nil
		}}
}

// Set applies NAME=VALUE pairs in order and reports every fault.
func (c *Config) Set(pairs []string) error {
	settings := Settings()
	var faults []error
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			faults = append(faults, fmt.Errorf("--set %s: want NAME=VALUE", pair))
			continue
		}
		at := slices.IndexFunc(settings, func(s Setting) bool { return s.Name == strings.TrimSpace(name) })
		if at < 0 {
			names := make([]string, len(settings))
			for i, s := range settings {
				names[i] = s.Name
			}
			faults = append(faults, fmt.Errorf("--set %s: there is no setting %q; there are %s", pair, name,
				strings.Join(names, ", ")))
			continue
		}
		if err := settings[at].set(c, strings.TrimSpace(value)); err != nil {
			faults = append(faults, fmt.Errorf("--set %s: %w", pair, err))
		}
	}
	return errors.Join(faults...)
}

// facts are the settings for a checkpoint's identity.
func (c *Config) facts() []train.Fact {
	var out []train.Fact
	for _, s := range Settings() {
		out = append(out, train.Fact{Name: s.Name, Value: s.get(c)})
	}
	return out
}

// wants tells whether a training fits a component: as the model, or in its blend.
func (c *Config) wants(component string, kind ranking.Kind) bool {
	return c.Model == string(kind) || c.Model == string(ranking.Blended) && slices.Contains(c.Components, component)
}

// rates is the learning rate of each step: a linear rise, then half a cosine down to 0.
func (c *Config) rates(stepsPerEpoch int) []float32 {
	out := make([]float32, stepsPerEpoch*c.Epochs)
	total := float64(len(out))
	rise := c.WarmUp * total
	for i := range out {
		at := float64(i) + .5
		r := 1.0
		if at < rise {
			r = at / rise
		} else {
			r = (1 + math.Cos(math.Pi*(at-rise)/(total-rise))) / 2
		}
		out[i] = float32(c.LearningRate * r)
	}
	return out
}
