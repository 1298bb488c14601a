package graph

import (
	"fmt"
	"slices"
	"sort"

	"github.com/onmart/onmart/train/program"
)

// alignment of temporaries: a cache line, and the widest vector.
const alignment = 64

// plan finishes a program: results go in place where the instruction may and the operand is dead,
// unused buffers go away, and temporaries get their offsets.
func plan(p *program.Program) {
	inPlace(p)
	compact(p)
	place(p)
}

// lastUse is the index of the last instruction that mentions each buffer, or -1.
func lastUse(p *program.Program) []int {
	last := make([]int, len(p.Buffers))
	for b := range last {
		last[b] = -1
	}
	for i, in := range p.Instrs {
		for _, b := range slices.Concat(in.Args, in.Outs) {
			last[b] = i
		}
	}
	return last
}

// inPlace lets Add, Scale, Activate, ActGrad and Dropout write over their first operand where nothing
// reads it later, as the gradient of silu does. Add commutes, to the bit, so that its operands are swapped where only the second is dead.
func inPlace(p *program.Program) {
	last := lastUse(p)
	for i := range p.Instrs {
		in := &p.Instrs[i]
		switch in.Op {
		case program.Add, program.Scale, program.Activate, program.ActGrad, program.Dropout:
		default:
			continue
		}
		out := in.Outs[0]
		dies := func(a int) bool {
			return p.Buffers[a].Kind == program.Temp && p.Buffers[out].Kind == program.Temp && last[a] == i && a != out
		}
		if in.Op == program.Add && in.Args[0] != in.Args[1] && !dies(in.Args[0]) && dies(in.Args[1]) {
			in.Args[0], in.Args[1] = in.Args[1], in.Args[0]
		}
		first := in.Args[0]
		if !dies(first) || slices.Contains(in.Args[1:], first) {
			continue
		}
		for k := i; k < len(p.Instrs); k++ {
			if k > i {
				rename(p.Instrs[k].Args, out, first)
			}
			rename(p.Instrs[k].Outs, out, first)
		}
		last[first] = last[out]
	}
}

func rename(bufs []int, from, to int) {
	for i, b := range bufs {
		if b == from {
			bufs[i] = to
		}
	}
}

// compact drops the buffers that nothing mentions.
func compact(p *program.Program) {
	last := lastUse(p)
	index := make([]int, len(p.Buffers))
	var kept []program.Buffer
	for b, l := range last {
		index[b] = len(kept)
		if l >= 0 {
			kept = append(kept, p.Buffers[b])
		}
	}
	p.Buffers = kept
	for i := range p.Instrs {
		for _, bufs := range [][]int{p.Instrs[i].Args, p.Instrs[i].Outs} {
			for k, b := range bufs {
				bufs[k] = index[b]
			}
		}
	}
}

// place gives temporaries that are alive at the same time disjoint places, the largest first, each at
// the lowest offset that fits (greedy by size: Pisarchyk & Lee, "Efficient memory management for deep
// neural net inference", 2020).
func place(p *program.Program) {
	type span struct{ buf, size, first, last int }
	spans := make([]span, 0, len(p.Buffers))
	of := map[int]int{}
	for i, in := range p.Instrs {
		for _, b := range slices.Concat(in.Args, in.Outs) {
			if p.Buffers[b].Kind != program.Temp {
				continue
			}
			k, seen := of[b]
			if !seen {
				k = len(spans)
				of[b] = k
				spans = append(spans, span{b, align(p.Buffers[b].Len() * p.Buffers[b].DType.Size()), i, i})
			}
			spans[k].last = i
		}
	}
	sort.SliceStable(spans, func(i, j int) bool { return spans[i].size > spans[j].size })
	p.Arena = 0
	for i, s := range spans {
		var taken []span
		for _, t := range spans[:i] {
			if t.first <= s.last && s.first <= t.last {
				taken = append(taken, t)
			}
		}
		sort.Slice(taken, func(i, j int) bool { return p.Buffers[taken[i].buf].Offset < p.Buffers[taken[j].buf].Offset })
		at := 0
		for _, t := range taken {
			o := p.Buffers[t.buf].Offset
			if at+s.size <= o {
				break
			}
			at = max(at, o+t.size)
		}
		p.Buffers[s.buf].Offset = at
		p.Arena = max(p.Arena, at+s.size)
	}
}

func align(n int) int { return (n + alignment - 1) / alignment * alignment }

// markRows finds the buffers whose leading dimension is the batch, by comparing a program with that of
// the same model at another batch size. Anything else that differs is an error: such a model is not one
// model.
func markRows(p, twin *program.Program, sameAttr bool) error {
	differ := func(what string) error {
		return fmt.Errorf("graph: the model of %d rows and that of %d differ in %s; a model may depend on the batch only in "+
			"the height of its nodes", p.Rows, twin.Rows, what)
	}
	if len(p.Instrs) != len(twin.Instrs) || len(p.Buffers) != len(twin.Buffers) {
		return differ("the number of operations")
	}
	for i, a := range p.Instrs {
		b := twin.Instrs[i]
		same := a.Op == b.Op && slices.Equal(a.Args, b.Args) && slices.Equal(a.Outs, b.Outs)
		if a.Op != program.Accumulate || sameAttr {
			same = same && a.Attr == b.Attr
		}
		if !same {
			return differ(fmt.Sprintf("operation %s (%s)", a.Node, a.Op))
		}
	}
	for i := range p.Buffers {
		a, b := &p.Buffers[i], &twin.Buffers[i]
		if a.Name != b.Name || a.Kind != b.Kind || len(a.Shape) != len(b.Shape) {
			return differ("buffer " + a.Name)
		}
		if slices.Equal(a.Shape, b.Shape) {
			continue
		}
		if len(a.Shape) == 0 || a.Shape[0] != p.Rows || b.Shape[0] != twin.Rows || !slices.Equal(a.Shape[1:], b.Shape[1:]) {
			return differ("the shape of " + a.Name)
		}
		a.PerRow = true
	}
	return nil
}
