package cpu

import "github.com/onmart/onmart/train/program"

// SameTensors compares names and float32 elements, to the bit.
func SameTensors(a, b program.Tensors) error { return sameTensors(a, b) }

// Chains is how many chains of a program are done in one pass, and how many of them look up as they go along.
func Chains(p *program.Program) (chains, lookups int) {
	m := &machine{p: p}
	for i := range p.Instrs {
		if p.Instrs[i].Op != program.LookupDot {
			continue
		}
		if s := m.scoringFrom(i); s != nil {
			chains++
			if s.lookup != nil {
				lookups++
			}
		}
	}
	return chains, lookups
}
