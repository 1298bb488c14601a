package graph

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/onmart/onmart/train/program"
)

// alignment of temporaries: a cache line, and the widest vector.
const alignment = 64

// plan finishes a program: passes (passes.go), results go in place where the instruction may and the operand is dead,
// unused buffers go away, and temporaries get their offsets.
func plan(p *program.Program, ps passes) {
	ps.optimise(p)
	if ps.inPlace {
		inPlace(p)
	}
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
//
// What an earlier instruction sums over the rows of the batch is left: the CPU does such sums after all that is done row by
// row, a block of rows at a time, and what is written over first would have to wait for them. 32-128-128-1 with tanh
// in Gorgonia's own operations lost a seventh of its speed by that.
func inPlace(p *program.Program) {
	last := lastUse(p)
	for i := range p.Instrs {
		in := &p.Instrs[i]
		switch in.Op {
		case program.Add, program.Scale, program.Activate, program.ActGrad, program.Dropout, program.Softmax,
			program.LogSoftmax:
		case program.Map:
			firstDying(p, in, last, i)
		default:
			continue
		}
		out := in.Outs[0]
		if !slices.Equal(p.Buffers[in.Args[0]].Shape, p.Buffers[out].Shape) {
			continue
		}
		dies := func(a int) bool {
			return p.Buffers[a].Kind == program.Temp && p.Buffers[out].Kind == program.Temp && last[a] == i && a != out &&
				!summed(p, a, i)
		}
		if in.Op == program.Add && in.Args[0] != in.Args[1] && !dies(in.Args[0]) && dies(in.Args[1]) {
			in.Args[0], in.Args[1] = in.Args[1], in.Args[0]
		}
		first := in.Args[0]
		if !dies(first) || in.Op != program.Map && slices.Contains(in.Args[1:], first) {
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

// summed tells whether an instruction before i sums a buffer over its rows. It asks for no sizes, so that the programs of
// all batches are alike.
func summed(p *program.Program, a, i int) bool {
	return slices.ContainsFunc(p.Instrs[:i], func(in program.Instr) bool {
		if !slices.Contains(in.Args, a) {
			return false
		}
		return in.Op == program.MatMul && in.Attr.TransA || in.Op == program.ColSum || in.Op == program.Reduce && in.Attr.Axis == 0
	})
}

// firstDying makes an operand that may be written over the first of a Map.
func firstDying(p *program.Program, in *program.Instr, last []int, i int) {
	k := slices.IndexFunc(in.Args, func(a int) bool {
		return p.Buffers[a].Kind == program.Temp && last[a] == i && !summed(p, a, i) &&
			slices.Equal(p.Buffers[a].Shape, p.Buffers[in.Outs[0]].Shape)
	})
	if k <= 0 {
		return
	}
	in.Args[0], in.Args[k] = in.Args[k], in.Args[0]
	words := strings.Split(in.Attr.Expr, " ")
	for n, w := range words {
		switch w {
		case "x0":
			words[n] = fmt.Sprintf("x%d", k)
		case fmt.Sprintf("x%d", k):
			words[n] = "x0"
		}
	}
	in.Attr.Expr = strings.Join(words, " ")
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

// span is the life of memory: from the instruction that first writes it to the last that reads it. What a Copy makes of
// a temp that dies there lies over it.
type span struct {
	bufs              []int
	size, first, last int
}

// spans are the lives of temporaries.
func spans(p *program.Program) []*span {
	last, of := lastUse(p), map[int]*span{}
	var all []*span
	for i, in := range p.Instrs {
		for _, b := range slices.Concat(in.Args, in.Outs) {
			if p.Buffers[b].Kind != program.Temp {
				continue
			}
			if of[b] == nil {
				var from *span
				if in.Op == program.Copy && b == in.Outs[0] && last[in.Args[0]] == i {
					from = of[in.Args[0]]
				}
				if from != nil {
					from.bufs = append(from.bufs, b)
					of[b] = from
				} else {
					of[b] = &span{size: align(p.Buffers[b].Len() * p.Buffers[b].DType.Size()), first: i, bufs: []int{b}}
					all = append(all, of[b])
				}
			}
			of[b].last = i
		}
	}
	return all
}

// place gives temporaries that are alive at the same time disjoint places, the largest first, each at
// the lowest offset that fits (greedy by size: Pisarchyk & Lee, "Efficient memory management for deep
// neural net inference", 2020).
func place(p *program.Program) {
	all := spans(p)
	sort.SliceStable(all, func(i, j int) bool { return all[i].size > all[j].size })
	p.Arena = 0
	offset := func(s *span) int { return p.Buffers[s.bufs[0]].Offset }
	for i, s := range all {
		var taken []*span
		for _, t := range all[:i] {
			if t.first <= s.last && s.first <= t.last {
				taken = append(taken, t)
			}
		}
		sort.Slice(taken, func(i, j int) bool { return offset(taken[i]) < offset(taken[j]) })
		at := 0
		for _, t := range taken {
			if at+s.size <= offset(t) {
				break
			}
			at = max(at, offset(t)+t.size)
		}
		for _, b := range s.bufs {
			p.Buffers[b].Offset = at
		}
		p.Arena = max(p.Arena, at+s.size)
	}
}

func align(n int) int { return (n + alignment - 1) / alignment * alignment }

// byRows says whether two shapes differ only in multiples of the rows.
func byRows(a, b []int, rows, twinRows int) bool {
	for d := range a {
		if a[d] != b[d] && !(a[d]%rows == 0 && a[d]/rows*twinRows == b[d]) {
			return false
		}
	}
	return true
}

// unsized leaves out what sizes of the batch were made into: all constants.
func unsized(at program.Attr) program.Attr {
	words := strings.Split(at.Expr, " ")
	for i, w := range words {
		if program.Fn(w).Arity() == 0 && !strings.HasPrefix(w, "x") {
			words[i] = "#"
		}
	}
	at.Expr, at.Scale = strings.Join(words, " "), 0
	return at
}

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
		switch {
		case a.Op == program.Accumulate && !sameAttr:
		case a.Attr.Sized && b.Attr.Sized && !sameAttr:
			same = same && unsized(a.Attr) == unsized(b.Attr)
		default:
			same = same && a.Attr == b.Attr
		}
		if !same {
			return differ(fmt.Sprintf("operation %s (%s)", a.Node, a.Op))
		}
	}
	for i := range p.Buffers {
		a, b := &p.Buffers[i], &twin.Buffers[i]
		if a.Kind != program.Temp && a.Name != b.Name || a.Kind != b.Kind || len(a.Shape) != len(b.Shape) {
			return differ("buffer " + a.Name)
		}
		if slices.Equal(a.Shape, b.Shape) {
			continue
		}
		if len(a.Shape) == 0 || a.Shape[0] != p.Rows || b.Shape[0] != twin.Rows || !slices.Equal(a.Shape[1:], b.Shape[1:]) {
			if !sameAttr && a.Kind == program.Temp && byRows(a.Shape, b.Shape, p.Rows, twin.Rows) {
				continue // a training program runs on all of its rows, wherever they are in a shape
			}
			return differ("the shape of " + a.Name)
		}
		a.PerRow = true
	}
	return nil
}
