package recommend

import (
	"errors"
	"fmt"
	"slices"
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

	Dim        int    // of the embeddings
	Recent     int    // items that a user's vector is made of
	Loss       string // of the network: shared, softmax or bpr
	Negatives  int    // items drawn for each step, for loss shared
	Candidates int    // items drawn for each row, for the others
	Batch      int
	Epochs     int
	train.Optim
	HalfLife  int     // days after which a purchase counts half in the network's loss; 0: all alike
	Anonymous float64 // share of the network's rows in which the user is not known
}

// Names of components that a Config may list. `users` stands for both readings of the users who buy alike.
var componentNames = []string{"ease", "als", "knn", "users", "embedding"}

// DefaultConfig was chosen on months of Online Retail before those that are reported: docs/BENCHMARKS.md has the table.
func DefaultConfig() Config {
	return Config{
		Model: string(ranking.Blended), Components: slices.Clone(componentNames), Horizon: 30, Folds: 3, Penalty: 8, NewShare: .5,
		EASELambda: 400, EASEKeep: 256, EASEItems: 6000, Neighbours: 100,
		ALSFactors: 128, ALSIterations: 15, ALSRegularization: 20, ALSAlpha: 3,
		Dim: 64, Recent: 20, Loss: lossShared, Negatives: 256, Candidates: 16, Batch: 512, Epochs: 6, Optim: train.DefaultOptim(5e-3),
		HalfLife: 120, Anonymous: .3,
	}
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
	var kinds []string
	for _, k := range ranking.Kinds() {
		kinds = append(kinds, string(k))
	}
	return slices.Concat([]Setting{
		train.Choice("model", "what answers", kinds, func(c *Config) *string { return &c.Model }),
		{Name: "components", Words: "what the blend weighs beside a user's own purchases and popularity, of " + strings.Join(componentNames, ","),
			Get: func(c *Config) string { return strings.Join(c.Components, ",") },
			Put: func(c *Config, v string) (err error) { c.Components, err = listOf(v, componentNames); return err }},
		train.Count("horizon", "days that the blend looks ahead", 1, 366, func(c *Config) *int { return &c.Horizon }),
		train.Count("folds", "spans of a horizon, the latest of the training, that the blend is fitted on", 1, 24,
			func(c *Config) *int { return &c.Folds }),
		train.Number("penalty", "of the squares of the blend's weights, beside the losses of all users", 1e-9, 1e6,
			func(c *Config) *float64 { return &c.Penalty }),
		train.Number("new_share", "share of the blend's loss that is about items new to the user", 0.001, .999,
			func(c *Config) *float64 { return &c.NewShare }),
		train.Number("ease_lambda", "ridge of EASE", 1e-6, 1e9, func(c *Config) *float64 { return &c.EASELambda }),
		train.Count("ease_keep", "weights of an item that EASE keeps", 1, 1<<20, func(c *Config) *int { return &c.EASEKeep }),
		train.Count("ease_items", "most items for which the blend has EASE: its time grows with their third power", 0,
			ranking.MaxEASE, func(c *Config) *int { return &c.EASEItems }),
		train.Count("neighbours", "items nearest to an item that knn keeps", 1, 1<<16,
			func(c *Config) *int { return &c.Neighbours }),
		train.Count("als_factors", "numbers in a vector of ALS", 1, 1024, func(c *Config) *int { return &c.ALSFactors }),
		train.Count("als_iterations", "of ALS", 1, 1000, func(c *Config) *int { return &c.ALSIterations }),
		train.Number("als_regularization", "of ALS", 1e-6, 1e9, func(c *Config) *float64 { return &c.ALSRegularization }),
		train.Number("als_alpha", "confidence of a purchase in ALS", 1e-6, 1e6,
			func(c *Config) *float64 { return &c.ALSAlpha }),
		train.Count("dim", "numbers in a vector of the network", 1, 1024, func(c *Config) *int { return &c.Dim }),
		train.Count("recent", "latest items that a user's vector is made of", 1, 500,
			func(c *Config) *int { return &c.Recent }),
		train.Choice("loss", "of the network: softmax over items that all rows of a step share, or over items that each row draws, or BPR over those; the latter two train on the CPU alone",
			[]string{lossShared, lossSoftmax, lossBPR}, func(c *Config) *string { return &c.Loss }),
		train.Count("negatives", "items drawn by popularity for each step, against which what was bought must win, with loss shared", 1, 1<<16,
			func(c *Config) *int { return &c.Negatives }),
		train.Count("candidates", "items drawn by popularity for each row, with the other losses", 1, 1<<12,
			func(c *Config) *int { return &c.Candidates }),
		train.Count("batch", "rows of a training step", 1, 1<<20, func(c *Config) *int { return &c.Batch }),
		train.Count("epochs", "passes over the purchases", 1, 10_000, func(c *Config) *int { return &c.Epochs }),
	}, train.OptimSettings(func(c *Config) *train.Optim { return &c.Optim }), []Setting{
		train.Count("half_life", "days after which a purchase counts half in the network's loss; 0: all alike", 0, 36_500,
			func(c *Config) *int { return &c.HalfLife }),
		train.Number("anonymous", "share of the network's rows in which the user is hidden, so that it learns to make do without", 0, 1, func(c *Config) *float64 { return &c.Anonymous }),
	})
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

// Embeds tells whether a training has a network: the embeddings, as the model or in its blend.
func (c *Config) Embeds() bool { return c.wants("embedding", ranking.Vector) }

// wants tells whether a training fits a component: as the model, or in its blend.
func (c *Config) wants(component string, kind ranking.Kind) bool {
	return c.Model == string(kind) || c.Model == string(ranking.Blended) && slices.Contains(c.Components, component)
}
