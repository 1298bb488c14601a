package main

import (
	"errors"

	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/demand"
	"github.com/onmart/onmart/train/fraud"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/recommend"
	"github.com/onmart/onmart/train/tune"
)

// lacking says for which instruction of what a command is about to train a GPU has no kernel, nil where it has all.
type lacking func() error

// Sizes that models are compiled for to see their instructions, which do not depend on them.
const (
	seenWidth = 2
	seenTable = 8
)

// searched is what the trials draw from, nil without any.
func searched(r *train.Running) tune.Space {
	if r.Trials == 0 {
		return nil
	}
	return r.Space
}

func fraudLacks(c fraud.Config, space tune.Space) lacking {
	return lackingOf(c, fraud.Settings(), space, func(c *fraud.Config) (*program.Set, error) {
		return c.Compile(seenWidth, min(c.Pieces, 1), c.Batch)
	})
}

func demandLacks(c demand.Config, space tune.Space) lacking {
	return lackingOf(c, demand.Settings(), space, func(c *demand.Config) (*program.Set, error) {
		if !c.Network {
			return nil, nil
		}
		return c.Compile(seenWidth, c.Batch)
	})
}

func recommendLacks(c recommend.Config, space tune.Space) lacking {
	return lackingOf(c, recommend.Settings(), space, func(c *recommend.Config) (*program.Set, error) {
		if !c.Embeds() {
			return nil, nil
		}
		return c.Compile(seenTable, seenTable, c.Batch)
	})
}

// lackingOf looks at a config and at each value that a search may give one of its settings. compile returns nil where
// nothing is trained that a GPU would run. What does not compile is reported by the training, which compiles it too.
func lackingOf[C any](
	c C, settings []train.Setting[C], space tune.Space, compile func(*C) (*program.Set, error),
) lacking {
	return func() error {
		lacks := func(c *C) error {
			set, err := compile(c)
			if err != nil || set == nil {
				return nil
			}
			return gpu.Lacks(set)
		}
		first := lacks(&c)
		_, err := space.Check(func(x tune.Choice) error {
			trial := c
			if err := train.Set(&trial, settings, train.Pairs([]tune.Choice{x})); err != nil || first != nil {
				return nil
			}
			first = lacks(&trial)
			return nil
		})
		return errors.Join(first, err)
	}
}
