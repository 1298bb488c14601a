package demand

import (
	"fmt"

	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// Names of the columns that a training binds.
const (
	columnX      = forecaster.Input
	columnTarget = "target"
	columnWeight = "weight"
)

const (
	weightInit = "fan_in_uniform"
	// tile is the rows that the forward program takes at once.
	tile = 256
)

// Compile lowers the forecaster for rows of width inputs. A row is one series at one origin and one step ahead: the
// inputs are what TiDE (Das et al. 2023) gives its temporal decoder, whose weights all steps share. Each tower is dense
// layers with a skip over every layer that keeps its width, and a linear map from the inputs to the quantiles beside
// them, which starts at zero. Its loss is the pinball loss of all levels; the towers share nothing but the rows, and
// their mean is the output.
func (c *Config) Compile(width, rows int) (*program.Set, error) {
	build := func(b *graph.Builder) (graph.Model, error) {
		x, target, weight := b.Input(columnX, width), b.Input(columnTarget, 1), b.Input(columnWeight, 1)
		var losses, outputs []*graph.Node
		for t := range c.Towers {
			h, last := x, 0
			for l, units := range c.Hidden {
				a := b.Dense(fmt.Sprintf("tower%d/layer%d", t, l), h, units, program.Act(c.Activation), weightInit)
				a = b.Dropout(a, c.Dropout)
				if units == last {
					a = b.Add(h, a)
				}
				h, last = a, units
			}
			y := b.Dense(fmt.Sprintf("tower%d/out", t), h, len(c.Levels), program.None, weightInit)
			y = b.Add(y, b.MatMul(x, b.Param(fmt.Sprintf("tower%d/skip", t), "zero", width, len(c.Levels))))
			losses, outputs = append(losses, b.Pinball(y, target, weight, c.Levels...)), append(outputs, y)
		}
		return graph.Model{Loss: b.Add(losses...), Output: b.Mean(outputs...)}, nil
	}
	return graph.Compile(build, c.Options(min(c.Batch, rows), rows, tile))
}

// wrapped is a trained forward program that takes inputs as they are made.
func wrapped(set *program.Set, width int) (*program.Set, error) {
	p, err := program.WrapStandardize(set.Served(), columnX, width)
	if err != nil {
		return nil, err
	}
	return &program.Set{Params: set.Params, Consts: p.Consts(), Forward: p}, nil
}
