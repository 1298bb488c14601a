package ranking

import (
	"fmt"
	"slices"
)

// Blend is the weights of a linear score over facts of the item, scores of the components on a logarithmic scale and,
// for an item that the user has bought, facts of the user's own purchases. Items that are new to the user and items
// that are not have weights of their own, on one scale, so that one list can hold both.
type Blend struct {
	Components []string  `json:"components"` // in the order of their weights
	Facts      []string  `json:"facts"`
	OwnFacts   []string  `json:"own_facts"`
	New        []float32 `json:"new"`   // of Facts, then Components
	Bought     []float32 `json:"owned"` // of Facts, then Components, then OwnFacts
}

// check refuses weights that are not those of this program.
func (b *Blend) check() error {
	if !slices.Equal(b.Facts, facts) || !slices.Equal(b.OwnFacts, ownFacts) {
		return fmt.Errorf("ranking: the blend weighs other facts than this program computes: train again with it")
	}
	for i, c := range b.Components {
		if !slices.Contains(components, c) || slices.Contains(b.Components[:i], c) {
			return fmt.Errorf("ranking: the blend weighs %q; there is %v, each once", c, components)
		}
	}
	n := len(facts) + len(b.Components)
	if len(b.New) != n || len(b.Bought) != n+len(ownFacts) {
		return fmt.Errorf("ranking: a blend of %d and %d weights, want %d and %d", len(b.New), len(b.Bought), n,
			n+len(ownFacts))
	}
	for _, w := range slices.Concat(b.New, b.Bought) {
		if !finite(w) {
			return fmt.Errorf("ranking: a weight of the blend is %v", w)
		}
	}
	return nil
}

// bases are what the facts add to an item's score: new to the user, and bought before.
func (b *Blend) bases(p *popularity) (fresh, bought []float32) {
	fresh, bought = make([]float32, p.items), make([]float32, p.items)
	for i := range p.items {
		f := p.of(int32(i))
		fresh[i], bought[i] = dot(f, b.New[:len(f)]), dot(f, b.Bought[:len(f)])
	}
	return fresh, bought
}

func dot(x, y []float32) float32 {
	s := float32(0)
	for i, v := range x {
		s += float32(v * y[i])
	}
	return s
}

// blend fills scores.
func (s *Scorer) blend() {
	m := s.m
	b := m.parts.Blend
	copy(s.scores, m.newBase)
	for k, c := range m.comp {
		logScale(s.scaled[c], s.raw[c])
		w := b.New[len(facts)+k]
		for i, v := range s.scaled[c] {
			s.scores[i] += float32(w * v)
		}
	}
	for i := range s.past.items {
		o := &s.past.items[i]
		s.past.facts(s.own, o, m.now)
		v := m.ownBase[o.item]
		for k, c := range m.comp {
			v += float32(b.Bought[len(facts)+k] * s.scaled[c][o.item])
		}
		s.scores[o.item] = v + dot(s.own, b.Bought[len(facts)+len(m.comp):])
	}
}
