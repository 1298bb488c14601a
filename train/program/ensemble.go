package program

import (
	"fmt"
	"slices"
)

// MemberName is what a parameter of member k of an ensemble is called, k from 0.
func MemberName(k int, name string) string { return fmt.Sprintf("seed%d/%s", k+1, name) }

// Average returns the set of an ensemble: k copies of the forward program of set, which share inputs and constants and
// have parameters of their own (MemberName), and whose outputs are averaged: added in the order of the copies, then
// multiplied by 1/k, each step rounded to float32. The copies run one after the other in the same memory. It has no
// training program. An error says what the forward program lacks.
func Average(set *Set, k int) (*Set, error) { return ensemble(set, k, false) }

// SideBySide is Average but for the output: those of the copies stand beside each other, as Concat puts them.
func SideBySide(set *Set, k int) (*Set, error) { return ensemble(set, k, true) }

func ensemble(set *Set, k int, beside bool) (*Set, error) {
	p := set.Served()
	if k < 2 {
		return nil, fmt.Errorf("program: an ensemble of %d", k)
	}
	at := slices.IndexFunc(p.Buffers, func(b Buffer) bool { return b.Kind == Output })
	if at < 0 || p.Buffers[at].DType != F32 || len(p.Buffers[at].Shape) != 2 {
		return nil, fmt.Errorf("program: ensemble of %s: it has no float32 output of rows and columns", p.Name)
	}
	out := &Set{Consts: set.Consts, Forward: &Program{Name: p.Name, Rows: p.Rows, Arena: p.Arena}}
	q := out.Forward
	shared := map[int]int{} // inputs and constants, by their place in p
	var sum int             // the first member's output, to which the others are added
	var outputs []int
	for m := range k {
		place := make([]int, len(p.Buffers))
		for i, b := range p.Buffers {
			if b.Kind == Input || b.Kind == Const {
				if _, there := shared[i]; !there {
					shared[i] = len(q.Buffers)
					q.Buffers = append(q.Buffers, b)
				}
				place[i] = shared[i]
				continue
			}
			place[i] = len(q.Buffers)
			if b.Kind == Param {
				b.Name = MemberName(m, b.Name)
			}
			b.Shape = slices.Clone(b.Shape)
			q.Buffers = append(q.Buffers, b)
			if i == at && (m < 2 || beside) {
				q.toTemp(place[i])
			} else if i == at { // in the place of the second's, which has been added by now
				last := &q.Buffers[place[i]]
				last.Kind, last.Offset = Temp, q.Arena-roundUp(last.Len()*last.DType.Size())
			}
		}
		for _, in := range p.Instrs {
			in.Args, in.Outs = placed(in.Args, place), placed(in.Outs, place)
			if in.Node != "" {
				in.Node = MemberName(m, in.Node)
			}
			q.Instrs = append(q.Instrs, in)
		}
		outputs = append(outputs, place[at])
		switch {
		case m == 0:
			sum = place[at]
		case !beside:
			q.Instrs = append(q.Instrs, Instr{Op: Add, Args: []int{sum, place[at]}, Outs: []int{sum}, Node: "ensemble"})
		}
		for _, s := range set.Params {
			s.Name = MemberName(m, s.Name)
			out.Params = append(out.Params, s)
		}
	}
	mean := p.Buffers[at]
	mean.Offset, mean.Shape = 0, slices.Clone(mean.Shape)
	if beside {
		mean.Shape[1] *= k
	}
	q.Buffers = append(q.Buffers, mean)
	if beside {
		q.Instrs = append(q.Instrs, Instr{Op: Concat, Args: outputs, Outs: []int{len(q.Buffers) - 1}, Node: "ensemble"})
		return out, nil
	}
	q.Instrs = append(q.Instrs, Instr{Op: Scale, Args: []int{sum}, Outs: []int{len(q.Buffers) - 1},
		Attr: Attr{Scale: 1 / float32(k)}, Node: "ensemble"})
	return out, nil
}

func placed(operands, place []int) []int {
	out := make([]int, len(operands))
	for i, o := range operands {
		out[i] = place[o]
	}
	return out
}

// Members joins the weights of the members of an ensemble, each by the names of its own set, under the names of
// Average. What is not a parameter of the set, such as a constant, is taken of the first.
func Members(set *Set, members []Tensors) Tensors {
	isParam := map[string]bool{}
	for _, p := range set.Params {
		isParam[p.Name] = true
	}
	var out Tensors
	for m, ts := range members {
		for _, t := range ts {
			if isParam[t.Name] {
				t.Name = MemberName(m, t.Name)
			} else if m > 0 {
				continue
			}
			out = append(out, t)
		}
	}
	out.Sort()
	return out
}
